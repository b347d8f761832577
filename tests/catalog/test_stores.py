"""Where SQLite and PostgreSQL could differ: text, order, JSON, times, numbers, several writers at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import ChangeListState
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import NotFound
from snapkeep.model.exports import AccessMode, BackupHost, Export, Location, Protocol
from snapkeep.model.snapshots import Snapshot

NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)
# Each pair or group sorts otherwise by some language than by code points, or is one name by some rule of equality.
NAMES = [
    "a", "B", "b", "A", "ab", "a b", "a-b", "a_b", "a/b", "/a", "a/", "a.b", "a@b", "Z", "z", "ä", "Ä", "a\u0308", "é",
    "e\u0301", "ß", "ss", "SS", "\u0131", "i", "I", "İ", "ö", "o", "漢字", "🎉", "\uffff", "\U0001f600", "~", "%", "a%",
    "a\\", "'", '"', "10", "9", "09", " a", "a ", "", "\t", "a\nb", "\x01", "\x7f", "x" * 255, "ü" * 255, "\u200b",
    "\u202ea",
]  # fmt: skip
UNSTORABLE = ["nul\x00name", "\x00", "not utf-8 \udcff\udcfe", "\ud83d", "\udc89\ud83c"]
TEXTS = [*NAMES, *UNSTORABLE]


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, b"k" * 32) as opened:
        await opened.systems.add("system", "s", "p", {}, {}, "default", NOW)
        yield opened


async def add_operation(catalog: Catalog, operation_id: str, **values: Any) -> None:
    given: dict[str, Any] = {"kind": "discover", "system_id": "system", "system_name": "s", "target": "s"}
    given |= {"request": {}, "requester": "me", "queue": "default", "exclusive": None, "now": NOW, **values}
    await catalog.operations.add(operation_id=operation_id, **given)


def share(name: str, **values: Any) -> Asset:
    return Asset(id=f"id of {name}", kind=AssetKind.SHARE, name=name, **values)


def snapshot(asset: Asset, name: str, **values: Any) -> Snapshot:
    return Snapshot(id=f"id of {name}", asset_id=asset.id, name=name, **values)


async def record(catalog: Catalog, shares: list[Asset], snapshots: list[Snapshot], seen_by: str = "o") -> None:
    await catalog.inventory.record_batch("system", shares, snapshots, seen_by=seen_by)


# -- text --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("names", [NAMES, UNSTORABLE], ids=["usual", "hostile"])
async def test_a_name_comes_back_as_it_was_and_is_found_by_itself_alone(catalog: Catalog, names: list[str]) -> None:
    shares = [share(name, attributes={"path": name}, refusals={Capability.CLONE: name}) for name in names]
    await record(catalog, shares, [snapshot(item, item.name) for item in shares])
    for item in shares:
        found = await catalog.inventory.find_asset("s", item.name)
        assert found.asset == item
        assert (await catalog.inventory.find_snapshot(found, item.name)).snapshot.name == item.name


@pytest.mark.parametrize("name", UNSTORABLE)
async def test_looking_for_what_cannot_be_is_a_clear_no(catalog: Catalog, name: str) -> None:
    await record(catalog, [share("a")], [])
    with pytest.raises(NotFound):
        await catalog.inventory.find_asset("s", name)
    with pytest.raises(NotFound):
        await catalog.inventory.find_asset(name, "a")
    with pytest.raises(NotFound):
        await catalog.inventory.asset(name)
    with pytest.raises(NotFound):
        await catalog.inventory.snapshot(name)
    with pytest.raises(NotFound):
        await catalog.systems.get(name)
    with pytest.raises(NotFound):
        await catalog.operations.get(name)
    assert await catalog.operations.find(system=name) == []


async def test_an_operation_is_found_by_the_beginning_of_its_id_alike(catalog: Catalog) -> None:
    await add_operation(catalog, "abcdef00-0000-4000-8000-000000000000")
    assert (await catalog.operations.get("abcd")).id.startswith("abcdef")
    for beginning in ("abc_", "a%", "abcdef\\", "ABCD"):
        with pytest.raises(NotFound):
            await catalog.operations.get(beginning)


# -- order -------------------------------------------------------------------------------------------------------------
async def pages(catalog: Catalog, limit: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the names of all assets, and of all snapshots with their assets, page by page."""
    after: str | None = ""
    assets, snapshots = [], []
    while after is not None:
        found = await catalog.inventory.assets(paging=Paging(limit=limit, after=after))
        assets += [item.asset.name for item in found]
        after = found.next
    after = ""
    while after is not None:
        rows = await catalog.inventory.snapshots(paging=Paging(limit=limit, after=after))
        snapshots += [(item.asset_name, item.snapshot.name) for item in rows]
        after = rows.next
    return assets, snapshots


