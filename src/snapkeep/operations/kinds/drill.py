"""Verify a recovery point, and drill its restore: what is found is on record, and what is wrong fails the operation.

Which recovery point it is goes into the ticket: whoever does it again after a crash takes the same one.
"""

from __future__ import annotations

import random
import uuid
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from snapkeep.backup.check import Data, check_recovery_point
from snapkeep.backup.proof import prove
from snapkeep.catalog.drills import DrillKind, DrillRecord
from snapkeep.catalog.paging import ALL
from snapkeep.catalog.records import BackupRecord
from snapkeep.model.errors import Busy, Conflict, Damaged, NotFound, Timeout, VendorError
from snapkeep.model.programs import MOST_SECONDS
from snapkeep.model.work import Ticket
from snapkeep.operations.kinds.base import Mover
from snapkeep.operations.kinds.recover import Pace, below_share
from snapkeep.operations.programs import run_program
from snapkeep.operations.repositories import Access, Stop, access
from snapkeep.operations.run import Run
from snapkeep.operations.scratch import Room, clear, scratch, scratches

LOCKED_SECONDS = 600.0
"""How long a repository that somebody has locked is waited for."""
LOOK_SECONDS = 2.0

_NAMED = 3
"""So many errors are in a reason."""


class Found(NamedTuple):
    """What was found of a recovery point."""

    files: int
    size: int
    whole: bool
    errors: Sequence[str] = ()
    """The first ones."""
    error_count: int = 0

    @property
    def reason(self) -> str:
        """Why it has not passed; empty: it has."""
        named = "; ".join(self.errors[:_NAMED])
        more = self.error_count - min(len(self.errors), _NAMED)
        return named + (f"; and {more:,} more" if more else "")


class _Prover(Mover):
    cancellable = True

    async def start(self, run: Run) -> Ticket:
        """Choose the recovery point."""
        if run.request["backup_id"] is not None:
            return Ticket({"backup_id": run.request["backup_id"]})
        there = await run.catalog.backups.find(
            asset_id=run.request["asset_id"], repository_id=run.request["repository_id"], paging=ALL
        )
        for backup in self._in_order(run, list(there)):
            if not await run.catalog.protections.is_being_deleted(backup):
                return Ticket({"backup_id": backup.id})
        raise NotFound(
            f"There is no recovery point to look at: {run.operation.target}",
            next_step="Back the asset up into this repository first.",
        )

    @abstractmethod
    def _in_order(self, run: Run, newest_first: list[BackupRecord]) -> Sequence[BackupRecord]:
        """Return the recovery points in the order in which they are wanted."""

    async def _looked(self, run: Run, ticket: Ticket) -> DrillRecord:
        """Look at the recovery point, and put what was found on record. Raises what is no verdict on it."""
        backup = await self._there(run, str(ticket.data["backup_id"]))
        way = await access(run.catalog, await run.catalog.repositories.get(backup.repository_id), run.host)
        begun = run.clock.monotonic()
        await run.report("opening the repository")
        try:
            found = await self._when_free(run, way, backup)
        except Damaged as error:
            found = Found(0, 0, False, (str(error),), 1)
        if found.error_count:
            await self._there(run, backup.id)  # what is gone because somebody forgets it is no damage
        record = DrillRecord(
            operation_id=run.operation.id,
            asset_id=backup.asset_id,
            system_name=backup.system_name,
            asset_name=backup.asset_name,
            repository_id=backup.repository_id,
            repository_name=backup.repository_name,
            backup_id=backup.id,
            kind=self.kind,
            whole=found.whole,
            at=run.clock.now(),
            seconds=round(run.clock.monotonic() - begun, 3),
            files=found.files,
            bytes=found.size,
            passed=not found.error_count,
            reason=found.reason,
        )
        await run.catalog.drills.record(record)
        return record

    async def _when_free(self, run: Run, way: Access, backup: BackupRecord) -> Found:
        """Look at it, once nobody has the repository for himself alone, as who forgets something has. Raises Busy."""
        until = run.clock.monotonic() + LOCKED_SECONDS
        while True:
            try:
                return await self._found(run, way, backup)
            except Busy:
                if run.clock.monotonic() >= until:
                    raise
            await run.report("the repository is locked; waiting for its end")
            await run.pause(LOOK_SECONDS)
            await self._there(run, backup.id)

    @abstractmethod
    async def _found(self, run: Run, way: Access, backup: BackupRecord) -> Found:
        """Look at it. Raises Damaged when it cannot be read."""

    @staticmethod
    async def _there(run: Run, backup_id: str) -> BackupRecord:
        backup = await run.catalog.backups.known(backup_id)
        if backup is None or await run.catalog.protections.is_being_deleted(backup):
            raise Conflict(
                f"The recovery point {backup_id[:8]} was forgotten meanwhile, so nothing is proved",
                next_step="Do it again, with one that is there: see `snapkeep backup list`.",
            )
        return backup

    @staticmethod
    def _told(record: DrillRecord) -> dict[str, Any]:
        """Return what was found. Raises Damaged when it has not passed."""
        told: dict[str, Any] = {
            "backup_id": record.backup_id,
            "repository": record.repository_name,
            "seconds": record.seconds,
            "files": record.files,
            "bytes": record.bytes,
            "whole": record.whole,
            "passed": record.passed,
        }
        if not record.passed:
            raise Damaged(
                f"The recovery point {record.backup_id[:8]} of {record.system_name}/{record.asset_name} in "
                f"{record.repository_name} has not passed: {record.reason}",
                next_step=f"See how far it reaches: `snapkeep repository check {record.repository_name} --data all`. "
                "Look at the storage below it. Back up again with --full, and verify that.",
                **told,
            )
        return told


