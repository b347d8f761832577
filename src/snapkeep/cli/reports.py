"""`snapkeep report`: what is covered, what there is and what was done, for people, spreadsheets and programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
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
From = Annotated[str | None, Parameter(name="--from")]
To = Annotated[str | None, Parameter(name="--to")]

_COLUMNS: dict[str, list[tuple[str, str]]] = {
    "coverage": [("asset", "ASSET"), ("state", "STATE"), ("policies", "POLICIES"), ("last_good_at", "LAST GOOD"),
                 ("rpo", "RPO"), ("next_at", "NEXT")],
    "snapshots": [("reference", "SNAPSHOT OR RECOVERY POINT"), ("taken_at", "TAKEN"), ("policy", "POLICY"),
                  ("step", "STEP"), ("kept_by", "KEPT BY")],
    "operations": [("asked_at", "ASKED FOR"), ("kind", "KIND"), ("target", "TARGET"), ("by", "BY"), ("state", "STATE"),
                   ("ended_at", "ENDED"), ("code", "ERROR")],
    "summary": [("part", "PART"), ("name", "WHAT"), ("value", "VALUE"), ("at", "WHEN")],
}  # fmt: skip


@app.command
def coverage(
    *,
    system: str | None = None,
    form: Annotated[Form, Parameter(name="--format")] = "table",
    file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Report of each asset, as of now, under which policies it is, and how old its last good recovery point is.

    Parameters
    ----------
    system
        Only what lies on this system.
    form
        table for people; csv, json or html.
    file
        Write it there instead of to standard output.
    """
    _report(common, "coverage", form, file, system=system)


@app.command
def snapshots(
    *,
    since: From = None,
    until: To = None,
    last: str | None = None,
    system: str | None = None,
    form: Annotated[Form, Parameter(name="--format")] = "table",
    file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Report the snapshots and recovery points that exist: which policy and step made them, and what keeps them.

    Parameters
    ----------
    since
        Only those that were taken from this time on: 2026-11-01, 2026-11-01T18:00+01:00, or 30d or 12h ago.
    until
        Only those that were taken before this time.
    last
        Only those that were taken in the last 7d or 12h.
    system
        Only what is of this system.
    form
        table for people; csv, json or html.
    file
        Write it there instead of to standard output.
    """
    _report(common, "snapshots", form, file, system=system, **_period(since, until, last))


@app.command
def operations(
    *,
    since: From = None,
    until: To = None,
    last: str | None = None,
    system: str | None = None,
    form: Annotated[Form, Parameter(name="--format")] = "table",
    file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Report the operations that were asked for in a period, and how they ended.

    Parameters
    ----------
    since
        From this time on: 2026-11-01, 2026-11-01T18:00+01:00, or 30d or 12h ago; default: 7 days before the end.
    until
        Before this time; default: now.
    last
        In the last 7d or 12h, instead.
    system
        Only those of this system.
    form
        table for people; csv, json or html.
    file
        Write it there instead of to standard output.
    """
    _report(common, "operations", form, file, system=system, **_period(since, until, last))


@app.command
def summary(
    *,
    since: From = None,
    until: To = None,
    last: str | None = None,
    system: str | None = None,
    form: Annotated[Form, Parameter(name="--format")] = "table",
    file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Report on one page how much is protected, how the operations of a period ended, and what needs a look.

    Parameters
    ----------
    since
        From this time on: 2026-11-01, 2026-11-01T18:00+01:00, or 30d or 12h ago; default: 7 days before the end.
    until
        Before this time; default: now.
    last
        In the last 7d or 12h, instead.
    system
        Only what is about this system.
    form
        table for people; csv, json or html.
    file
        Write it there instead of to standard output.
    """
    _report(common, "summary", form, file, system=system, **_period(since, until, last))


# -- inside ------------------------------------------------------------------------------------------------------------
def _period(since: str | None, until: str | None, last: str | None) -> dict[str, str | None]:
    """Return the period as REST takes it. Raises InvalidInput."""
    if last is not None:
        if since is not None or until is not None:
            raise InvalidInput("--last is a period of its own", next_step="Give --last, or --from and --to.")
        if not re.fullmatch(r"\d{1,5}[dh]", last):
            raise InvalidInput(f"{last!r:.40} is no length of time", next_step="Write 7d or 12h.")
        since = last
    times = {"from": since, "to": until}
    return {name: None if time is None else ago(time).isoformat() for name, time in times.items()}


def _report(common: Common, what: str, form: Form, file: Path | None, **asked: str | None) -> None:
    from snapkeep.cli import output
    from snapkeep.cli.diff import whole_file

    wanted: Form = "json" if common.json and form == "table" else form
    given = [(name, value) for name, value in asked.items() if value is not None]
    if wanted == "table":
        if file is not None:
            raise InvalidInput("A table is for people", next_step="Give --format csv, json or html with --file.")
        found = common.connect().request("GET", f"/reports/{what}", params=dict(given))
        output.show(common, found["rows"], _COLUMNS[what], empty="Nothing of this is there.")
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
