// Provisions one device with AWS's own IoT Device SDK v2 for JavaScript, on its C core aws-crt.
//
// Usage: node node-awsiotsdk.mjs EMULATOR_JSON, a file with the line that `fleetmint emulate` prints.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

import sdk from "aws-iot-device-sdk-v2";

const { auth, iot, iotidentity, mqtt } = sdk;
const emulator = JSON.parse(readFileSync(process.argv[2], "utf8").split("\n")[0]);
const endpoint = new URL(emulator.endpoint.replace("wss:", "https:"));

const config = iot.AwsIotMqttConnectionConfigBuilder.new_with_websockets({
  region: emulator.region,
  credentials_provider: auth.AwsCredentialsProvider.newStatic(
    emulator.access_key_id,
    emulator.secret_access_key,
    emulator.session_token ?? undefined,
  ),
})
  .with_endpoint(endpoint.hostname)
  .with_port(Number(endpoint.port))
  .with_certificate_authority_from_path(undefined, emulator.ca_file)
  .with_client_id(`node-awsiotsdk-${randomUUID()}`)
  .with_clean_session(true)
  .with_keep_alive_seconds(30)
  .build();

const started = performance.now();
const connection = new mqtt.MqttClient().new_connection(config);
await connection.connect();
const client = iotidentity.IotIdentityClientv2.newFromMqtt311(connection, {
  maxRequestResponseSubscriptions: 4,
  maxStreamingSubscriptions: 0,
  operationTimeoutInSeconds: 20,
});
const issued = await client.createKeysAndCertificate({});
const thing = `node-awsiotsdk-${randomUUID().slice(0, 12)}`;
const registered = await client.registerThing({
  templateName: emulator.template,
  certificateOwnershipToken: issued.certificateOwnershipToken,
  parameters: { DeviceId: thing, SerialNumber: thing, MacAddress: "AA:BB:CC:DD:EE:01" },
});
const elapsed_ms = Math.round(performance.now() - started);
client.close();
await connection.disconnect();
console.log(JSON.stringify({ client: "aws-iot-device-sdk-v2 (Node)", thingName: registered.thingName, elapsed_ms }));
