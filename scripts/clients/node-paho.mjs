// Provisions one device with paho-mqtt and aws4fetch, by the flow of a browser page: `Parameters` in capitals, the certificate's id as
// one of them, and every subscription by itself.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import { AwsClient } from "aws4fetch";
import WebSocket from "ws";

const emulator = JSON.parse(readFileSync(process.argv[2], "utf8").split("\n")[0]);
const ca = readFileSync(emulator.ca_file);
const create = "$aws/certificates/create/json";
const register = `$aws/provisioning-templates/${emulator.template}/provision/json`;
const thing = `page-${randomUUID().slice(0, 12)}`;

// What the library wants of a browser.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { ca });
  }
};
const items = new Map();
globalThis.localStorage = {
  getItem: (key) => items.get(key) ?? null,
  setItem: (key, value) => items.set(key, value),
  removeItem: (key) => items.delete(key),
};
globalThis.window = globalThis;
const { default: Paho } = await import("paho-mqtt");

function fail(why) {
  console.error(why);
  process.exit(1);
}
setTimeout(() => fail("no answer in time"), 20_000).unref();

const aws = new AwsClient({
  accessKeyId: emulator.access_key_id,
  secretAccessKey: emulator.secret_access_key,
  sessionToken: emulator.session_token ?? undefined,
  service: "iotdevicegateway",
  region: emulator.region,
});
const signed = await aws.sign(emulator.endpoint, { method: "GET", aws: { signQuery: true } });
const client = new Paho.Client(signed.url, `clientId-${Math.random()}`);
const done = new Promise((resolve) => {
  client.onMessageArrived = ({ destinationName, payloadString }) => {
    const answer = JSON.parse(payloadString);
    if (destinationName === `${create}/accepted`) {
      const request = {
        certificateOwnershipToken: answer.certificateOwnershipToken,
        Parameters: {
          CertificateId: answer.certificateId, MacAddress: "AA:BB:CC:DD:EE:01", DeviceId: thing, DeviceKey: "ABCDEFG",
          DeviceType: "H", Environment: "DEV", SerialNumber: "123456789012", Version: "1.0.1",
        },
      };
      client.send(register, JSON.stringify(request), 1, false);
    } else if (destinationName === `${register}/accepted`) {
      resolve(answer.thingName);
    } else {
      fail(`${destinationName}: ${payloadString}`);
    }
  };
});
client.onConnectionLost = ({ errorCode, errorMessage }) => { if (errorCode !== 0) fail(errorMessage); };
const waitFor = (start) =>
  new Promise((onSuccess) => start({ onSuccess, onFailure: (why) => fail(why.errorMessage) }));
await waitFor((then) =>
  client.connect({ useSSL: true, mqttVersion: 4, keepAliveInterval: 30, cleanSession: true, ...then }));
for (const topic of [create, register]) {
  for (const verdict of ["rejected", "accepted"]) {
    await waitFor((then) => client.subscribe(`${topic}/${verdict}`, { qos: 1, ...then }));
  }
}
client.send(create, "", 1, false);
const registered = await done;
if (registered !== thing) fail(`registered ${thing}, got ${registered}`);
client.disconnect();
console.log(JSON.stringify({ client: "paho-mqtt (JavaScript), aws4fetch", thingName: thing }));
