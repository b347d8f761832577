"""A report before it is written: rows that come by and by, and figures that are known at their end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.reports import ReportKind

Value = str | int | float | bool | datetime | Sequence[str] | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is to be about."""

    kind: ReportKind
    at: datetime
    """The time that ages are counted to."""
    since: datetime | None = None
    until: datetime | None = None
    """The period, without its end; None: it has no such bound. `coverage` has no period."""
    system: str | None = None
    """Name of the only system; None: all."""
    visible: Visible = ALL_VISIBLE
    """Where the reader may read reports: nothing else is in it."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Some numbers that belong together, by what they count."""

    name: str
    values: Mapping[str, int | float | None]
    is_plotted: bool = True
    """Whether these are parts that are compared with each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report. Its rows are read once."""

    asked: Asked
    columns: Mapping[str, str]
    """Keys of the rows, and their headings."""
    pages: AsyncIterator[Sequence[Row]]
    """The rows, some hundreds at a time."""
    figures: Callable[[], Awaitable[Sequence[Figures]]]
    """Gives the figures, once all rows were read."""
    figures_are_rows: bool = False
    """Whether a form that has rows only says the figures as rows, in the first three columns."""
