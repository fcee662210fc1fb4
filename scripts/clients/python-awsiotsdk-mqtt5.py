"""Provisions one device with AWS's IoT Device SDK v2 for Python, with its client of MQTT 5."""

import threading
from importlib.metadata import version
from urllib.parse import urlsplit

from awscrt import auth, mqtt_request_response
from awsiot import iotidentity, mqtt5_client_builder

from fleet import TIMEOUT_S, new_thing, parameters_for, read_emulator, say

emulator = read_emulator()
url = urlsplit(emulator["endpoint"])
connected, told = threading.Event(), {}


def on_success(data):
    settings = data.negotiated_settings
    told.update(receive_maximum=settings.receive_maximum_from_server, keep_alive=settings.server_keep_alive_sec)
    connected.set()


client = mqtt5_client_builder.websockets_with_default_aws_signing(
    region=emulator["region"],
    credentials_provider=auth.AwsCredentialsProvider.new_static(
        emulator["access_key_id"], emulator["secret_access_key"], emulator.get("session_token")
    ),
    endpoint=url.hostname,
    port=url.port,
    ca_filepath=emulator["ca_file"],
    client_id=new_thing("mqtt5"),
    on_lifecycle_connection_success=on_success,
    on_lifecycle_connection_failure=lambda data: print(data.exception),
)
client.start()
if not connected.wait(TIMEOUT_S):
    raise SystemExit("not connected")
options = mqtt_request_response.ClientOptions(max_request_response_subscriptions=4, max_streaming_subscriptions=0)
identity = iotidentity.IotIdentityClientV2(client, options)
issued = identity.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(TIMEOUT_S)
thing = new_thing("mqtt5")
registered = identity.register_thing(
    iotidentity.RegisterThingRequest(
        template_name=emulator["template"],
        certificate_ownership_token=issued.certificate_ownership_token,
        parameters=parameters_for(thing),
    )
).result(TIMEOUT_S)
if registered.thing_name != thing or told["receive_maximum"] != 100:
    raise SystemExit(f"registered {thing}, got {registered}, {told}")
client.stop()
say(f"awsiotsdk {version('awsiotsdk')}, MQTT 5", thing, **told)