class VerifyHandler(_Prover):
    """Read the trees of a recovery point, and a sample or all of the content of its files."""

    kind = DrillKind.VERIFY.value
    finishing = "verifying"

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Verify it; what is wrong is on record, and raised."""
        return self._told(await run.catalog.drills.known(run.operation.id) or await self._looked(run, ticket))

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Reading leaves nothing."""

    def _in_order(self, run: Run, newest_first: list[BackupRecord]) -> Sequence[BackupRecord]:
        return newest_first

    async def _found(self, run: Run, way: Access, backup: BackupRecord) -> Found:
        data: Data = run.request["data"]
        pace = Pace("verifying")

        def work(stop: Stop) -> Found:
            with way.at_work(stop) as (repository, check):
                try:
                    result = check_recovery_point(
                        repository, backup.restic_id, data=data, seed=_seed(run), progress=pace.take, stop=check
                    )
                except NotFound as error:
                    raise Damaged(error.message) from error
                return Found(result.files_read, result.bytes_read, data == "all", result.errors, result.error_count)

        return await run.in_thread(work, pace.tell)


class DrillHandler(_Prover):
    """Restore a sample of a recovery point to a scratch directory, compare it, let a program look at it, clean up."""

    kind = DrillKind.DRILL.value
    finishing = "drilling"
    undone_on_failure = True

    def turn_key(self, request: Mapping[str, Any]) -> str | None:
        """Let drills of one asset run one by one: each needs room."""
        return str(uuid.uuid5(uuid.UUID(request["asset_id"]), self.kind))

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Do the drill; what is wrong is on record, and raised. The scratch directory is gone then."""
        record = await run.catalog.drills.known(run.operation.id)
        if record is None:
            async with scratch(run.host, run.operation.id):
                record = await self._looked(run, ticket)
        else:
            await clear(run.host, run.operation.id)
        return self._told(record) | {"cleaned": True}

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Leave nothing of what was restored."""
        await clear(run.host, run.operation.id)

    def _in_order(self, run: Run, newest_first: list[BackupRecord]) -> Sequence[BackupRecord]:
        by_id = sorted(newest_first, key=lambda item: item.id)
        random.Random(_seed(run)).shuffle(by_id)
        return by_id

    async def _found(self, run: Run, way: Access, backup: BackupRecord) -> Found:
        target = scratches(run.host) / run.operation.id / "files"  # nobody else comes there, whatever its own rights
        files: int | None = run.request["files"]
        pace = Pace("restoring")

        def work(stop: Stop) -> Found:
            target.mkdir(mode=0o700, exist_ok=True)
            room = Room(target)

            def go_on() -> None:
                check()
                room.require()

            with way.at_work(stop) as (repository, check):
                try:
                    proof = prove(
                        repository,
                        backup.restic_id,
                        below_share(backup, b""),
                        target,
                        files=files,
                        most_bytes=run.request["bytes"],
                        room=room.bytes,
                        seed=_seed(run),
                        progress=pace.take,
                        stop=go_on,
                    )
                except NotFound as error:
                    raise Damaged(error.message) from error
                return Found(proof.files, proof.size, files is None, proof.errors, proof.error_count)

        found = await run.in_thread(work, pace.tell)
        name: str | None = run.request["check"]
        if found.error_count or name is None:
            return found
        await run.report(f"the program {name} looks at it")
        said = await _checked(run, name, target, backup)
        return found._replace(errors=(said,), error_count=1) if said else found


async def _checked(run: Run, name: str, target: Path, backup: BackupRecord) -> str:
    """Let a program look at what was restored; return what is wrong. Raises what keeps it from running."""
    environment = {
        "SNAPKEEP_DIRECTORY": str(target),
        "SNAPKEEP_ASSET": f"{backup.system_name}/{backup.asset_name}",
        "SNAPKEEP_BACKUP": backup.id,
        "SNAPKEEP_REPOSITORY": backup.repository_name,
    }
    try:
        await run_program(run, name, str(target), environment=environment, seconds=MOST_SECONDS)
    except (VendorError, Timeout) as error:
        if error.details.get("program") != name:
            raise
        return str(error)
    return ""


def _seed(run: Run) -> int:
    return uuid.UUID(run.operation.id).int