async def test_pages_hold_everything_once_and_in_the_order_of_code_points(catalog: Catalog) -> None:
    shares = [share(name) for name in random.Random(1).sample(NAMES, len(NAMES))]
    few = shares[:8]
    await record(catalog, shares, [snapshot(item, f"{item.name}>{other.name}") for item in few for other in few])
    expected = sorted(NAMES), sorted((item.name, f"{item.name}>{other.name}") for item in few for other in few)
    for limit in (1, 7, 1000):
        assert await pages(catalog, limit) == expected


async def test_equal_times_do_not_lose_operations_between_pages(catalog: Catalog) -> None:
    ids = [f"{number:036}" for number in random.Random(1).sample(range(20), 20)]
    for number, operation_id in enumerate(ids):
        await add_operation(catalog, operation_id, now=NOW + timedelta(microseconds=number // 5))
    expected = [operation_id for start in (15, 10, 5, 0) for operation_id in sorted(ids[start : start + 5])[::-1]]
    after: str | None = ""
    seen = []
    while after is not None:
        found = await catalog.operations.find(paging=Paging(limit=3, after=after))
        seen += [item.id for item in found]
        after = found.next
    assert seen == expected


# -- values ------------------------------------------------------------------------------------------------------------
async def test_json_comes_back_as_it_was(catalog: Catalog) -> None:
    request = {
        "texts": TEXTS,
        "keys": {text: number for number, text in enumerate(TEXTS)},
        "order": {"b": 1, "a": 2, "aa": 3},
        "numbers": [0, -1, 2**53 + 1, 2**63, 10**30, 0.1, 1e300, -0.0],
        "empty": [None, True, False, [], {}, ""],
    }
    await add_operation(catalog, "1" * 36, request=request)
    await catalog.operations.update("1" * 36, result=request, error=None)
    found = await catalog.operations.get("1" * 36)
    assert found.request == found.result == request
    assert list(found.request["order"]) == ["b", "a", "aa"]
    assert found.error is None


@pytest.mark.parametrize(
    "time",
    [
        NOW,
        NOW.astimezone(timezone(timedelta(hours=5, minutes=30))),
        datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=-12))),  # an hour that some zones do not have
        datetime(2026, 10, 25, 1, 30, 0, 1, tzinfo=UTC),  # and one that they have twice
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(1883, 1, 1, tzinfo=UTC),
        datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ],
    ids=str,
)
async def test_a_time_is_the_same_moment_in_utc(catalog: Catalog, time: datetime) -> None:
    await record(catalog, [share("a")], [snapshot(share("a"), "x", created_at=time)])
    [found] = await catalog.inventory.snapshots()
    assert found.snapshot.created_at == time
    assert found.snapshot.created_at.utcoffset() == timedelta(0)
    await add_operation(catalog, "1" * 36, now=time)
    assert (await catalog.operations.get("1" * 36)).created_at == time


async def test_times_are_compared_as_moments(catalog: Catalog) -> None:
    await record(catalog, [share("a")], [snapshot(share("a"), "x")])
    [found] = await catalog.inventory.snapshots()
    host = BackupHost(name="h", address="192.0.2.1")
    row = await catalog.exports.opening(found.id, host, AccessMode.READ_ONLY, NOW)
    location = Location(protocol=Protocol.NFS, path="/a\udcff", source="s:/a", options={"ro": ""})
    due = NOW.astimezone(timezone(timedelta(hours=-8)))
    export = Export(
        snapshot_id=found.snapshot.id,
        asset_id="a",
        host=host,
        mode=AccessMode.READ_ONLY,
        locations=(location,),
        refresh_at=due,
    )
    await catalog.exports.active(row, export)
    assert await catalog.exports.due(NOW - timedelta(microseconds=1)) == []
    [item] = await catalog.exports.due(NOW.astimezone(timezone(timedelta(hours=9))))
    assert item.export.refresh_at == NOW


