"""`snapkeep policy plan` and `prune`: what would be deleted, and deleting exactly that."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.model.errors import InvalidInput, VendorError

Json = dict[str, Any]


def plan(name: str, /, *, deleted: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> None:
    """Say of each snapshot and recovery point under a policy whether retention keeps it at present, and why.

    Parameters
    ----------
    name
        Name of the policy.
    deleted
        Only what would be deleted.
    """
    from snapkeep.cli import output

    *items, end = _lines(common, name, deleted)
    if common.json:
        output.print_json({"items": items, **end})
        return
    columns = [("fate", ""), ("reference", "SNAPSHOT OR RECOVERY POINT"), ("taken_at", "TAKEN"), ("step", "STEP"),
               ("reason", "WHY")]  # fmt: skip
    rows = [{**item, "fate": "delete" if item["delete"] else "keep"} for item in items]
    output.show(common, rows, columns, empty="Nothing of this is there.")
    for one in end["too_many"]:
        _line(f"{one['asset']}, {one['step']}: {one['count']} would go, which is more than {one['most']}: only a "
              "person applies that")  # fmt: skip
    _line(f"{end['deleted']} would be deleted, {end['kept']} kept.")
    if end["deleted"]:
        _line(f"To delete exactly these now: snapkeep policy prune {name} --plan {end['hash']}")


def prune(
    name: str,
    /,
    *,
    plan: str | None = None,
    dry_run: DryRun = False,
    common: Common = DEFAULT,
) -> None:
    """Delete exactly what a plan says; refused when it is another one by now.

    Parameters
    ----------
    name
        Name of the policy.
    plan
        The hash of the plan, as `snapkeep policy plan` shows it.
    dry_run
        Only say what would be done.
    """
    from snapkeep.cli import output

    rest = common.connect()
    path = f"/policies/{part(name)}/prune"
    if dry_run:
        would(common, rest, "POST", path, json={"hash": plan or "0" * 64})
        return
    if plan is None:
        raise InvalidInput(
            "Which plan is to be applied?", next_step=f"Give --plan HASH, of `snapkeep policy plan {name}`."
        )
    done = rest.request("POST", path, json={"hash": plan})
    if common.json:
        output.print_json(done)
        return
    for one in done["refused"]:
        _line(f"kept: {one['reference']}: {one['message']}")
    _line(
        f"Deleting {len(done['deleted'])}: see `snapkeep operation list`." if done["deleted"] else "Nothing to delete."
    )


def _lines(common: Common, name: str, deleted: bool) -> list[Json]:
    """Return the items of a plan, and its end."""
    query: list[tuple[str, str | bytes]] = [("deleted", "true")] if deleted else []
    found = [json.loads(line) for line in common.connect().stream(f"/policies/{part(name)}/plan", query)]
    if not found or "hash" not in found[-1]:
        raise VendorError("The plan ended before its end", next_step="Try again.")
    return found


def _line(text: str) -> None:
    from snapkeep.cli import output

    output.console.print(output.printable(text), markup=False, soft_wrap=True)
