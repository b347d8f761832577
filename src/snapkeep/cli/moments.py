"""Times as people give them: a date, a date with time, or in days or hours; and sizes."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from snapkeep.model.errors import InvalidInput


def from_now(text: str) -> datetime:
    """Return a time; days or hours are from now on. Raises InvalidInput."""
    return _moment(text, 1)


def ago(text: str) -> datetime:
    """Return a time; days or hours are before now. Raises InvalidInput."""
    return _moment(text, -1)


def _moment(text: str, sign: int) -> datetime:
    try:
        if found := re.fullmatch(r"(\d{1,5})([dh])", text):
            number = sign * int(found[1])
            return datetime.now(UTC) + (timedelta(days=number) if found[2] == "d" else timedelta(hours=number))
        moment = datetime.fromisoformat(text)
        return moment.astimezone() if moment.tzinfo is None else moment
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text!r} is no time", next_step="Write 2030-12-31, 2030-12-31T18:00+01:00, 90d or 12h."
        ) from error


def bytes_of(text: str) -> int:
    """Return a size, in bytes; units are binary. Raises InvalidInput."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?) ?([KMGTP]?)(?:i?B)?", text, re.IGNORECASE)
    if found is None:
        raise InvalidInput(f"{text!r:.40} is no size", next_step="Write 500G, 1T or 1.5T.")
    return int(float(found[1]) * 1024 ** " KMGTP".index(found[2].upper() or " "))
