"""Compare two snapshots by reading both on this host: a change list by a walk, and the proof of a list.

The exports are made and taken back by operations of their own, as those of a backup. One to this host that was there
before is used, and stays.
"""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from snapkeep.catalog.exports import export_row_id
from snapkeep.catalog.records import ChangeListRecord, ChangeListState, SnapshotRecord
from snapkeep.changes.blocks import BLOCK
from snapkeep.changes.store import ChangeListWriter
from snapkeep.changes.verification import Verdict, verify
from snapkeep.changes.walk import walk_diff
from snapkeep.changes.walker import WalkProgress
from snapkeep.model.errors import NotFound, SnapkeepError
from snapkeep.model.exports import AccessMode, Export
from snapkeep.model.work import Ticket
from snapkeep.operations.bridge import changes_for_thread, in_loop
from snapkeep.operations.kinds.base import Mover
from snapkeep.operations.mounts import mounted
from snapkeep.operations.run import Run, Told

SOURCE = "walk"
"""Who computed the list: a walk of both snapshots."""

Stop = Callable[[], None]


@dataclass(slots=True)
class _Pace:
    """How far a walk is, for people."""

    verb: str
    seen: WalkProgress = field(default_factory=lambda: WalkProgress(0, 0))

    def take(self, progress: WalkProgress) -> None:
        self.seen = progress

    def tell(self) -> Told:
        return f"{self.verb}: {self.seen.objects:,} objects in {self.seen.directories:,} directories", None


class CompareHandler(Mover):
    """Make a change list by a walk, which has the id of its operation, or verify the system's own."""

    kind = "compare"
    finishing = "comparing"
    cancellable = True
    undone_on_failure = True

    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Read both; return the list and what was found about it."""
        snapshots = await _snapshots(run)
        scratch = run.host.cache / "scratch" / run.operation.id
        listed = await self._system_list(run) if run.request["source"] != SOURCE else None
        verdict: Verdict | None = None
        async with AsyncExitStack() as stack:
            paths = {}
            for key, snapshot in snapshots.items():
                export = await _exported(run, key, snapshot)
                label = f"{run.operation.id}-{key}"
                paths[key] = await stack.enter_async_context(mounted(export, snapshot.snapshot.name, run.host, label))
            await asyncio.to_thread(_make_empty, scratch)
            stack.callback(shutil.rmtree, scratch, ignore_errors=True)
            if listed is None:
                listed = await _walk(run, paths, scratch)
            if run.request["verify"] != "none":
                verdict = await _verify(run, listed, paths, scratch)
        left = await _deport(run, snapshots)
        return {
            "change_list": listed.id,
            "entries": listed.entries,
            "summary": listed.summary,
            "verification": None if verdict is None else {**verdict.to_dict(), "trusted": verdict.trusted},
            "left": left,
        }

    async def _system_list(self, run: Run) -> ChangeListRecord:
        asset = await run.asset()
        base = await run.snapshot("base_id") if run.request["base_id"] else None
        new = await run.snapshot("new_id")
        listed = await run.part("changes", lambda by: run.operations.diff(asset, base, new, by))
        return await run.catalog.change_lists.get((listed.result or {})["change_list"])

    async def undo(self, run: Run, ticket: Ticket | None) -> None:
        """Leave no export and no list that nobody wants; the system's own list stays."""
        snapshots = await _snapshots(run)
        for label in ("changes", *map(_label, snapshots)):  # what was cancelled is undone by itself
            await run.ended_part(label)
        await _deport(run, snapshots, "undo: ", strict=True)
        try:
            await run.catalog.change_lists.get(run.operation.id)
        except NotFound:
            return
        await run.catalog.change_lists.restart(run.operation.id)
        await run.catalog.change_lists.finish(run.operation.id, ChangeListState.INCOMPLETE, run.clock.now(), 0, None)


async def _snapshots(run: Run) -> dict[str, SnapshotRecord]:
    """Return what is to be read: base, if there is one, and new."""
    return {key: await run.snapshot(f"{key}_id") for key in ("base", "new") if run.request[f"{key}_id"]}


# -- exports -----------------------------------------------------------------------------------------------------------
def _label(key: str) -> str:
    return f"export of {key}"


async def _exported(run: Run, key: str, snapshot: SnapshotRecord) -> Export:
    """Return the export of a snapshot to this host, ours or one that was there before."""
    host = run.host.backup_host
    row = export_row_id(snapshot.id, host)
    ours = await run.catalog.operations.known(run.request_id(_label(key))) is not None
    if ours or all(item.id != row for item in await run.catalog.exports.find(snapshot_row=snapshot.id)):
        await run.part(_label(key), lambda by: run.operations.export(snapshot, host, AccessMode.READ_ONLY, by))
    return (await run.catalog.exports.get(row)).export


async def _deport(
    run: Run, snapshots: dict[str, SnapshotRecord], prefix: str = "", *, strict: bool = False
) -> list[str]:
    """Take back the exports that are ours. Return what could not be; `strict`: raise that instead."""
    left = []
    for key, snapshot in snapshots.items():
        if await run.catalog.operations.known(run.request_id(_label(key))) is None:
            continue
        for record in await run.catalog.exports.find(snapshot_row=snapshot.id):
            if record.id != export_row_id(snapshot.id, run.host.backup_host):
                continue
            try:
                await run.part(f"{prefix}deport of {key}", lambda by: run.operations.deport(record, by))  # noqa: B023
            except SnapkeepError as error:
                if strict:
                    raise
                left.append(f"the export of {snapshot.reference} stays: {error.message}")
    return left


# -- reading -----------------------------------------------------------------------------------------------------------
async def _walk(run: Run, paths: dict[str, Path], scratch: Path) -> ChangeListRecord:
    """Compare the two trees, and store what differs. A walk that was interrupted begins anew."""
    lists, loop = run.catalog.change_lists, asyncio.get_running_loop()
    await lists.begin(
        run.operation.id,
        asset_id=run.request["asset_id"],
        base_id=run.request["base_id"],
        new_id=run.request["new_id"],
        source=SOURCE,
        now=run.clock.now(),
    )
    await lists.restart(run.operation.id)
    writer, pace = ChangeListWriter(run.catalog, run.operation.id), _Pace("comparing")

    def work(stop: Stop) -> None:
        found = walk_diff(paths.get("base"), paths["new"], scratch=scratch, progress=pace.take, stop=stop)
        while batch := list(islice(found, BLOCK)):
            in_loop(loop, writer.add(batch, ""))

    await run.report(pace.verb)
    await run.in_thread(work, pace.tell)
    return await writer.complete(run.clock.now())


async def _verify(run: Run, listed: ChangeListRecord, paths: dict[str, Path], scratch: Path) -> Verdict:
    """Hold the list against both trees."""
    pace, changes = _Pace("verifying"), changes_for_thread(run.catalog, listed)

    def work(stop: Stop) -> Verdict:
        return verify(
            changes(),
            paths["base"],
            paths["new"],
            run.request["verify"],
            seed=uuid.UUID(run.operation.id).time_low,
            scratch=scratch,
            progress=pace.take,
            stop=stop,
        )

    await run.report(pace.verb)
    return await run.in_thread(work, pace.tell)


def _make_empty(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)  # left over from a process that died
    directory.mkdir(parents=True)
