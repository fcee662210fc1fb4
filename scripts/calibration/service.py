#!/usr/bin/env python3
"""A provisioning service whose habits are told to it: what `fleetmint calibrate` has to find out.

It shares no code with fleetmint: Python's standard library, and openssl for certificates. Signatures are not checked but for their
date, and the control plane has what removing needs. Prints one line of JSON, as `fleetmint emulate` does; writes what is left in the
account as JSON to --left when its standard input ends.

Usage: service.py --habits '{"capitals": true, ...}' --left FILE
"""

import argparse
import base64
import calendar
import email.utils
import hashlib
import json
import os
import re
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HABITS = {
    "capitals": False,  # whether Parameters is taken
    "subscription": False,  # whether an answer needs a subscription
    "to_all": False,  # whether all who subscribe get an answer
    "reuse": "refuse",  # of a used token: "refuse" or "accept"
    "missing": "refuse",  # of a parameter: "refuse" or "empty"
    "denied": "close",  # a SUBSCRIBE to denied/#: "close" or "suback"
    "second": "accept",  # another certificate for a thing
    "puback": "first",  # or "last", or "never"
    "window_s": 300,  # of a signature's date
    "expires": False,  # whether X-Amz-Expires is heeded
    "key": "ec",  # or "rsa", which takes openssl longer
    "delay_ms": 0,  # before each acceptance; refusals come at once
    "token_s": 3600,
    "prefix": "",  # of the names of things in the template
    "hook": "",  # a pre-provisioning hook, which puts this before the names of things
    "there": "",  # a thing that is there
    "tired": 0,  # how many wrong requests for certificates are refused before the next ones are accepted
    "repeats": False,  # whether refusals repeat the token
    "no_csr": False,  # whether answers about CSRs may not be subscribed to; each time the next connection fails
    "mute": False,  # whether wrong requests get no answer
    "rising": False,  # whether each registration raises a thing's version
    "skew_s": 0,  # the service's clock minus this machine's
    "forbid": False,  # whether each signature is refused
    "deny": False,  # whether each registration is refused, as by a hook
}
TEMPLATE = "FAKE"
BODY = {
    "Parameters": {"Serial": {"Type": "String"}, "Colour": {"Type": "String"},
                   "AWS::IoT::Certificate::Id": {"Type": "String"}},
    "Resources": {
        "thing": {"Type": "AWS::IoT::Thing",
                  "Properties": {"ThingName": {"Ref": "Serial"}, "AttributePayload": {"colour": {"Ref": "Colour"}}}},
        "certificate": {"Type": "AWS::IoT::Certificate",
                        "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
    },
}
CREATE = "$aws/certificates/create/json"
CSR = "$aws/certificates/create-from-csr/json"
REGISTER = re.compile(r"\$aws/provisioning-templates/([^/]+)/provision/json")
ARN = "arn:aws:iot:xx-test-1:000011112222:cert/"

NEW_KEY = {"rsa": ["rsa:2048"], "ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}
lock = threading.RLock()
certificates, tokens, things, connections, wrong, lost = {}, {}, {}, set(), [], []
work = tempfile.mkdtemp()
serial = 1


def openssl(*arguments, text=None):
    ran = subprocess.run(["openssl", *arguments], input=text, capture_output=True, cwd=work)
    if ran.returncode:
        raise ValueError("not a certification request")
    return ran.stdout


def authority():
    openssl("req", "-x509", "-newkey", *NEW_KEY["ec"], "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "30",
            "-subj", "/CN=Fake CA")
    openssl("req", "-newkey", *NEW_KEY["ec"], "-nodes", "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    with open(f"{work}/names", "w") as names:
        names.write("subjectAltName=DNS:localhost,IP:127.0.0.1")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", "1", "-days", "30",
            "-extfile", "names", "-out", "server.pem")


def certify(request):
    """A certificate for a request: its PEM and id."""
    global serial
    with lock:
        serial += 1
        number = serial
    pem = openssl("x509", "-req", "-CA", "ca.pem", "-CAkey", "ca.key", "-set_serial", str(number), "-days", "30",
                  text=request.encode()).decode()
    der = base64.b64decode("".join(line for line in pem.splitlines() if "-----" not in line))
    return pem, hashlib.sha256(der).hexdigest()


def issued(pem, identity, **more):
    token = base64.b64encode(os.urandom(300)).decode()
    with lock:
        certificates[identity] = {"pem": pem, "status": "PENDING_ACTIVATION", "things": []}
        tokens[token] = {"id": identity, "born": time.time(), "answer": None}
    return "accepted", {"certificateId": identity, "certificatePem": pem, "certificateOwnershipToken": token, **more}


def create():
    name = f"key-{threading.get_ident()}"
    kind = NEW_KEY[habits["key"]]
    request = openssl("req", "-newkey", *kind, "-nodes", "-keyout", name, "-subj", "/CN=AWS IoT Certificate").decode()
    with open(f"{work}/{name}") as key:
        private = key.read()
    pem, identity = certify(request)
    return issued(pem, identity, privateKey=private)


def refused(status, code, message):
    return "rejected", {"statusCode": status, "errorCode": code, "errorMessage": message}


def rise(thing):
    thing["version"] += habits["rising"]


def register(template, body):
    token = tokens.get(body.get("certificateOwnershipToken"))
    if not body.get("certificateOwnershipToken"):
        return refused(422, "NoToken", "where is it?")
    if not token:
        return refused(403, "Foreign", "this token is none of ours")
    if time.time() > token["born"] + habits["token_s"]:
        return refused(410, "TooOld", "this token is too old")
    if template != TEMPLATE:
        return refused(404, "NoTemplate", f"{template} is not in account 000011112222")
    if token["answer"]:
        if habits["reuse"] != "accept":
            return refused(409, "Again", "used before")
        rise(things[token["answer"]["thingName"]])
        return "accepted", token["answer"]
    if habits["deny"]:
        return refused(400, "Hook", "not this one")
    given = body.get("parameters") or (body.get("Parameters") if habits["capitals"] else None) or {}
    for name in ("Serial", "Colour"):
        has_name = name != "Serial" or habits["prefix"]
        if name not in given and not (has_name and habits["missing"] == "empty"):
            return refused(400, "Missing", f"a value for {name} is missing")
    with lock:
        name = habits["hook"] + habits["prefix"] + given.get("Serial", "")
        if name in things and habits["second"] == "refuse":
            return refused(409, "Exists", f"there is a {name}")
        if name in things:
            rise(things[name])
        new = {"attributes": {"colour": given.get("Colour", "")}, "principals": [], "version": 1}
        thing = things.setdefault(name, new)
        thing["principals"].append(token["id"])
        certificates[token["id"]].update(status="ACTIVE")
        certificates[token["id"]]["things"].append(name)
        token["answer"] = {"thingName": name, "deviceConfiguration": {}}
    return "accepted", token["answer"]


def answer(topic, payload):
    try:
        body = json.loads(payload or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        if topic == CREATE and habits["tired"]:
            wrong.append(topic)
            if len(wrong) > habits["tired"]:
                return create()
        return refused(400, "NotAnObject", "wanted an object")
    if topic == CREATE:
        return create()
    if topic == CSR:
        try:
            return issued(*certify(body.get("certificateSigningRequest", "")))
        except ValueError as error:
            return refused(400, "BadRequest", str(error))
    verdict, said = register(REGISTER.fullmatch(topic)[1], body)
    if verdict == "rejected" and habits["repeats"]:
        said["errorMessage"] += f" ({body.get('certificateOwnershipToken')})"
    return verdict, said


class Connection:
    """An MQTT connection over a WebSocket."""

    def __init__(self, stream):
        self.stream, self.buffer, self.filters, self.writing, self.last_id = stream, b"", set(), threading.Lock(), 0

    def send(self, packet):
        size = struct.pack("!BH", 126, len(packet)) if len(packet) > 125 else bytes([len(packet)])
        with self.writing:
            self.stream.write(b"\x82" + size + packet)
            self.stream.flush()

    def frame(self):
        first, size = self.stream.read(2)
        size &= 127
        if size == 126:
            size = struct.unpack("!H", self.stream.read(2))[0]
        elif size == 127:
            size = struct.unpack("!Q", self.stream.read(8))[0]
        mask, data = self.stream.read(4), self.stream.read(size)
        if first & 15 == 8:
            raise EOFError
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))

    def take(self, count):
        while len(self.buffer) < count:
            self.buffer += self.frame()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def packet(self):
        first, length, shift = self.take(1)[0], 0, 0
        while True:
            byte = self.take(1)[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first, self.take(length)

    def serve(self):
        while True:
            first, body = self.packet()
            kind = first >> 4
            if kind == 1:
                self.send(b"\x20\x02\x00\x00")
            elif kind == 8:
                if not self.subscribe(body):
                    return
            elif kind == 3:
                self.publish(body)
            elif kind == 14:
                return

    def subscribe(self, body):
        identity, rest, codes = body[:2], body[2:], b""
        while rest:
            size = struct.unpack("!H", rest[:2])[0]
            name, rest = rest[2:2 + size].decode(), rest[3 + size:]
            if habits["no_csr"] and name.startswith(CSR):
                lost.append(name)
                return False
            is_denied = name.startswith("denied/")
            if is_denied and habits["denied"] == "close":
                return False
            if not is_denied:
                self.filters.add(name)
            codes += b"\x80" if is_denied else b"\x01"
        self.send(bytes([0x90, 2 + len(codes)]) + identity + codes)
        return True

    def publish(self, body):
        size = struct.unpack("!H", body[:2])[0]
        topic, identity, payload = body[2:2 + size].decode(), body[2 + size:4 + size], body[4 + size:]
        if topic.startswith("denied/"):
            raise EOFError
        if not topic.startswith("$aws/"):
            self.send(b"\x40\x02" + identity)
            return self.deliver(topic, payload)
        if habits["puback"] == "first":
            self.send(b"\x40\x02" + identity)
        verdict, said = answer(topic, payload)
        if verdict == "rejected" and habits["mute"]:
            return None
        if verdict == "accepted":
            time.sleep(habits["delay_ms"] / 1000)
        topic, payload = f"{topic}/{verdict}", json.dumps(said).encode()
        others = [other for other in list(connections) if habits["to_all"] and other is not self]
        for other in [*others, self]:
            if topic in other.filters or (other is self and not habits["subscription"]):
                try:
                    other.deliver(topic, payload, force=True)
                except OSError:
                    pass
        if habits["puback"] == "last":
            self.send(b"\x40\x02" + identity)

    def deliver(self, topic, payload, force=False):
        if not force and topic not in self.filters:
            return
        self.last_id = self.last_id % 65535 + 1
        body = struct.pack("!H", len(topic)) + topic.encode() + struct.pack("!H", self.last_id) + payload
        length, rest = b"", len(body)
        while True:
            length += bytes([rest % 128 | (128 if rest > 127 else 0)])
            rest //= 128
            if not rest:
                break
        self.send(b"\x32" + length + body)


def is_taken(query):
    """Whether a signature's date is."""
    date = calendar.timegm(time.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ"))
    age = time.time() + habits["skew_s"] - date
    window = habits["window_s"]
    if habits["forbid"]:
        return False
    if habits["expires"] and "X-Amz-Expires" in query:
        return -window <= age <= int(query["X-Amz-Expires"][0])
    return abs(age) <= window


def control(method, path, query, headers):
    """The control plane: a status and a body."""
    missing = 404, {"message": "not found"}
    parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
    principal = headers.get("x-amzn-principal", "").rsplit("/", 1)[-1]
    with lock:
        match method, parts:
            case "GET", ["provisioning-templates", name]:
                if name != TEMPLATE:
                    return missing
                hook = {"preProvisioningHook": {"targetArn": "arn:aws:lambda:xx-test-1:000011112222:function:hook"}}
                return 200, {"templateName": name, "templateBody": json.dumps(BODY), "enabled": True, "templateArn": "arn:x",
                             **(hook if habits["hook"] else {})}
            case "GET", ["certificates", name]:
                if name not in certificates:
                    return missing
                it = certificates[name]
                return 200, {"certificateDescription": {"certificateArn": ARN + name, "certificateId": name,
                                                        "status": it["status"], "certificatePem": it["pem"]}}
            case "PUT", ["certificates", name]:
                certificates[name]["status"] = query["newStatus"][0]
            case "DELETE", ["certificates", name]:
                if certificates[name]["status"] == "ACTIVE" or certificates[name]["things"]:
                    return 409, {"message": "it is in use"}
                del certificates[name]
            case "POST", ["attached-policies", _]:
                return 200, {"policies": []}
            case "GET", ["principals", "things"]:
                return 200, {"things": certificates[principal]["things"]}
            case "GET", ["things", name]:
                if name not in things:
                    return missing
                return 200, {"thingName": name, "attributes": things[name]["attributes"], "version": things[name]["version"]}
            case "GET", ["things", name, "principals"]:
                return 200, {"principals": [ARN + identity for identity in things[name]["principals"]]}
            case "DELETE", ["things", name, "principals"]:
                things[name]["principals"].remove(principal)
                certificates[principal]["things"].remove(name)
            case "DELETE", ["things", name]:
                if things[name]["principals"]:
                    return 400, {"message": "something is attached"}
                if query.get("expectedVersion", [""])[0] != str(things[name]["version"]):
                    return 409, {"message": "it has another version"}
                del things[name]
            case _:
                return 400, {"message": f"{method} {path} is not here"}
    return 200, {}


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            self.stream = context.wrap_socket(self.request, server_side=True).makefile("rwb")
            while self.respond():
                pass
        except (OSError, EOFError, ValueError, struct.error):
            pass

    def respond(self):
        line = self.stream.readline().decode().split(" ")
        if len(line) != 3:
            return False
        headers = {}
        while (header := self.stream.readline().decode().strip()):
            name, value = header.split(":", 1)
            headers[name.lower()] = value.strip()
        target = urllib.parse.urlsplit(line[1])
        query = urllib.parse.parse_qs(target.query, keep_blank_values=True)
        if headers.get("upgrade", "").lower() == "websocket":
            return self.upgrade(headers, query)
        self.stream.read(int(headers.get("content-length", 0)))
        status, body = control(line[0], target.path, query, headers)
        kind = {404: "ResourceNotFoundException", 409: "DeleteConflictException", 400: "InvalidRequestException"}.get(status)
        self.write(status, json.dumps(body), f"x-amzn-ErrorType: {kind}\r\n" if kind else "")
        return True

    def write(self, status, body, more=""):
        date = email.utils.formatdate(time.time() + habits["skew_s"], usegmt=True)
        self.stream.write(f"HTTP/1.1 {status} X\r\nDate: {date}\r\nContent-Type: application/json\r\n{more}"
                          f"Content-Length: {len(body)}\r\n\r\n{body}".encode())
        self.stream.flush()

    def upgrade(self, headers, query):
        if lost:
            lost.clear()
            self.write(503, "{}")
            return False
        if not is_taken(query):
            self.write(403, '{"message": "expired"}')
            return False
        accept = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(accept.encode()).digest()).decode()
        self.stream.write(("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n").encode())
        self.stream.flush()
        connection = Connection(self.stream)
        connections.add(connection)
        try:
            connection.serve()
        finally:
            connections.discard(connection)
            self.request.close()
        return False


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64


arguments = argparse.ArgumentParser()
arguments.add_argument("--habits", default="{}")
arguments.add_argument("--left", required=True)
arguments = arguments.parse_args()
habits = HABITS | json.loads(arguments.habits)
if unknown := habits.keys() - HABITS.keys():
    sys.exit(f"no such habits: {unknown}")
if habits["there"]:
    things[habits["there"]] = {"attributes": {}, "principals": [], "version": 1}
if habits["prefix"]:
    BODY["Resources"]["thing"]["Properties"]["ThingName"] = {"Fn::Join": ["", [habits["prefix"], {"Ref": "Serial"}]]}
authority()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{work}/server.pem", f"{work}/server.key")
server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps({
    "endpoint": f"wss://localhost:{server.server_address[1]}/mqtt", "region": "xx-test-1", "ca_file": f"{work}/ca.pem",
    "access_key_id": "AKIDEXAMPLE", "secret_access_key": "secret", "template": TEMPLATE,
}), flush=True)
sys.stdin.read()
with lock:
    active = [name for name, it in certificates.items() if it["status"] == "ACTIVE" or it["things"]]
    with open(arguments.left, "w") as left:
        json.dump({"things": list(things), "active": active, "certificates": len(certificates), "wrong": len(wrong)}, left)
subprocess.run(["rm", "-rf", work])
