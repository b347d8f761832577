"""Retention over many points, beside sorting them: what a plan costs that is no order.

    python -m benchmarks.retention [--points 1000000] [--zone Europe/Zurich]

The points of one asset, every minute, in no order. The floor is what Python's own sort takes to put the same points
into the order that a plan needs. The goal is at most five times that; `!` marks more. Resident memory is that of the
whole process, before and at the end.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from collections.abc import Callable

from snapkeep.policy.document import Policy
from snapkeep.policy.plan import Digest, Item, Point, plan_asset, refused
from snapkeep.policy.retention import Zone

GOAL = 5.0
START = 1_700_000_000


def made(count: int) -> list[Point]:
    """Return points of every minute, shuffled."""
    points = [Point(f"snapshot:{number:036d}", "asset", START + number * 60, "p", "often") for number in range(count)]
    random.Random(1).shuffle(points)
    return points


def policy(zone: str) -> Policy:
    keep = {"last": 10, "hourly": 48, "daily": 14, "weekly": 8, "monthly": 24, "yearly": 5, "within": "14d"}
    step = {"name": "often", "do": "snapshot", "schedule": "* * * * *", "keep": keep}
    return Policy.model_validate({"name": "p", "assets": [{}], "timezone": zone, "steps": [step]})


def planned(points: list[Point], of: Policy) -> list[Item]:
    """Make a whole plan: what goes and why, where that is too much, and the hash."""
    items = plan_asset(points, of, Zone(of.timezone))
    refused(items, of)
    digest = Digest()
    digest.add(items)
    digest.hexdigest()
    return items


def sorted_points(points: list[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point.taken, point.id), reverse=True)


def seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of something, the median of three."""
    times = []
    for _ in range(3):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return statistics.median(times)


def memory() -> float:
    """Return the most that was resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--zone", default="Europe/Zurich")
    given = parser.parse_args()
    points, of = made(given.points), policy(given.zone)
    before = memory()
    floor = seconds(lambda: sorted_points(points))
    whole = seconds(lambda: planned(points, of))
    ratio = whole / floor
    deleted = sum(item.deleted for item in planned(points, of))
    print(f"{given.points:,} points: {given.points - deleted:,} kept, {deleted:,} deleted")
    mark = " !" if ratio > GOAL else ""
    print(f"sorting {floor:.2f} s, plan with reasons and hash {whole:.2f} s: {ratio:.1f} times{mark}")
    print(f"resident {before:.0f} MiB with the points, {memory():.0f} MiB at the most")


if __name__ == "__main__":
    main()
