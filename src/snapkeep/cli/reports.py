"""`snapkeep report`: what is covered, what there is and what was done, for people, spreadsheets and programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.moments import ago
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.model.errors import InvalidInput

app = App(name="report", help="Report what is covered, what there is and what was done; have that sent by e-mail.")
app.command("snapkeep.cli.report_schedules:app", name="schedule", help="Have reports sent by e-mail when they are due.")

Json = dict[str, Any]
Form = Literal["table", "csv", "json", "html"]
_COLUMNS: dict[str, list[tuple[str, str]]] = {
    "coverage": [("asset", "ASSET"), ("state", "STATE"), ("policies", "POLICIES"), ("last_good_at", "LAST GOOD"),
                 ("rpo", "RPO"), ("next_at", "NEXT")],
    "snapshots": [("reference", "SNAPSHOT OR RECOVERY POINT"), ("taken_at", "TAKEN"), ("policy", "POLICY"),
                  ("step", "STEP"), ("kept_by", "KEPT BY")],
    "operations": [("asked_at", "ASKED FOR"), ("kind", "KIND"), ("target", "TARGET"), ("by", "BY"), ("state", "STATE"),
                   ("ended_at", "ENDED"), ("code", "ERROR")],
    "summary": [("part", "PART"), ("name", "WHAT"), ("value", "VALUE"), ("at", "WHEN")],
}  # fmt: skip

SHOWN = 1000
"""Rows of a table for people; the rest is counted."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a report is about, and how it is written."""

    system: str | None = None
    """Only what is about this system."""

    form: Annotated[Form, Parameter(name="--format")] = "table"
    """table for people, with the first 1,000 rows; csv, json or html."""

    file: Path | None = None
    """Write it there instead of to standard output."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Period:
    """From when to when."""

    since: Annotated[str | None, Parameter(name="--from")] = None
    """From this time on: 2026-11-01, 2026-11-01T18:00+01:00, 30d ago. Operations, summary: else of 7 days."""

    until: Annotated[str | None, Parameter(name="--to")] = None
    """Before this time; default: now."""

    last: str | None = None
    """In the last 7d or 12h, instead."""

    @property
    def asked(self) -> dict[str, str | None]:
        """The period as REST takes it. Raises InvalidInput."""
        since, until = self.since, self.until
        if self.last is not None:
            if since is not None or until is not None:
                raise InvalidInput("--last is a period of its own", next_step="Give --last, or --from and --to.")
            if not re.fullmatch(r"\d{1,5}[dh]", self.last):
                raise InvalidInput(f"{self.last!r:.40} is no length of time", next_step="Write 7d or 12h.")
            since = self.last
        times = {"from": since, "to": until}
        return {name: None if time is None else ago(time).isoformat() for name, time in times.items()}


SHAPE, PERIOD = Shape(), Period()


@app.command
def coverage(*, shape: Shape = SHAPE, common: Common = DEFAULT) -> None:
    """Report of each asset, as of now, under which policies it is, and how old its last good recovery point is."""
    _report(common, "coverage", shape, {})


@app.command
def snapshots(*, period: Period = PERIOD, shape: Shape = SHAPE, common: Common = DEFAULT) -> None:
    """Report the snapshots and recovery points that exist, or were taken in a period: which policy and step made them,
    and what keeps them."""
    _report(common, "snapshots", shape, period.asked)


@app.command
def operations(*, period: Period = PERIOD, shape: Shape = SHAPE, common: Common = DEFAULT) -> None:
    """Report the operations that were asked for in a period, and how they ended."""
    _report(common, "operations", shape, period.asked)


@app.command
def summary(*, period: Period = PERIOD, shape: Shape = SHAPE, common: Common = DEFAULT) -> None:
    """Report on one page how much is protected, how the operations of a period ended, and what needs a look."""
    _report(common, "summary", shape, period.asked)


# -- inside ------------------------------------------------------------------------------------------------------------
def _report(common: Common, what: str, shape: Shape, period: dict[str, str | None]) -> None:
    from snapkeep.cli import output
    from snapkeep.cli.diff import whole_file

    file = shape.file
    wanted: Form = "json" if common.json and shape.form == "table" else shape.form
    given = [(name, value) for name, value in {"system": shape.system, **period}.items() if value is not None]
    if wanted == "table":
        if file is not None:
            raise InvalidInput("A table is for people", next_step="Give --format csv, json or html with --file.")
        found = common.connect().request("GET", f"/reports/{what}", params={**dict(given), "limit": str(SHOWN)})
        output.show(common, found["rows"], _COLUMNS[what], empty="Nothing of this is there.")
        if found["left_out"]:
            output.console.print(f"{found['left_out']:,} more rows: see them with --format csv.", markup=False)
        for name, values in found["figures"].items():
            told = ", ".join(f"{'-' if value is None else _number(value)} {of}" for of, value in values.items())
            output.console.print(f"{name}: {told or 'none'}", markup=False, soft_wrap=True)
        return
    pieces: Iterator[bytes] = common.connect().content(f"/reports/{what}", [*given, ("format", wanted)])
    if file is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    with whole_file(file) as partial, partial.open("wb") as written:
        for piece in pieces:
            written.write(piece)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
