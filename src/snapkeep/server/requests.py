"""What holds for every request: it has an id, and it is neither too big nor too slow."""

from __future__ import annotations

import asyncio
import re
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snapkeep.model.errors import InvalidInput
from snapkeep.server.problems import problem

MOST_BODY = 2**20
"""Bytes of the body of a request."""
MOST_TARGET = 16 * 2**10
"""Bytes of path and query."""
MOST_HEADERS = 32 * 2**10
"""Bytes of all headers."""
MOST_HEAD = MOST_TARGET + MOST_HEADERS
"""What the server reads of a request before it must be whole."""
BODY_SECONDS = 30.0
"""How long the body may take."""

_SAFE_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")


class Requests:
    """Gives each request an id, and refuses those beyond the limits before anything else sees them."""

    def __init__(self, app: ASGIApp, body_seconds: float = BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                _require_small(scope)
                whole = await self._read(scope, receive)
            except ClientDisconnect:
                return
            except _Refused as refused:
                # What is still to come is not read: the connection ends.
                answer = problem(refused.error, refused.status, {"Connection": "close"}, request_id=request_id)
                await answer(scope, receive, tell)
                return
            await self._app(scope, whole, tell)

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        """Return what gives the body again, after reading all of it: it is small."""
        names = {name for name, _ in scope["headers"]}
        if not names & {b"content-length", b"transfer-encoding"}:
            return receive
        messages = []
        try:
            async with asyncio.timeout(self._body_seconds):
                size, more = 0, True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    messages.append(message)
                    size += len(message.get("body", b""))
                    more = message.get("more_body", False)
                    if size > MOST_BODY:
                        raise _too_big("body", MOST_BODY, 413)
        except TimeoutError:
            raise _Refused(
                InvalidInput(
                    f"The body did not arrive within {self._body_seconds:.0f} seconds", next_step="Send it faster."
                ),
                408,
            ) from None
        left = iter(messages)

        async def again() -> Message:
            return next(left, None) or await receive()

        return again


class _Refused(Exception):
    def __init__(self, error: InvalidInput, status: int) -> None:
        super().__init__(str(error))
        self.error = error
        self.status = status


def _require_small(scope: Scope) -> None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MOST_TARGET:
        raise _too_big("address", MOST_TARGET, 414)
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEADERS:
        raise _too_big("head", MOST_HEADERS, 431)
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if int(length) > MOST_BODY:  # h11 has seen to it that it is a number
        raise _too_big("body", MOST_BODY, 413)


def _too_big(what: str, most: int, status: int) -> _Refused:
    return _Refused(
        InvalidInput(f"The {what} of the request is longer than {most:,} bytes", next_step="Ask for less at once."),
        status,
    )


def _request_id(scope: Scope) -> str:
    """Return the id that the caller gave, when it can harm no log and no header; else a new one."""
    given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    return given.decode("ascii") if _SAFE_ID.fullmatch(given) else str(uuid.uuid4())
