"""`snapkeep report schedule`: reports that are sent by e-mail when they are due."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.model.errors import InvalidInput

app = App(name="schedule", help="Have reports sent by e-mail when they are due.")

Json = dict[str, Any]
Kind = Literal["coverage", "snapshots", "operations", "summary"]


@app.command
def add(
    name: str,
    /,
    *,
    channel: str,
    cron: str,
    report: Kind = "summary",
    form: Annotated[Literal["html", "csv", "json"], Parameter(name="--format")] = "html",
    timezone: str = "UTC",
    last: str = "7d",
    system: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Have a report sent when it is due. It shows all that an administrator sees, to whoever reads the channel.

    Parameters
    ----------
    name
        Name of the schedule.
    channel
        E-mail channel over which it is sent: see `snapkeep notification list`.
    cron
        When: minute, hour, day, month, day of the week, as in "0 7 * * MON".
    report
        Which report.
    form
        In which form it is attached.
    timezone
        Time zone of that, such as Europe/Berlin.
    last
        How long the period is that ends when it is due: 7d or 24h.
    system
        Only what is about this system.
    """
    from snapkeep.cli import output

    body: Json = {"name": name, "report": report, "form": form, "cron": cron, "timezone": timezone}
    body |= {"last_hours": _hours(last), "system": system, "channel": channel}
    added = common.connect().request("POST", "/report-schedules", json=body)
    if common.json:
        output.print_json(added)
        return
    line = f"{name} is sent over {channel}, next at {output.local_time(added['due_at'])}."
    output.console.print(f"{line} Now: snapkeep report schedule send {name}", markup=False, soft_wrap=True)


@app.command(name="list")
def list_schedules(*, common: Common = DEFAULT) -> None:
    """List the reports that are sent, and when they are next due."""
    from snapkeep.cli import output

    columns = [("name", "NAME"), ("report", "REPORT"), ("form", "FORMAT"), ("cron", "CRON"), ("timezone", "TIME ZONE"),
               ("channel", "CHANNEL"), ("due_at", "NEXT"), ("fired_at", "LAST"), ("note", "NOTE")]  # fmt: skip
    rows = common.connect().pages("/report-schedules")
    output.show(common, rows, columns, empty="No report is sent: add one with `snapkeep report schedule add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show one of them.

    Parameters
    ----------
    name
        Name of the schedule.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/report-schedules/{part(name)}"))


@app.command
def remove(name: str, /, *, common: Common = DEFAULT) -> None:
    """Send it no more.

    Parameters
    ----------
    name
        Name of the schedule.
    """
    from snapkeep.cli import output

    common.connect().request("DELETE", f"/report-schedules/{part(name)}")
    if common.json:
        output.print_json({"removed": name})
    else:
        output.console.print(f"{name} is sent no more.", markup=False)


@app.command
def send(name: str, /, *, common: Common = DEFAULT) -> None:
    """Send it now, of the period that ends now. When it is due next does not change.

    Parameters
    ----------
    name
        Name of the schedule.
    """
    from snapkeep.cli import output

    sent = common.connect().request("POST", f"/report-schedules/{part(name)}/send")
    if common.json:
        output.print_json(sent)
    else:
        line = f"{name} is on its way as {sent['delivery'][:8]}: see `snapkeep notification deliveries`."
        output.console.print(line, markup=False, soft_wrap=True)


def _hours(text: str) -> int:
    """Return a length of time in hours. Raises InvalidInput."""
    found = re.fullmatch(r"(\d{1,5})([dh])", text)
    if found is None:
        raise InvalidInput(f"{text!r:.40} is no length of time", next_step="Write 7d or 24h.")
    return int(found[1]) * (24 if found[2] == "d" else 1)
