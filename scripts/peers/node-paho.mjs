// paho-mqtt and aws4fetch, as the page that this project grew from has them; in Node instead of a browser.

import { randomUUID } from "node:crypto";

import { AwsClient } from "aws4fetch";
import WebSocket from "ws";

import { Exchange, answers, ca, emulator, fail, provision, run } from "./peer.mjs";

// What the library wants of a browser.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, protocols) {
    super(url, protocols, { ca });
  }
};
globalThis.localStorage = {
  items: new Map(),
  getItem(key) { return this.items.get(key) ?? null; },
  setItem(key, value) { this.items.set(key, value); },
  removeItem(key) { this.items.delete(key); },
};
globalThis.window = globalThis;
const { default: Paho } = await import("paho-mqtt");

const aws = new AwsClient({
  accessKeyId: emulator.access_key_id,
  secretAccessKey: emulator.secret_access_key,
  sessionToken: emulator.session_token ?? undefined,
  service: "iotdevicegateway",
  region: emulator.region,
});

await run(async () => {
  const signed = await aws.sign(emulator.endpoint, { method: "GET", aws: { signQuery: true } });
  const client = new Paho.Client(signed.url, `paho-${randomUUID()}`);
  const exchange = new Exchange();
  client.onMessageArrived = (message) => exchange.arrived(message.destinationName, message.payloadString);
  const waitFor = (start) =>
    new Promise((onSuccess) => start({ onSuccess, onFailure: (why) => fail(why.errorMessage) }));
  await waitFor((then) => client.connect({ useSSL: true, mqttVersion: 4, keepAliveInterval: 30, ...then }));
  for (const topic of answers) await waitFor((then) => client.subscribe(topic, { qos: 1, ...then }));
  return {
    provision: (n) => provision(exchange, (topic, text) => client.send(topic, text, 1, false), "paho", n),
    close: () => client.disconnect(),
  };
});
