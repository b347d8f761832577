"""What the tasks do.

Each effect copies files first (in a thread, one at a time for each share, safe to repeat after a crash) and returns
the quick change of the state, which is written together with the task's success.
"""

import asyncio
import contextlib

from snapkeep.simulators.kit.tasks import Entity, Finish, Task, TaskBoard, TaskFailure
from snapkeep.simulators.nutanix_files.contents import Contents
from snapkeep.simulators.nutanix_files.errors import TABLE
from snapkeep.simulators.nutanix_files.model import AccessEntry, Partner, Share, Snapshot
from snapkeep.simulators.nutanix_files.partners import merge
from snapkeep.simulators.nutanix_files.state import State
from snapkeep.simulators.nutanix_files.volumes import Volumes

CREATE_SNAPSHOT = "CreateMountTargetSnapshot"
DELETE_SNAPSHOT = "DeleteMountTargetSnapshot"
RESTORE = "RestoreMountTarget"
CLONE = "CloneMountTarget"
CREATE_SHARE = "CreateMountTarget"
UPDATE_SHARE = "UpdateMountTarget"
DELETE_SHARE = "DeleteMountTarget"
CREATE_PARTNER = "CreatePartnerServer"
UPDATE_PARTNER = "UpdatePartnerServer"
DELETE_PARTNER = "DeletePartnerServer"


