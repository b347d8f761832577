"""What is told of the ends of operations, in the transaction that ends them."""

from __future__ import annotations

from typing import Any

import pytest
from tests.notifications.conftest import CHANNEL_NOW

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.operation_lists import REPOSITORY
from snapkeep.catalog.records import OperationState
from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import Damaged, VendorError
from snapkeep.model.notifications import ChannelKind

ERROR = VendorError("It was refused", vendor_code="E1", vendor_message="no space").to_dict()


async def listen(catalog: Catalog) -> None:
    await catalog.channels.add(
        "ops", name="ops", kind=ChannelKind.WEBHOOK, settings={}, secrets={"url": "u"}, now=CHANNEL_NOW,
        events=[], systems=[], per_minute=20, enabled=True,
    )  # fmt: skip


async def add(catalog: Catalog, operation_id: str, system_name: str = "s", **more: Any) -> None:
    await catalog.operations.add(
        operation_id=operation_id, kind="backup", system_id="x", system_name=system_name, queue="default",
        target="s/a", request={}, requester="anna", exclusive=None, now=CHANNEL_NOW, **more,
    )  # fmt: skip


async def told(catalog: Catalog) -> list[DeliveryRecord]:
    return list(await catalog.deliveries.find())


async def test_a_failure_and_a_backup_in_part_are_told_and_nothing_else(catalog: Catalog) -> None:
    await listen(catalog)
    for number, values in enumerate(
        [
            ended(OperationState.SUCCEEDED, CHANNEL_NOW, result={"partial": False}),
            ended(OperationState.CANCELLED, CHANNEL_NOW),
            ended(OperationState.SUCCEEDED, CHANNEL_NOW, result={"partial": True, "backup_id": "b"}),
            ended(OperationState.FAILED, CHANNEL_NOW, error=ERROR),
        ]
    ):
        await add(catalog, f"o{number}")
        await catalog.operations.update(f"o{number}", **values)
        await catalog.operations.update(f"o{number}", **values)  # it has ended: nothing is told twice
    found = {one.event: one for one in await told(catalog)}
    assert set(found) == {"backup.partial", "operation.failed"}
    assert len(await told(catalog)) == 2
    assert found["backup.partial"].data["details"] == {"operation": "o2", "backup": "b"}
    failed = found["operation.failed"]
    assert failed.system == "s"
    assert failed.data["message"] == "backup s/a failed: It was refused (E1 no space)"
    assert failed.data["details"] == {"operation": "o3", "kind": "backup", "code": "vendor_error"}


async def test_what_works_on_a_repository_is_told_by_the_system_of_its_asset(catalog: Catalog) -> None:
    await listen(catalog)
    await catalog.systems.add("system", "files1", "p", {}, {}, "default", CHANNEL_NOW)
    share = Asset(id="v", kind=AssetKind.SHARE, name="a")
    await catalog.inventory.record_batch("system", [share], [], seen_by="o")
    (asset,) = await catalog.inventory.assets()
    await add(catalog, "of-asset", f"{REPOSITORY}vault", asset_id=asset.id)
    await add(catalog, "of-nothing", f"{REPOSITORY}vault")
    for operation in ("of-asset", "of-nothing"):
        await catalog.operations.update(operation, **ended(OperationState.FAILED, CHANNEL_NOW, error=ERROR))
    assert {one.data["details"]["operation"]: one.system for one in await told(catalog)} == {
        "of-asset": "files1",
        "of-nothing": None,
    }


async def test_without_its_record_an_end_is_neither_noted_nor_told(catalog: Catalog) -> None:
    await listen(catalog)
    await add(catalog, "o1")
    async with catalog.database.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM notes WHERE key = 'audit-head'")
    async with catalog.database.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO notes (key, value) VALUES ('audit-head', "
            + ("x'00')" if not catalog.database.is_postgresql else "'\\x00')")
        )
    with pytest.raises(Damaged):
        await catalog.operations.update("o1", **ended(OperationState.FAILED, CHANNEL_NOW, error=ERROR))
    assert (await catalog.operations.get("o1")).state is OperationState.QUEUED
    assert await told(catalog) == []
