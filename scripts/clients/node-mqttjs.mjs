// Provisions one device with MQTT.js over a WebSocket signed by aws4fetch: what a browser would do.
//
// Usage: node node-mqttjs.mjs EMULATOR_JSON [VERSION]: a file with the line that `fleetmint emulate` prints, and 5 for MQTT 5.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import { AwsClient } from "aws4fetch";
import mqtt from "mqtt";

const TIMEOUT_MS = 20_000;
const protocolVersion = Number(process.argv[3] ?? 4);
const emulator = JSON.parse(readFileSync(process.argv[2], "utf8").split("\n")[0]);

const aws = new AwsClient({
  accessKeyId: emulator.access_key_id,
  secretAccessKey: emulator.secret_access_key,
  sessionToken: emulator.session_token ?? undefined,
  service: "iotdevicegateway",
  region: emulator.region,
});
const signed = await aws.sign(emulator.endpoint, { method: "GET", aws: { signQuery: true } });

const watchdog = setTimeout(() => fail("no answer in time"), TIMEOUT_MS);
const started = performance.now();
const client = mqtt.connect(signed.url, {
  ca: readFileSync(emulator.ca_file),
  clientId: `mqttjs-${randomUUID()}`,
  protocolVersion,
  keepalive: 30,
  connectTimeout: TIMEOUT_MS,
  clean: true,
  // A signed URL is good for five minutes only; a client that redials must sign again.
  reconnectPeriod: 0,
});
client.on("error", (error) => fail(error.message));

function fail(why) {
  console.error(why);
  process.exit(1);
}

const create = "$aws/certificates/create/json";
const register = `$aws/provisioning-templates/${emulator.template}/provision/json`;
const thing = `mqttjs-${randomUUID().slice(0, 12)}`;

client.on("connect", async ({ properties }) => {
  if (protocolVersion === 5 && properties?.receiveMaximum !== 100) fail(`CONNACK: ${JSON.stringify(properties)}`);
  const topics = [create, register].flatMap((topic) => [`${topic}/rejected`, `${topic}/accepted`]);
  const granted = await client.subscribeAsync(topics, { qos: 1 });
  if (granted.some(({ qos }) => qos > 1)) fail(`not granted: ${JSON.stringify(granted)}`);
  await client.publishAsync(create, "", { qos: 1 });
});

client.on("message", async (topic, payload) => {
  const answer = JSON.parse(payload.toString());
  if (topic === `${create}/accepted`) {
    const parameters = {
      MacAddress: "AA:BB:CC:DD:EE:01",
      DeviceId: thing,
      DeviceKey: "ABCDEFG",
      DeviceType: "H",
      Environment: "DEV",
      SerialNumber: thing,
      Version: "1.0.1",
      CertificateId: answer.certificateId,
    };
    const request = { certificateOwnershipToken: answer.certificateOwnershipToken, parameters };
    await client.publishAsync(register, JSON.stringify(request), { qos: 1 });
  } else if (topic === `${register}/accepted`) {
    clearTimeout(watchdog);
    const elapsed_ms = Math.round(performance.now() - started);
    await client.endAsync();
    const name = `MQTT.js ${protocolVersion}, aws4fetch`;
    console.log(JSON.stringify({ client: name, thingName: answer.thingName, elapsed_ms }));
  } else {
    fail(`${topic}: ${payload}`);
  }
});
