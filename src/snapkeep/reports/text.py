"""Values of reports as text."""

from __future__ import annotations

from datetime import UTC, datetime

from snapkeep.reports.report import Value


def plain(text: str) -> str:
    """Return a text as one line of characters: what is none, as in names that are no UTF-8, is there as its escape."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def shown(value: Value) -> str:
    """Return a value as text; a time is in UTC, nothing is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, int | float):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    return plain("; ".join(value))


def left_out_text(left_out: int) -> str:
    """Return what is said of rows that are missing."""
    return f"{left_out} more rows are left out. Get all of it with `snapkeep report`."
