"""What a step of a policy asks of operations; behind a small role, so that tests can take a year's worth of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import AssetRecord, ChangeListState, RepositoryRecord
from snapkeep.model.assets import Capability
from snapkeep.model.drills import BYTES, FILES
from snapkeep.model.errors import Conflict
from snapkeep.model.programs import SECONDS, Programs
from snapkeep.operations.proving import Proving
from snapkeep.operations.requester import Requester
from snapkeep.policy.document import Step


class LeftOut(Exception):
    """There is nothing to do in a run. Its text says why."""


class Asks(Protocol):
    """Asks for what steps do."""

    async def ask(self, step: Step, asset: AssetRecord, by: Requester) -> str | None:
        """Ask for what a step does with an asset; return the name of the snapshot that it takes, None: it takes none.

        It can be asked for again under the same operation id. Raises what the operation itself would, LeftOut when
        there is nothing to do, and Conflict when somebody else's backup of the asset is under way.
        """
        ...

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        ...


class AsksOperations:
    """Asks for operations that are run."""

    def __init__(self, catalog: Catalog, operations: Proving) -> None:
        self._catalog = catalog
        self._operations = operations

    async def ask(self, step: Step, asset: AssetRecord, by: Requester) -> str | None:
        """Ask for what a step does with an asset: see `Asks`."""
        match step.do:
            case "snapshot":
                held, programs = _held(step, asset), _programs(step)
                taking = await self._operations.create(asset, None, by, quiesce=held, programs=programs)
                return str(taking.request["name"])
            case "backup":
                await self._back_up(step, asset, by)
            case "diff":
                await self._diff(asset, by)
            case "verify":
                place = await self._with_points(step, asset, by)
                await self._operations.verify(asset, place, by, data=step.data or "sample")
            case "drill":
                place = await self._with_points(step, asset, by)
                files = None if step.files == "all" else step.files or FILES
                most_bytes, check = step.bytes or BYTES, step.check
                await self._operations.drill(asset, place, by, files=files, most_bytes=most_bytes, check=check)
        return None

    async def unended(self, operation_ids: Collection[str]) -> set[str]:
        """Return those of some operations that have not ended."""
        found = await self._catalog.operations.of_ids(operation_ids)
        return {operation.id for operation in found if operation.ended_at is None}

    async def _back_up(self, step: Step, asset: AssetRecord, by: Requester) -> None:
        place, held = await self._repository(step), _held(step, asset)
        operation = await self._operations.back_up(
            asset, place, by, full=False, keep_base=False, quiesce=held, programs=_programs(step)
        )
        if operation.id != by.operation_id:
            raise Conflict(
                f"The backup {operation.id} of {asset.reference} was under way already",
                next_step="The next one comes when it is due.",
            )

    async def _diff(self, asset: AssetRecord, by: Requester) -> None:
        """Fetch what changed between the two newest snapshots of ours."""
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

    async def _with_points(self, step: Step, asset: AssetRecord, by: Requester) -> RepositoryRecord:
        """Return the repository of a step. Raises LeftOut when there is no recovery point of the asset in it."""
        place = await self._repository(step)
        there = await self._catalog.backups.find(asset_id=asset.id, repository_id=place.id, paging=Paging(limit=1))
        if not there and not await self._is_asked(by):
            raise LeftOut(f"there is no recovery point of it in {place.name} yet")
        return place

    async def _repository(self, step: Step) -> RepositoryRecord:
        return await self._catalog.repositories.get(step.repository or "")

    async def _is_asked(self, by: Requester) -> bool:
        return by.operation_id is not None and await self._catalog.operations.known(by.operation_id) is not None


def _held(step: Step, asset: AssetRecord) -> list[AssetRecord]:
    return [asset] if step.quiesce and Capability.QUIESCE in asset.asset.capabilities else []


def _programs(step: Step) -> Programs:
    return Programs(before=step.before, after=step.after, seconds=step.program_seconds or SECONDS)
