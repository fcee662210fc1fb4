// Provisions one device with aws-iot-device-sdk, AWS's first SDK for JavaScript, over a WebSocket.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import awsIot from "aws-iot-device-sdk";

const emulator = JSON.parse(readFileSync(process.argv[2], "utf8").split("\n")[0]);
const endpoint = new URL(emulator.endpoint.replace("wss:", "https:"));
const create = "$aws/certificates/create/json";
const register = `$aws/provisioning-templates/${emulator.template}/provision/json`;
const thing = `node-v1-${randomUUID().slice(0, 12)}`;

function fail(why) {
  console.error(why);
  process.exit(1);
}
setTimeout(() => fail("no answer in time"), 20_000).unref();

// NODE_EXTRA_CA_CERTS names the emulator's CA, as this SDK takes none for WebSockets.
const device = awsIot.device({
  protocol: "wss",
  host: endpoint.hostname,
  port: Number(endpoint.port),
  region: emulator.region,
  accessKeyId: emulator.access_key_id,
  secretKey: emulator.secret_access_key,
  sessionToken: emulator.session_token,
  clientId: `node-v1-${randomUUID()}`,
});
device.on("error", fail);
device.on("connect", () => {
  const answers = [create, register].flatMap((topic) => [`${topic}/rejected`, `${topic}/accepted`]);
  device.subscribe(answers, { qos: 1 }, (error) => {
    if (error) fail(error);
    device.publish(create, "{}", { qos: 1 });
  });
});
device.on("message", (topic, payload) => {
  const answer = JSON.parse(payload.toString());
  if (topic === `${create}/accepted`) {
    const parameters = { DeviceId: thing, SerialNumber: thing, MacAddress: "AA:BB:CC:DD:EE:01" };
    const request = { certificateOwnershipToken: answer.certificateOwnershipToken, parameters };
    device.publish(register, JSON.stringify(request), { qos: 1 });
  } else if (topic === `${register}/accepted` && answer.thingName === thing) {
    console.log(JSON.stringify({ client: "aws-iot-device-sdk (Node)", thingName: thing }));
    device.end(true, () => process.exit(0));
  } else {
    fail(`${topic}: ${payload}`);
  }
});
