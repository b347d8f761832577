"""Makes reports from the catalog, some hundred rows at a time: none of them is ever in memory as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.policy_points import BACKUP, PointRecord
from snapkeep.catalog.records import AssetRecord, OperationRecord, OperationState
from snapkeep.catalog.report_figures import Wanted
from snapkeep.model.access import ALL_VISIBLE
from snapkeep.model.reports import ReportKind
from snapkeep.policy.coverage import Cover, Coverage, coverage, loaded
from snapkeep.policy.retention import words
from snapkeep.reports.report import Asked, Figures, Report, Row

TOGETHER: Final = 100
"""Assets that are read together."""
PAGE: Final = 500
"""Operations that are read together."""
MOST_SHOWN: Final = 50
"""Failures, and assets that are late, that a summary names; the rest is counted."""

_NEEDS_A_LOOK: Final = frozenset({Cover.LATE, Cover.UNPROVED, Cover.UNPROTECTED})
_FOREVER: Final = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def report_of(catalog: Catalog, asked: Asked) -> Report:
    """Return a report; nothing is read until its rows are."""
    make = {
        ReportKind.COVERAGE: _coverage,
        ReportKind.SNAPSHOTS: _snapshots,
        ReportKind.OPERATIONS: _operations,
        ReportKind.SUMMARY: _summary,
    }[asked.kind]
    return make(catalog, asked)


# -- what is covered ---------------------------------------------------------------------------------------------------
_COVERAGE = {
    "asset": "Asset", "kind": "Kind", "state": "State", "policies": "Policies", "last_good": "Last good recovery point",
    "last_good_at": "Of", "age_seconds": "Age in seconds", "rpo": "RPO", "next_at": "Next",
    "locked_until": "Locked until", "skipped": "Left out", "proved_at": "Proved",
}  # fmt: skip


def _coverage(catalog: Catalog, asked: Asked) -> Report:
    counts: Counter[Cover] = Counter()

    async def pages() -> AsyncIterator[Sequence[Row]]:
        async for found in _covered(catalog, asked):
            counts.update(one.cover for one in found)
            yield [_covered_row(one) for one in found]

    async def figures() -> list[Figures]:
        return [_covers(counts)]

    return Report(asked=asked, columns=_COVERAGE, pages=pages(), figures=figures)


async def _covered(catalog: Catalog, asked: Asked) -> AsyncIterator[list[Coverage]]:
    policies = await loaded(catalog)
    async for assets in _assets(catalog, asked, gone=False):
        yield await coverage(catalog, assets, policies, asked.at)


def _covered_row(one: Coverage) -> Row:
    last = one.last_good
    return {
        "asset": one.asset.reference,
        "kind": one.asset.asset.kind.value,
        "state": one.cover.value,
        "policies": list(one.policies),
        "last_good": last.reference if last is not None else None,
        "last_good_at": last.taken if last is not None else None,
        "age_seconds": _seconds(one.age),
        "rpo": words(one.rpo) if one.rpo is not None else None,
        "next_at": one.next_at,
        "locked_until": one.locked_until,
        "skipped": list(one.skipped),
        "proved_at": one.proved.at if one.proved is not None else None,
    }


def _covers(counts: Mapping[Cover, int]) -> Figures:
    return Figures("coverage", {cover.value: counts.get(cover, 0) for cover in Cover})


# -- what there is -----------------------------------------------------------------------------------------------------
_SNAPSHOTS = {
    "kind": "Kind", "reference": "Snapshot or recovery point", "repository": "Repository", "taken_at": "Taken",
    "age_seconds": "Age in seconds", "policy": "Made by policy", "step": "Step", "good": "Good", "kept_by": "Kept by",
    "locked_until": "Locked until",
}  # fmt: skip


def _snapshots(catalog: Catalog, asked: Asked) -> Report:
    counts: Counter[str] = Counter()

    async def pages() -> AsyncIterator[Sequence[Row]]:
        async for assets in _assets(catalog, asked, gone=True):  # recovery points outlive what they were made from
            found = await catalog.policy_points.of([asset.id for asset in assets])
            for asset in assets:
                points = sorted((one for one in found[asset.id] if _lies_in(asked, one.taken)), key=_by_time)
                counts.update(one.kind for one in points)
                if points:
                    yield [_point_row(one, asked.at) for one in points]

    async def figures() -> list[Figures]:
        return [Figures("points", {"snapshots": counts["snapshot"], "recovery points": counts[BACKUP]})]

    return Report(asked=asked, columns=_SNAPSHOTS, pages=pages(), figures=figures)


def _lies_in(asked: Asked, taken: datetime | None) -> bool:
    """Say whether it was taken in the period; of what it is not known when, it was not."""
    if taken is None:
        return asked.since is None and asked.until is None
    return (asked.since is None or taken >= asked.since) and (asked.until is None or taken < asked.until)


def _by_time(point: PointRecord) -> tuple[float, str, str]:
    return point.taken.timestamp() if point.taken is not None else 0.0, point.kind, point.id


def _point_row(point: PointRecord, at: datetime) -> Row:
    return {
        "kind": "recovery point" if point.kind == BACKUP else "snapshot",
        "reference": point.reference,
        "repository": point.repository,
        "taken_at": point.taken,
        "age_seconds": _seconds(at - point.taken) if point.taken is not None else None,
        "policy": point.policy or None,
        "step": point.step or None,
        "good": point.is_good,
        "kept_by": list(point.kept_by),
        "locked_until": point.locked_until,
    }


# -- what was done -----------------------------------------------------------------------------------------------------
_OPERATIONS = {
    "id": "Operation", "kind": "Kind", "target": "Target", "by": "Asked for by", "asked_at": "Asked for",
    "started_at": "Begun", "ended_at": "Ended", "state": "State", "code": "Error",
}  # fmt: skip


def _operations(catalog: Catalog, asked: Asked) -> Report:
    async def pages() -> AsyncIterator[Sequence[Row]]:
        after: str | None = ""
        while after is not None:
            found = await catalog.report_figures.find(_wanted(asked), Paging("created_at", after, PAGE))
            yield [_operation_row(one) for one in found]
            after = found.next

    async def figures() -> list[Figures]:
        return await _done(catalog, _wanted(asked))

    return Report(asked=asked, columns=_OPERATIONS, pages=pages(), figures=figures)


def _operation_row(one: OperationRecord) -> Row:
    return {
        "id": one.id,
        "kind": one.kind,
        "target": one.target,
        "by": one.requester,
        "asked_at": one.created_at,
        "started_at": one.started_at,
        "ended_at": one.ended_at,
        "state": one.state.value,
        "code": _code(one),
    }


async def _done(catalog: Catalog, wanted: Wanted) -> list[Figures]:
    """Return how operations ended.

    The success rate is that of those which succeeded among those which succeeded or failed, from 0 to 1; None: none
    has. Who cancels one says nothing about whether it would have succeeded.
    """
    by_kind: dict[str, int | float | None] = {}
    by_state: Counter[OperationState] = Counter()
    for kind, state, count in await catalog.report_figures.operations(wanted):
        by_kind[f"{kind} {state}"] = count
        by_state[state] += count
    succeeded, failed = by_state[OperationState.SUCCEEDED], by_state[OperationState.FAILED]
    rate = succeeded / (succeeded + failed) if succeeded + failed else None
    added = await catalog.report_figures.bytes_added(wanted)
    return [
        Figures("operations", {state.value: count for state, count in sorted(by_state.items())}),
        Figures("operations by kind", by_kind),
        Figures("backups", {"bytes added": added}, is_plotted=False),
        Figures("success rate", {"of all that succeeded or failed": rate}, is_plotted=False),
    ]


def _wanted(asked: Asked, *, ended: bool = False) -> Wanted:
    since, until = asked.since or _FOREVER[0], asked.until or _FOREVER[1]
    return Wanted(since, until, asked.system, asked.visible, ended)


# -- one page ----------------------------------------------------------------------------------------------------------
_SUMMARY = {"part": "Part", "name": "What", "value": "Value", "at": "When"}


def _summary(catalog: Catalog, asked: Asked) -> Report:
    counts: Counter[Cover] = Counter()
    wanted = _wanted(asked, ended=True)  # so that each end is in one of reports whose periods follow on each other

    async def pages() -> AsyncIterator[Sequence[Row]]:
        shown = 0
        async for found in _covered(catalog, asked):
            counts.update(one.cover for one in found)
            wrong = [one for one in found if one.cover in _NEEDS_A_LOOK][: MOST_SHOWN - shown]
            shown += len(wrong)
            yield [_wrong_row(one) for one in wrong]
        yield [
            {"part": "failed", "name": f"{one.kind} {one.target}", "value": _code(one), "at": one.ended_at}
            for one in await catalog.report_figures.failed(wanted, MOST_SHOWN)
        ]

    async def figures() -> list[Figures]:
        ends = await catalog.report_figures.operations(wanted)
        done = {kind: count for kind, state, count in ends if state is OperationState.SUCCEEDED}
        made = {"snapshots made": done.get("create", 0), "snapshots deleted": done.get("delete", 0)}
        made |= {"recovery points made": done.get("backup", 0)}
        if asked.system is None and asked.visible == ALL_VISIBLE:
            made["recovery points forgotten"] = await catalog.report_figures.forgotten(wanted.since, wanted.until)
        operations, _, added, rate = await _done(catalog, wanted)
        return [_covers(counts), operations, Figures("points", made), added, rate]

    return Report(asked=asked, columns=_SUMMARY, pages=pages(), figures=figures, figures_are_rows=True)


def _wrong_row(one: Coverage) -> Row:
    promise, at = (f"RPO {words(one.rpo)}" if one.rpo is not None else None), None
    if one.cover is Cover.UNPROVED:
        promise = f"proof every {words(one.prove_every)}" if one.prove_every is not None else None
        at = one.proved.at if one.proved is not None else None
    elif one.last_good is not None:
        at = one.last_good.taken
    return {"part": one.cover.value, "name": one.asset.reference, "value": promise, "at": at}


# -- inside ------------------------------------------------------------------------------------------------------------
async def _assets(catalog: Catalog, asked: Asked, *, gone: bool) -> AsyncIterator[Sequence[AssetRecord]]:
    after: str | None = ""
    while after is not None:
        page = await catalog.inventory.assets(
            asked.system, gone=gone, paging=Paging(after=after, limit=TOGETHER), visible=asked.visible
        )
        yield page
        after = page.next


def _seconds(age: timedelta | None) -> int | None:
    return None if age is None else int(age.total_seconds())


def _code(one: OperationRecord) -> str | None:
    code = (one.error or {}).get("code")
    return None if code is None else str(code)
