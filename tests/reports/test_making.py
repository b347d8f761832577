"""What is in a report is what the catalog has, on both stores, and nothing of what its reader may not see."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from sqlalchemy import update
from tests.policy.test_pruning import backed_up, catalog, made
from tests.policy.world import HOUR, HOURLY, START, add_assets, add_policy

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.tables import operations
from snapkeep.model.access import EVERYWHERE, Scope, Visible
from snapkeep.model.reports import ReportForm, ReportKind
from snapkeep.reports import making
from snapkeep.reports.making import report_of
from snapkeep.reports.report import Asked
from snapkeep.reports.writing import Written

__all__ = ["catalog"]
Json = dict[str, Any]
NOW = START + 5 * HOUR


async def read(of: Catalog, kind: ReportKind, **asked: Any) -> Json:
    written = Written(report_of(of, Asked(kind, NOW, **asked)), ReportForm.JSON)
    return dict(json.loads(b"".join([piece async for piece in written.pieces()])))


def only(*scopes: str) -> Visible:
    return ((Scope.parse(scopes[0]), *map(Scope.parse, scopes[1:])),)


async def operation(
    catalog: Catalog, number: int, kind: str, state: str, *, system: str = "files1", **values: Any
) -> None:
    """One that was asked for in the hour of a number; `ended`: half an hour later."""
    at = START + number * HOUR
    ended = values.pop("ended", at + HOUR / 2)
    await catalog.operations.add(
        operation_id=f"o{number}-{kind}-{system}", kind=kind, system_id=f"id-{system}", system_name=system, queue="q",
        target=f"{system}/{number}", request={}, requester="anna", exclusive=None, now=at,
    )  # fmt: skip
    async with catalog.database.begin() as connection:
        mine = operations.c.id == f"o{number}-{kind}-{system}"
        await connection.execute(update(operations).where(mine).values(state=state, ended_at=ended, **values))


async def test_coverage_of_more_than_one_page(catalog: Catalog) -> None:
    await add_assets(catalog, count=making.TOGETHER + 1)
    await add_assets(catalog, "other", 1)
    await add_policy(catalog, "p", HOURLY, rpo="2h", assets=[{"system": "files1"}])
    await made(catalog, "a", 4)
    told = await read(catalog, ReportKind.COVERAGE)
    rows = {row["asset"]: row for row in told["rows"]}
    assert len(rows) == len(told["rows"]) == making.TOGETHER + 2
    assert (rows["files1/0"]["state"], rows["files1/0"]["age_seconds"]) == ("ok", 3600)
    assert rows["files1/0"]["last_good"] == "files1/0@a"
    counts = told["figures"]["coverage"]
    assert {name: count for name, count in counts.items() if count} == {
        "ok": 1, "late": making.TOGETHER, "unprotected": 1,
    }  # fmt: skip
    of_other = await read(catalog, ReportKind.COVERAGE, system="other")
    assert [row["asset"] for row in of_other["rows"]] == ["other/0"]
    hidden = await read(catalog, ReportKind.COVERAGE, visible=only("system:other"))
    assert [row["asset"] for row in hidden["rows"]] == ["other/0"]
    assert sum(hidden["figures"]["coverage"].values()) == 1, "nothing of what is hidden is counted"
    assert (await read(catalog, ReportKind.COVERAGE, visible=()))["rows"] == []


async def test_snapshots_say_who_made_them_and_what_keeps_them(catalog: Catalog) -> None:
    await made(catalog, "theirs", 0, policy="")
    base = await made(catalog, "a", 1)
    await backed_up(catalog, "b", 1, base)
    await add_assets(catalog, "other", 1)
    told = await read(catalog, ReportKind.SNAPSHOTS)
    shown = [(row["kind"], row["reference"], row["policy"], row["step"]) for row in told["rows"]]
    assert shown == [
        ("snapshot", "files1/0@theirs", None, None),
        ("recovery point", "files1/0@a in vault", "p", "nightly"),
        ("snapshot", "files1/0@a", "p", "hourly"),
    ]
    assert told["rows"][2]["kept_by"] == ["base of the next incremental backup into vault"]
    assert told["rows"][0]["age_seconds"] == 5 * 3600
    assert told["figures"]["points"] == {"snapshots": 2, "recovery points": 1}
    some = await read(catalog, ReportKind.SNAPSHOTS, since=START, until=START + HOUR)
    assert [row["reference"] for row in some["rows"]] == ["files1/0@theirs"], "the end is not in it"
    assert (await read(catalog, ReportKind.SNAPSHOTS, visible=only("system:other")))["rows"] == []
    assert len((await read(catalog, ReportKind.SNAPSHOTS, visible=only("system:files1")))["rows"]) == 3
    asset = (await catalog.inventory.assets("files1"))[0]
    await catalog.inventory.mark_gone([asset], NOW)
    assert len((await read(catalog, ReportKind.SNAPSHOTS))["rows"]) == 3, "what was made of it is still there"


async def test_operations_of_a_period(catalog: Catalog) -> None:
    added = {"counts": {"bytes_added": 3 * 2**40}}
    for number in range(4):
        await operation(catalog, number, "backup", "succeeded", result=added)
    await operation(catalog, 1, "create", "failed", error={"code": "unavailable", "message": "m"})
    await operation(catalog, 2, "create", "cancelled")
    await operation(catalog, 2, "create", "succeeded", system="other")
    period = {"since": START + HOUR, "until": START + 3 * HOUR}
    told = await read(catalog, ReportKind.OPERATIONS, **period)
    assert [(row["kind"], row["target"], row["state"], row["code"]) for row in told["rows"]] == [
        ("backup", "files1/1", "succeeded", None),
        ("create", "files1/1", "failed", "unavailable"),
        ("backup", "files1/2", "succeeded", None),
        ("create", "files1/2", "cancelled", None),
        ("create", "other/2", "succeeded", None),
    ]
    assert told["rows"][0]["ended_at"] == "2027-06-01T01:30:30Z"
    assert told["rows"][0]["by"] == "anna"
    figures = told["figures"]
    assert figures["operations"] == {"cancelled": 1, "failed": 1, "succeeded": 3}
    assert figures["operations by kind"]["backup succeeded"] == 2
    assert figures["backups"] == {"bytes added": 2 * 3 * 2**40}
    assert list(figures["success rate"].values()) == [0.75]
    scoped = await read(catalog, ReportKind.OPERATIONS, **period, visible=only("system:other"))
    assert [row["target"] for row in scoped["rows"]] == ["other/2"]
    assert scoped["figures"]["operations"] == {"succeeded": 1}
    assert scoped["figures"]["backups"] == {"bytes added": 0}
    one = await read(catalog, ReportKind.OPERATIONS, **period, system="other")
    assert [row["target"] for row in one["rows"]] == ["other/2"]
    nothing = await read(catalog, ReportKind.OPERATIONS, since=NOW, until=NOW + HOUR)
    assert (nothing["rows"], list(nothing["figures"]["success rate"].values())) == ([], [None])


async def test_what_works_on_a_repository_is_about_the_system_of_its_asset(catalog: Catalog) -> None:
    await add_assets(catalog, "other", 1)
    mine = (await catalog.inventory.assets("files1"))[0].id
    failed: Json = {"system": "repository:vault", "error": {"code": "damaged", "message": "m"}}
    await operation(catalog, 0, "verify", "failed", asset_id=mine, **failed)
    await operation(catalog, 1, "drill", "succeeded", system="repository:vault", asset_id=mine)
    await operation(catalog, 2, "check", "failed", **failed)
    period = {"since": START, "until": NOW}
    for kind in (ReportKind.OPERATIONS, ReportKind.SUMMARY):
        told = await read(catalog, kind, system="files1", **period)
        assert told["figures"]["operations"] == {"failed": 1, "succeeded": 1}
        assert (await read(catalog, kind, system="other", **period))["figures"]["operations"] == {}
        assert (await read(catalog, kind, **period))["figures"]["operations"] == {"failed": 2, "succeeded": 1}
    listed = await read(catalog, ReportKind.OPERATIONS, system="files1", **period)
    assert [(row["kind"], row["code"]) for row in listed["rows"]] == [("verify", "damaged"), ("drill", None)]
    named = await read(catalog, ReportKind.SUMMARY, system="files1", **period)
    assert [row["name"] for row in named["rows"] if row["part"] == "failed"] == ["verify repository:vault/0"]


async def test_operations_of_more_than_one_page(catalog: Catalog, monkeypatch: Any) -> None:
    monkeypatch.setattr(making, "PAGE", 2)
    for number in range(5):
        await operation(catalog, number, "create", "succeeded")
    told = await read(catalog, ReportKind.OPERATIONS, since=START, until=NOW)
    assert [row["target"] for row in told["rows"]] == [f"files1/{number}" for number in range(5)]


async def test_a_summary_names_what_needs_a_look(catalog: Catalog, monkeypatch: Any) -> None:
    monkeypatch.setattr(making, "MOST_SHOWN", 2)
    await add_assets(catalog, count=4)
    await add_policy(catalog, "p", HOURLY, rpo="2h", assets=[{"system": "files1"}])
    await made(catalog, "a", 4)
    for number in range(3):
        await operation(catalog, number, "backup", "failed", error={"code": "no_space", "message": "m"})
    await operation(catalog, 3, "create", "succeeded")
    await operation(catalog, 3, "delete", "succeeded")
    told = await read(catalog, ReportKind.SUMMARY, since=START, until=NOW)
    assert [(row["part"], row["name"], row["value"]) for row in told["rows"]] == [
        ("late", "files1/1", "RPO 2h"), ("late", "files1/2", "RPO 2h"),
        ("failed", "backup files1/2", "no_space"), ("failed", "backup files1/1", "no_space"),
    ]  # fmt: skip
    figures = told["figures"]
    assert (figures["coverage"]["late"], figures["coverage"]["ok"]) == (3, 1), "all are counted"
    assert figures["operations"] == {"failed": 3, "succeeded": 2}
    assert figures["points"] == {
        "snapshots made": 1, "snapshots deleted": 1, "recovery points made": 0, "recovery points forgotten": 0,
    }  # fmt: skip
    hidden = await read(catalog, ReportKind.SUMMARY, since=START, until=NOW, visible=only("system:other"))
    assert hidden["rows"] == []
    assert hidden["figures"]["operations"] == {}
    assert "recovery points forgotten" not in hidden["figures"]["points"], "that is not known by system"
    everything = await read(catalog, ReportKind.SUMMARY, since=START, until=NOW, visible=((EVERYWHERE,),))
    assert everything["figures"] == figures


async def test_an_end_counts_in_the_summary_of_the_time_when_it_came(catalog: Catalog) -> None:
    first, second = ({"since": START + n * HOUR, "until": START + (n + 1) * HOUR} for n in (0, 1))
    await operation(catalog, 0, "backup", "running", ended=None)
    told = await read(catalog, ReportKind.SUMMARY, **first)
    assert (told["figures"]["operations"], list(told["figures"]["success rate"].values())) == ({}, [None])
    assert (await read(catalog, ReportKind.OPERATIONS, **first))["figures"]["operations"] == {"running": 1}
    ended = START + 2 * HOUR - HOUR / 60
    async with catalog.database.begin() as connection:
        failed = {"state": "failed", "ended_at": ended, "error": {"code": "timeout", "message": "m"}}
        await connection.execute(update(operations).values(**failed))
    await operation(catalog, 1, "create", "succeeded", ended=START + 2 * HOUR)  # the next one's
    told = await read(catalog, ReportKind.SUMMARY, **second)
    assert [(row["name"], row["value"], row["at"]) for row in told["rows"] if row["part"] == "failed"] == [
        ("backup files1/0", "timeout", "2027-06-01T01:59:30Z")
    ]
    assert told["figures"]["operations"] == {"failed": 1}
    assert told["figures"]["points"]["snapshots made"] == 0
    assert list(told["figures"]["success rate"].values()) == [0.0]
    again = await read(catalog, ReportKind.SUMMARY, **first)
    assert (again["figures"]["operations"], [row for row in again["rows"] if row["part"] == "failed"]) == ({}, [])


async def test_each_form_of_each_report_is_written(catalog: Catalog) -> None:
    await add_policy(catalog, "p", HOURLY, rpo="2h")
    await made(catalog, "=a", 0)
    await operation(catalog, 0, "create", "succeeded")
    for kind in ReportKind:
        for form in ReportForm:
            written = Written(report_of(catalog, Asked(kind, NOW, START - timedelta(1), NOW)), form)
            assert b"files1/0" in b"".join([piece async for piece in written.pieces()]), (kind, form)
