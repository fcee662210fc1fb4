"""Provisions one device with aiomqtt, over a WebSocket signed by botocore."""

import asyncio
import json
from importlib.metadata import version
from urllib.parse import urlsplit

import aiomqtt

from fleet import TIMEOUT_S, new_thing, parameters_for, presign, read_emulator, say, topics


async def main():
    emulator = read_emulator()
    url = urlsplit(emulator["endpoint"])
    create, _, register, answers = topics(emulator)
    thing = new_thing("aiomqtt")
    async with aiomqtt.Client(
        url.hostname,
        url.port,
        identifier=new_thing("aiomqtt"),
        transport="websockets",
        websocket_path=presign(emulator),
        tls_params=aiomqtt.TLSParameters(ca_certs=emulator["ca_file"]),
        timeout=TIMEOUT_S,
    ) as client:
        await client.subscribe([(topic, 1) for topic in answers])
        await client.publish(create, "{}", qos=1)
        async for message in client.messages:
            answer = json.loads(message.payload)
            if str(message.topic) == f"{create}/accepted":
                token = answer["certificateOwnershipToken"]
                request = {"certificateOwnershipToken": token, "parameters": parameters_for(thing)}
                await client.publish(register, json.dumps(request), qos=1)
            elif str(message.topic) == f"{register}/accepted" and answer["thingName"] == thing:
                break
            else:
                raise SystemExit(f"{message.topic}: {answer}")
    say(f"aiomqtt {version('aiomqtt')}", thing)


asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
