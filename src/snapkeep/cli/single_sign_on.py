"""Logging in with an identity provider from the command line: in a browser here, or by a code on another device.

In a browser (RFC 8252): it comes back to a port of this machine, where nothing but this login is answered. The exchange
with the provider is the server's: no secret of a client comes here.
"""

from __future__ import annotations

import hmac
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from snapkeep.cli.rest import Rest
from snapkeep.model.errors import AuthenticationFailed, Conflict, InvalidInput, Unavailable

Json = dict[str, Any]

FAILURES = 3
"""So often in a row it may be that the provider, or the server, cannot be asked whether somebody has agreed."""

_PAGE = (
    b"<!DOCTYPE html><meta charset=utf-8><title>Snapkeep</title><p>Snapkeep has got the answer of your identity "
    b"provider. You can close this page; go on at the command line.\n"
)
_FIELDS = ("code", "iss", "error", "error_description")


def in_browser(rest: Rest, provider: str | None, port: int) -> tuple[Json, str]:
    """Log in in a browser of this machine; return the session and the name of the provider.

    Raises AuthenticationFailed, Conflict (port in use), and what the server says.
    """
    with _waiting(port) as (redirect, expect, came_back):
        login = rest.request("POST", "/login/browser", json={"provider": provider, "redirect_uri": redirect})
        expect(login["state"])
        _say(f"Log in with {login['provider']} in a browser of this machine:\n{_checked(login['url'])}")
        _open(login["url"])
        left = (datetime.fromisoformat(login["expires_at"]) - datetime.now(UTC)).total_seconds()
        try:
            answer = came_back.get(timeout=max(1.0, left))
        except queue.Empty:
            raise AuthenticationFailed(
                "Nobody has logged in in time",
                next_step="Log in again; where no browser runs on this machine, use `snapkeep login --device`.",
            ) from None
        body = {"ticket": login["ticket"], "state": login["state"], **answer}
        return dict(rest.request("POST", "/login/browser/session", json=body)), str(login["provider"])


def on_device(rest: Rest, provider: str | None) -> tuple[Json, str]:
    """Log in by a code that is typed on another device; return the session and the name of the provider.

    Raises AuthenticationFailed, and what the server says.
    """
    login = rest.request("POST", "/login/device", json={"provider": provider})
    _say(f"Open {_checked(login['url'])} on any device, and type the code {login['code']}")
    if login["url_with_code"]:
        _say(f"Or open {_checked(login['url_with_code'])}, and compare the code.")
    seconds, failed = float(login["seconds"]), 0
    while True:
        time.sleep(seconds)
        try:
            answer = rest.request("POST", "/login/device/session", json={"ticket": login["ticket"]})
        except Unavailable as error:
            failed += 1
            if failed > FAILURES:
                raise
            seconds = max(seconds, float(error.details.get("retry_after") or 0.0))
            continue
        failed = 0
        if answer["session"] is not None:
            return dict(answer["session"]), str(login["provider"])
        seconds = float(answer["seconds"])


@contextmanager
def _waiting(port: int) -> Iterator[tuple[str, Any, queue.Queue[Json]]]:
    """Wait at a port of this machine for what a browser brings back. Only what has the right state counts."""
    came_back: queue.Queue[Json] = queue.Queue()
    expected: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        timeout = 10.0  # a browser opens connections that it does not use

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            given = dict(parse_qsl(parts.query, keep_blank_values=True))
            is_ours = parts.path == "/callback" and bool(expected) and _same(given.get("state", ""), expected[0])
            if is_ours:
                came_back.put({name: given[name] for name in _FIELDS if name in given})
            self.send_response(200 if is_ours else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            self.send_header("Referrer-Policy", "no-referrer")
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(_PAGE if is_ours else b"Nothing is here.\n")

        def log_message(self, *_: object) -> None:
            """Say nothing: there is a code in the address."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Say nothing of a browser that has gone."""

    try:
        server = Server(("127.0.0.1", port), Handler)
    except OverflowError as error:
        raise InvalidInput(f"{port} is no port", next_step="Give one from 1024 to 65535.") from error
    except OSError as error:
        raise Conflict(
            f"Cannot wait at port {port} of this machine: {error.strerror}",
            next_step="Stop what uses it, or give another one with --port that the provider knows.",
        ) from error
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/callback", expected.append, came_back
    finally:
        server.shutdown()
        server.server_close()


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _checked(url: str) -> str:
    """Return an address that may be opened. Raises AuthenticationFailed."""
    if urlsplit(url).scheme != "https" or not url.isprintable():
        raise AuthenticationFailed(f"The provider's address is not https: {url!r:.200}", next_step="Do not open it.")
    return url


def _open(url: str) -> None:
    """Open a browser, where there is one that has a window; a person can do it himself, too."""
    if sys.platform == "darwin" or any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY")):
        import webbrowser

        webbrowser.open(url)


def _say(sentence: str) -> None:
    """On standard error: a program that reads the output wants the session alone."""
    from snapkeep.cli import output

    for line in sentence.splitlines():
        output.errors.print(output.printable(line), markup=False, soft_wrap=True)
