"""Signals on both stores: once for each operation, told once, what is usual, who sees them, and who acknowledges."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapkeep.catalog.audit_chain import Entry, Outcome
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.signals import DIFFS, SignalRecord
from snapkeep.model.access import Scope
from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import Conflict, InvalidInput, NotFound
from snapkeep.model.notifications import ChannelKind, Event, Notice

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
DAY = timedelta(days=1)
NOTICE = Notice(event=Event.CHANGE_SUSPICIOUS, message="m", system="s", subject="s/a")
ENTRY = Entry(
    actor="signals", actor_kind="operation", source="h", action="hold.place", subject="x", outcome=Outcome.DONE
)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    """Two assets of one system, a repository, and a channel."""
    async with open_catalog(database_url, b"k" * 32) as opened:
        await opened.systems.add("system", "s", "p", {}, {}, "default", NOW)
        shares = [Asset(id=name, kind=AssetKind.SHARE, name=name) for name in "ab"]
        await opened.inventory.record_batch("system", shares, (), seen_by="o")
        place: dict[str, Any] = {"location": "/r", "restic_id": "r" * 64, "secrets": {}, "queue": "default"}
        await opened.repositories.add("repository", name="vault", now=NOW, **place)
        await opened.channels.add(
            "ops", name="ops", kind=ChannelKind.WEBHOOK, settings={}, secrets={"url": "u"}, now=NOW,
            events=[], systems=[], per_minute=20, enabled=True,
        )  # fmt: skip
        yield opened


async def record(catalog: Catalog, name: str, day: int = 0, **values: Any) -> SignalRecord:
    """Record one: of asset a in the repository, usual, unless told otherwise."""
    asset = await catalog.inventory.find_asset("s", values.pop("asset", "a"))
    suspicious = values.pop("suspicious", False)
    verdict = {"suspicious": suspicious, "reasons": ["why"] if suspicious else [], "lists": 20, "scores": {}}
    given: dict[str, Any] = {
        "asset_id": asset.id, "series": "repository", "backup_id": f"b-{name}", "snapshot_id": f"s-{name}",
        "at": NOW + day * DAY, "features": {"of": name}, "verdict": verdict,
    }  # fmt: skip
    return await catalog.signals.record(name, **given | values)


async def test_whoever_comes_again_gets_what_is_stored(catalog: Catalog) -> None:
    first = await record(catalog, "o1", suspicious=True)
    assert await record(catalog, "o1", day=3, features={"of": "another"}) == first
    assert (first.reference, first.repository_name, first.told, first.held) == ("s/a", "vault", False, "")
    assert first.to_result() == {"suspicious": True, "reasons": ["why"], "held": ""}
    assert await catalog.signals.known("o1") == first
    assert await catalog.signals.known("o") is None


async def test_people_are_told_once_however_many_tell(catalog: Catalog) -> None:
    signal = await record(catalog, "o1", suspicious=True)
    telling = [catalog.signals.tell(signal, f"held {number}", NOTICE, [ENTRY]) for number in range(3)]
    found = await asyncio.gather(*telling)
    assert len(await catalog.deliveries.find()) == 1
    assert len(await catalog.audit.find(action="hold.place")) == 1
    assert all(one.told for one in found)
    assert len({one.held for one in found}) == 1


async def test_suspicious_lists_are_not_usual_before_somebody_says_so(catalog: Catalog) -> None:
    for number in range(4):
        await record(catalog, f"o{number}", number, suspicious=number == 2)
    await record(catalog, "diff", 1, series=DIFFS)
    await record(catalog, "of b", 1, asset="b")
    asset_id = (await catalog.inventory.find_asset("s", "a")).id

    async def usual(limit: int = 10) -> list[tuple[str, bool]]:
        found = await catalog.signals.history(asset_id, "repository", before=NOW + 9 * DAY, limit=limit)
        return sorted((features["of"], acknowledged) for features, acknowledged in found)

    assert await usual() == [("o0", False), ("o1", False), ("o3", False)]
    assert await usual(limit=1) == [("o3", False)]
    (waiting,) = await catalog.signals.find(Paging(), suspicious=True, acknowledged=False)
    await catalog.signals.acknowledge(waiting, by="anna", reason="ours")
    assert await usual() == [("o0", False), ("o1", False), ("o2", True), ("o3", False)]
    before = await catalog.signals.history(asset_id, "repository", before=NOW + DAY, limit=10)
    assert [features["of"] for features, _ in before] == ["o0"], "what lies behind it is not its past"


async def test_of_several_lists_up_to_one_snapshot_one_counts(catalog: Catalog) -> None:
    for name in ("o1", "o2", "o3"):
        await record(catalog, name, series=DIFFS, snapshot_id="the same")
    asset_id = (await catalog.inventory.find_asset("s", "a")).id
    assert len(await catalog.signals.history(asset_id, DIFFS, before=NOW + DAY, limit=10)) == 1


async def test_acknowledging_once(catalog: Catalog) -> None:
    harmless, signal = await record(catalog, "o1"), await record(catalog, "o2", suspicious=True)
    with pytest.raises(Conflict, match="not suspicious"):
        await catalog.signals.acknowledge(harmless, by="anna", reason="x")
    done = await catalog.signals.acknowledge(signal, by="anna", reason="ours")
    assert (done.acknowledged_by, done.acknowledged_reason) == ("anna", "ours")
    with pytest.raises(Conflict, match="anna has acknowledged this already"):
        await catalog.signals.acknowledge(signal, by="berta", reason="mine")
    assert (await catalog.signals.get("o2")) == done


async def test_the_first_that_waits(catalog: Catalog) -> None:
    asset_id = (await catalog.inventory.find_asset("s", "a")).id
    assert await catalog.signals.first_open(asset_id, "repository") is None
    for number in (3, 1, 2):
        await record(catalog, f"o{number}", number, suspicious=True)
    await record(catalog, "o0", 0)
    first = await catalog.signals.first_open(asset_id, "repository")
    assert first is not None
    assert first.operation_id == "o1"
    await catalog.signals.acknowledge(first, by="anna", reason="x")
    following = await catalog.signals.first_open(asset_id, "repository")
    assert following is not None
    assert following.operation_id == "o2"
    assert await catalog.signals.first_open(asset_id, DIFFS) is None


async def test_pages_filters_and_what_is_hidden(catalog: Catalog) -> None:
    for number in range(5):
        await record(catalog, f"o{number}", number, asset="ab"[number % 2], suspicious=number > 2)
    page = await catalog.signals.find(Paging(limit=2))
    assert [one.operation_id for one in page] == ["o4", "o3"]
    assert page.next
    assert [one.operation_id for one in await catalog.signals.find(Paging(after=page.next))] == ["o2", "o1", "o0"]
    b = (await catalog.inventory.find_asset("s", "b")).id
    assert [one.operation_id for one in await catalog.signals.find(Paging(), asset_id=b)] == ["o3", "o1"]
    assert len(await catalog.signals.find(Paging(), suspicious=False)) == 3
    assert len(await catalog.signals.find(Paging(), since=NOW + DAY, until=NOW + 3 * DAY)) == 2
    visible = ((Scope.parse(f"asset:{b}"),),)
    assert [one.operation_id for one in await catalog.signals.find(Paging(), visible=visible)] == ["o3", "o1"]
    with pytest.raises(NotFound):
        await catalog.signals.get("o2", visible)
    in_repository = ((Scope.parse("repository:vault"),),)
    assert len(await catalog.signals.find(Paging(), visible=in_repository)) == 5
    with pytest.raises(InvalidInput, match="several"):
        await catalog.signals.get("o")
    for wrong in ("", "x", "%", "_1"):
        with pytest.raises(NotFound):
            await catalog.signals.get(wrong)


async def test_what_lies_long_back_is_forgotten_unless_it_waits(catalog: Catalog) -> None:
    for number in range(4):
        await record(catalog, f"o{number}", number, suspicious=number in {0, 1})
    await catalog.signals.acknowledge(await catalog.signals.get("o1"), by="anna", reason="x")
    await catalog.signals.purge(NOW + 3 * DAY)
    assert [one.operation_id for one in await catalog.signals.find(Paging())] == ["o3", "o0"]
