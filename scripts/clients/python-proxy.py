"""Provisions a lot through proxy.py, an HTTP proxy that wants a user and a password, on both doors.

Usage: python-proxy.py FLEETMINT, the program. Everything stays on this machine: the two doors have AWS's names, which fleetmint
leaves to the proxy, and the proxy connects to nothing but the emulator.
"""

import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version

import proxy
import proxy.core.connection.server as upstream

PASSWORD = "p@ss word"


def keep_here(connect=upstream.new_socket_connection):
    """Whatever the name, it is on this machine."""
    upstream.new_socket_connection = lambda address, *more, **named: connect(
        ("127.0.0.1", address[1]), *more, **named
    )


def provision(fleetmint, emulator, lot, password):
    port = emulator["endpoint"].removesuffix("/mqtt").rpartition(":")[2]
    domain = f"iot.{emulator['region']}.amazonaws.com:{port}"
    quoted = password.replace("@", "%40").replace(" ", "%20")
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment |= {
        "HTTPS_PROXY": f"http://operator:{quoted}@127.0.0.1:{provision.port}",
        "AWS_ACCESS_KEY_ID": emulator["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": emulator["secret_access_key"],
    }
    command = [fleetmint, "provision", lot, "--endpoint", f"a1b2c3-ats.{domain}", "--region", emulator["region"]]
    command += ["--template", emulator["template"], "--ca-file", emulator["ca_file"]]
    command += ["--control-endpoint", f"https://{domain}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def main():
    fleetmint = sys.argv[1]
    keep_here()
    with tempfile.TemporaryDirectory() as directory:
        lot = os.path.join(directory, "lot.csv")
        with open(lot, "w") as file:
            file.write("DeviceId,SerialNumber,MacAddress\n")
            file.writelines(f"PROXIED_{n},SN{n},AA:BB:CC:00:00:0{n}\n" for n in range(1, 4))
        arguments = ["--hostname", "127.0.0.1", "--port", "0", "--basic-auth", f"operator:{PASSWORD}"]
        arguments += ["--num-workers", "1", "--num-acceptors", "1", "--log-level", "ERROR"]
        emulate = subprocess.Popen([fleetmint, "emulate", "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
        try:
            emulator = json.loads(emulate.stdout.readline())
            with proxy.Proxy(arguments) as server:
                provision.port = server.flags.port
                refused = provision(fleetmint, emulator, lot, "wrong")
                assert refused.returncode != 0 and "refuses its user and password" in refused.stderr, refused.stderr
                assert "wrong" not in refused.stderr, refused.stderr
                taken = provision(fleetmint, emulator, lot, PASSWORD)
                assert taken.returncode == 0, taken.stderr
                assert "could not be compared" not in taken.stderr, taken.stderr
        finally:
            emulate.terminate()
            emulate.wait()
    print(json.dumps({"client": f"proxy.py {version('proxy.py')}", "devices": 3, "refused": "wrong password"}))


if __name__ == "__main__":
    main()
