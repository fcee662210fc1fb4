"""Provisions one device with AWSIoTPythonSDK, AWS's first SDK for Python, over a WebSocket.

It wants a host of the service's own form, which is looked up as a line in /etc/hosts would have it; it signs for `iotdata`, and
its Sec-WebSocket-Key has 128 bytes.
"""

import socket
from importlib.metadata import version
from urllib.parse import urlsplit

from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTClient

from fleet import TIMEOUT_S, Exchange, new_thing, read_emulator, say, topics

emulator = read_emulator()
host = f"a1b2c3d4e5-ats.iot.{emulator['region']}.amazonaws.com"
lookup = socket.getaddrinfo
socket.getaddrinfo = lambda name, *rest, **more: lookup("127.0.0.1" if name == host else name, *rest, **more)

client = AWSIoTMQTTClient(new_thing("v1"), useWebsocket=True)
client.configureEndpoint(host, urlsplit(emulator["endpoint"]).port)
client.configureCredentials(emulator["ca_file"])
client.configureIAMCredentials(emulator["access_key_id"], emulator["secret_access_key"], emulator.get("session_token", ""))
client.configureConnectDisconnectTimeout(TIMEOUT_S)
client.configureMQTTOperationTimeout(TIMEOUT_S)
if not client.connect(30):
    raise SystemExit("not connected")
create, _, register, answers = topics(emulator)
exchange = Exchange(lambda topic, payload: client.publish(topic, payload.decode(), 1))
for topic in answers:
    client.subscribe(topic, 1, lambda _client, _data, message: exchange.arrived.put((message.topic, message.payload)))
thing = new_thing("v1")
exchange.provision(create, register, thing)
client.disconnect()
say(f"AWSIoTPythonSDK {version('AWSIoTPythonSDK')}", thing)
