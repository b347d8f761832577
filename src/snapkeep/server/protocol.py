"""uvicorn's HTTP/1.1, with an end to waiting for the head of a request, and our form for what is no HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from snapkeep.model.errors import InvalidInput
from snapkeep.server.problems import problem

HEAD_SECONDS = 15.0
"""How long the head of a request may take, from the first byte or the begin of the connection."""


class Protocol(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        """Have a deadline while a head is awaited, and none afterwards."""
        if self.conn.their_state is not h11.IDLE:
            self._forget()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._too_late)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self.conn.their_state is h11.IDLE:  # else an answer is being sent, and the keep-alive takes over
            self._refuse(408, "The head of the request did not arrive in time")

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg.rstrip("."))

    def _refuse(self, status: int, message: str) -> None:
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            answer = problem(InvalidInput(message, next_step="Send a whole request of HTTP/1.1."), status)
            headers: list[Any] = [(b"connection", b"close"), *answer.raw_headers]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=bytes(answer.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
