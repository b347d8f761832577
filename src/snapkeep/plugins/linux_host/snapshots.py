"""Create, delete, restore and clone. btrfs does each at once, so that a ticket is a note of what was done."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, unquote_to_bytes

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported, VendorError
from snapkeep.model.snapshots import Snapshot, is_owned_name
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_confirmation, require_same_asset
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.btrfs import Btrfs, Subvolume
from snapkeep.plugins.linux_host.host import Host, persistent
from snapkeep.plugins.linux_host.places import CONTAINER, Place, Places, make_id, read_id, shown
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

MOST_NAME = 200
"""Longest name of a snapshot in bytes: a note of its request has it too, and more."""
MOST_PATH = 4000
LINGER_SECONDS = 1.0


class Snapshots:
    """Plays the roles `Create`, `Delete`, `Restore` and `Clone`."""

    def __init__(self, host: Host, btrfs: Btrfs, places: Places, settings: LinuxHostSettings) -> None:
        self._host = host
        self._btrfs = btrfs
        self._places = places
        self._settings = settings

    # -- create --------------------------------------------------------------------------------------------------
    @persistent
    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        """Note the request, then take the snapshot; asked again, it is found by that note."""
        asset.require(Capability.CREATE)
        _require_name(name)
        doing = f"Creating snapshot {name!r} of {asset.name!r}"
        place = await self._places.find(asset.id)
        if not is_owned_name(self._settings.snapshot_prefix, name):
            await self._require_free(place, name)
        await self._make_container(place)
        target, note = place.snapshot(name), _note(place, name)
        there = await self._btrfs.exists(target)
        if there is None:
            raise Conflict(f"{shown(target)} is in the way of a snapshot: it is none")
        if there:
            if not is_owned_name(self._settings.snapshot_prefix, name) and await self._host.marked(note) != request_id:
                raise Conflict(f"{asset.name!r} has a snapshot {name!r} already")
        else:
            await self._host.mark(note, request_id)
            self._host.require(await self._btrfs.snapshot(place.path, target, read_only=True), doing)
        return Ticket({"asset": asset.id, "name": name, "path": quote(target)})

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        """Return the snapshot, as btrfs shows it."""
        path = unquote_to_bytes(ticket["path"])
        found = await self._btrfs.show(path)
        if found is None:
            raise VendorError(
                f"btrfs reported success, but there is no snapshot {shown(path)}",
                next_step="See the kernel's log on the host, then try again.",
            )
        return mapping.snapshot(
            ticket["asset"], ticket["name"].encode(), _subvolume(path, found), self._settings.snapshot_prefix, ours=True
        )

    async def _require_free(self, place: Place, name: str) -> None:
        """Raise Conflict when somebody else's snapshot of the asset is called so."""
        path = await self._places.below(place.uuid, name.encode())
        found = await self._btrfs.show(path) if path else None
        asset = await self._btrfs.show(place.path) if found else None
        if found and asset and found.get("Parent UUID") == asset.get("UUID"):
            raise Conflict(f"There is a snapshot {name!r} of the asset already, which is not Snapkeep's")

    async def _make_container(self, place: Place) -> None:
        there = await self._btrfs.exists(place.container)
        if there:
            return
        if there is None:
            await self._host.remove_empty(place.container)  # what a clone or restore has in place of the subvolume
        doing = f"Making a place for snapshots in {shown(place.path)}"
        done = await self._host.run("btrfs", "subvolume", "create", place.container)
        if done.code and not await self._btrfs.exists(place.container):  # else another request made it meanwhile
            self._host.require(done, doing)
        await self._host.do(doing, "chmod", "0700", "--", place.container)

    # -- delete --------------------------------------------------------------------------------------------------
    @persistent
    async def start_delete(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Ticket:
        """Delete it. What is not there, or is another one of its name, is success."""
        asset.require(Capability.DELETE)
        require_same_asset(asset, snapshot)
        try:
            path = await self.path(asset, snapshot)
        except NotFound:  # with its asset it is gone, too
            path = None
        if path is None:
            return Ticket({"snapshot": snapshot.id, "path": ""})
        doing = f"Deleting snapshot {snapshot.name!r} of {asset.name!r}"
        if await self.is_there(path, snapshot.id):
            done = await self._btrfs.delete(path)
            if done.code and await self.is_there(path, snapshot.id):
                self._host.require(done, doing)
            place = await self._places.find(asset.id)
            await self._host.unmark(_note(place, snapshot.name))
        return Ticket({"snapshot": snapshot.id, "path": quote(path)})

    async def poll_delete(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` when btrfs has no such snapshot there."""
        path = unquote_to_bytes(ticket["path"])
        return Pending(after=LINGER_SECONDS) if path and await self.is_there(path, ticket["snapshot"]) else Done()

    # -- restore -------------------------------------------------------------------------------------------------
    @persistent
    async def start_restore(self, asset: Asset, snapshot: Snapshot, confirmation: str, request_id: str) -> Ticket:
        """Put a writable copy of the snapshot in the asset's place, and keep the old one beside it.

        Each step is found done when it is run again: the names are made of the request's id.
        """
        asset.require(Capability.RESTORE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        doing = f"Restoring {asset.name!r} to snapshot {snapshot.name!r}"
        uuid, inside, path = await self._restorable(asset)
        parent, name = path.rpartition(b"/")[0], path.rpartition(b"/")[2]
        mark = request_id.partition("-")[0].encode()
        new, old = parent + b"/.snapkeep-new-" + mark, parent + b"/" + name[:200] + b".before-" + mark
        if not await self._btrfs.exists(old):
            source = await self.path(asset, snapshot)
            if source is None or not await self.is_there(source, snapshot.id):
                raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
            if not await self._btrfs.exists(new):
                self._host.require(await self._btrfs.snapshot(source, new, read_only=False), doing)
            await self._host.remove_empty(new + b"/" + CONTAINER)
            await self._host.move(doing, path, old)
        if not await self._btrfs.exists(path):
            await self._host.move(doing, new, path)
        if await self._btrfs.exists(old + b"/" + CONTAINER):
            await self._host.move(doing, old + b"/" + CONTAINER, path + b"/" + CONTAINER)
        return Ticket({"path": quote(path), "snapshot": snapshot.id, "old": quote(old), "asset": make_id(uuid, inside)})

    async def poll_restore(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the asset is a copy of the snapshot."""
        found = await self._btrfs.show(unquote_to_bytes(ticket["path"]))
        if found is None or found.get("Parent UUID") != ticket["snapshot"]:
            raise VendorError(
                f"{shown(unquote_to_bytes(ticket['path']))} was exchanged by somebody else meanwhile",
                next_step=f"What it was before is {shown(unquote_to_bytes(ticket['old']))}.",
            )
        return Done()

    async def _restorable(self, asset: Asset) -> tuple[str, bytes, bytes]:
        """Return where the asset is, also in the moment in which its place is empty."""
        uuid, inside = read_id(asset.id)
        path = await self._places.below(uuid, inside)
        if path is None:
            raise Unavailable(f"{asset.name!r} is not mounted", next_step="Mount it on the host, then try again.")
        return uuid, inside, path

    # -- clone ---------------------------------------------------------------------------------------------------
    @persistent
    async def start_clone(
        self, asset: Asset, snapshot: Snapshot, name: str, confirmation: str, request_id: str
    ) -> Ticket:
        """Put a writable copy of the snapshot at the path `name`, written as names of assets are."""
        asset.require(Capability.CLONE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        target = _target(name)
        place = await self._places.find(asset.id)
        note = place.container + b"/.clone-" + request_id.encode()
        source = await self.path(asset, snapshot)
        if source is None or not await self.is_there(source, snapshot.id):
            raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
        found = await self._btrfs.exists(target)
        if found is not False and not (found and await self._host.marked(note) == name):
            raise Conflict(f"{shown(target)} exists already")
        if not found:
            await self._host.mark(note, name)
            done = await self._btrfs.snapshot(source, target, read_only=False)
            self._host.require(done, f"Cloning {asset.name!r} to {name!r}")
        await self._host.remove_empty(target + b"/" + CONTAINER)
        return Ticket({"uuid": place.uuid, "path": quote(target)})

    async def poll_clone(self, ticket: Ticket) -> Pending | Asset:
        """Return the new asset as discovery shows it."""
        path = unquote_to_bytes(ticket["path"])
        for system in await self._places.file_systems():
            if system.uuid == ticket["uuid"]:
                for item in system.subvolumes:
                    if system.path(item.path) == path:
                        return mapping.volume_asset(system, item)
        raise VendorError(f"btrfs reported success, but there is no {shown(path)}")

    # -- where a snapshot is -----------------------------------------------------------------------------------------
    async def path(self, asset: Asset, snapshot: Snapshot) -> bytes | None:
        """Return where a snapshot is, or should be; None: it is not reached. Raises NotFound when the asset is gone.

        A name without a slash is that of ours, or of a foreign one at the top of the file system.
        """
        place = await self._places.find(asset.id)
        foreign = await self._places.below(place.uuid, snapshot.name.encode())
        if "/" in snapshot.name:
            return foreign
        ours = place.snapshot(snapshot.name)
        if foreign and not await self.is_there(ours, snapshot.id) and await self.is_there(foreign, snapshot.id):
            return foreign
        return ours

    async def is_there(self, path: bytes, uuid: str) -> bool:
        """Say whether a path is the subvolume of that uuid."""
        found = await self._btrfs.show(path)
        return found is not None and found.get("UUID") == uuid


def _target(name: str) -> bytes:
    """Return the path of a new asset."""
    path = name.encode("utf-8", "replace")
    parts = path.split(b"/")
    if not name.isprintable() or len(path) > MOST_PATH or not all(parts) or {b".", b"..", CONTAINER} & set(parts):
        raise InvalidInput(
            f"{name!r:.120} is not a path for a new subvolume",
            next_step="Give the whole path without its first slash, such as srv/data-before.",
        )
    return b"/" + path


def _note(place: Place, name: str) -> bytes:
    return place.container + b"/.request-" + name.encode()


def _require_name(name: str) -> None:
    text = name.encode("utf-8", "replace")
    if not 1 <= len(text) <= MOST_NAME or not name.isprintable() or "/" in name or name.startswith("."):
        raise InvalidInput(
            f"{name!r:.120} is not a name that can be given here",
            next_step=f"Use 1 to {MOST_NAME} bytes of printable characters without '/', not beginning with a dot.",
        )


def _subvolume(path: bytes, found: dict[str, Any]) -> Subvolume:
    """Return what `btrfs subvolume show` says, as the list would."""
    when = str(found.get("Creation time", "")).rpartition(" ")[0]
    read_only = "readonly" in str(found.get("Flags", ""))
    if not read_only:
        raise Unsupported(f"{shown(path)} is no snapshot: it can be written to")
    return Subvolume(0, 0, 0, str(found.get("UUID", "")), "", False, True, path, when.replace(" ", "T"))