async def test_large_numbers_and_bytes_are_kept(catalog: Catalog) -> None:
    large = 2**63 - 1
    item = snapshot(share("a"), "x", size_bytes=large, reclaimable_bytes=0, created_at=NOW)
    await record(catalog, [share("a")], [item])
    [found] = await catalog.inventory.snapshots()
    assert found.snapshot == item
    await catalog.change_lists.begin("l", asset_id=found.asset_id, base_id=None, new_id=found.id, source="s", now=NOW)
    blocks = [bytes(range(256)) * 4096, b"", b"\x00"]
    for number, data in enumerate(blocks):
        await catalog.change_lists.append("l", data, 2**31 - 1, f"cursor {number}")
    assert [data async for _, data, _ in catalog.change_lists.blocks("l")] == blocks
    assert (await catalog.change_lists.get("l")).entries == 3 * (2**31 - 1)
    await catalog.change_lists.finish("l", ChangeListState.COMPLETE, NOW, large, {"add": large})
    assert (await catalog.change_lists.get("l")).summary == {"add": large}


# -- writing -----------------------------------------------------------------------------------------------------------
async def test_recording_again_changes_what_was_recorded(catalog: Catalog) -> None:
    old = share("a", attributes={"was": "old"})
    await record(catalog, [old], [snapshot(old, "x", owned=True, size_bytes=1)])
    new = Asset(id=old.id, kind=AssetKind.VOLUME, name="renamed", attributes={"is": "new"})
    await record(catalog, [new, new], [snapshot(new, "x", size_bytes=2)], seen_by="other")
    [found] = await catalog.inventory.assets()
    assert found.asset == new
    assert found.snapshots == 1
    [kept] = await catalog.inventory.snapshots()
    assert (kept.snapshot.owned, kept.snapshot.size_bytes, kept.asset_name) == (True, 2, "renamed")


async def test_a_batch_that_fails_leaves_nothing(catalog: Catalog) -> None:
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        await record(catalog, [share("a")], [snapshot(share("not recorded"), "x")])
    assert await catalog.inventory.assets() == []


async def test_removing_a_system_takes_everything_with_it(catalog: Catalog) -> None:
    await record(catalog, [share("a")], [snapshot(share("a"), "x")])
    [found] = await catalog.inventory.snapshots()
    await catalog.exports.opening(found.id, BackupHost(name="h", address="192.0.2.1"), AccessMode.READ_ONLY, NOW)
    await catalog.change_lists.begin(
        "l", asset_id=found.asset_id, base_id=found.id, new_id=found.id, source="s", now=NOW
    )
    await catalog.change_lists.append("l", b"data", 1, "c")
    await add_operation(catalog, "1" * 36)
    await catalog.systems.remove("system")
    assert await catalog.inventory.assets(gone=True) == []
    assert await catalog.inventory.snapshots(gone=True) == []
    assert await catalog.exports.find(ended=True) == []
    assert [item async for item in catalog.change_lists.blocks("l")] == []
    assert (await catalog.operations.get("1" * 36)).system_name == "s"


async def test_several_may_record_the_same_new_things_at_the_same_moment(catalog: Catalog) -> None:
    """As a discovery and the creation of a snapshot do; in whatever order each of them lists them."""
    for turn in range(10):
        shares = [share(f"{turn} {number:03}") for number in range(60)]
        found = [(item, snapshot(item, "x")) for item in shares]
        orders = [found, found[::-1], found[30:] + found[:30], random.Random(turn).sample(found, len(found))]
        await asyncio.gather(*(record(catalog, [a for a, _ in order], [b for _, b in order]) for order in orders))
        assert len(await catalog.inventory.assets("s")) == 60 * (turn + 1)
    assert len(await catalog.inventory.snapshots("s")) == 600


async def test_an_operation_may_be_added_by_several_at_the_same_moment(catalog: Catalog) -> None:
    await asyncio.gather(*(catalog.systems.find() for _ in range(8)))  # so that all connections are there
    await asyncio.gather(*(add_operation(catalog, "1" * 36) for _ in range(8)))
    assert len(await catalog.operations.find()) == 1
