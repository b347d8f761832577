"""Commands that start an operation: wait with progress, or return at once."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.options import Common

Json = dict[str, Any]
Wait = Annotated[bool, Parameter(name="--wait", negative="--no-wait")]
CANCELLED = 17
"""Exit code when the operation was cancelled."""


def follow(common: Common, rest: Any, operation: Json, *, wait: bool, title: str) -> Json:
    """Wait for the operation's end unless told otherwise; return its last reading. Exits when it was cancelled."""
    from snapkeep.cli import output
    from snapkeep.cli.rest import ServerUnavailable

    cools = operation["not_before"] if operation["state"] == "queued" else None
    if not wait or cools:
        if common.json:
            output.print_json(operation)
        elif cools:
            output.console.print(
                f"Many deletions within an hour: {output.printable(operation['target'])} is deleted after "
                f"{output.cell('_at', cools)}. To end that: snapkeep operation cancel {operation['id'][:8]}",
                markup=False,
                soft_wrap=True,
            )
        else:
            output.console.print(
                f"{operation['kind']} {output.printable(operation['target'])}: operation {operation['id']}",
                markup=False,
                soft_wrap=True,
            )
        raise SystemExit(0)
    begin = operation["id"][:8]
    goes_on = (
        f"Operation {begin} goes on in the server. Follow it: snapkeep operation watch {begin}; "
        f"end it: snapkeep operation cancel {begin}"
    )
    try:
        with output.progress(common, title) as seen:
            operation = rest.wait(operation, seen)
    except KeyboardInterrupt:
        output.errors.print(goes_on, markup=False, soft_wrap=True)
        raise
    except ServerUnavailable as error:
        raise type(error)(error.message, next_step=f"{error.next_step} {goes_on}.") from error
    if operation["state"] == "cancelled":
        if common.json:
            output.print_json(operation)
        else:
            output.errors.print(f"Cancelled: operation {operation['id']}", markup=False)
        raise SystemExit(CANCELLED)
    return operation


def done(common: Common, operation: Json, sentence: str) -> None:
    """Say what was reached: the whole operation for programs, a sentence for people."""
    from snapkeep.cli import output

    if common.json:
        output.print_json(operation)
    else:
        for line in sentence.split("\n"):
            output.console.print(output.printable(line), markup=False, soft_wrap=True)
