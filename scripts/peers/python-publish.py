"""A plain loop of AWS's CRT for Python: each connection publishes to its own topic, and again as soon as the message is back.

Arguments: SERVICE_JSON CONNECTIONS SECONDS. Prints one line of JSON.
"""

import json
import resource
import sys
import threading
import time
import uuid
from urllib.parse import urlsplit

from awscrt import auth, mqtt
from awsiot import mqtt_connection_builder


def main():
    file, connections, seconds = sys.argv[1:]
    with open(file, encoding="utf-8") as lines:
        service = json.loads(lines.readline())
    address, trips, lock = urlsplit(service["endpoint"]), [], threading.Lock()

    def connect():
        connection = mqtt_connection_builder.websockets_with_default_aws_signing(
            region=service["region"],
            credentials_provider=auth.AwsCredentialsProvider.new_static(
                service["access_key_id"], service["secret_access_key"]),
            endpoint=address.hostname, port=address.port, ca_filepath=service["ca_file"],
            client_id=f"crt-{uuid.uuid4()}", clean_session=True, keep_alive_secs=30,
        )
        connection.connect().result(20)
        return connection

    lines = [connect() for _ in range(int(connections))]
    done = threading.Semaphore(0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu, started = usage.ru_utime + usage.ru_stime, time.perf_counter()
    ends = started + float(seconds)

    def loop(connection):
        topic, began = f"load/{uuid.uuid4()}", [0.0]

        def publish():
            began[0] = time.perf_counter()
            connection.publish(topic, b"x" * 128, mqtt.QoS.AT_LEAST_ONCE)

        def arrived(topic, payload, **_):
            now = time.perf_counter()
            with lock:
                trips.append(now - began[0])
            publish() if now < ends else done.release()

        connection.subscribe(topic, mqtt.QoS.AT_LEAST_ONCE, arrived)[0].result(20)
        publish()

    for line in lines:
        loop(line)
    for _ in lines:
        done.acquire()
    elapsed = time.perf_counter() - started
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = usage.ru_utime + usage.ru_stime - cpu
    trips.sort()
    print(json.dumps({
        "trips": len(trips), "per_second": len(trips) / elapsed, "cpu_us": 1e6 * cpu / len(trips),
        "p50_ms": 1e3 * trips[len(trips) // 2], "p99_ms": 1e3 * trips[int(len(trips) * 0.99)],
        "resident_kb": usage.ru_maxrss,
    }))


main()
