"""Provisions one device from a claim certificate with AWS's IoT Device SDK v2 for Python on mutual TLS, then connects as that
device.

Usage: python-awsiotsdk-mtls.py EMULATOR_JSON CLAIM_DIR
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from awscrt import mqtt, mqtt_request_response
from awsiot import iotidentity, mqtt_connection_builder

from fleet import TIMEOUT_S, new_thing, parameters_for, read_emulator, say

emulator = read_emulator()
claim = Path(sys.argv[2])
url = urlsplit(emulator["mqtt_endpoint"])


def connect(certificate, key, client_id):
    connection = mqtt_connection_builder.mtls_from_path(
        cert_filepath=str(certificate),
        pri_key_filepath=str(key),
        endpoint=url.hostname,
        port=url.port,
        ca_filepath=emulator["ca_file"],
        client_id=client_id,
        clean_session=True,
        keep_alive_secs=30,
    )
    connection.connect().result(TIMEOUT_S)
    return connection


connection = connect(claim / "claim.pem", claim / "claim-key.pem", new_thing("claim"))
options = mqtt_request_response.ClientOptions(max_request_response_subscriptions=4, max_streaming_subscriptions=0)
identity = iotidentity.IotIdentityClientV2(connection, options)
issued = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(TIMEOUT_S)
thing = new_thing("mtls")
registered = identity.register_thing(
    iotidentity.RegisterThingRequest(
        template_name=emulator["template"],
        certificate_ownership_token=issued.certificate_ownership_token,
        parameters=parameters_for(thing),
    )
).result(TIMEOUT_S)
connection.disconnect().result(TIMEOUT_S)
with tempfile.TemporaryDirectory() as folder:
    certificate, key = Path(folder, "device.pem"), Path(folder, "device-key.pem")
    certificate.write_text(issued.certificate_pem)
    key.write_text(issued.private_key)
    device = connect(certificate, key, thing)
    published, _ = device.publish(f"dt/{thing}", "hello", mqtt.QoS.AT_LEAST_ONCE)
    published.result(TIMEOUT_S)
    device.disconnect().result(TIMEOUT_S)
if registered.thing_name != thing:
    raise SystemExit(f"registered {thing}, got {registered}")
say(f"awsiotsdk {version('awsiotsdk')}, mutual TLS", thing)
