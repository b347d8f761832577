"""The command `snapkeep reconcile`."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.cli.work import Wait, follow
from snapkeep.model.errors import SnapkeepError

Json = dict[str, Any]
LEFT = 18
"""Exit code when something was found that is not mended."""


def reconcile(
    *systems: str,
    apply: Annotated[bool, Parameter(negative="")] = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Compare the catalog with what systems say about snapshots and exports of ours.

    Changes nothing unless told to. Nothing of others is touched, and no snapshot is deleted. Exits with 18 when
    something was found that is not mended.

    Parameters
    ----------
    systems
        Names of systems; all of them when none is given.
    apply
        Mend what is found: record what is ours, note what is gone, close access that nothing needs.
    dry_run
        Say which systems would be compared and mended, and do nothing; to see what would be mended, leave --apply away.
    wait
        Wait for the end.
    """
    from snapkeep.cli import output
    from snapkeep.cli.rest import ServerUnavailable

    rest = common.connect()
    names = systems or [system["name"] for system in rest.request("GET", "/systems")["data"]]
    if dry_run:
        for name in names:
            would(common, rest, "POST", f"/systems/{part(name)}/reconcile", json={"apply": apply})
        return
    begun = [rest.request("POST", f"/systems/{part(name)}/reconcile", json={"apply": apply}) for name in names]
    if not wait:
        if common.json:
            output.print_json(begun)
            return
        for operation in begun:
            output.console.print(f"reconcile {operation['target']}: operation {operation['id']}", markup=False)
        return
    ended: list[Json] = []
    failure: SnapkeepError | None = None
    for name, operation in zip(names, begun, strict=True):
        try:
            ended.append(follow(common, rest, operation, wait=True, title=f"Reconciling {name}"))
        except ServerUnavailable:
            raise
        except SnapkeepError as error:  # the others are told nevertheless
            failure = failure or error.with_context(name)
    _show(common, ended)
    if failure is not None:
        raise failure
    if any(operation["result"]["left"] for operation in ended):
        raise SystemExit(LEFT)


def _show(common: Common, ended: list[Json]) -> None:
    from snapkeep.cli import output

    if common.json:
        output.print_json(ended)
        return
    rows = [
        {"system": operation["target"], **finding} for operation in ended for finding in operation["result"]["findings"]
    ]
    columns = [("system", "SYSTEM"), ("finding", "FINDING"), ("subject", "SUBJECT"), ("action", "ACTION")]
    if rows:
        output.show(common, rows, [*columns, ("done", "DONE")], empty="")
    elif ended:
        output.console.print("Nothing to reconcile.")
    found = sum(sum(operation["result"]["counts"].values()) for operation in ended)
    if found > len(rows):
        output.errors.print(f"Only the first {len(rows):,} of {found:,} findings are shown.", markup=False)
    if any(operation["result"]["left"] and not operation["result"]["applied"] for operation in ended):
        output.errors.print("Nothing was changed. Mend it: snapkeep reconcile --apply", markup=False)
