"""Showing what would be done, and doing nothing."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.options import Common

DryRun = Annotated[bool, Parameter(name="--dry-run", negative="")]
"""Every command that destroys something has it."""


def would(
    common: Common, rest: Any, method: str, path: str, *, json: Any = None, force: bool = False
) -> dict[str, Any]:
    """Ask what a request would do, print it and return it. Raises what the request itself would raise."""
    from snapkeep.cli import output

    params = {"dry_run": True, **({"force": True} if force else {})}
    found: dict[str, Any] = rest.request(method, path, json=json, params=params)
    if common.json:
        output.print_json(found)
        return found
    for line in (f"Would {found['would']}: nothing was done.", *(f"  {item}" for item in found["affected"])):
        output.console.print(output.printable(line), markup=False, soft_wrap=True)
    return found
