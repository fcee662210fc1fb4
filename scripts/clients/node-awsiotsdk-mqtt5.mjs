// Provisions one device with AWS's IoT Device SDK v2 for JavaScript, with its client of MQTT 5.

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";

import sdk from "aws-iot-device-sdk-v2";

const { auth, iot, iotidentity, mqtt5 } = sdk;
const emulator = JSON.parse(readFileSync(process.argv[2], "utf8").split("\n")[0]);
const endpoint = new URL(emulator.endpoint.replace("wss:", "https:"));

const config = iot.AwsIotMqtt5ClientConfigBuilder.newWebsocketMqttBuilderWithSigv4Auth(endpoint.hostname, {
  region: emulator.region,
  credentialsProvider: auth.AwsCredentialsProvider.newStatic(
    emulator.access_key_id,
    emulator.secret_access_key,
    emulator.session_token ?? undefined,
  ),
})
  .withPort(Number(endpoint.port))
  .withCertificateAuthorityFromPath(undefined, emulator.ca_file)
  .withConnectProperties({ clientId: `node-mqtt5-${randomUUID()}`, keepAliveIntervalSeconds: 30 })
  .build();
const client = new mqtt5.Mqtt5Client(config);
client.on("error", (error) => { console.error(error); process.exit(1); });
client.on("connectionFailure", ({ error }) => { console.error(error); process.exit(1); });
const connected = once(client, "connectionSuccess");
client.start();
const [{ settings }] = await connected;
const identity = iotidentity.IotIdentityClientv2.newFromMqtt5(client, {
  maxRequestResponseSubscriptions: 4,
  maxStreamingSubscriptions: 0,
  operationTimeoutInSeconds: 20,
});
const issued = await identity.createKeysAndCertificate({});
const thing = `node-mqtt5-${randomUUID().slice(0, 12)}`;
const registered = await identity.registerThing({
  templateName: emulator.template,
  certificateOwnershipToken: issued.certificateOwnershipToken,
  parameters: { DeviceId: thing, SerialNumber: thing, MacAddress: "AA:BB:CC:DD:EE:01" },
});
identity.close();
const stopped = once(client, "stopped");
client.stop();
await stopped;
if (registered.thingName !== thing) throw new Error(`registered ${thing}, got ${registered.thingName}`);
console.log(JSON.stringify({
  client: "aws-iot-device-sdk-v2 (Node), MQTT 5", thingName: thing, receiveMaximum: settings.receiveMaximumFromServer,
}));
// The client keeps its threads.
process.exit(0);
