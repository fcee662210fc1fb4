"""Provisions one device with AWS's own IoT Device SDK v2 for Python, on its C core awscrt.

Usage: python-awsiotsdk.py EMULATOR_JSON, a file with the line that `fleetmint emulate` prints.

Two devices, in fact: one through the SDK's request and response client, one through the older client of separate
subscriptions and publishes; people use both.
"""

import json
import queue
import sys
import time
import uuid
from importlib.metadata import version
from urllib.parse import parse_qs, urlsplit

from awscrt import auth, mqtt, mqtt_request_response
from awsiot import iotidentity, mqtt_connection_builder

TIMEOUT_S = 20


def connect(emulator, signed):
    """Connects as `websockets_with_default_aws_signing` does, keeping what was signed."""
    endpoint = urlsplit(emulator["endpoint"])
    config = auth.AwsSigningConfig(
        algorithm=auth.AwsSigningAlgorithm.V4,
        signature_type=auth.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS,
        credentials_provider=auth.AwsCredentialsProvider.new_static(
            emulator["access_key_id"], emulator["secret_access_key"], emulator.get("session_token")
        ),
        region=emulator["region"],
        service="iotdevicegateway",
        omit_session_token=True,
    )

    def sign(transform_args, **_):
        def done(future):
            signed["path"] = transform_args.http_request.path
            signed["host"] = transform_args.http_request.headers.get("host")
            transform_args.set_done(future.exception())

        auth.aws_sign_request(transform_args.http_request, config).add_done_callback(done)

    connection = mqtt_connection_builder.websockets_with_custom_handshake(
        sign,
        endpoint=endpoint.hostname,
        port=endpoint.port,
        ca_filepath=emulator["ca_file"],
        client_id=f"awsiotsdk-{uuid.uuid4()}",
        clean_session=True,
        keep_alive_secs=30,
    )
    connection.connect().result(TIMEOUT_S)
    return connection


def parameters_for(thing):
    return {"DeviceId": thing, "SerialNumber": thing, "MacAddress": "AA:BB:CC:DD:EE:01"}


def provision_by_requests(connection, template, thing):
    """With the client of 2025: it subscribes, correlates and unsubscribes by itself."""
    options = mqtt_request_response.ClientOptions(max_request_response_subscriptions=4, max_streaming_subscriptions=0)
    client = iotidentity.IotIdentityClientV2(connection, options)
    issued = client.create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest()).result(TIMEOUT_S)
    registered = client.register_thing(
        iotidentity.RegisterThingRequest(
            template_name=template,
            certificate_ownership_token=issued.certificate_ownership_token,
            parameters=parameters_for(thing),
        )
    ).result(TIMEOUT_S)
    return registered.thing_name


def provision_by_topics(connection, template, thing):
    """With the client of the older samples."""
    client = iotidentity.IotIdentityClient(connection)
    answers = queue.Queue()
    qos = mqtt.QoS.AT_LEAST_ONCE
    created = iotidentity.CreateKeysAndCertificateSubscriptionRequest()
    registered = iotidentity.RegisterThingSubscriptionRequest(template_name=template)
    for subscribed, _ in (
        client.subscribe_to_create_keys_and_certificate_accepted(created, qos, answers.put),
        client.subscribe_to_create_keys_and_certificate_rejected(created, qos, answers.put),
        client.subscribe_to_register_thing_accepted(registered, qos, answers.put),
        client.subscribe_to_register_thing_rejected(registered, qos, answers.put),
    ):
        subscribed.result(TIMEOUT_S)

    def answer():
        response = answers.get(timeout=TIMEOUT_S)
        if isinstance(response, iotidentity.ErrorResponse):
            raise SystemExit(f"rejected: {response.status_code} {response.error_code} {response.error_message}")
        return response

    client.publish_create_keys_and_certificate(iotidentity.CreateKeysAndCertificateRequest(), qos).result(TIMEOUT_S)
    issued = answer()
    request = iotidentity.RegisterThingRequest(
        template_name=template,
        certificate_ownership_token=issued.certificate_ownership_token,
        parameters=parameters_for(thing),
    )
    client.publish_register_thing(request, qos).result(TIMEOUT_S)
    return answer().thing_name


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        emulator = json.loads(file.readline())
    # A connection each: the client of 2025 unsubscribes in the background when it is gone, and would take the other one's
    # subscriptions with it.
    for provision in (provision_by_requests, provision_by_topics):
        signed = {}
        connection = connect(emulator, signed)
        thing = f"awsiotsdk-{uuid.uuid4().hex[:12]}"
        started = time.monotonic()
        thing_name = provision(connection, emulator["template"], thing)
        print(json.dumps({
            "client": f"awsiotsdk {version('awsiotsdk')}, awscrt {version('awscrt')}, {provision.__name__}",
            "thingName": thing_name,
            "signed_headers": parse_qs(urlsplit(signed["path"]).query)["X-Amz-SignedHeaders"][0],
            "host_header": signed["host"],
            "elapsed_ms": round((time.monotonic() - started) * 1000),
        }), flush=True)
        connection.disconnect().result(TIMEOUT_S)


if __name__ == "__main__":
    main()
