// The helper itself: it starts, answers, resets, and its account is empty again.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { once } from "node:events";
import { after, test } from "node:test";
import { connect } from "node:tls";

import { startEmulator } from "./fleetmint-emulator.mjs";

const emulator = await startEmulator();
after(() => emulator.stop());

test("an emulator is there, and its certificate is good", async () => {
  const { hostname, port } = new URL(emulator.endpoint.replace("wss:", "https:"));
  const socket = connect({ host: hostname, port, servername: hostname, ca: readFileSync(emulator.ca_file) });
  await once(socket, "secureConnect");
  assert.ok(socket.authorized);
  socket.destroy();
  assert.match(readFileSync(emulator.claim, "utf8"), /^-----BEGIN CERTIFICATE/);
});

test("it is reset, and its faults change", async () => {
  assert.equal((await emulator.ask("GET", "/health")).status, "ok");
  const rule = { on: "register_thing", fault: "reject", status: 503, max: 1 };
  assert.equal((await emulator.ask("PUT", "/faults", { rules: [rule] })).rules[0].status, 503);
  await emulator.reset();
  assert.deepEqual((await emulator.ask("GET", "/faults")).rules, []);
  assert.equal((await emulator.ask("GET", "/account")).things, 0);
});
