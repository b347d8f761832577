"""`snapkeep four-eyes` and `snapkeep approval`: what one person may not do alone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.cli.work import Wait, follow
from snapkeep.model.errors import InvalidInput

app = App(name="approval", help="List, approve and refuse what others ask for; do what was approved.")
four_eyes_app = App(name="four-eyes", help="Let what destroys need the approval of others.")

Json = dict[str, Any]
State = Literal["open", "approved", "refused", "expired", "used"]


# -- what needs one ----------------------------------------------------------------------------------------------------
@four_eyes_app.command(name="show")
def show_four_eyes(*, common: Common = DEFAULT) -> None:
    """Show whether it is on, which actions need approval, and of how many."""
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", "/four-eyes"))


@four_eyes_app.command(name="set")
def set_four_eyes(*actions: str, needed: int | None = None, hours: int | None = None, common: Common = DEFAULT) -> None:
    """Turn it on, or change it: what is not given stays. While it is on, every change of it needs approval itself.

    Parameters
    ----------
    actions
        What needs approval, such as snapshot.delete (see `snapkeep role actions`); at first: all that destroys or lets
        go. Changes of identities, of this and of the cooling time always need it.
    needed
        How many others must approve, 1 to 5; at first: 1.
    hours
        How long a request can be approved and used; at first: 24.
    """
    from snapkeep.cli import output

    rest = common.connect()
    before = rest.request("GET", "/four-eyes")
    given = {"actions": list(actions) or None, "needed": needed, "hours": hours}
    kept = before if before["enabled"] else {"enabled": False}
    body = {**kept, "enabled": True, **{name: value for name, value in given.items() if value is not None}}
    output.show_one(common, rest.request("PUT", "/four-eyes", json=body), before=kept)


@four_eyes_app.command(name="off")
def turn_off(*, common: Common = DEFAULT) -> None:
    """Turn it off. That needs approval itself."""
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("PUT", "/four-eyes", json={"enabled": False}))


# -- approvals ---------------------------------------------------------------------------------------------------------
@app.command(name="list")
def list_approvals(
    *, state: Annotated[list[State] | None, Parameter(negative="")] = None, common: Common = DEFAULT
) -> None:
    """List approvals, the newest first: all for who may decide, otherwise your own.

    Parameters
    ----------
    state
        Only those in this state; repeat it for several.
    """
    from snapkeep.cli import output

    rows = list(common.connect().pages("/approvals", state=state))
    if not common.json:
        rows = [{**row, "id": row["id"][:8], "yes": f"{_yes(row)} of {row['needed']}"} for row in rows]
    columns = [
        ("id", "ID"),
        ("action", "ACTION"),
        ("subject", "OF"),
        ("requester", "ASKED BY"),
        ("state", "STATE"),
        ("yes", "APPROVED BY"),
        ("expires_at", "EXPIRES"),
    ]
    output.show(common, rows, columns, empty="There are no approvals.")


@app.command
def show(approval: str, /, *, common: Common = DEFAULT) -> None:
    """Show exactly what somebody asks for, and how others decided.

    Parameters
    ----------
    approval
        Its id, or the beginning of it.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/approvals/{part(approval)}"), hide=("digest",))


@app.command
def approve(approval: str, /, *, comment: str = "", common: Common = DEFAULT) -> None:
    """Approve what another one asks for. Look at it first: `snapkeep approval show`.

    Parameters
    ----------
    approval
        Its id, or the beginning of it.
    comment
        Why.
    """
    _decide(common, approval, "approve", comment)


@app.command
def refuse(approval: str, /, *, comment: str = "", common: Common = DEFAULT) -> None:
    """Refuse what another one asks for: nobody else can approve it then.

    Parameters
    ----------
    approval
        Its id, or the beginning of it.
    comment
        Why.
    """
    _decide(common, approval, "refuse", comment)


@app.command
def run(approval: str, /, *, wait: Wait = True, common: Common = DEFAULT) -> None:
    """Do what you have asked for and others have approved: send the same request again. That works once.

    Parameters
    ----------
    approval
        Its id, or the beginning of it.
    wait
        Wait for the end of the operation that it starts.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("GET", f"/approvals/{part(approval)}")
    if found["hidden"]:
        raise InvalidInput(
            "What was asked for has a secret in it, which is not kept",
            next_step=f"Repeat the command with --approval {found['id'][:8]}.",
        )
    answer = rest.repeat(found["method"], found["path"], found["query"], found["body"], approval=found["id"])
    if isinstance(answer, dict) and "phase" in answer:
        title = f"{answer['kind']} {output.printable(answer['target'])}"
        answer = follow(common, rest, answer, wait=wait, title=title)
    if isinstance(answer, dict):
        output.show_one(common, answer)
    elif common.json:
        output.print_json({"done": found["id"]})
    else:
        output.console.print(f"Done: {found['action']} {output.printable(found['subject'])}", markup=False)


def _yes(approval: Json) -> int:
    return sum(one["approves"] for one in approval["decisions"])


def _decide(common: Common, approval: str, verb: str, comment: str) -> None:
    from snapkeep.cli import output

    found = common.connect().request("POST", f"/approvals/{part(approval)}/{verb}", json={"comment": comment})
    if common.json:
        output.print_json(found)
        return
    what = f"{found['action']} {found['subject']} of {found['requester']}"
    words = {"approved": "Approved, to be done once", "refused": "Refused"}
    sentence = words.get(found["state"], f"Approved by {_yes(found)} of {found['needed']}")
    output.console.print(output.printable(f"{sentence}: {what}"), markup=False, soft_wrap=True)
