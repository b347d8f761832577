"""A stand-in for Vault over real HTTPS: KV version 2 and AppRole, paths, headers and answers as its documentation says.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2 and .../api-docs/auth/approle
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from snapkeep.simulators.kit.certificates import certificates

Json = dict[str, Any]


class Vault:
    """What it holds, and who may read it."""

    def __init__(self, directory: Path) -> None:
        self._files = certificates(directory, ["127.0.0.1"])
        self.ca_file = self._files.ca
        self.namespace: str | None = None
        self.token = "hvs.CANARY-token"
        self.roles: dict[str, str] = {}
        """Secret ids by role id."""
        self.secrets: dict[str, Json | None] = {}
        """By `MOUNT/data/PATH`; None: the last version was deleted."""
        self.refused: set[str] = set()
        self.sealed = False
        self.asked: list[str] = []
        self.port = 0

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def put(self, path: str, **fields: Any) -> None:
        mount, _, rest = path.partition("/")
        self.secrets[f"{mount}/data/{rest}"] = fields

    def answer(self, method: str, path: str, headers: Any, body: Json) -> tuple[int, Json]:
        self.asked.append(f"{method} {path}")
        if self.sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if headers.get("X-Vault-Request") != "true":
            return 400, {"errors": ["missing 'X-Vault-Request' header"]}
        if headers.get("X-Vault-Namespace") != self.namespace:
            return 404, {"errors": ["no handler for route"]}
        if (method, path) == ("POST", "/v1/auth/approle/login"):
            if body.get("role_id") not in self.roles or self.roles[body["role_id"]] != body.get("secret_id"):
                return 400, {"errors": ["invalid role or secret ID"]}
            return 200, {"auth": {"client_token": self.token, "lease_duration": 3600, "renewable": True}, "data": None}
        if headers.get("X-Vault-Token") != self.token:
            return 403, {"errors": ["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}
        place = path.removeprefix("/v1/")
        if method != "GET" or place in self.refused:
            return 403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
        if place not in self.secrets:
            return 404, {"errors": []}
        found = self.secrets[place]
        meta = {"created_time": "2026-11-28T10:00:00Z", "deletion_time": "", "destroyed": False, "version": 1}
        data = {"data": found, "metadata": meta}
        return (200 if found is not None else 404), {"request_id": "1", "data": data, "auth": None, "warnings": None}

    @contextmanager
    def running(self) -> Iterator[None]:
        vault = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer = vault.answer(self.command, self.path, self.headers, body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, format: str, *args: Any) -> None:
                pass

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._files.certificate, self._files.key)
        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            server.daemon_threads = True
            server.socket = context.wrap_socket(server.socket, server_side=True)
            self.port = int(server.server_port)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()
