// AWS's own IoT Device SDK v2 for JavaScript, on its C core aws-crt, with its client for fleet provisioning.

import { randomUUID } from "node:crypto";

import sdk from "aws-iot-device-sdk-v2";

import { emulator, parameters, run } from "./peer.mjs";

const { auth, iot, iotidentity, mqtt } = sdk;
const endpoint = new URL(emulator.endpoint.replace("wss:", "https:"));
const credentials = auth.AwsCredentialsProvider.newStatic(
  emulator.access_key_id,
  emulator.secret_access_key,
  emulator.session_token ?? undefined,
);
const mqttClient = new mqtt.MqttClient();

await run(async () => {
  const config = iot.AwsIotMqttConnectionConfigBuilder
    .new_with_websockets({ region: emulator.region, credentials_provider: credentials })
    .with_endpoint(endpoint.hostname)
    .with_port(Number(endpoint.port))
    .with_certificate_authority_from_path(undefined, emulator.ca_file)
    .with_client_id(`node-awsiotsdk-${randomUUID()}`)
    .with_clean_session(true)
    .with_keep_alive_seconds(30)
    .build();
  const connection = mqttClient.new_connection(config);
  await connection.connect();
  const client = iotidentity.IotIdentityClientv2.newFromMqtt311(connection, {
    maxRequestResponseSubscriptions: 4,
    maxStreamingSubscriptions: 0,
    operationTimeoutInSeconds: 20,
  });
  return {
    async provision(n) {
      const issued = await client.createKeysAndCertificate({});
      await client.registerThing({
        templateName: emulator.template,
        certificateOwnershipToken: issued.certificateOwnershipToken,
        parameters: parameters("node-awsiotsdk", n),
      });
    },
    async close() {
      client.close();
      await connection.disconnect();
    },
  };
});
