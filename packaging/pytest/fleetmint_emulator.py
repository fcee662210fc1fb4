"""A pytest fixture: an emulated AWS IoT endpoint for the session. Copy this file beside your tests, and in conftest.py:

    from fleetmint_emulator import emulator

The binary is `fleetmint` on the path, or what the environment variable FLEETMINT names.
"""

import json
import os
import subprocess
import tempfile
import urllib.request
from pathlib import Path

import pytest


class Emulator:
    """A running emulator: `endpoint`, `mqtt_endpoint`, `region`, `ca_file`, `access_key_id`, … as `fleetmint emulate` prints them."""

    def __init__(self, scenario="default"):
        self.folder = tempfile.TemporaryDirectory()
        self.claim = Path(self.folder.name, "claim.pem")
        self.claim_key = Path(self.folder.name, "claim-key.pem")
        command = [os.environ.get("FLEETMINT", "fleetmint"), "emulate", "--listen", "127.0.0.1:0"]
        command += ["--admin", "127.0.0.1:0", "--scenario", str(scenario), "--claim-dir", self.folder.name]
        command += ["--ca-file", str(Path(self.folder.name, "ca.pem"))]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"fleetmint emulate ended with {self.process.wait()}; its stderr says why")
        self.__dict__.update(json.loads(line))

    def ask(self, method, path, body=None):
        """A request to the admin API, such as `ask("PUT", "/faults", {"rules": […]})`."""
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.admin + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)

    def reset(self):
        """Empties the account; takes milliseconds, so that each test can begin with it."""
        self.ask("POST", "/reset")

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.process.stdout.close()
        self.folder.cleanup()


@pytest.fixture(scope="session")
def emulator():
    emulator = Emulator()
    yield emulator
    emulator.stop()
