"""Locust with its own MQTT user: each user has a connection, publishes to its own topic, and waits until the message comes back.

Environment: SERVICE (the JSON line of `fleetmint emulate`), PAYLOAD (bytes).
"""

import datetime
import hashlib
import hmac
import json
import os
import ssl
import time
import urllib.parse
import uuid

import gevent.event
from locust import events, task
from locust.contrib.mqtt import MqttUser

SERVICE = json.loads(os.environ["SERVICE"])
ADDRESS = urllib.parse.urlsplit(SERVICE["endpoint"])
PAYLOAD = b"x" * int(os.environ.get("PAYLOAD", "128"))


def signed_path():
    """SigV4 in the query, as the device gateway wants it."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/{SERVICE['region']}/iotdevicegateway/aws4_request"
    query = urllib.parse.urlencode({
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{SERVICE['access_key_id']}/{scope}",
        "X-Amz-Date": now,
        "X-Amz-SignedHeaders": "host",
    })
    request = "\n".join(["GET", ADDRESS.path, query, f"host:{ADDRESS.netloc}", "", "host", hashlib.sha256(b"").hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + SERVICE["secret_access_key"]).encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return f"{ADDRESS.path}?{query}&X-Amz-Signature={hmac.digest(key, text.encode(), 'sha256').hex()}"


class Publisher(MqttUser):
    host, port, transport = ADDRESS.hostname, ADDRESS.port, "websockets"
    tls_context = ssl.create_default_context(cafile=SERVICE["ca_file"])

    def __init__(self, environment):
        self.ws_path = signed_path()
        super().__init__(environment)
        self.topic = f"load/{uuid.uuid4()}"
        self.came_back = gevent.event.Event()
        self.is_ready = gevent.event.Event()
        self.client.on_message = lambda *_: self.came_back.set()
        connected = self.client.on_connect

        def subscribe(*given):
            connected(*given)
            self.client.subscribe(self.topic, qos=1)
            self.is_ready.set()

        self.client.on_connect = subscribe

    @task
    def publish(self):
        self.is_ready.wait()
        self.came_back.clear()
        began = time.perf_counter()
        self.client.publish(self.topic, PAYLOAD, qos=1)
        is_back = self.came_back.wait(timeout=20)
        events.request.fire(
            request_type="trip", name="trip", response_time=1000 * (time.perf_counter() - began), response_length=0,
            exception=None if is_back else TimeoutError(),
        )
