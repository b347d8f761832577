"""Requests that make something, done once however often they are repeated under their key."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request, Response

from snapkeep.model.errors import Busy, Conflict, InvalidInput
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Context, Parts
from snapkeep.server.requester import Key, content_of, key_id
from snapkeep.server.schemas import Out

T = TypeVar("T", bound=Out)


class Once:
    """One request with its key, or without."""

    def __init__(self, parts: Context, answer_id: str | None, digest: bytes) -> None:
        self._parts = parts
        self._id = answer_id
        self._digest = digest

    async def answer(self, make: Callable[[], Awaitable[T]], *, secret: bool = False) -> T | Response:
        """Return what `make` makes; under a key that was used before, the answer from then.

        `secret`: the answer must not be kept. Raises InvalidInput for another request under the key, Busy while the
        first one has no answer yet, Conflict when it had one that is not kept.
        """
        if self._id is None:
            return await make()
        answers = self._parts.catalog.answers
        known = await answers.begin(self._id, self._digest, self._parts.clock.now())
        if known is None:
            try:
                made = await make()
            except BaseException:
                await answers.drop(self._id)
                raise
            await answers.end(self._id, 201, None if secret else made.model_dump_json().encode())
            return made
        if not hmac.compare_digest(known.digest, self._digest):
            raise InvalidInput(
                "Another request came under this key before",
                next_step="Give every request a key of its own, and repeat a request as it was.",
            )
        if known.status is None:
            raise Busy("The request under this key is being answered right now", next_step="Repeat it in a moment.")
        if known.body is None:
            raise Conflict(
                "What this request made has been shown, and is not shown again",
                next_step="If that answer was lost, remove what it made (`snapkeep token list` and `revoke`), and ask "
                "again under another key.",
            )
        return Response(known.body, known.status, media_type="application/json")


async def get_once(request: Request, parts: Parts, principal: Caller, idempotency_key: Key = None) -> Once:
    """Return the request with its key."""
    if idempotency_key is None:
        return Once(parts, None, b"")
    digest = hmac.digest(parts.key, b"idempotency\n" + await content_of(request), hashlib.sha256)
    return Once(parts, key_id(request, principal, idempotency_key), digest)


Single = Annotated[Once, Depends(get_once)]
