"""An identity provider that says whatever a test wants: what a real one never does."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from joserfc import jws
from joserfc.jwk import ECKey, RSAKey
from tests.support.authority import Authority
from tests.support.installation import Json

Said = tuple[int, Any]
"""Status, and JSON or bytes."""


class HostileProvider:
    """One issuer of a server; `answers` by path stand in for what a real one would say."""

    def __init__(self, base: str, name: str, ca: str, key: RSAKey) -> None:
        self.name = name
        self.path = f"/{name}"
        self.issuer = f"{base}{self.path}"
        self.ca = ca
        self.key = key
        self.keys: list[Json] = [key.as_dict(private=False)]
        self.now: Callable[[], float] = time.time
        self.metadata: Json = {}
        self.answers: dict[str, Callable[[dict[str, str]], Said]] = {}
        self.asked: Counter[str] = Counter()
        self.forms: list[dict[str, str]] = []

    def answer(self, path: str, form: dict[str, str]) -> Said:
        self.asked[path] += 1
        self.forms.append(form)
        if path in self.answers:
            return self.answers[path](form)
        if path == "/.well-known/openid-configuration":
            return 200, self.announced()
        if path == "/jwks":
            return 200, {"keys": self.keys}
        return 404, {}

    def announced(self) -> Json:
        places = {
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "device_authorization_endpoint": f"{self.issuer}/device",
        }
        told = {"issuer": self.issuer, "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"]}
        return {**places, **told, **self.metadata}

    def claims(self, asked: str | None, **changed: Any) -> Json:
        """Return right claims, but for what is changed; None takes one away."""
        now = int(self.now())
        right = {
            "iss": self.issuer,
            "sub": "alice",
            "aud": "snapkeep",
            "exp": now + 300,
            "iat": now,
            "nonce": asked,
            "preferred_username": "alice",
            "groups": ["staff"],
        }
        return {name: value for name, value in {**right, **changed}.items() if value is not None}

    def sign(self, claims: object, key: RSAKey | ECKey | None = None, **header: Any) -> str:
        """Return a token, signed as a real one, or with another key."""
        key = key or self.key
        said = {"alg": "RS256", "kid": self.key.kid, **header}
        said = {name: value for name, value in said.items() if value is not None}
        return jws.serialize_compact(said, json.dumps(claims), key, algorithms=[said["alg"]])

    def gives(self, token: object, **more: Any) -> None:
        """Let its token endpoint give this ID token."""
        self.answers["/token"] = lambda _: (
            200,
            {"access_token": "at", "token_type": "Bearer", "id_token": token, **more},
        )

    def settings(self, **changed: Any) -> Json:
        return {
            "name": self.name,
            "issuer": self.issuer,
            "client_id": "snapkeep",
            "client_secret": "secret",
            "ca": self.ca,
            **changed,
        }


class HostileServer:
    """Serves many of them, each below a path of its own: what is known of one is not known of the next."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "hostile")
        issued = authority.issue("hostile-provider", ["localhost"])
        self._ca = authority.file.read_text()
        self._key = RSAKey.generate_key(2048, {"kid": "first"})
        self._providers: dict[str, HostileProvider] = {}
        providers = self._providers

        class Handler(BaseHTTPRequestHandler):
            timeout = 20.0

            def do_GET(self) -> None:
                self._answer({})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                self._answer(dict(parse_qsl(body, keep_blank_values=True)))

            def _answer(self, form: dict[str, str]) -> None:
                name, _, path = urlsplit(self.path).path[1:].partition("/")
                status, said = providers[name].answer(f"/{path}", form)
                body = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                if status in {301, 302, 307}:
                    self.send_header("Location", "https://localhost:1/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(issued.certificate, issued.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def provider(self) -> HostileProvider:
        """Return a new one, of which nothing is known yet."""
        name = f"hostile{len(self._providers)}"
        self._providers[name] = HostileProvider(self.base, name, self._ca, self._key)
        return self._providers[name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def base64url(value: bytes) -> str:
    """Return bytes as tokens have them."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


@contextlib.contextmanager
def hostile_server(folder: Path) -> Iterator[HostileServer]:
    """Run one."""
    folder.mkdir(parents=True, exist_ok=True)
    server = HostileServer(folder)
    try:
        yield server
    finally:
        server.close()
