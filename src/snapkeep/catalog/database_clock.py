"""The clock of the database: the one that all processes share."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Float, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from snapkeep.catalog.tables import UtcDateTime


class _DatabaseClock(FunctionElement[datetime]):
    """The time of the database, which all processes share."""

    type = UtcDateTime()
    inherit_cache = True


def database_clock(shift: float = 0.0) -> ColumnElement[datetime]:
    """Return an expression for the time (aware, UTC) by the clock of the database, `shift` seconds from now."""
    return _DatabaseClock(literal(shift, Float))


@compiles(_DatabaseClock)
def _clock(element: _DatabaseClock, compiler: Any, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(_DatabaseClock, "sqlite")
def _sqlite_clock(element: _DatabaseClock, compiler: Any, **options: Any) -> str:
    shift = f"({compiler.process(element.clauses, **options)} || ' seconds')"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {shift})"  # as SQLAlchemy stores times: they compare as text
