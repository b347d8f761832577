"""What `snapkeep policy simulate` shows: week by week, and what is there at the end."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from snapkeep.cli.options import Common
from snapkeep.cli.output import console, print_json, print_table, printable, size
from snapkeep.policy.document import Policy
from snapkeep.policy.retention import Zone
from snapkeep.policy.simulation import Day, Kept, Size, simulate

Json = dict[str, Any]
WIDTH = 24
"""Characters of the longest bar."""
MOST_SHOWN = 100
"""Points of one step that are listed for people."""


def simulated(policy: Policy, start: datetime, days: int, whole: int | None, changed_a_day: int) -> Json:
    """Return what a policy does: its weeks, and all that is there at the end, the newest first."""
    weeks: list[Json] = []
    kept: list[Kept] = []
    for number, (day, there) in enumerate(
        simulate(policy, start, days, None if whole is None else Size(whole, changed_a_day)), 1
    ):
        kept = there
        if number % 7 == 0 or number == days:
            weeks.append(_week(day, there))
    zone = Zone(policy.timezone)
    return {
        "policy": policy.name,
        "timezone": policy.timezone,
        "start": start.astimezone(UTC).isoformat(timespec="seconds"),
        "days": days,
        "size_bytes": whole,
        "changed_bytes_a_day": changed_a_day if whole is not None else None,
        "weeks": weeks,
        "steps": [_step(policy, one, zone) for one in kept],
    }


def _week(day: Day, there: list[Kept]) -> Json:
    oldest = min(day.oldest_at.values(), default=None)
    return {
        "until": day.date,
        "counts": day.counts,
        "made": sum(one.made for one in there),
        "deleted": sum(one.deleted for one in there),
        "held_bytes": sum(day.held_bytes.values()) if day.held_bytes else None,
        "oldest": oldest.isoformat() if oldest else None,
    }


def _step(policy: Policy, kept: Kept, zone: Zone) -> Json:
    local = [
        {"taken": datetime.fromtimestamp(moment, policy.zone).isoformat(timespec="minutes"), "reason": reason}
        for moment, reason in kept.reasons(zone)
    ]
    step = kept.step
    return {
        "step": step.name,
        "do": step.do,
        "keep": kept.keep.summary,
        "made": kept.made,
        "deleted": kept.deleted,
        "kept": local,
    }


def show(common: Common, found: list[Json]) -> None:
    """Print simulations, for people or as JSON."""
    if common.json:
        print_json(found)
        return
    for number, one in enumerate(found):
        if number:
            console.print()
        _line(f"{one['policy']}: {one['days']} days from {one['start'][:10]}, {one['timezone']}{_assumed(one)}")
        console.print()
        print_table(_weeks(one))
        console.print()
        _line(f"What is there after {one['days']} days:")
        for step in one["steps"]:
            _show_step(step)


def _assumed(one: Json) -> str:
    if one["size_bytes"] is None:
        return ""
    return f"; one asset of {size(one['size_bytes'])}, of which {size(one['changed_bytes_a_day'])} change a day"


def _weeks(one: Json) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [step["step"] for step in one["steps"]]
    estimated = one["size_bytes"] is not None
    table.add_column("UNTIL")
    for name in names:
        table.add_column(name.upper(), justify="right")
    table.add_column("POINTS")
    if estimated:
        table.add_column("ABOUT", justify="right")
    table.add_column("BACK TO")
    most = max((sum(week["counts"].values()) for week in one["weeks"]), default=0)
    for week in one["weeks"]:
        counts = week["counts"]
        cells = [week["until"], *(str(counts[name]) for name in names), _bar(sum(counts.values()), most)]
        cells += [size(week["held_bytes"] or 0)] if estimated else []
        table.add_row(*map(Text, [*cells, (week["oldest"] or "-")[:10]]))
    return table


def _bar(count: int, most: int) -> str:
    block = "█" if "utf" in (sys.stdout.encoding or "").lower() else "#"
    return block * -(-count * WIDTH // most) if most else ""


def _show_step(step: Json) -> None:
    console.print()
    made = f"{step['made']} made, {step['deleted']} deleted, {len(step['kept'])} kept ({step['keep']})"
    _line(f"{step['step']} ({step['do']}): {made}")
    if not step["kept"]:
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for point in step["kept"][:MOST_SHOWN]:
        table.add_row(Text(f"  {point['taken'].replace('T', ' ')}"), Text(point["reason"]))
    print_table(table)
    if (more := len(step["kept"]) - MOST_SHOWN) > 0:
        _line(f"  and {more} older ones: see --output json")


def _line(text: str) -> None:
    console.print(printable(text), markup=False, soft_wrap=True)
