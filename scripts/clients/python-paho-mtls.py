"""Provisions devices from a claim certificate with paho-mqtt on mutual TLS, on the port of MQTT and with ALPN on the port of
HTTPS; each then connects with its own certificate, until that is deactivated.

Usage: python-paho-mtls.py EMULATOR_JSON CLAIM_DIR
"""

import queue
import ssl
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import paho.mqtt
import paho.mqtt.client as mqtt

from fleet import TIMEOUT_S, Exchange, new_thing, read_emulator, say, topics

emulator = read_emulator()
claim = Path(sys.argv[2])
web, plain = urlsplit(emulator["endpoint"]), urlsplit(emulator["mqtt_endpoint"])
WAYS = {"8883": (plain.hostname, plain.port, []), "443 with ALPN": (web.hostname, web.port, ["x-amzn-mqtt-ca"])}


class Device:
    def __init__(self, way, certificate, key, client_id):
        host, port, alpn = WAYS[way]
        tls = ssl.create_default_context(cafile=emulator["ca_file"])
        tls.load_cert_chain(certificate, key)
        if alpn:
            tls.set_alpn_protocols(alpn)
        self.events = queue.Queue()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTv311)
        self.client.tls_set_context(tls)
        self.client.on_connect = lambda *arguments: self.events.put(("connect", str(arguments[3])))
        self.client.on_disconnect = lambda *arguments: self.events.put(("disconnect", str(arguments[3])))
        self.client.on_subscribe = lambda *_: self.events.put(("subscribe", ""))
        self.client.on_message = lambda _c, _d, message: self.exchange.arrived.put((message.topic, message.payload))
        self.exchange = Exchange(lambda topic, payload: self.client.publish(topic, payload, qos=1))
        self.client.connect(host, port, keepalive=30)
        self.client.loop_start()
        self.expect("connect", "Success")

    def expect(self, wanted, value=None):
        event, found = self.events.get(timeout=TIMEOUT_S)
        if event != wanted or value not in (None, found):
            raise SystemExit(f"wanted {wanted} {value}, got {event} {found}")

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


iot = boto3.client(
    "iot",
    region_name=emulator["region"],
    endpoint_url=f"https://{web.hostname}:{web.port}",
    verify=emulator["ca_file"],
    aws_access_key_id=emulator["access_key_id"],
    aws_secret_access_key=emulator["secret_access_key"],
)
create, _, register, answers = topics(emulator)
for way in WAYS:
    claimed = Device(way, claim / "claim.pem", claim / "claim-key.pem", new_thing("claim"))
    claimed.client.subscribe([(topic, 1) for topic in answers])
    claimed.expect("subscribe")
    thing = new_thing("paho-mtls")
    issued, _ = claimed.exchange.provision(create, register, thing)
    claimed.close()
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "device.pem"), Path(folder, "device-key.pem")
        certificate.write_text(issued["certificatePem"])
        key.write_text(issued["privateKey"])
        device = Device(way, certificate, key, thing)
        device.client.publish(f"dt/{thing}", "hello", qos=1).wait_for_publish(TIMEOUT_S)
        iot.update_certificate(certificateId=issued["certificateId"], newStatus="INACTIVE")
        device.expect("disconnect")
        device.client.loop_stop()
    say(f"paho-mqtt {paho.mqtt.__version__}, mutual TLS, {way}", thing)
