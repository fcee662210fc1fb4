"""An account on loopback: moto, with provisioning templates in front of it, which moto does not have, and throttles on demand."""

import json
import logging
import threading
from collections import Counter

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server


# Of what moto has not, fleetmint tells.
logging.disable(logging.CRITICAL)


class Account:
    """Serves at `url` until it is closed."""

    def __init__(self, templates):
        self.templates = templates
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.requests = Counter()
        # How many of the next requests are throttled, and how: AWS IoT says it with a 400 and the type, other services with 429.
        self.throttles = []
        self.lock = threading.Lock()
        self.server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()

    def __call__(self, environ, start_response):
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        with self.lock:
            self.requests[f"{method} {path}"] += 1
            throttle = self.throttles.pop() if self.throttles else None
        if throttle:
            status, headers = throttle
            return reply(start_response, status, {"message": "Rate exceeded"}, headers)
        if path.startswith("/provisioning-templates/"):
            template = self.templates.get(path.rsplit("/", 1)[1])
            if template is None:
                headers = [("x-amzn-ErrorType", "ResourceNotFoundException")]
                return reply(start_response, "404 Not Found", {"message": "no such template"}, headers)
            return reply(start_response, "200 OK", template, [])
        return self.moto(environ, start_response)


def reply(start_response, status, body, headers):
    text = json.dumps(body).encode()
    start_response(status, [("content-type", "application/json"), ("content-length", str(len(text))), *headers])
    return [text]


def throttle_as_iot():
    return "400 Bad Request", [("x-amzn-ErrorType", "ThrottlingException")]


def throttle_as_others():
    return "429 Too Many Requests", [("x-amzn-ErrorType", "TooManyRequestsException")]
