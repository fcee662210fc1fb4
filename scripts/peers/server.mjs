// A provisioning endpoint that shares no code with fleetmint: Node's TLS and crypto, ws, mqtt-packet. It checks no signature and
// keeps no account; what it answers is real, though: distinct certificates with matching keys, ids that are their SHA-256, and
// tokens that are good for one registration.
//
// Arguments: [RATE], how many devices a second it answers at most [1500]. Prints one line of JSON, as `fleetmint emulate` does.

import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";

import mqtt from "mqtt-packet";
import { WebSocketServer } from "ws";

const rate = Number(process.argv[2] ?? 1500);
const template = "PEERS";
const create = "$aws/certificates/create/json";
const register = `$aws/provisioning-templates/${template}/provision/json`;

// DER (ITU-T X.690), as much as a certificate needs.
const der = (tag, ...parts) => {
  const content = Buffer.concat(parts);
  const length = [];
  for (let rest = content.length; rest > 0; rest >>= 8) length.unshift(rest & 255);
  const head = content.length < 128 ? [tag, content.length] : [tag, 128 | length.length, ...length];
  return Buffer.concat([Buffer.from(head), content]);
};
const sequence = (...parts) => der(0x30, ...parts);
const oid = (hex) => der(0x06, Buffer.from(hex, "hex"));
const bits = (content) => der(0x03, Buffer.from([0]), content);
const name = (text) => sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(text)))));
const time = (text) => der(0x17, Buffer.from(text));
const extension = (id, value) => sequence(oid(id), der(0x04, value));
const ecdsaWithSha256 = sequence(oid("2a8648ce3d040302"));
const isAuthority = extension("551d13", sequence(der(0x01, Buffer.from([255]))));
const isLoopback = extension("551d11", sequence(
  der(0x82, Buffer.from("localhost")), der(0x87, Buffer.from([127, 0, 0, 1])),
));

function certify(subject, publicKey, signer, extensions = []) {
  const serial = Buffer.concat([Buffer.from([1]), randomBytes(15)]);
  const toBeSigned = sequence(
    der(0xa0, der(0x02, Buffer.from([2]))), der(0x02, serial), ecdsaWithSha256, name("Peers CA"),
    sequence(time("250101000000Z"), time("491231235959Z")), name(subject),
    publicKey.export({ type: "spki", format: "der" }), ...(extensions.length ? [der(0xa3, sequence(...extensions))] : []),
  );
  return sequence(toBeSigned, ecdsaWithSha256, bits(sign("sha256", toBeSigned, signer)));
}

const pem = (content) => {
  const lines = content.toString("base64").match(/.{1,64}/g).join("\n");
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
};

const ecKey = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
const authority = ecKey();
const server = ecKey();
// Making an RSA key takes longer than a device may: certificates are distinct, their keys take turns.
const keys = Array.from({ length: 16 }, () => {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { publicKey, text: privateKey.export({ type: "pkcs1", format: "pem" }) };
});

const tokens = new Set();
let issued = 0;

function answer(topic, payload) {
  const rejected = (statusCode, errorCode, errorMessage) =>
    [`${topic}/rejected`, { statusCode, errorCode, errorMessage }];
  if (topic === create) {
    const { publicKey, text } = keys[issued++ % keys.length];
    const certificate = certify("AWS IoT Certificate", publicKey, authority.privateKey);
    const token = randomBytes(348).toString("base64");
    tokens.add(token);
    return [`${topic}/accepted`, {
      certificateId: createHash("sha256").update(certificate).digest("hex"),
      certificatePem: pem(certificate), privateKey: text, certificateOwnershipToken: token,
    }];
  }
  if (topic !== register) return rejected(404, "ResourceNotFound", `no such topic: ${topic}`);
  const { certificateOwnershipToken: token, parameters } = JSON.parse(payload.toString());
  if (!tokens.delete(token)) return rejected(400, "InvalidCertificateOwnershipToken", "unknown or used");
  return [`${topic}/accepted`, { deviceConfiguration: {}, thingName: parameters.SerialNumber }];
}

// Each kind of request at no more than the rate, in the order in which they come.
const queues = new Map([[create, []], [register, []]]);
const started = performance.now();
let served = new Map([[create, 0], [register, 0]]);
setInterval(() => {
  const due = ((performance.now() - started) / 1000) * rate;
  for (const [topic, queue] of queues) {
    while (queue.length && served.get(topic) < due) {
      served.set(topic, served.get(topic) + 1);
      queue.shift()();
    }
    // What nobody asked for is not saved up.
    if (!queue.length) served.set(topic, Math.max(served.get(topic), due - 1));
  }
}, 1);

function serve(socket) {
  const parser = mqtt.parser();
  const send = (packet) => socket.readyState === socket.OPEN && socket.send(mqtt.generate(packet));
  let messageId = 0;
  parser.on("packet", (packet) => {
    if (packet.cmd === "connect") send({ cmd: "connack", returnCode: 0, sessionPresent: false });
    if (packet.cmd === "pingreq") send({ cmd: "pingresp" });
    if (packet.cmd === "disconnect") socket.close();
    if (packet.cmd === "subscribe") {
      send({ cmd: "suback", messageId: packet.messageId, granted: packet.subscriptions.map(({ qos }) => qos) });
    }
    if (packet.cmd === "unsubscribe") send({ cmd: "unsuback", messageId: packet.messageId });
    if (packet.cmd === "publish") {
      if (packet.qos) send({ cmd: "puback", messageId: packet.messageId });
      queues.get(packet.topic === create ? create : register).push(() => {
        const [topic, body] = answer(packet.topic, packet.payload);
        messageId = (messageId % 65_535) + 1;
        send({ cmd: "publish", topic, payload: JSON.stringify(body), qos: 1, messageId, dup: false, retain: false });
      });
    }
  });
  parser.on("error", () => socket.terminate());
  socket.on("message", (data) => parser.parse(data));
  socket.on("error", () => socket.terminate());
}

const directory = mkdtempSync(join(tmpdir(), "fleetmint-server-"));
const caFile = join(directory, "ca.pem");
writeFileSync(caFile, pem(certify("Peers CA", authority.publicKey, authority.privateKey, [isAuthority])));
process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(0));

const https = createServer({
  cert: pem(certify("localhost", server.publicKey, authority.privateKey, [isLoopback])),
  key: server.privateKey.export({ type: "pkcs8", format: "pem" }),
  // Whoever looks for a control plane here learns at once that there is none.
}, (_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ server: https, handleProtocols: () => "mqtt", perMessageDeflate: false });
sockets.on("connection", serve);
https.listen(0, "127.0.0.1", () => {
  console.log(JSON.stringify({
    endpoint: `wss://127.0.0.1:${https.address().port}/mqtt`, ca_file: caFile, region: "us-east-1", template,
    access_key_id: "AKIAPEERS", secret_access_key: "secret",
  }));
});
