"""Provisions one device with paho-mqtt over a WebSocket signed by botocore.

Usage: python-paho.py EMULATOR_JSON, a file with the line that `fleetmint emulate` prints.
"""

import json
import queue
import sys
import time
import uuid
from urllib.parse import urlsplit

import botocore
import paho.mqtt
import paho.mqtt.client as mqtt

from fleet import TIMEOUT_S, presign


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        emulator = json.loads(file.readline())
    url = urlsplit(emulator["endpoint"])
    create = "$aws/certificates/create/json"
    register = f"$aws/provisioning-templates/{emulator['template']}/provision/json"
    events = queue.Queue()

    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=f"paho-{uuid.uuid4()}",
        transport="websockets",
        protocol=mqtt.MQTTv311,
    )
    client.tls_set(ca_certs=emulator["ca_file"])
    # paho puts host:port into Host, and botocore signed host:port: they agree.
    client.ws_set_options(path=presign(emulator))
    client.on_connect = lambda *arguments: events.put(("connect", str(arguments[3])))
    client.on_connect_fail = lambda *arguments: events.put(("connect failed", arguments))
    client.on_disconnect = lambda *arguments: events.put(("disconnect", str(arguments[3])))
    client.on_subscribe = lambda *arguments: events.put(("subscribe", [str(code) for code in arguments[3]]))
    client.on_message = lambda _client, _data, message: events.put((message.topic, message.payload))

    def expect(wanted):
        event, value = events.get(timeout=TIMEOUT_S)
        if event != wanted:
            raise SystemExit(f"wanted {wanted}, got {event}: {value}")
        return value

    started = time.monotonic()
    client.connect(url.hostname, url.port, keepalive=30)
    client.loop_start()
    if expect("connect") != "Success":
        raise SystemExit("connection refused")
    client.subscribe([(f"{topic}/{verdict}", 1) for topic in (create, register) for verdict in ("accepted", "rejected")])
    expect("subscribe")

    client.publish(create, "{}", qos=1)
    issued = json.loads(expect(f"{create}/accepted"))
    thing = f"paho-{uuid.uuid4().hex[:12]}"
    parameters = {"DeviceId": thing, "SerialNumber": thing, "MacAddress": "AA:BB:CC:DD:EE:01"}
    request = {"certificateOwnershipToken": issued["certificateOwnershipToken"], "parameters": parameters}
    client.publish(register, json.dumps(request), qos=1)
    registered = json.loads(expect(f"{register}/accepted"))
    elapsed_ms = round((time.monotonic() - started) * 1000)

    client.disconnect()
    client.loop_stop()
    print(json.dumps({
        "client": f"paho-mqtt {paho.mqtt.__version__}, botocore {botocore.__version__}",
        "thingName": registered["thingName"],
        "certificateId": issued["certificateId"],
        "elapsed_ms": elapsed_ms,
    }))


if __name__ == "__main__":
    main()
