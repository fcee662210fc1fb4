// A plain loop of MQTT.js: each connection publishes to its own topic, and again as soon as the message is back.
//
// Arguments: SERVICE_JSON CONNECTIONS SECONDS. Prints one line of JSON.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import { AwsClient } from "aws4fetch";
import mqtt from "mqtt";

const [file, connections, seconds] = process.argv.slice(2);
const service = JSON.parse(readFileSync(file, "utf8").split("\n")[0]);
const aws = new AwsClient({
  accessKeyId: service.access_key_id, secretAccessKey: service.secret_access_key,
  service: "iotdevicegateway", region: service.region,
});
const trips = [];
let ends = Infinity;

async function open() {
  const signed = await aws.sign(service.endpoint, { method: "GET", aws: { signQuery: true } });
  const client = await mqtt.connectAsync(signed.url, {
    ca: readFileSync(service.ca_file), clientId: `loop-${randomUUID()}`, protocolVersion: 4, reconnectPeriod: 0,
  });
  const topic = `load/${randomUUID()}`;
  await client.subscribeAsync(topic, { qos: 1 });
  return { client, topic };
}

function loop({ client, topic }) {
  let began = 0;
  const publish = () => {
    began = performance.now();
    client.publish(topic, "x".repeat(128), { qos: 1 });
  };
  return new Promise((done) => {
    client.on("message", () => {
      trips.push(performance.now() - began);
      if (performance.now() < ends) publish();
      else done();
    });
    publish();
  });
}

const lines = await Promise.all(Array.from({ length: Number(connections) }, open));
const before = process.cpuUsage();
const started = performance.now();
ends = started + 1000 * Number(seconds);
await Promise.all(lines.map(loop));
const elapsed = (performance.now() - started) / 1000;
const { user, system } = process.cpuUsage(before);
trips.sort((one, other) => one - other);
console.log(JSON.stringify({
  trips: trips.length, per_second: trips.length / elapsed, cpu_us: (user + system) / trips.length,
  p50_ms: trips[Math.floor(trips.length / 2)], p99_ms: trips[Math.floor(trips.length * 0.99)],
  resident_kb: process.memoryUsage().rss / 1024,
}));
process.exit(0);
