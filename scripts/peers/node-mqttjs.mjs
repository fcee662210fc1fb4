// MQTT.js over a WebSocket signed by aws4fetch.

import { randomUUID } from "node:crypto";

import { AwsClient } from "aws4fetch";
import mqtt from "mqtt";

import { Exchange, answers, ca, emulator, fail, provision, run } from "./peer.mjs";

const aws = new AwsClient({
  accessKeyId: emulator.access_key_id,
  secretAccessKey: emulator.secret_access_key,
  sessionToken: emulator.session_token ?? undefined,
  service: "iotdevicegateway",
  region: emulator.region,
});

await run(async () => {
  const signed = await aws.sign(emulator.endpoint, { method: "GET", aws: { signQuery: true } });
  const client = await mqtt.connectAsync(signed.url, {
    ca, clientId: `mqttjs-${randomUUID()}`, protocolVersion: 4, keepalive: 30, clean: true, reconnectPeriod: 0,
  });
  client.on("error", (error) => fail(error.message));
  const exchange = new Exchange();
  client.on("message", (topic, payload) => exchange.arrived(topic, payload.toString()));
  await client.subscribeAsync(answers, { qos: 1 });
  return {
    provision: (n) => provision(exchange, (topic, text) => client.publish(topic, text, { qos: 1 }), "mqttjs", n),
    close: () => client.endAsync(),
  };
});
