"""A small proxy that changes what a plug-in and its simulator say to each other: lies that no simulator tells."""

import asyncio
import http.client
import json
import re
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
Headers = dict[str, str]
_HOP = {"connection", "content-length", "transfer-encoding", "host", "keep-alive"}


@dataclass(kw_only=True)
class Lie:
    """What is changed in requests of `method` whose path `path` matches, `times` times (None: always).

    `target` changes path and query, `request` headers and body of a request, `answer` those of its answer.
    """

    method: str | None = None
    path: str = ""
    times: int | None = None
    target: Callable[[str], str] | None = None
    request: Callable[[Headers, Any], None] | None = None
    answer: Callable[[Headers, Any, Headers], Any] | None = None

    def strikes(self, method: str, path: str) -> bool:
        """Say whether it acts on this request, and count."""
        if self.times == 0 or self.method not in {None, method} or not re.search(self.path, path):
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@asynccontextmanager
async def lying(url: str, ca_file: str | None, lies: Sequence[Lie]) -> AsyncIterator[int]:
    """Serve plain HTTP on a loopback port, which is returned, and pass everything on to `url`."""
    context = ssl.create_default_context(cafile=ca_file) if ca_file else None
    upstream = urlsplit(url)

    def ask(method: str, target: str, headers: Headers, body: bytes) -> tuple[int, Headers, bytes]:
        place = (upstream.hostname or "", upstream.port or 0)
        connection = (
            http.client.HTTPSConnection(*place, timeout=30, context=context)
            if context
            else http.client.HTTPConnection(*place, timeout=30)
        )
        try:
            connection.request(method, target, body or None, headers)
            response = connection.getresponse()
            return response.status, {key.lower(): value for key, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            method, target, headers, body = await _read(reader)
            told = dict(headers)
            struck = [lie for lie in lies if lie.strikes(method, target.partition("?")[0])]
            for lie in struck:
                target = lie.target(target) if lie.target else target
                if lie.request:
                    content = json.loads(body or b"null")
                    lie.request(headers, content)
                    body = json.dumps(content).encode() if body else b""
            status, answered, raw = await asyncio.to_thread(ask, method, target, headers, body)
            for lie in struck:
                if lie.answer and status < 300:
                    raw = json.dumps(lie.answer(answered, json.loads(raw), told)).encode()
            kept = {name: value for name, value in answered.items() if name not in _HOP}
            kept |= {"content-length": str(len(raw)), "connection": "close"}
            head = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
            writer.write(f"HTTP/1.1 {status} Told\r\n{head}\r\n".encode("latin-1") + raw)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, Headers, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ", 2)
    pairs = (line.split(":", 1) for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return method, target, {name: value for name, value in headers.items() if name not in _HOP}, body
