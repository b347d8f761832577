"""What policies ask of operations: a small part, so that tests can take a year's worth of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import AssetRecord, ChangeListState, RepositoryRecord
from snapkeep.model.assets import Capability
from snapkeep.model.errors import Conflict
from snapkeep.operations.programs import Programs
from snapkeep.operations.proving import Proving
from snapkeep.operations.requester import Requester


class LeftOut(Exception):
    """There is nothing to do in a run. Its text says why."""


class Asks(Protocol):
    """Each can be asked for again under the same operation id, and raises what the operation itself would."""

    async def snapshot(self, asset: AssetRecord, by: Requester, *, quiesce: bool, programs: Programs) -> str:
        """Take a snapshot of an asset; return its name."""
        ...

    async def back_up(
        self, asset: AssetRecord, repository: str, by: Requester, *, quiesce: bool, programs: Programs
    ) -> None:
        """Back an asset up. Raises Conflict when somebody else's backup of it is under way."""
        ...

    async def diff(self, asset: AssetRecord, by: Requester) -> None:
        """Fetch what changed between the two newest snapshots of ours. Raises LeftOut when that is known already."""
        ...

    async def verify(self, asset: AssetRecord, repository: str, by: Requester, *, data: str) -> None:
        """Verify the newest recovery point. Raises LeftOut when there is none."""
        ...

    async def drill(
        self,
        asset: AssetRecord,
        repository: str,
        by: Requester,
        *,
        files: int | None,
        most_bytes: int,
        check: str | None,
    ) -> None:
        """Drill the restore of a recovery point, chosen at random. Raises LeftOut when there is none."""
        ...

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        ...


class AsksOperations:
    """Asks for operations that are run."""

    def __init__(self, catalog: Catalog, operations: Proving) -> None:
        self._catalog = catalog
        self._operations = operations

    async def snapshot(self, asset: AssetRecord, by: Requester, *, quiesce: bool, programs: Programs) -> str:
        """Take a snapshot of an asset; return its name."""
        held = _held(asset, quiesce)
        operation = await self._operations.create(asset, None, by, quiesce=held, programs=programs)
        return str(operation.request["name"])

    async def back_up(
        self, asset: AssetRecord, repository: str, by: Requester, *, quiesce: bool, programs: Programs
    ) -> None:
        """Back an asset up. Raises Conflict when somebody else's backup of it is under way."""
        place = await self._catalog.repositories.get(repository)
        operation = await self._operations.back_up(
            asset, place, by, full=False, keep_base=False, quiesce=_held(asset, quiesce), programs=programs
        )
        if operation.id != by.operation_id:
            raise Conflict(
                f"The backup {operation.id} of {asset.reference} was under way already",
                next_step="The next one comes when it is due.",
            )

    async def diff(self, asset: AssetRecord, by: Requester) -> None:
        """Fetch what changed between the two newest snapshots of ours. Raises LeftOut when that is known already."""
        if await self._is_asked(by):  # what it has begun is no reason not to
            return
        newest = Paging("-created_at", limit=2)  # those without a time come last
        there = await self._catalog.inventory.snapshots(asset_id=asset.id, owned=True, paging=newest)
        dated = [one for one in there if one.snapshot.created_at is not None]
        if len(dated) < 2:
            raise LeftOut("there are no two snapshots of ours to compare")
        new, base = dated
        lists = await self._catalog.change_lists.find(asset_id=asset.id, base_id=base.id, new_id=new.id)
        if any(one.state is not ChangeListState.INCOMPLETE for one in lists):
            raise LeftOut(f"the changes from {base.snapshot.name} to {new.snapshot.name} are known already")
        await self._operations.diff(asset, base, new, by)

    async def verify(self, asset: AssetRecord, repository: str, by: Requester, *, data: str) -> None:
        """Verify the newest recovery point. Raises LeftOut when there is none."""
        place = await self._with_points(asset, repository, by)
        await self._operations.verify(asset, place, by, data=data)

    async def drill(
        self,
        asset: AssetRecord,
        repository: str,
        by: Requester,
        *,
        files: int | None,
        most_bytes: int,
        check: str | None,
    ) -> None:
        """Drill the restore of a recovery point, chosen at random. Raises LeftOut when there is none."""
        place = await self._with_points(asset, repository, by)
        await self._operations.drill(asset, place, by, files=files, most_bytes=most_bytes, check=check)

    async def _with_points(self, asset: AssetRecord, repository: str, by: Requester) -> RepositoryRecord:
        place = await self._catalog.repositories.get(repository)
        there = await self._catalog.backups.find(asset_id=asset.id, repository_id=place.id, paging=Paging(limit=1))
        if not there and not await self._is_asked(by):
            raise LeftOut(f"there is no recovery point of it in {repository} yet")
        return place

    async def _is_asked(self, by: Requester) -> bool:
        return by.operation_id is not None and await self._catalog.operations.known(by.operation_id) is not None

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        found = await self._catalog.operations.of_ids(operation_ids)
        return {operation.id for operation in found if operation.ended_at is None}


def _held(asset: AssetRecord, quiesce: bool) -> list[AssetRecord]:
    return [asset] if quiesce and Capability.QUIESCE in asset.asset.capabilities else []
