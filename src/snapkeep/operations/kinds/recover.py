"""Restore files from a recovery point, and check repositories."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from snapkeep.backup.check import check_repository
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.request import Progress
from snapkeep.backup.restore import RestoreResult, make_target, restore
from snapkeep.catalog.records import BackupRecord
from snapkeep.model.errors import Incomplete
from snapkeep.model.exports import AccessMode
from snapkeep.model.work import Ticket
from snapkeep.operations.host import Host
from snapkeep.operations.kinds.base import Mover, export_label, tidy
from snapkeep.operations.mounts import mounted
from snapkeep.operations.repositories import Stop, access, share_path
from snapkeep.operations.run import Run, Told
from snapkeep.operations.text import size

MOST_NAMED = 100
"""So many problems are named in a result."""

_MARK_SECONDS = 30 * 86400.0  # longer than any restore


def below_share(backup: BackupRecord, path: bytes) -> bytes:
    """Return where a path of the asset lies in a recovery point, from its top."""
    return b"/".join(part for part in (os.fsencode(share_path(backup)).strip(b"/"), path.strip(b"/")) if part)


@dataclass(slots=True)
class Pace:
    """How fast it goes, for people."""

    verb: str
    seen: Progress = field(default_factory=lambda: Progress(0, 0, 0, ""))
    since: float = field(default_factory=time.monotonic)

    def take(self, progress: Progress) -> None:
        """Note how far it is."""
        self.seen = progress

    def tell(self) -> Told:
        """Return phase and progress: files, bytes, rate."""
        rate = self.seen.bytes_read / max(time.monotonic() - self.since, 0.001)
        return f"{self.verb}: {self.seen.files:,} files, {size(self.seen.bytes_read)}, {size(rate)}/s", None


def _begun(host: Host, operation_id: str, target: Path) -> bool:
    """Say whether an earlier run has begun to fill the target, else see that it is empty. Raises Conflict.

    A mark on this host tells it: that there was an earlier run does not say that it came so far.
    """
    mark = host.restores / operation_id
    if mark.exists():
        return True
    make_target(target)
    mark.parent.mkdir(parents=True, exist_ok=True)
    for old in mark.parent.iterdir():
        with suppress(FileNotFoundError):
            if old.stat().st_mtime < time.time() - _MARK_SECONDS:
                old.unlink()
    mark.touch()
    return False


class RecoverHandler(Mover):
    """Restore files from a recovery point: to a directory on this host, or back to the asset.

    What was written stays after a cancel. Of an asset that files are restored to, a snapshot is taken first, and kept.
    """

    kind = "recover"
    finishing = "restoring"
    cancellable = True
    undone_on_failure = True

    def turn_key(self, request: Mapping[str, Any]) -> str | None:
        """Let restores to one asset run one by one."""
        if request["target"] is not None:
            return None
        return str(uuid.uuid5(uuid.UUID(request["asset_id"]), self.kind))  # not the asset's own: the export needs that

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Restore. Raises Incomplete when something could not be; the rest is there."""
        backup = await run.catalog.backups.get(run.request["backup_id"])
        if run.request["target"] is not None:
            return await self._restore(run, backup, Path(run.request["target"]), {"target": run.request["target"]})
        asset = await run.asset()
        made = await run.part("snapshot", lambda by: run.operations.create(asset, None, by))
        snapshot = await run.catalog.inventory.snapshot((made.result or {})["snapshot_id"])
        exported = await run.part(
            export_label(run),
            lambda by: run.operations.export(snapshot, run.host.backup_host, AccessMode.READ_WRITE, by),
        )
        export = (await run.catalog.exports.get((exported.result or {})["export_id"])).export
        name = snapshot.snapshot.name
        async with mounted(export, name, run.host, run.operation.id, live=True) as target:
            told = await self._restore(run, backup, target, {"target": asset.reference, "before": snapshot.reference})
        return told | {"left": await tidy(run, snapshot.id, "deport")}

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Leave what was restored: nobody can tell any more what was there before, but the snapshot of it."""
        if run.request["target"] is not None:
            return
        made = await run.ended_part("snapshot")
        await run.ended_part(export_label(run))
        if made is not None and made.result is not None:
            await tidy(run, made.result["snapshot_id"], "undo: deport", strict=True)

    async def _restore(self, run: Run, backup: BackupRecord, target: Path, about: dict[str, Any]) -> dict[str, Any]:
        """Restore to a directory; return `about` and what was done."""
        way = await access(run.catalog, await run.catalog.repositories.get(backup.repository_id), run.host)
        pace, to_asset = Pace("restoring"), run.request["target"] is None
        paths = [unquote_to_bytes(path) for path in run.request["paths"]] or [b""]

        def work(stop: Stop) -> list[RestoreResult]:
            with way.at_work(stop) as (repository, check):
                point = RecoveryPoint(repository, repository.snapshot(backup.restic_id))
                overwrite = to_asset or run.request["overwrite"] or _begun(run.host, run.operation.id, target)
                return [
                    restore(
                        point,
                        target,
                        path=below_share(backup, path),
                        into=path.strip(b"/") if to_asset or len(paths) > 1 else b"",
                        overwrite=overwrite or number > 0,
                        progress=pace.take,
                        stop=check,
                    )
                    for number, path in enumerate(paths)
                ]

        await run.report("opening the repository")
        results = await run.in_thread(work, pace.tell)
        problems = [item for result in results for item in result.problems]
        count = sum(result.problem_count for result in results)
        told: dict[str, Any] = {
            "backup_id": backup.id,
            **about,
            "files": sum(result.files for result in results),
            "directories": sum(result.directories for result in results),
            "others": sum(result.others for result in results),
            "bytes": sum(result.size for result in results),
            "problems": [
                {"path": path.decode("utf-8", "backslashreplace"), "reason": reason}
                for path, reason in problems[:MOST_NAMED]
            ],
            "problem_count": count,
        }
        if count:
            raise Incomplete(
                f"{count:,} objects were not restored, or not wholly: {told['problems'][0]['path']}: "
                f"{told['problems'][0]['reason']}",
                next_step="The rest is there. `operation show --output json` names the others.",
                **told,
            )
        return told


class CheckHandler(Mover):
    """Check a repository: what it refers to is there, and is what was written."""

    kind = "check"
    finishing = "checking"
    cancellable = True

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Check; what was found is the result, also when it is bad: the check itself has succeeded."""
        record = await run.catalog.repositories.get(run.request["repository_id"])
        way, pace = await access(run.catalog, record, run.host), Pace("checking")

        def work(stop: Stop) -> dict[str, Any]:
            with way.at_work(stop) as (repository, check):
                found = check_repository(
                    repository, data=run.request["data"], seed=time.time_ns(), progress=pace.take, stop=check
                )
                return found.to_dict()

        await run.report("opening the repository")
        return await run.in_thread(work, pace.tell)

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Reading leaves nothing."""
