"""The queries of reconcile, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from snapkeep.catalog import reconcile
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.inventory import asset_row_id, snapshot_row_id
from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.reconcile import Comparison, Known
from snapkeep.catalog.records import ChangeListState, ExportState, OperationState
from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.exports import AccessMode, BackupHost
from snapkeep.model.snapshots import Snapshot

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
SHARE = asset_row_id("id-s", "v")


def row(name: str) -> str:
    return snapshot_row_id(SHARE, name)


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    """A system with one share and four snapshots: two of ours, a foreign one, and one of ours that is gone."""
    async with open_catalog(database_url, b"k" * 32) as opened:
        await opened.systems.add("id-s", "s", "p", {}, {}, "default", NOW)
        share = Asset(id="v", kind=AssetKind.SHARE, name="share")
        made = [
            Snapshot(id=name, asset_id="v", name=name, owned=name != "foreign") for name in ("a", "b", "foreign", "z")
        ]
        await opened.inventory.record_batch("id-s", [share], made, seen_by="x")
        await opened.inventory.mark_gone([await opened.inventory.snapshot(row("z"))], NOW)
        yield opened


@pytest.fixture
def comparison(catalog: Catalog) -> Comparison:
    return Comparison(catalog.database)


async def operation(catalog: Catalog, name: str, kind: str, request: Any, **end: Any) -> None:
    await catalog.operations.add(
        operation_id=name,
        kind=kind,
        system_id="id-s",
        system_name="s",
        queue="default",
        exclusive=None,
        target="t",
        request=request,
        requester="me",
        now=NOW,
    )
    if end:
        await catalog.operations.update(name, **ended(end.pop("state"), end.pop("at"), **end))


async def test_in_flight_is_what_is_open_or_ended_since(catalog: Catalog, comparison: Comparison) -> None:
    done = OperationState.SUCCEEDED
    await operation(catalog, "open", "create", {"asset_id": SHARE, "name": "n"})
    await operation(
        catalog, "late", "delete", {"asset_id": SHARE, "snapshot_id": row("a")}, state=done, at=NOW + SECOND
    )
    await operation(
        catalog, "early", "delete", {"asset_id": SHARE, "snapshot_id": row("b")}, state=done, at=NOW - SECOND
    )
    await operation(catalog, "self", "export", {"asset_id": SHARE, "snapshot_id": row("b")})
    found = await comparison.in_flight(["id-s", "other"], besides="self", since=NOW)
    assert found.names == {(SHARE, "n")}
    assert row("a") in found.snapshots
    assert row("b") not in found.snapshots
    assert found.exported == set()
    assert (await comparison.in_flight(["id-s"], besides="", since=NOW)).exported == {SHARE}
    assert not (await comparison.in_flight(["other"], besides="", since=NOW)).names


async def test_promised_is_what_a_create_may_have_left(catalog: Catalog, comparison: Comparison) -> None:
    failed, cancelled = OperationState.FAILED, OperationState.CANCELLED

    async def create(name: str, **end: Any) -> None:
        await operation(catalog, f"create {name}", "create", {"asset_id": SHARE, "name": name}, at=NOW, **end)

    await create("lost", state=failed, error={"details": {"may_exist": "lost"}})
    await create("refused", state=failed, error={"details": {}})
    await create("made", state=OperationState.SUCCEEDED)
    await create("cancelled", state=cancelled, cancel_requested=True)
    await create("cancelled and failed", state=failed, error={"details": {}}, cancel_requested=True)
    expected = {(SHARE, name): NOW for name in ("lost", "cancelled", "cancelled and failed")}
    assert await comparison.promised("id-s") == expected
    assert await comparison.promised("other") == {}


async def test_what_is_known_of_assets_and_snapshots(
    catalog: Catalog, comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "CHUNK", 1)
    assert await comparison.names([SHARE, "nothing"]) == {SHARE: "share"}
    assert await comparison.known([row(name) for name in ("a", "foreign", "z", "nothing")]) == {
        row("a"): Known(owned=True, gone=False),
        row("foreign"): Known(owned=False, gone=False),
        row("z"): Known(owned=True, gone=True),
    }
    assert sorted([one async for page in comparison.ours("id-s") for one in page]) == sorted([row("a"), row("b")])
    await catalog.inventory.mark_gone([await catalog.inventory.asset(SHARE)], NOW)
    assert await comparison.names([SHARE]) == {}


async def test_an_export_ends_unless_it_was_renewed_or_opened_again(catalog: Catalog, comparison: Comparison) -> None:
    host, exports = BackupHost(name="h", address="10.0.0.1"), catalog.exports
    export = await exports.opening(row("a"), host, AccessMode.READ_ONLY, NOW)
    begun = await exports.get(export)
    await exports.active(export, replace(begun.export, refresh_at=NOW))
    assert not await comparison.end_export(begun, NOW)
    first = await exports.get(export)
    await exports.active(export, replace(begun.export, refresh_at=NOW + SECOND))
    assert not await comparison.end_export(first, NOW)
    assert await comparison.end_export(await exports.get(export), NOW)
    assert (await exports.get(export)).state is ExportState.ENDED
    await exports.opening(row("a"), host, AccessMode.READ_ONLY, NOW + SECOND)
    again = await exports.get(export)
    assert not await comparison.end_export(replace(again, created_at=NOW), NOW)
    assert await comparison.end_export(again, NOW)


async def test_a_change_list_is_given_up_when_nobody_works_on_it(catalog: Catalog, comparison: Comparison) -> None:
    lists = catalog.change_lists
    for name in ("open", "over", "late", "forgotten"):
        await lists.begin(name, asset_id=SHARE, base_id=None, new_id=row("a"), source="system", now=NOW)
        await lists.append(name, b"block", 3, "cursor")
    failed = OperationState.FAILED
    await operation(catalog, "open", "diff", {})
    await operation(catalog, "over", "diff", {}, state=failed, at=NOW - SECOND)
    await operation(catalog, "late", "diff", {}, state=failed, at=NOW + SECOND)
    expected = [("forgotten", "s/share"), ("over", "s/share")]
    assert sorted(await comparison.unfinished_change_lists("id-s", since=NOW)) == expected
    assert await comparison.unfinished_change_lists("other", since=NOW) == []
    for name in ("open", "over", "late", "forgotten"):
        given_up = name in {"over", "forgotten"}
        assert await comparison.give_up_change_list(name, NOW, since=NOW) is given_up
        head = await lists.get(name)
        assert head.state is (ChangeListState.INCOMPLETE if given_up else ChangeListState.COMPUTING)
        assert head.entries == len([block async for block in lists.blocks(name)]) * 3 == (0 if given_up else 3)
