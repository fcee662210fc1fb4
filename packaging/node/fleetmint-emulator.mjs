// A test helper: an emulated AWS IoT endpoint. Copy this file beside your tests:
//
//   import { startEmulator } from "./fleetmint-emulator.mjs";
//   const emulator = await startEmulator();
//   after(() => emulator.stop());
//
// The binary is `fleetmint` on the path, or what the environment variable FLEETMINT names.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

// Starts an emulator; what it resolves to has `endpoint`, `mqtt_endpoint`, `region`, `ca_file`, `access_key_id`, … as
// `fleetmint emulate` prints them, `claim` and `claim_key`, and `ask`, `reset` and `stop`.
export async function startEmulator({ scenario = "default" } = {}) {
  const folder = await mkdtemp(join(tmpdir(), "fleetmint-"));
  const options = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scenario", scenario, "--claim-dir", folder];
  const command = process.env.FLEETMINT ?? "fleetmint";
  const child = spawn(command, ["emulate", ...options, "--ca-file", join(folder, "ca.pem")], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit");
  ended.catch(() => {});
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([
    once(lines, "line").then(([line]) => line),
    ended.then(([code]) => { throw new Error(`fleetmint emulate ended with ${code}; its stderr says why`); }),
  ]);
  const emulator = JSON.parse(first);

  // A request to the admin API, such as ask("PUT", "/faults", { rules: [...] }).
  async function ask(method, path, body) {
    const response = await fetch(emulator.admin + path, {
      method,
      headers: { "content-type": "application/json" },
      body: method === "GET" ? undefined : JSON.stringify(body ?? {}),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${answer.message}`);
    return answer;
  }

  async function stop() {
    child.kill("SIGTERM");
    await ended;
    lines.close();
    await rm(folder, { recursive: true });
  }

  return {
    ...emulator,
    claim: join(folder, "claim.pem"),
    claim_key: join(folder, "claim-key.pem"),
    ask,
    // Empties the account; takes milliseconds, so that each test can begin with it.
    reset: () => ask("POST", "/reset"),
    stop,
  };
}
