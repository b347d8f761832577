"""A real identity provider, and a browser that somebody uses there."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx2
import pytest
from joserfc.jwk import ECKey, RSAKey
from tests.support.authority import Authority
from tests.support.installation import Json, until

CHECKOUT = Path(__file__).parents[2]
LIBRARY = CHECKOUT / ".oidc-provider/node_modules/oidc-provider/lib/index.js"
SECRET = "secret of the client: + % &"


def node() -> str:
    """Return a Node.js with the provider; without one skip the test, or fail it where CI=true."""
    for found in (CHECKOUT / ".oidc-provider/node_modules/.bin/node", shutil.which("node")):
        if found and LIBRARY.exists() and Path(found).exists():
            return str(found)
    message = "oidc-provider is not here: run scripts/oidc"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class OidcProvider:
    """The certified oidc-provider, as a process of its own."""

    def __init__(self, folder: Path, *, lean: bool = True, algorithm: str = "RS256") -> None:
        """`lean`: groups and names are not in its ID tokens, but to be asked for."""
        self.folder = folder
        self.program = node()
        authority = Authority(folder, "provider")
        issued = authority.issue("provider", ["localhost"])
        assert issued.certificate == folder / "provider.pem"
        self.ca = authority.file.read_text()
        self.trust = ssl.create_default_context(cadata=self.ca)
        self.port = free_port()
        self.issuer = f"https://localhost:{self.port}"
        self.lean = lean
        self.algorithm = algorithm
        self.device_seconds = 600
        self.people: dict[str, Json] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self.new_keys()

    def new_keys(self) -> None:
        """Let it sign with other keys, from its next start on."""
        kinds: list[RSAKey | ECKey] = [RSAKey.generate_key(2048), ECKey.generate_key("P-256")]
        self.keys = [key.as_dict(private=True, use="sig", kid=os.urandom(4).hex()) for key in kinds]

    def client(self, name: str, **changed: Any) -> Json:
        """Return how it knows a client."""
        values = {
            "client_id": name,
            "client_secret": SECRET,
            "application_type": "native",
            "redirect_uris": ["http://127.0.0.1/callback"],
            "grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"],
            "token_endpoint_auth_method": "client_secret_basic",
            "id_token_signed_response_alg": self.algorithm,
            **changed,
        }
        return {key: value for key, value in values.items() if value is not None}

    def start(self) -> None:
        """Start it, and wait until it listens."""
        config = {
            "issuer": self.issuer,
            "port": self.port,
            "library": str(LIBRARY),
            "lean": self.lean,
            "device_seconds": self.device_seconds,
            "jwks": {"keys": self.keys},
            "clients": [
                self.client("snapkeep"),
                self.client("public", client_secret=None, token_endpoint_auth_method="none"),
            ],
        }
        (self.folder / "config.json").write_text(json.dumps(config))
        self.say()
        log = self.folder / "provider.log"
        with log.open("wb") as opened:
            command = [self.program, str(Path(__file__).with_name("oidc_provider.mjs")), str(self.folder)]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened)
        child = self._child

        def listens() -> bool:
            assert child.poll() is None, log.read_text()
            return "ready" in log.read_text()

        until(listens, 60)

    def say(self, **people: Json) -> None:
        """Let it know these people, by how they log in, with these claims."""
        self.people |= people
        (self.folder / "people.json").write_text(json.dumps(self.people))

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            self._child.wait(20)
            self._child = None

    def settings(self, name: str = "corp", **changed: Any) -> Json:
        """Return how Snapkeep is told of it."""
        return {
            "name": name,
            "issuer": self.issuer,
            "client_id": "snapkeep",
            "client_secret": SECRET,
            "scopes": ["openid", "profile", "groups"],
            "ca": self.ca,
            **changed,
        }

    def browser(self) -> Browser:
        """Return a new browser, in which nobody is logged in."""
        return Browser(self.trust)


@contextlib.contextmanager
def running_provider(folder: Path, **settings: Any) -> Iterator[OidcProvider]:
    """Run a provider that knows alice and bob."""
    folder.mkdir(parents=True, exist_ok=True)
    provider = OidcProvider(folder, **settings)
    provider.say(
        alice={"preferred_username": "Alice", "groups": ["storage", "staff"]},
        bob={"preferred_username": "bob", "groups": ["staff"]},
    )
    provider.start()
    try:
        yield provider
    finally:
        provider.stop()


class Browser:
    """Follows links and sends forms, as a person has it do."""

    def __init__(self, trust: ssl.SSLContext | bool) -> None:
        self._client = httpx2.Client(verify=trust, trust_env=False, follow_redirects=False, timeout=20.0)

    def open(self, url: str, fields: Json | None = None) -> tuple[str, str]:
        """Follow a link, or send a form; return where that ends, and what is there. Loopback is left to others."""
        answer = self._client.request("POST" if fields else "GET", url, data=fields)
        for _ in range(20):
            if not answer.is_redirect:
                return url, answer.text
            url = urljoin(url, answer.headers["location"])
            if urlsplit(url).scheme == "http":
                return url, ""
            answer = self._client.get(url)
        raise AssertionError(f"it goes round in circles: {url}")

    def log_in(self, url: str, name: str, *, agrees: bool = True) -> Json:
        """Log in at a link, and agree; return what comes back to the program that waits."""
        return dict(parse_qsl(urlsplit(self.log_in_until_back(url, name, agrees=agrees)).query))

    def log_in_until_back(self, url: str, name: str, *, agrees: bool = True) -> str:
        """Log in at a link; return the address to which that leads back."""
        url, page = self.open(url)
        for _ in range(5):
            if urlsplit(url).scheme == "http":
                return url
            if not agrees and (abort := re.search(r'href="([^"]*/abort)"', page)):
                url, page = self.open(urljoin(url, html.unescape(abort[1])))
                continue
            url, page = self._send(url, page, name)
        raise AssertionError(page)

    def agree_on_device(self, url: str, code: str, name: str, *, agrees: bool = True) -> str:
        """Type a code at the address that a device shows, log in, and agree; return the page at the end."""
        url, page = self.open(url)
        for _ in range(8):
            if "<form" not in page or "successful" in page:
                break
            if not agrees and 'name="abort"' in page:
                fields = self._fields(page) | {"abort": "yes"}
                return self.open(self._action(url, page), fields)[1]
            url, page = self._send(url, page, name, code)
        return page

    def _send(self, url: str, page: str, name: str, code: str = "") -> tuple[str, str]:
        fields = self._fields(page)
        if fields.get("prompt") == "login":
            fields |= {"login": name, "password": "x"}
        if 'name="user_code"' in page and not fields.get("user_code"):
            fields["user_code"] = code
        return self.open(self._action(url, page), fields)

    @staticmethod
    def _action(url: str, page: str) -> str:
        action = re.search(r'<form[^>]*action="([^"]*)"', page)
        assert action, page
        return urljoin(url, html.unescape(action[1]))

    @staticmethod
    def _fields(page: str) -> Json:
        hidden = re.findall(r'<input[^>]*type="hidden"[^>]*name="([^"]*)"[^>]*value="([^"]*)"', page)
        return {name: html.unescape(value) for name, value in hidden}

    def close(self) -> None:
        """Close it."""
        self._client.close()
