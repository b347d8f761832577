"""What reports there are, and in which forms: pure."""

from __future__ import annotations

from enum import StrEnum


class ReportKind(StrEnum):
    """What a report is about."""

    COVERAGE = "coverage"
    """Each asset, as of now: under which policies it is, and how old its last good recovery point is."""
    SNAPSHOTS = "snapshots"
    """Each snapshot and recovery point that exists: taken when, by which policy and step, kept by what."""
    OPERATIONS = "operations"
    """Each operation that was asked for in a period, and how it ended."""
    SUMMARY = "summary"
    """One page: how many assets are protected, how operations of a period ended, and what needs a look."""


class ReportForm(StrEnum):
    """How a report is written."""

    CSV = "csv"
    JSON = "json"
    HTML = "html"

    @property
    def media_type(self) -> str:
        """Return its media type (RFC 6838)."""
        return {"csv": "text/csv", "json": "application/json", "html": "text/html"}[self.value]
