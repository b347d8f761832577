"""ETag, If-Match and If-None-Match (RFC 9110): nobody overwrites what he has not seen."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Iterable
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.responses import Response

from snapkeep.model.errors import Conflict
from snapkeep.server.schemas import Out

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')


class Changed(Conflict):
    """Somebody changed it since the caller has read it."""

    http_status = 412


def tag_of(shown: Out, *hidden: object) -> str:
    """Return the tag of what is shown; `hidden`: what changes it, too, and is not shown."""
    digest = hashlib.sha256(shown.model_dump_json().encode())
    for value in hidden:
        digest.update(b"\0" + repr(value).encode())
    return f'"{digest.hexdigest()[:32]}"'


class Condition:
    """What a request says about the state in which it expects something."""

    def __init__(self, match: str | None, none_match: str | None = None) -> None:
        self._match = match
        self._none_match = none_match

    def require(self, tag: str | None) -> None:
        """Raise Changed when it has another tag than is expected; None: it is not there."""
        if self._match is not None and not _names(self._match, tag, weakly=False):
            raise Changed(
                "Somebody changed this since it was read",
                next_step="Read it again, and decide whether your change still fits.",
            )

    def answer(self, shown: Out, tag: str) -> Response:
        """Return what is shown with its tag; only the tag, when the caller has that already."""
        if self._none_match is not None and _names(self._none_match, tag, weakly=True):
            return Response(status_code=304, headers={"ETag": tag})
        return answered(shown, tag)


def answered(shown: Out, tag: str) -> Response:
    """Return what is shown, with its tag."""
    return Response(shown.model_dump_json(), headers={"ETag": tag}, media_type="application/json")


def _names(header: str, tag: str | None, *, weakly: bool) -> bool:
    """Say whether a header names a tag. A weak one in it is never the same as ours where data may be lost."""
    if tag is None:
        return False
    if header.strip() == "*":
        return True
    return any(f'"{found[2]}"' == tag and (weakly or not found[1]) for found in _matches(header))


def _matches(header: str) -> Iterable[re.Match[str]]:
    return _TAG.finditer(header)


async def _expected(
    request: Request,
    if_match: Annotated[
        str | None,
        Header(max_length=4096, description="Only if this is its ETag: what somebody else changed is not lost."),
    ] = None,
) -> AsyncIterator[Condition]:
    changing: asyncio.Lock = request.app.state.changing
    async with changing:
        yield Condition(if_match)


async def _known(
    if_none_match: Annotated[
        str | None, Header(max_length=4096, description="ETags that the caller has: 304 when it is one of them.")
    ] = None,
) -> Condition:
    return Condition(None, if_none_match)


Expected = Annotated[Condition, Depends(_expected, scope="function")]
"""Of what changes something. It stands before what it is about: that is read when this request has its turn.

Such requests take turns, so that nothing happens between look and leap. They are rare and quick, and one server answers
them all: workers have no API.
"""
Known = Annotated[Condition, Depends(_known)]
"""Of what shows something."""
