"""AWS's own IoT Device SDK v2 for Python, on its C core awscrt, with its client for fleet provisioning.

Arguments: EMULATOR_JSON DEVICES CONNECTIONS reused|fresh
"""

import itertools
import json
import os
import sys
import threading
import time
import uuid
from urllib.parse import urlsplit

from awscrt import auth, mqtt_request_response
from awsiot import iotidentity, mqtt_connection_builder

TIMEOUT_S = 20


class Client:
    def __init__(self, emulator):
        endpoint = urlsplit(emulator["endpoint"])
        self.template = emulator["template"]
        self.connection = mqtt_connection_builder.websockets_with_default_aws_signing(
            region=emulator["region"],
            credentials_provider=auth.AwsCredentialsProvider.new_static(
                emulator["access_key_id"], emulator["secret_access_key"], emulator.get("session_token")
            ),
            endpoint=endpoint.hostname,
            port=endpoint.port,
            ca_filepath=emulator["ca_file"],
            client_id=f"awsiotsdk-{uuid.uuid4()}",
            clean_session=True,
            keep_alive_secs=30,
        )
        self.connection.connect().result(TIMEOUT_S)
        options = mqtt_request_response.ClientOptions(
            max_request_response_subscriptions=4, max_streaming_subscriptions=0
        )
        self.client = iotidentity.IotIdentityClientV2(self.connection, options)

    def provision(self, number):
        request = iotidentity.CreateKeysAndCertificateRequest()
        issued = self.client.create_keys_and_certificate(request).result(TIMEOUT_S)
        name = f"awsiotsdk-{os.getpid()}-{number}"
        parameters = {
            "MacAddress": "AA:BB:CC:DD:EE:01", "DeviceId": name, "DeviceKey": "ABCDEFG", "DeviceType": "H",
            "Environment": "DEV", "SerialNumber": name, "Version": "1.0.1",
        }
        self.client.register_thing(iotidentity.RegisterThingRequest(
            template_name=self.template,
            certificate_ownership_token=issued.certificate_ownership_token,
            parameters=parameters,
        )).result(TIMEOUT_S)

    def close(self):
        self.client = None
        self.connection.disconnect().result(TIMEOUT_S)


def main():
    file, devices, connections, mode = sys.argv[1:]
    with open(file, encoding="utf-8") as lines:
        emulator = json.loads(lines.readline())
    numbers, lock, failed = itertools.count(), threading.Lock(), []

    def work():
        client = None
        while not failed:
            with lock:
                number = next(numbers)
            if number >= int(devices):
                break
            try:
                client = client or Client(emulator)
                client.provision(number)
            except Exception as error:
                failed.append(repr(error))
                raise
            if mode == "fresh":
                client.close()
                client = None
        if client:
            client.close()

    cpu, started = time.process_time(), time.monotonic()
    workers = [threading.Thread(target=work) for _ in range(int(connections))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise SystemExit(failed[0])
    print(json.dumps({
        "devices": int(devices),
        "elapsed_s": time.monotonic() - started,
        "cpu_s": time.process_time() - cpu,
    }))


if __name__ == "__main__":
    main()
