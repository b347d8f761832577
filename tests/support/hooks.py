"""The other side of webhooks: a server that remembers what it gets, and answers what the test wants."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook

from snapkeep.simulators.kit.certificates import certificates

Json = dict[str, Any]


@dataclass
class Answer:
    """What is answered."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    hold: threading.Event | None = None
    """It is answered when this is set."""


@dataclass
class Got:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def json(self) -> Json:
        return dict(json.loads(self.body))

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def verify(self, secret: str) -> None:
        """Have the published library of the specification judge the signature."""
        Webhook(secret).verify(self.body, self.headers)


class Hooks:
    """The server."""

    def __init__(self, directory: Path | None = None) -> None:
        self._files = certificates(directory, ["127.0.0.1"]) if directory else None
        self.got: list[Got] = []
        self.answer: Callable[[Got], Answer] = lambda _: Answer()
        self.port = 0

    @property
    def url(self) -> str:
        return f"{'https' if self._files else 'http'}://127.0.0.1:{self.port}/hook"

    @property
    def ca_file(self) -> str | None:
        return str(self._files.ca) if self._files else None

    def types(self) -> list[str]:
        return [one.json["type"] for one in self.got]

    @contextmanager
    def running(self) -> Iterator[Hooks]:
        hooks = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                got = Got(self.path, headers, body, time.monotonic())
                hooks.got.append(got)
                answer = hooks.answer(got)
                if answer.hold is not None:
                    answer.hold.wait(60)
                try:
                    self.send_response(answer.status)
                    for name, value in answer.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer.body)))
                    self.end_headers()
                    self.wfile.write(answer.body)
                except OSError:
                    self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass

        server = Server(("127.0.0.1", 0), Handler)
        if self._files:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._files.certificate, self._files.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
