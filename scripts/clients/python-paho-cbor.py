"""Provisions two devices with paho-mqtt and cbor2 on the cbor topics: with keys of the service and with its own; and has each
operation rejected."""

import queue
from urllib.parse import urlsplit

import cbor2
import paho.mqtt
import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet import TIMEOUT_S, Exchange, new_thing, presign, read_emulator, say, topics

emulator = read_emulator()
url = urlsplit(emulator["endpoint"])
events = queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=new_thing("cbor"), transport="websockets")
client.tls_set(ca_certs=emulator["ca_file"])
client.ws_set_options(path=presign(emulator))
client.on_connect = lambda *arguments: events.put(str(arguments[3]))
client.on_subscribe = lambda *_: events.put("subscribed")
exchange = Exchange(
    lambda topic, payload: client.publish(topic, payload, qos=1), encode=cbor2.dumps, decode=cbor2.loads
)
client.on_message = lambda _client, _data, message: exchange.arrived.put((message.topic, message.payload))
client.connect(url.hostname, url.port, keepalive=30)
client.loop_start()
create, from_csr, register, answers = topics(emulator, "cbor")
assert events.get(timeout=TIMEOUT_S) == "Success"
client.subscribe([(topic, 1) for topic in answers])
assert events.get(timeout=TIMEOUT_S) == "subscribed"

first, second = new_thing("cbor"), new_thing("cbor")
exchange.provision(create, register, first)
key = ec.generate_private_key(ec.SECP256R1())
subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "AWS IoT Certificate")])
request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
csr = {"certificateSigningRequest": request.public_bytes(serialization.Encoding.PEM).decode()}
issued, _ = exchange.provision(from_csr, register, second, csr)
certified = x509.load_pem_x509_certificate(issued["certificatePem"].encode())
assert certified.public_key() == key.public_key()
for topic, wrong in [
    (create, ["not a map"]),
    (from_csr, {"certificateSigningRequest": "not a request"}),
    (register, {"certificateOwnershipToken": "", "parameters": {}}),
]:
    rejected = exchange.ask(topic, wrong, wanted="rejected")
    assert rejected["statusCode"] == 400 and rejected["errorCode"] and rejected["errorMessage"], rejected
client.disconnect()
client.loop_stop()
say(f"paho-mqtt {paho.mqtt.__version__}, cbor2", first)
