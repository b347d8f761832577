"""What must be true of the system and the catalog once all operations have ended."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.operations.harness import World

from snapkeep.catalog.records import ChangeListState, ExportState, OperationRecord
from snapkeep.model.errors import NotFound


async def judge(world: World, operations: list[OperationRecord]) -> None:
    """Say whether system and catalog are as these operations, all of which have ended, say."""
    for item in operations:
        code = (item.error or {}).get("code")
        assert item.state != "failed" or code in {"conflict", "not_found", "busy", "base_missing"}, item.error
    await _judge_snapshots(world, operations)
    await _judge_exports(world, operations)
    await _judge_change_lists(world, operations)


async def _judge_snapshots(world: World, operations: list[OperationRecord]) -> None:
    there = Counter(await world.names())
    expected: Counter[str] = Counter(["given-1", "given-2"])
    possible: Counter[str] = Counter()
    deleted: dict[str, str] = {}
    for item in operations:
        if item.kind == "create" and item.state == "succeeded":
            expected[item.request["name"]] += 1
        elif item.kind == "create" and item.error and "may_exist" in item.error["details"]:
            possible[item.request["name"]] += 1
        elif item.kind == "delete" and item.state == "succeeded":
            snapshot = await world.catalog.inventory.snapshot(item.request["snapshot_id"])
            assert snapshot.gone_at is not None
            deleted[snapshot.id] = snapshot.snapshot.name
    expected.subtract(deleted.values())
    for name in there.keys() | expected.keys():
        assert expected[name] <= there[name] <= max(1, expected[name] + possible[name]), (
            name,
            expected[name],
            there[name],
        )
        assert there[name] <= expected[name] + possible[name], (name, expected[name], there[name])
    asset = await world.asset()
    known = {item.snapshot.name for item in await world.catalog.inventory.snapshots(asset_id=asset.id)}
    assert {name for name, count in expected.items() if count} <= known


async def _judge_exports(world: World, operations: list[OperationRecord]) -> None:
    exports = await world.catalog.exports.find(ended=True)
    in_force = {item.export.host.address for item in exports if item.state is not ExportState.ENDED}
    access = [item["client"] for item in (await world.control("GET", "/access"))["access"]]
    assert sorted(access) == sorted(in_force)
    for record in exports:
        done = [item for item in operations if item.state == "succeeded" and _concerns(item, record)]
        last = max(done, key=lambda item: str(item.ended_at), default=None)
        wanted = ExportState.ACTIVE if last is not None and last.kind == "export" else ExportState.ENDED
        assert record.state is wanted, record


async def _judge_change_lists(world: World, operations: list[OperationRecord]) -> None:
    for item in operations:
        if item.kind == "diff":
            try:
                state = (await world.catalog.change_lists.get(item.id)).state
            except NotFound:
                assert item.state != "succeeded", item
            else:
                assert (state is ChangeListState.COMPLETE) == (item.state == "succeeded"), item
                assert state is not ChangeListState.COMPUTING, item


def _concerns(operation: OperationRecord, record: Any) -> bool:
    if operation.kind == "deport":
        return bool(operation.request["export_id"] == record.id)
    return operation.kind == "export" and (
        operation.request["snapshot_id"],
        operation.request["host"]["address"],
    ) == (record.snapshot_id, record.export.host.address)
