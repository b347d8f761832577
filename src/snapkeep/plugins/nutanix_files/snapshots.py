"""Create, delete, restore and clone."""

from __future__ import annotations

import contextlib
import uuid

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import (
    AuthenticationFailed,
    Busy,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)
from snapkeep.model.snapshots import Snapshot, is_owned_name
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_confirmation, require_same_asset
from snapkeep.plugins.nutanix_files import mapping
from snapkeep.plugins.nutanix_files.assumptions import created_entity
from snapkeep.plugins.nutanix_files.client import Entity, NutanixClient, odata_string
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings
from snapkeep.plugins.nutanix_files.tasks import POLL_SECONDS, absent, affected, asked, finished, not_there

MAX_NAME = 80
"""Longest name of a snapshot or share, in characters (SDK: Snapshot.name, MountTarget.name)."""


class Snapshots:
    """Plays the roles `Create`, `Delete`, `Restore` and `Clone`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings

    # -- create --------------------------------------------------------------------------------------------------
    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        """POST the name. A conflict with a name that only we can have made means that it was, or is being, made."""
        asset.require(Capability.CREATE)
        _require_name(name)
        path = f"{await self._client.share_path(asset.id)}/snapshots"
        ticket = {"share": asset.id, "name": name}
        try:
            task = await self._client.start(
                "POST",
                path,
                doing=f"Creating snapshot {name!r} of {asset.name!r}",
                request_id=request_id,
                json={"name": name, "$objectType": "files.v4.config.Snapshot"},
            )
        except Conflict:
            if not is_owned_name(self._settings.snapshot_prefix, name):
                raise
            return Ticket(ticket)
        return Ticket({**ticket, "task": task})

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        """Return the snapshot once its task succeeded and it can be read."""
        doing = f"Creating snapshot {ticket['name']!r}"
        path = f"{await self._client.share_path(ticket['share'])}/snapshots"
        if "task" not in ticket.data:
            made_before = await self._by_name(path, ticket["name"])
            return made_before or Pending(after=POLL_SECONDS)
        task = await finished(self._client, ticket["task"], doing)
        if isinstance(task, Pending):
            return task
        snapshot_id = created_entity(affected(task), "snapshot")
        if snapshot_id is None:
            return await self._by_name(path, ticket["name"]) or not_there(task, doing)
        try:
            entity = await self._client.entity(f"{path}/{snapshot_id}", doing=doing)
        except NotFound:
            return not_there(task, doing)
        return mapping.snapshot(entity.data, ticket["share"], self._settings.snapshot_prefix)

    async def _by_name(self, path: str, name: str) -> Snapshot | None:
        share = path.split("/")[-2]
        async for _, page in self._client.pages(
            path, doing="Looking for a snapshot by name", where=f"name eq {odata_string(name)}"
        ):
            for item in page:
                if item.get("name") == name:
                    return mapping.snapshot(item, share, self._settings.snapshot_prefix)
        return None

    # -- delete --------------------------------------------------------------------------------------------------
    async def start_delete(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Ticket:
        """DELETE it; 404 means that it is gone already, if that lasts."""
        asset.require(Capability.DELETE)
        require_same_asset(asset, snapshot)
        ticket = {"share": asset.id, "snapshot": snapshot.id, "name": snapshot.name, **asked()}
        path = await self._client.snapshot_path(asset.id, snapshot.id)
        doing = f"Deleting snapshot {snapshot.name!r} of {asset.name!r}"
        try:
            task = await self._client.start("DELETE", path, doing=doing, request_id=request_id)
        except NotFound:
            return Ticket({**ticket, "again": str(uuid.uuid5(uuid.UUID(request_id), "again"))})
        return Ticket({**ticket, "task": task})

    async def poll_delete(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` when GET answers 404: only that proves that it is gone.

        It does so after the success of our task; without one only when it lasts.
        """
        doing = f"Deleting snapshot {ticket['name']!r}"
        path = await self._client.snapshot_path(ticket["share"], ticket["snapshot"])
        outcome, failure = await self._outcome(ticket, doing)
        if isinstance(outcome, Pending):
            return outcome
        try:
            await self._client.entity(path, doing=doing)
        except NotFound:
            return Done() if outcome is not None else absent(ticket) or Done()
        if failure is not None:
            raise failure
        if "again" in ticket.data:  # the DELETE answered 404, yet there it is
            with contextlib.suppress(NotFound):
                await self._client.start("DELETE", path, doing=doing, request_id=ticket["again"])
        return Pending(after=POLL_SECONDS if outcome is None else POLL_SECONDS / 4, progress=1.0 if outcome else None)

    async def _outcome(self, ticket: Ticket, doing: str) -> tuple[Pending | Entity | None, SnapkeepError | None]:
        """Return the task of a delete, or why it failed; neither where there is none, or it is forgotten."""
        if "task" not in ticket.data:
            return None, None
        try:
            return await finished(self._client, ticket["task"], doing), None
        except NotFound:
            return None, None
        except (Unavailable, AuthenticationFailed, PermissionDenied):
            raise
        except SnapkeepError as failure:
            return None, failure

    # -- restore -------------------------------------------------------------------------------------------------
    async def start_restore(self, asset: Asset, snapshot: Snapshot, confirmation: str, request_id: str) -> Ticket:
        """POST restore with the ETag of the share; a share that changed in between is read once more."""
        asset.require(Capability.RESTORE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        doing = f"Restoring {asset.name!r} to snapshot {snapshot.name!r}"
        path = f"{await self._client.snapshot_path(asset.id, snapshot.id)}/$actions/restore"
        for last in (False, True):
            share = await self._client.entity(await self._client.share_path(asset.id), doing=doing)
            try:
                task = await self._client.start("POST", path, doing=doing, request_id=request_id, etag=share.etag)
            except Conflict as error:
                if last or isinstance(error, Busy) or error.details.get("status") != 412:
                    raise
            else:
                return Ticket({"share": asset.id, "name": snapshot.name, "task": task})
        raise AssertionError("unreachable")  # pragma: no cover - the second try returns or raises

    async def poll_restore(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the task succeeded."""
        outcome = await finished(self._client, ticket["task"], f"Restoring to snapshot {ticket['name']!r}")
        return outcome if isinstance(outcome, Pending) else Done()

    # -- clone ---------------------------------------------------------------------------------------------------
    async def start_clone(
        self, asset: Asset, snapshot: Snapshot, name: str, confirmation: str, request_id: str
    ) -> Ticket:
        """POST clone: a new share from the snapshot."""
        asset.require(Capability.CLONE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        _require_name(name)
        task = await self._client.start(
            "POST",
            f"{await self._client.share_path(asset.id)}/$actions/clone",
            doing=f"Cloning {asset.name!r} to {name!r}",
            request_id=request_id,
            json={
                "name": name,
                "description": f"Clone of {asset.name} at {snapshot.name}, made by Snapkeep"[:180],
                "snapshotExtId": snapshot.id,
                "$objectType": "files.v4.config.MountTargetCloneSpec",
            },
        )
        return Ticket({"share": asset.id, "name": name, "task": task})

    async def poll_clone(self, ticket: Ticket) -> Pending | Asset:
        """Return the new share once its task succeeded and it can be read."""
        doing = f"Cloning to {ticket['name']!r}"
        outcome = await finished(self._client, ticket["task"], doing)
        if isinstance(outcome, Pending):
            return outcome
        server = str((await self._client.file_server())["extId"])
        path = f"{await self._client.base()}/mount-targets"
        where = f"name eq {odata_string(ticket['name'])}"
        async for _, page in self._client.pages(path, doing=doing, where=where):
            for item in page:
                if item.get("name") == ticket["name"]:
                    return mapping.share_asset(item, server)
        return not_there(outcome, doing)


def _require_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isprintable() or "/" in name or name in {".", ".."}:
        raise InvalidInput(
            f"{name!r:.120} is not a name that a file server takes",
            next_step=f"Use 1 to {MAX_NAME} printable characters without '/'.",
        )
