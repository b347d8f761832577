"""`snapkeep operation`."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.cli.work import Wait, follow

app = App(name="operation", help="List, show, watch, cancel, pause, resume and retry operations.")

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


@app.command(name="list")
def list_operations(
    *,
    system: str | None = None,
    state: Annotated[list[State] | None, Parameter(negative="")] = None,
    limit: int = 30,
    common: Common = DEFAULT,
) -> None:
    """List operations, the newest first.

    Parameters
    ----------
    system
        Only those on this system.
    state
        Only those in this state; repeat it for several.
    limit
        At most as many, 1 to 1000.
    """
    from snapkeep.cli import output

    rest = common.connect()
    rows = rest.request("GET", "/operations", params={"system": system, "state": state, "limit": limit})["data"]
    if not common.json:
        rows = [{**row, "id": row["id"][:8], "error": (row["error"] or {}).get("code")} for row in rows]
    columns = [
        ("id", "ID"),
        ("kind", "KIND"),
        ("target", "TARGET"),
        ("state", "STATE"),
        ("created_at", "ASKED"),
        ("ended_at", "ENDED"),
        ("error", "ERROR"),
    ]
    output.show(common, rows, columns, empty="There are no operations.")


@app.command
def show(operation: str, /, *, common: Common = DEFAULT) -> None:
    """Show an operation.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/operations/{part(operation)}"))


@app.command
def watch(operation: str, /, *, common: Common = DEFAULT) -> None:
    """Follow an operation to its end; exits as the command that started it would have.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("GET", f"/operations/{part(operation)}")
    title = f"{found['kind']} {output.printable(found['target'])}"
    output.show_one(common, follow(common, rest, found, wait=True, title=title))


@app.command
def cancel(operation: str, /, *, common: Common = DEFAULT) -> None:
    """Cancel an operation; what it made on the system is undone.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    """
    _asked(common, operation, "cancel", "Asked operation {} to end.")


@app.command
def pause(operation: str, /, *, common: Common = DEFAULT) -> None:
    """Hold an operation back: one that waits, or a discover or diff that runs.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    """
    _asked(common, operation, "pause", "Asked operation {} to pause.")


@app.command
def resume(operation: str, /, *, common: Common = DEFAULT) -> None:
    """Let a paused operation go on.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    """
    _asked(common, operation, "resume", "Operation {} goes on.")


@app.command
def retry(operation: str, /, *, wait: Wait = True, common: Common = DEFAULT) -> None:
    """Ask once more for what failed or was cancelled, as a new operation.

    Parameters
    ----------
    operation
        Its id, or the beginning of it.
    wait
        Wait for the end; otherwise print the new operation.
    """
    from snapkeep.cli import output

    rest = common.connect()
    again = rest.request("POST", f"/operations/{part(operation)}/retry")
    title = f"{again['kind']} {output.printable(again['target'])}"
    output.show_one(common, follow(common, rest, again, wait=wait, title=title))


def _asked(common: Common, operation: str, verb: str, sentence: str) -> None:
    from snapkeep.cli import output

    found = common.connect().request("POST", f"/operations/{part(operation)}/{verb}")
    if common.json:
        output.print_json(found)
    else:
        output.console.print(sentence.format(found["id"]), markup=False)
