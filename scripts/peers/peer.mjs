// What the Node peers share: their arguments, the credentials, how many devices go on at a time, and the final line.
//
// Arguments: EMULATOR_JSON DEVICES CONNECTIONS reused|fresh

import { readFileSync } from "node:fs";

const [file, devices, connections, mode] = process.argv.slice(2);
export const emulator = JSON.parse(readFileSync(file, "utf8").split("\n")[0]);
export const ca = readFileSync(emulator.ca_file);
export const create = "$aws/certificates/create/json";
export const register = `$aws/provisioning-templates/${emulator.template}/provision/json`;
export const answers = [create, register].flatMap((topic) => [`${topic}/rejected`, `${topic}/accepted`]);

export function fail(why) {
  console.error(why);
  process.exit(1);
}

// A row of the lot, as fleetmint gets it.
export function parameters(prefix, n) {
  const id = `${prefix}-${process.pid}-${n}`;
  return {
    MacAddress: "AA:BB:CC:DD:EE:01", DeviceId: id, DeviceKey: "ABCDEFG", DeviceType: "H", Environment: "DEV",
    SerialNumber: id, Version: "1.0.1",
  };
}

// Provisions all devices and says what it took. `open` gives a client with `provision(n)` and `close()`.
export async function run(open) {
  const [total, workers] = [Number(devices), Number(connections)];
  const [cpu, started] = [process.cpuUsage(), performance.now()];
  let next = 0;
  const work = async () => {
    let client = null;
    for (let n = next++; n < total; n = next++) {
      client ??= await open();
      await client.provision(n);
      if (mode === "fresh") {
        await client.close();
        client = null;
      }
    }
    await client?.close();
  };
  await Promise.all(Array.from({ length: workers }, work)).catch((error) => fail(error));
  const { user, system } = process.cpuUsage(cpu);
  console.log(JSON.stringify({
    devices: total, elapsed_s: (performance.now() - started) / 1000, cpu_s: (user + system) / 1e6,
  }));
  process.exit(0);
}

// One request at a time: `publish` sends it, and what arrives is its answer.
export class Exchange {
  #waiting = null;

  request(publish) {
    return new Promise((resolve) => {
      this.#waiting = resolve;
      publish();
    });
  }

  arrived(topic, text) {
    if (!topic.endsWith("/accepted")) fail(`${topic}: ${text}`);
    this.#waiting(JSON.parse(text));
  }
}

// The two exchanges of a device, over whatever `publish(topic, text)` sends with.
export async function provision(exchange, publish, prefix, n) {
  const issued = await exchange.request(() => publish(create, "{}"));
  const request = {
    certificateOwnershipToken: issued.certificateOwnershipToken,
    parameters: parameters(prefix, n),
  };
  await exchange.request(() => publish(register, JSON.stringify(request)));
}
