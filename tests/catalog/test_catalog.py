"""The catalog: migrations, secrets, what discovery keeps, paging."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.key_sources import KeyFile
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.secrets import SecretBox
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import Conflict, InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, b"k" * 32) as opened:
        yield opened


async def add_system(catalog: Catalog, name: str = "s") -> str:
    record = await catalog.systems.add(f"id-{name}", name, "p", {"host": "h"}, {"password": "canary-1"}, "default", NOW)
    return record.id


async def add_operation(catalog: Catalog, operation_id: str, kind: str = "discover") -> None:
    await catalog.operations.add(
        operation_id=operation_id,
        kind=kind,
        system_id="id-s",
        system_name="s",
        queue="default",
        exclusive=None,
        target="s",
        request={},
        requester="me",
        now=NOW,
    )


def share(number: int) -> Asset:
    return Asset(id=f"v{number}", kind=AssetKind.SHARE, name=f"share{number:03}", capabilities=frozenset(Capability))


def snapshot(share_number: int, name: str, *, owned: bool = False) -> Snapshot:
    return Snapshot(id=f"{share_number}-{name}", asset_id=f"v{share_number}", name=name, owned=owned, created_at=NOW)


async def test_opening_again_keeps_everything(database_url: str) -> None:
    async with open_catalog(database_url, b"k" * 32) as first:
        await add_system(first)
    async with open_catalog(database_url, b"k" * 32) as second:
        record = await second.systems.get("s")
        assert await second.systems.all_settings(record) == {"host": "h", "password": "canary-1"}
    with pytest.raises(InvalidInput, match="key"):
        async with open_catalog(database_url, b"x" * 32):
            pass


async def test_no_secret_is_stored_as_it_is(tmp_path: Path) -> None:
    async with open_catalog(sqlite_url(tmp_path / "c.sqlite"), b"k" * 32) as catalog:
        await add_system(catalog)
    assert b"canary-1" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


def test_secrets_belong_to_their_record() -> None:
    box = SecretBox(b"k" * 32)
    sealed = box.seal("a", {"password": "p"})
    assert box.open("a", sealed) == {"password": "p"}
    assert box.seal("a", {"password": "p"}) != sealed
    for record, data in (("b", sealed), ("a", sealed[:-1]), ("a", b"\x03" + sealed[1:]), ("a", b""), ("a", b"\x02")):
        with pytest.raises(InvalidInput):
            box.open(record, data)


def test_the_key_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    file = KeyFile(path)
    assert file.make()
    (key,) = file.read()
    assert len(key) == 32
    assert not file.make()
    assert file.read() == (key,)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for wrong in ("not a key!", "", "a2V5", "\n"):
        path.write_text(wrong)
        with pytest.raises(InvalidInput):
            file.read()


async def test_names_of_systems_are_unique(catalog: Catalog) -> None:
    await add_system(catalog)
    with pytest.raises(Conflict):
        await catalog.systems.add("other", "s", "p", {}, {}, "default", NOW)
    with pytest.raises(NotFound) as caught:
        await catalog.systems.get("nope")
    assert "s" in caught.value.next_step


async def test_discovery_updates_marks_and_revives(catalog: Catalog) -> None:
    system = await add_system(catalog)
    inventory = catalog.inventory
    for run in ("d1", "d2", "d3"):
        await add_operation(catalog, run)
    await inventory.record_batch(system, [share(1), share(2)], [snapshot(1, "a")], seen_by="d1", cursor="1")
    later = NOW + timedelta(hours=1)
    for run in ("d1", "d2", "d3"):
        await catalog.operations.update(run, state="succeeded", ended_at=later)
    after = later + timedelta(hours=1)
    await inventory.record_batch(system, [share(1)], [], seen_by="d2")
    missing = await inventory.unseen(system, not_seen_by="d2", before=after)
    assert [[item.reference for item in part] for part in missing] == [["s/share002"], ["s/share001@a"]]
    await inventory.mark_gone([*missing[0], *missing[1]], after)
    assert [item.asset.name for item in await inventory.assets()] == ["share001"]
    await inventory.record_batch(system, [share(2)], [snapshot(1, "a")], seen_by="d3")
    assert len(await inventory.assets()) == 2
    assert len(await inventory.snapshots()) == 1


async def test_what_was_recorded_while_a_discovery_ran_is_not_gone(catalog: Catalog) -> None:
    system = await add_system(catalog)
    await add_operation(catalog, "discovery")
    await add_operation(catalog, "create", "create")
    await catalog.inventory.record_batch(system, [share(1)], [], seen_by="discovery")
    await catalog.inventory.record_batch(system, [], [snapshot(1, "fresh")], seen_by="create")
    assert await catalog.inventory.unseen(system, not_seen_by="discovery", before=NOW) == ([], [])


async def test_ours_stays_ours(catalog: Catalog) -> None:
    system = await add_system(catalog)
    await catalog.inventory.record_batch(system, [share(1)], [snapshot(1, "x", owned=True)], seen_by="o")
    await catalog.inventory.record_batch(system, [], [snapshot(1, "x", owned=False)], seen_by="o")
    [found] = await catalog.inventory.snapshots()
    assert found.snapshot.owned


async def test_pages_hold_everything_once_and_in_order(catalog: Catalog) -> None:
    system = await add_system(catalog)
    shares = [share(number) for number in range(25)]
    snapshots = [snapshot(number, f"s{index}") for number in range(25) for index in range(3)]
    await catalog.inventory.record_batch(system, shares, snapshots, seen_by="o")
    after: str | None = ""
    names, count, seen = [], 0, []
    while after is not None:
        page = await catalog.inventory.assets(paging=Paging(limit=4, after=after))
        names += [item.asset.name for item in page]
        after = page.next
    assert names == sorted(asset.name for asset in shares)
    after = ""
    while after is not None:
        rows = await catalog.inventory.snapshots(paging=Paging(limit=7, after=after))
        count += len(rows)
        after = rows.next
    assert count == 75
    for number in range(9):
        await add_operation(catalog, f"{number:036}")
    after = ""
    while after is not None:
        operations = await catalog.operations.find(paging=Paging(limit=2, after=after))
        seen += [item.id for item in operations]
        after = operations.next
    assert seen == [f"{number:036}" for number in reversed(range(9))]


async def test_an_ended_operation_is_never_rewritten(catalog: Catalog) -> None:
    await add_operation(catalog, "1" * 36)
    await catalog.operations.update("1" * 36, state="succeeded", ended_at=NOW)
    await catalog.operations.update("1" * 36, state="failed", phase="too late")
    assert (await catalog.operations.get("11")).state == "succeeded"
    with pytest.raises(NotFound):
        await catalog.operations.get("1%")


async def test_what_was_deleted_after_a_discovery_saw_it_stays_gone(catalog: Catalog) -> None:
    system = await add_system(catalog)
    began = NOW + timedelta(minutes=1)
    await catalog.inventory.record_batch(system, [share(1)], [snapshot(1, "x"), snapshot(1, "y")], seen_by="o")
    x, y = await catalog.inventory.snapshots()
    await catalog.inventory.mark_gone([x], NOW)
    await catalog.inventory.mark_gone([y], began + timedelta(seconds=5))
    await catalog.inventory.record_batch(system, [], [snapshot(1, "x"), snapshot(1, "y")], seen_by="d", since=began)
    assert [item.snapshot.name for item in await catalog.inventory.snapshots()] == ["x"]
