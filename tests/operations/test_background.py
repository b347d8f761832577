"""What is done again and again goes on, whatever it meets on its way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter

import pytest
from structlog.testing import capture_logs

from snapkeep.model.errors import Conflict, NotFound
from snapkeep.operations.background import again_and_again, in_background


def away() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


class Duty:
    """Meets one thing after the other, and then ends."""

    def __init__(self, *meets: Exception | None) -> None:
        self.left = list(meets)
        self.rests = 0

    async def do(self) -> None:
        if not self.left:
            raise Conflict("that was all")
        if (error := self.left.pop(0)) is not None:
            raise error

    async def rest(self) -> None:
        self.rests += 1


async def test_it_goes_on_and_tells_of_an_outage_once() -> None:
    duty = Duty(None, away(), away(), ValueError("a defect"), away(), None, None, NotFound("x"))
    with capture_logs() as said, pytest.raises(Conflict, match="that was all"):
        await again_and_again("looking", duty.do, duty.rest, ends=(Conflict,))
    assert duty.rests == 8
    assert {line["duty"] for line in said} == {"looking"}
    assert Counter(line["event"] for line in said) == {
        "the database is away": 2,  # the defect in between was no outage
        "it failed, and is tried again": 2,
        "the database is back": 1,
    }


async def test_it_ends_with_what_it_is_for() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    with pytest.raises(KeyError):
        async with in_background(work("a"), work("b")):
            await asyncio.sleep(0)
            raise KeyError
    assert sorted(ended) == ["a", "b"]