class Work:
    """The effects of all operations."""

    def __init__(self, state: State, volumes: Volumes, contents: Contents, tasks: TaskBoard) -> None:
        self._state = state
        self._volumes = volumes
        self._contents = contents
        self._ghosts = True
        for operation, effect in (
            (CREATE_SNAPSHOT, self.create_snapshot),
            (DELETE_SNAPSHOT, self.delete_snapshot),
            (RESTORE, self.restore),
            (CLONE, self.clone),
            (CREATE_SHARE, self.create_share),
            (UPDATE_SHARE, self.update_share),
            (DELETE_SHARE, self.delete_share),
            (CREATE_PARTNER, self.create_partner),
            (UPDATE_PARTNER, self.update_partner),
            (DELETE_PARTNER, self.delete_partner),
        ):
            tasks.register(operation, effect)

    def entity(self, kind: str, identifier: str, name: str) -> Entity:
        """What a task names; the form of ``rel`` is a setting."""
        return Entity(identifier, self._state.settings.created_entity_rel.replace("{kind}", kind), name)

    async def create_snapshot(self, task: Task) -> Finish:
        """Arguments: share, snapshot (its id), name, type."""
        share = self._share(task)
        wanted = task.arguments
        size = 0
        moment = self._state.now()
        if not share.synthetic:
            volume = self._volumes.volume(share)
            async with self._volumes.lock(share):
                moment = self._state.now()
                with contextlib.suppress(FileExistsError):  # made by the same task, before a crash
                    await asyncio.to_thread(volume.snapshot, wanted["snapshot"])
                _, size = await asyncio.to_thread(volume.totals, wanted["snapshot"])

        def finish() -> list[Entity]:
            share.last_sequence += 1
            snapshot = Snapshot(
                id=wanted["snapshot"],
                share=share.id,
                name=wanted["name"],
                type=wanted["type"],
                created=moment,
                sequence=share.last_sequence,
                bytes=size,
            )
            self._state.save(snapshot, share)
            return [self.entity("snapshot", snapshot.id, snapshot.name)]

        return finish

    async def delete_snapshot(self, task: Task) -> Finish:
        """Arguments: share, snapshot."""
        share = self._share(task)
        snapshot = self._state.snapshots[share.id].get(task.arguments["snapshot"])
        if snapshot is None:
            return list
        if not share.synthetic:
            async with self._volumes.lock(share):
                await asyncio.to_thread(self._volumes.volume(share).delete, snapshot.id)

        def finish() -> list[Entity]:
            self._contents.drop_snapshot(snapshot.id)
            lag = self._state.settings.delete_lag_seconds
            if lag:
                snapshot.gone_at = self._state.clock() + lag
                self._state.save(snapshot)
                self._ghosts = True
            else:
                self._state.remove(snapshot)
            return []

        return finish

    async def restore(self, task: Task) -> Finish:
        """Arguments: share, snapshot. Newer snapshots stay."""
        share = self._share(task)
        if not share.synthetic:
            volume = self._volumes.volume(share)
            async with self._volumes.lock(share):
                await asyncio.to_thread(volume.restore, task.arguments["snapshot"])
            for nested in self._state.nested_in(share):
                self._volumes.live(nested).mkdir(parents=True, exist_ok=True)

        def finish() -> list[Entity]:
            share.version += 1
            self._state.save(share)
            return []

        return finish

    async def clone(self, task: Task) -> Finish:
        """Arguments: share, snapshot (None: the live files), clone (a share as stored)."""
        share = self._share(task)
        made = Share(**task.arguments["clone"])
        if not share.synthetic:
            source, target = self._volumes.volume(share), self._volumes.volume(made)
            async with self._volumes.lock(share):
                await asyncio.to_thread(source.clone, task.arguments["snapshot"], target)
        return lambda: self._new_share(made)

    async def create_share(self, task: Task) -> Finish:
        """Arguments: created (a share as stored)."""
        return lambda: self._new_share(Share(**task.arguments["created"]))

    async def update_share(self, task: Task) -> Finish:
        """Arguments: share, changes (fields as stored)."""
        share = self._share(task)

        def finish() -> list[Entity]:
            self._volumes.unlink(share)
            for name, value in task.arguments["changes"].items():
                setattr(share, name, value)
            share.version += 1
            self._volumes.provide(share)
            self._state.save(share)
            return []

        return finish

    async def delete_share(self, task: Task) -> Finish:
        """Arguments: share. Its snapshots go too."""
        share = self._state.share_by_id.get(task.arguments["share"])
        if share is None:
            return list
        if share.parent is None and not share.synthetic:
            async with self._volumes.lock(share):
                await asyncio.to_thread(self._volumes.destroy, share)

        def finish() -> list[Entity]:
            for snapshot in self._state.snapshots[share.id]:
                self._contents.drop_snapshot(snapshot)
            self._volumes.unlink(share)
            self._state.remove(share)
            return []

        return finish

    async def create_partner(self, task: Task) -> Finish:
        """Arguments: partner (as stored, without entries), access (what was sent), expiry."""

        def finish() -> list[Entity]:
            made = Partner(**task.arguments["partner"])
            self._merge(made, task)
            self._state.save(made)
            return [self.entity("partner-server", made.id, made.name)]

        return finish

    async def update_partner(self, task: Task) -> Finish:
        """Arguments: id, changes, access, expiry."""
        partner = self._state.partners.get(task.arguments["id"])
        if partner is None:
            raise TaskFailure(TABLE["partner_not_found"].code, "The partner server is gone.")

        def finish() -> list[Entity]:
            for name, value in task.arguments["changes"].items():
                setattr(partner, name, value)
            self._merge(partner, task)
            partner.version += 1
            self._state.save(partner)
            return []

        return finish

    async def delete_partner(self, task: Task) -> Finish:
        """Arguments: id."""

        def finish() -> list[Entity]:
            partner = self._state.partners.get(task.arguments["id"])
            if partner is not None:
                self._state.remove(partner)
            return []

        return finish

    def remove_gone(self) -> None:
        """Forget deleted snapshots that need not answer any more."""
        if not self._ghosts:
            return
        clock = self._state.clock()
        every = (each for snapshots in self._state.snapshots.values() for each in snapshots.values())
        ghosts = [each for each in every if each.gone_at is not None]
        self._ghosts = bool(ghosts)
        with self._state.store.transaction():
            for ghost in ghosts:
                if ghost.gone_at is not None and ghost.gone_at <= clock:
                    self._state.remove(ghost)

    def _share(self, task: Task) -> Share:
        share = self._state.share_by_id.get(task.arguments["share"])
        if share is None:
            raise TaskFailure(TABLE["share_not_found"].code, "The mount target is gone.")
        return share

    def _new_share(self, share: Share) -> list[Entity]:
        self._state.save(share)
        self._volumes.provide(share)
        return [self.entity("mount-target", share.id, share.name)]

    def _merge(self, partner: Partner, task: Task) -> None:
        entries = [(operation, AccessEntry(**entry)) for operation, entry in task.arguments.get("access") or []]
        now = self._state.clock()
        partner.entries = merge(
            partner.entries, entries, self._state.settings.partner_put, now + partner.expiry_in_secs
        )
