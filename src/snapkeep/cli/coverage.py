"""`snapkeep coverage`: what is protected, since when, and what is not."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.options import DEFAULT, Common

UNCOVERED = 22
"""Exit code when something is unprotected, or its last good recovery point or its proof is older than promised."""
WRONG = ("late", "unproved", "unprotected")
"""What is no good state, by severity of what is promised."""


def coverage(
    *,
    problems: Annotated[bool, Parameter(negative="")] = False,
    system: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Show what is protected, by which policies, how old the last good recovery point and proof are, and what is not.

    Ends with an exit code of its own when something is unprotected, late or unproved, so that a pipeline notices.

    Parameters
    ----------
    problems
        Only what is unprotected, late or unproved.
    system
        Only what lies on this system.
    """
    from snapkeep.cli import output

    rows = [row for row in common.connect().pages("/coverage") if system in {None, row["asset"].partition("/")[0]}]
    wrong = [row for row in rows if row["state"] in WRONG]
    shown: list[dict[str, Any]] = wrong if problems else rows
    if not common.json:
        shown = [
            {
                **row,
                "age": _age(row["age_seconds"]),
                "locked_at": row["locked_until"],
                "proved": _proved(row),
            }
            for row in shown
        ]
    columns = [("asset", "ASSET"), ("state", "STATE"), ("policies", "POLICIES"), ("age", "LAST GOOD"), ("rpo", "RPO"),
               ("proved", "PROVED"), ("next_at", "NEXT"), ("locked_at", "LOCKED UNTIL"),
               ("skipped", "LEFT OUT")]  # fmt: skip
    output.show(common, shown, columns, empty="Nothing of this is there.")
    if not common.json:
        counts = {state: sum(row["state"] == state for row in rows) for state in ("ok", *WRONG)}
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        output.console.print(f"{len(rows)} assets: {told}.", markup=False, soft_wrap=True)
    if wrong:
        raise SystemExit(UNCOVERED)


def _proved(row: dict[str, Any]) -> str | None:
    """Return when it was proved that it can be restored, as people read it."""
    from datetime import UTC, datetime

    def ago(moment: str) -> str | None:
        seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
        return _age(max(int(seconds), 0))

    if row["failed_at"] is not None:
        return f"failed {ago(row['failed_at'])}"
    return ago(row["proved_at"]) if row["proved_at"] is not None else None


def _age(seconds: int | None) -> str | None:
    """Return an age as people read it."""
    if seconds is None:
        return None
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"
