"""`snapkeep export`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common

app = App(name="export", help="List what is open to backup hosts.")


@app.command(name="list")
def list_exports(*, ended: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> None:
    """List the exports that are in force, on all systems.

    Parameters
    ----------
    ended
        Also those that have ended.
    """
    from snapkeep.cli import output

    rows = common.connect().request("GET", "/exports", params={"ended": ended})["data"]
    columns = [
        ("snapshot", "SNAPSHOT"),
        ("host", "HOST"),
        ("address", "ADDRESS"),
        ("mode", "MODE"),
        ("state", "STATE"),
        ("expires_at", "EXPIRES"),
        *([("ended_at", "ENDED")] if ended else []),
    ]
    output.show(common, rows, columns, empty="Nothing is exported.")
