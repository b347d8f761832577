"""`snapkeep notification`: channels over which people are told of events, and what was told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.channels import adding, change
from snapkeep.cli.confirm import agree
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part

app = App(name="notification", help="Tell people of failures, approvals and suspicions, by webhook or e-mail.")
app.command(adding)
app.command(change, name="set")

Json = dict[str, Any]
State = Literal["waiting", "sent", "summarised", "given-up"]


# -- channels ----------------------------------------------------------------------------------------------------------
@app.command(name="list")
def list_channels(*, common: Common = DEFAULT) -> None:
    """List the channels: what waits for each, and how it went last."""
    from snapkeep.cli import output

    rows = list(common.connect().pages("/channels"))
    if not common.json:
        rows = [{**row, "leads": _leads(row), "failed": _failed(row)} for row in rows]
    columns = [
        ("name", "NAME"),
        ("kind", "KIND"),
        ("leads", "TO"),
        ("enabled", "ON"),
        ("waiting", "WAITING"),
        ("given_up", "GIVEN UP"),
        ("succeeded_at", "LAST SUCCESS"),
        ("failed", "LAST FAILURE"),
    ]
    output.show(common, rows, columns, empty="There are no channels: add one with `snapkeep notification add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show a channel, without its secrets.

    Parameters
    ----------
    name
        Name of the channel.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/channels/{part(name)}"))


@app.command
def remove(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove a channel, and what waits for it.

    Parameters
    ----------
    name
        Name of the channel.
    yes
        Do not ask, even if something waits for it.
    """
    from snapkeep.cli import output

    rest = common.connect()
    waiting = rest.request("GET", f"/channels/{part(name)}")["waiting"]
    if waiting and not yes:
        agree(f"Remove channel {name}, for which {waiting} events wait?")
    rest.request("DELETE", f"/channels/{part(name)}")
    if common.json:
        output.print_json({"removed": name})
    else:
        output.console.print(f"Removed channel {name}.", markup=False)


@app.command
def test(name: str, /, *, common: Common = DEFAULT) -> None:
    """Send something over a channel now, and show what the other side answers. Exits with 1 when it was not taken.

    Parameters
    ----------
    name
        Name of the channel.
    """
    from snapkeep.cli import output

    with output.busy(common, f"Sending over {name}"):
        sent = common.connect().request("POST", f"/channels/{part(name)}/test")
    if common.json:
        output.print_json(sent)
    else:
        word = "Delivered" if sent["delivered"] else "Not delivered"
        output.console.print(output.printable(f"{word}: {sent['answer']}"), markup=False, soft_wrap=True)
    if not sent["delivered"]:
        raise SystemExit(1)


# -- what was told -----------------------------------------------------------------------------------------------------
@app.command
def deliveries(
    channel: str | None = None,
    /,
    *,
    state: Annotated[tuple[State, ...], Parameter(negative="", consume_multiple=False, show_default=False)] = (),
    event: str | None = None,
    limit: int = 50,
    common: Common = DEFAULT,
) -> None:
    """List what was told, what waits, and what was given up, the newest first.

    Parameters
    ----------
    channel
        Only those of this channel.
    state
        Only those in this state; repeat it.
    event
        Only those of this event.
    limit
        Most deliveries to list.
    """
    from snapkeep.cli import output

    params = {"channel": channel, "state": state, "event": event, "limit": limit}
    rows = common.connect().request("GET", "/deliveries", params=params)["data"]
    if not common.json:
        rows = [{**row, "message": row["data"]["message"]} for row in rows]
    columns = [
        ("created_at", "TIME"),
        ("channel", "CHANNEL"),
        ("event", "EVENT"),
        ("state", "STATE"),
        ("attempts", "TRIES"),
        ("due_at", "NEXT TRY"),
        ("message", "MESSAGE"),
        ("answer", "ANSWER"),
    ]
    output.show(common, rows, columns, empty="Nothing was told.")


@app.command
def events(*, common: Common = DEFAULT) -> None:
    """List the events of which a channel can be told."""
    from snapkeep.cli import output
    from snapkeep.model.notifications import MEANINGS

    rows = [
        {"event": event.value, "meaning": meaning, "details": details} for event, (meaning, details) in MEANINGS.items()
    ]
    output.show(common, rows, [("event", "EVENT"), ("meaning", "MEANING"), ("details", "DETAILS")], empty="")


# -- inside ----------------------------------------------------------------------------------------------------------
def _leads(row: Json) -> str:
    target = row["target"]
    return str(target.get("address") or ", ".join(target.get("to", ())) or "(a reference)")


def _failed(row: Json) -> str | None:
    from snapkeep.cli.output import local_time

    if row["reason"] and not row["enabled"]:
        return str(row["reason"])
    return None if row["failed_at"] is None else f"{local_time(row['failed_at'])} {row['failure']}"
