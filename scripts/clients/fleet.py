"""What the Python clients share: the emulator's line, and one device's way, whoever carries the messages."""

import json
import queue
import sys
import uuid
from urllib.parse import quote, urlsplit

TIMEOUT_S = 20


def read_emulator():
    with open(sys.argv[1], encoding="utf-8") as file:
        return json.loads(file.readline())


def new_thing(prefix):
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


def parameters_for(thing):
    return {"DeviceId": thing, "SerialNumber": thing, "MacAddress": "AA:BB:CC:DD:EE:01"}


def presign(emulator):
    """The path and query to connect to, signed by botocore. The token goes behind the signature, as this service wants it."""
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    credentials = Credentials(emulator["access_key_id"], emulator["secret_access_key"])
    request = AWSRequest("GET", emulator["endpoint"])
    SigV4QueryAuth(credentials, "iotdevicegateway", emulator["region"], expires=3600).add_auth(request)
    url = urlsplit(request.url)
    target = f"{url.path}?{url.query}"
    if emulator.get("session_token"):
        target += "&X-Amz-Security-Token=" + quote(emulator["session_token"], safe="")
    return target


def topics(emulator, encoding="json"):
    """The request topics of fleet provisioning, and all topics that answers come on."""
    create = f"$aws/certificates/create/{encoding}"
    from_csr = f"$aws/certificates/create-from-csr/{encoding}"
    register = f"$aws/provisioning-templates/{emulator['template']}/provision/{encoding}"
    answers = [f"{topic}/{verdict}" for topic in (create, from_csr, register) for verdict in ("accepted", "rejected")]
    return create, from_csr, register, answers


class Exchange:
    """One request at a time: what arrives is what was asked for."""

    def __init__(self, publish, encode=lambda value: json.dumps(value).encode(), decode=json.loads):
        self.publish, self.encode, self.decode = publish, encode, decode
        self.arrived = queue.Queue()

    def ask(self, topic, request, wanted="accepted"):
        self.publish(topic, self.encode(request))
        found, payload = self.arrived.get(timeout=TIMEOUT_S)
        answer = self.decode(payload)
        if found != f"{topic}/{wanted}":
            raise SystemExit(f"wanted {topic}/{wanted}, got {found}: {answer}")
        return answer

    def provision(self, create, register, thing, more=None):
        """Both answers: the certificate, and the thing."""
        issued = self.ask(create, more or {})
        token = issued["certificateOwnershipToken"]
        request = {"certificateOwnershipToken": token, "parameters": parameters_for(thing)}
        registered = self.ask(register, request)
        if registered["thingName"] != thing:
            raise SystemExit(f"registered {thing}, got {registered}")
        return issued, registered


def say(client, thing, **more):
    print(json.dumps({"client": client, "thingName": thing, **more}), flush=True)
