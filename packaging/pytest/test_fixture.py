"""The fixture itself: it starts, answers, resets, and its account is empty again."""

import ssl
import socket
from urllib.parse import urlsplit


def test_an_emulator_is_there_and_its_certificate_is_good(emulator):
    url = urlsplit(emulator.endpoint)
    context = ssl.create_default_context(cafile=emulator.ca_file)
    with socket.create_connection((url.hostname, url.port)) as plain:
        with context.wrap_socket(plain, server_hostname=url.hostname) as secure:
            assert secure.version()
    assert emulator.claim.read_text().startswith("-----BEGIN CERTIFICATE")


def test_it_is_reset_and_its_faults_change(emulator):
    assert emulator.ask("GET", "/health")["status"] == "ok"
    rule = {"on": "register_thing", "fault": "reject", "status": 503, "max": 1}
    assert emulator.ask("PUT", "/faults", {"rules": [rule]})["rules"][0]["status"] == 503
    emulator.reset()
    assert emulator.ask("GET", "/faults")["rules"] == []
    assert emulator.ask("GET", "/account")["things"] == 0
