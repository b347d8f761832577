"""What policies ask of operations: a small part, so that tests can take a year's worth of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Conflict
from snapkeep.operations.asking import Asking
from snapkeep.operations.requester import Requester


class Asks(Protocol):
    """Each can be asked for again under the same operation id, and raises what the operation itself would."""

    async def snapshot(self, asset: AssetRecord, by: Requester, *, quiesce: bool) -> str:
        """Take a snapshot of an asset; return its name."""
        ...

    async def back_up(self, asset: AssetRecord, repository: str, by: Requester, *, quiesce: bool) -> None:
        """Back an asset up. Raises Conflict when somebody else's backup of it is under way."""
        ...

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        ...


class AsksOperations:
    """Asks for operations that are run."""

    def __init__(self, catalog: Catalog, operations: Asking) -> None:
        self._catalog = catalog
        self._operations = operations

    async def snapshot(self, asset: AssetRecord, by: Requester, *, quiesce: bool) -> str:
        """Take a snapshot of an asset; return its name."""
        operation = await self._operations.create(asset, None, by, quiesce=_held(asset, quiesce))
        return str(operation.request["name"])

    async def back_up(self, asset: AssetRecord, repository: str, by: Requester, *, quiesce: bool) -> None:
        """Back an asset up. Raises Conflict when somebody else's backup of it is under way."""
        place = await self._catalog.repositories.get(repository)
        operation = await self._operations.back_up(
            asset, place, by, full=False, keep_base=False, quiesce=_held(asset, quiesce)
        )
        if operation.id != by.operation_id:
            raise Conflict(
                f"The backup {operation.id} of {asset.reference} was under way already",
                next_step="The next one comes when it is due.",
            )

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        found = await self._catalog.operations.of_ids(operation_ids)
        return {operation.id for operation in found if operation.ended_at is None}


def _held(asset: AssetRecord, quiesce: bool) -> list[AssetRecord]:
    return [asset] if quiesce and Capability.QUIESCE in asset.asset.capabilities else []
