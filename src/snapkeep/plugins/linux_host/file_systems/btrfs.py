"""btrfs: snapshots are read-only subvolumes `.snapkeep/NAME` in the asset itself (`places.py` says why)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import quote, unquote_to_bytes

from snapkeep.model.assets import Asset, AssetKind
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound, Unavailable, Unsupported, VendorError
from snapkeep.model.exports import AccessMode
from snapkeep.model.snapshots import Snapshot
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.btrfs import Btrfs, Subvolume
from snapkeep.plugins.linux_host.file_systems.kind import Data, Group, Link, Program, Readable
from snapkeep.plugins.linux_host.host import Host, has_mounts
from snapkeep.plugins.linux_host.places import CONTAINER, FileSystem, Layout, Place, Places, make_id, read_id, shown

MOST_NAME = 200
"""Longest name of a snapshot in bytes: a note of its request has it too, and more."""
MOST_PATH = 4000
_LINKS = b".exports"
_DEFAULT = b"not deleting default subvolume"
"""How btrfs-progs refuse (cmds/subvolume.c)."""


class BtrfsKind:
    """Plays `Kind`. btrfs does each thing at once, so that a ticket is a note of what was done."""

    name = "btrfs"
    title = "btrfs"
    program = Program("btrfs-progs", ("btrfs", "--version"))
    shows = False

    def __init__(self, host: Host, btrfs: Btrfs, places: Places, prefix: str) -> None:
        """`prefix`: how the names of our snapshots begin."""
        self._host = host
        self._btrfs = btrfs
        self._places = places
        self._prefix = prefix

    def owns(self, asset_id: str) -> bool:
        """Say whether an id is that of a file system or subvolume."""
        return ":" not in asset_id.partition("/")[0]

    # -- discovery -------------------------------------------------------------------------------------------------
    async def is_present(self) -> bool:
        """Say whether btrfs is mounted anywhere."""
        return await has_mounts(self._host, "btrfs")

    async def mounted(self) -> Sequence[bytes]:
        """Return where btrfs is mounted."""
        return [mount.target for mount in await self._btrfs.mounts()]

    async def groups(self) -> list[Group]:
        """Return a group for each file system."""
        found = []
        for system in await self._places.file_systems():
            layout = Layout(system)
            volumes = [mapping.volume_asset(layout, item) for item in system.subvolumes if mapping.is_asset(item)]
            known = {volume.id for volume in volumes}
            snapshots = [item for item in mapping.snapshots(system, self._prefix) if item.asset_id in known]
            found.append(Group(system.uuid, [mapping.file_system_asset(system), *volumes], snapshots))
        return found

    async def exists(self, asset: Asset, snapshot: Snapshot | None) -> bool:
        """Look for it in all that is mounted. Raises Unavailable where its file system is not: it may be there."""
        wanted, inside = read_id(asset.id)
        for system in await self._places.file_systems():
            if system.uuid != wanted:
                continue
            if asset.kind is AssetKind.FILE_SYSTEM:
                return True
            if snapshot is not None:
                found = mapping.snapshots(system, self._prefix)
                return any((item.id, item.asset_id) == (snapshot.id, asset.id) for item in found)
            return any(item.path == inside and mapping.is_asset(item) for item in system.subvolumes)
        raise Unavailable(
            f"The file system {wanted} of {asset.name!r} is not mounted",
            next_step="Mount it on the host; or, if it is gone for good, remove the system.",
        )

    # -- create ----------------------------------------------------------------------------------------------------
    def require_name(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what is no name of a file that is shown, or too long."""
        text = name.encode("utf-8", "replace")
        if not 1 <= len(text) <= MOST_NAME or not name.isprintable() or "/" in name or name.startswith("."):
            raise InvalidInput(
                f"{name!r:.120} is not a name that can be given here",
                next_step=f"Use 1 to {MOST_NAME} bytes of printable characters without '/', not beginning with a dot.",
            )

    async def create(self, asset: Asset, name: str, request_id: str, *, owned: bool) -> Data:
        """Note the request, then take the snapshot; asked again, it is found by that note."""
        doing = f"Creating snapshot {name!r} of {asset.name!r}"
        place = await self._places.find(asset.id)
        if not owned:
            await self._require_free(place, name)
        await self._make_container(place)
        target, note = place.snapshot(name), _note(place, name)
        there = await self._btrfs.exists(target)
        if there is None:
            raise Conflict(f"{shown(target)} is in the way of a snapshot: it is none")
        if there:
            if not owned and await self._host.marked(note) != request_id:
                raise Conflict(f"{asset.name!r} has a snapshot {name!r} already")
        else:
            await self._host.mark(note, request_id)
            self._host.require(await self._btrfs.snapshot(place.path, target, read_only=True), doing)
        return {"name": name, "path": quote(target)}

    async def created(self, ticket: Data) -> Snapshot | None:
        """Return the snapshot, as btrfs shows it."""
        path = unquote_to_bytes(ticket["path"])
        found = await self._btrfs.show(path)
        if found is None:
            return None
        name = ticket["name"].encode()
        return mapping.snapshot(ticket["asset"], name, _subvolume(path, found), self._prefix, ours=True)

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

    # -- delete ----------------------------------------------------------------------------------------------------
    async def delete(self, asset: Asset, snapshot: Snapshot) -> Data:
        """Delete it. What is not there, or is another one of its name, is success."""
        try:
            path = await self.find(asset, snapshot)
        except NotFound:  # with its asset it is gone, too
            path = None
        if path is None:
            return {"snapshot": snapshot.id, "path": ""}
        if await self.is_there(path, snapshot.id):
            done = await self._btrfs.delete(path)
            if done.code and await self.is_there(path, snapshot.id):
                if _DEFAULT in done.err:
                    raise Busy(
                        f"Snapshot {snapshot.name!r} is what its file system mounts by default",
                        next_step="Choose another one with `btrfs subvolume set-default`, then try again.",
                        vendor_code=str(done.code),
                        vendor_message=done.reason,
                    )
                self._host.require(done, f"Deleting snapshot {snapshot.name!r} of {asset.name!r}")
            place = await self._places.find(asset.id)
            await self._host.unmark(_note(place, snapshot.name))
        return {"snapshot": snapshot.id, "path": quote(path)}

    async def deleted(self, ticket: Data) -> bool:
        """Say whether btrfs has no such snapshot there."""
        path = unquote_to_bytes(ticket["path"])
        return not path or not await self.is_there(path, ticket["snapshot"])

    # -- restore ---------------------------------------------------------------------------------------------------
    async def restore(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Data:
        """Put a writable copy of the snapshot in the asset's place, and keep the old one beside it.

        Each step is found done when it is run again: the names are made of the request's id.
        """
        doing = f"Restoring {asset.name!r} to snapshot {snapshot.name!r}"
        path = await self._restorable(asset)
        parent, name = path.rpartition(b"/")[0], path.rpartition(b"/")[2]
        mark = request_id.partition("-")[0].encode()
        new, old = parent + b"/.snapkeep-new-" + mark, parent + b"/" + name[:200] + b".before-" + mark
        if not await self._btrfs.exists(old):
            source = await self.path(asset, snapshot)
            if not await self._btrfs.exists(new):
                self._host.require(await self._btrfs.snapshot(source, new, read_only=False), doing)
            await self._host.remove_empty(new + b"/" + CONTAINER)
            await self._host.move(doing, path, old)
        if not await self._btrfs.exists(path):
            await self._host.move(doing, new, path)
        if await self._btrfs.exists(old + b"/" + CONTAINER):
            await self._host.move(doing, old + b"/" + CONTAINER, path + b"/" + CONTAINER)
        return {"path": quote(path), "snapshot": snapshot.id, "old": quote(old)}

    async def restored(self, ticket: Data) -> None:
        """Raise VendorError unless the asset is a copy of the snapshot."""
        found = await self._btrfs.show(unquote_to_bytes(ticket["path"]))
        if found is None or found.get("Parent UUID") != ticket["snapshot"]:
            raise VendorError(
                f"{shown(unquote_to_bytes(ticket['path']))} was exchanged by somebody else meanwhile",
                next_step=f"What it was before is {shown(unquote_to_bytes(ticket['old']))}.",
            )

    async def _restorable(self, asset: Asset) -> bytes:
        """Return where the asset is, also in the moment in which its place is empty."""
        uuid, inside = read_id(asset.id)
        path = await self._places.below(uuid, inside)
        if path is None:
            raise Unavailable(f"{asset.name!r} is not mounted", next_step="Mount it on the host, then try again.")
        return path

    # -- clone -----------------------------------------------------------------------------------------------------
    def require_target(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what is no path for a new subvolume, written as names of assets are."""
        path = name.encode("utf-8", "replace")
        parts = path.split(b"/")
        if not name.isprintable() or len(path) > MOST_PATH or not all(parts) or {b".", b"..", CONTAINER} & set(parts):
            raise InvalidInput(
                f"{name!r:.120} is not a path for a new subvolume",
                next_step="Give the whole path without its first slash, such as srv/data-before.",
            )

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str, request_id: str) -> Data:
        """Put a writable copy of the snapshot at the path `name`."""
        target = b"/" + name.encode("utf-8", "replace")
        place = await self._places.find(asset.id)
        note = place.container + b"/.clone-" + request_id.encode()
        source = await self.path(asset, snapshot)
        found = await self._btrfs.exists(target)
        if found is not False and not (found and await self._host.marked(note) == name):
            raise Conflict(f"{shown(target)} exists already")
        if not found:
            await self._host.mark(note, name)
            done = await self._btrfs.snapshot(source, target, read_only=False)
            self._host.require(done, f"Cloning {asset.name!r} to {name!r}")
        await self._host.remove_empty(target + b"/" + CONTAINER)
        return {"uuid": place.uuid, "path": quote(target)}

    async def cloned(self, ticket: Data) -> Asset:
        """Return the new asset as discovery shows it."""
        path = unquote_to_bytes(ticket["path"])
        for system in await self._places.file_systems():
            if system.uuid == ticket["uuid"]:
                for item in system.subvolumes:
                    if system.path(item.path) == path:
                        return mapping.volume_asset(Layout(system), item)
        raise VendorError(f"btrfs reported success, but there is no {shown(path)}")

    # -- where a snapshot is ---------------------------------------------------------------------------------------
    async def find(self, asset: Asset, snapshot: Snapshot) -> bytes | None:
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

    async def path(self, asset: Asset, snapshot: Snapshot) -> bytes:
        """Return where a snapshot is."""
        path = await self.find(asset, snapshot)
        if path is None or not await self.is_there(path, snapshot.id):
            raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
        return path

    async def show(self, asset_id: str, snapshot_id: str) -> None:
        """Do nothing: a snapshot is a directory."""

    async def hide(self, asset_id: str, snapshot_id: str) -> None:
        """Do nothing."""

    def fsid(self, snapshot: Snapshot) -> str:
        """Return the snapshot's UUID."""
        return snapshot.id

    async def link(self, asset: Asset, snapshot: Snapshot, address: str, mode: AccessMode) -> bytes:
        """Return a path beside the asset's snapshots: `.snapkeep/.exports/<mode>/<address>/<snapshot>`."""
        place, path = await self._places.find(asset.id), await self.path(asset, snapshot)
        name = path.rpartition(b"/")[2]
        return b"/".join([place.container, _LINKS, mode.encode(), address.encode(), name])

    async def links(self) -> list[Link]:
        """Return those in all assets, also to snapshots that are gone."""
        found = []
        systems = await self._places.file_systems()
        uuids = _read_only(systems)
        for system in systems:
            for item in system.subvolumes:
                top = system.path(item.path)
                if top is None or not mapping.is_asset(item):
                    continue
                container = top.rstrip(b"/") + b"/" + CONTAINER
                async for link in self._found(container):
                    mode, address = (part.decode() for part in link.split(b"/")[:2])
                    where = container + b"/" + _LINKS + b"/" + link
                    target = await self._host.marked(where)
                    uuid = uuids.get((target or "").encode("utf-8", "surrogateescape"), "")
                    found.append(Link(where, make_id(system.uuid, item.path), uuid, address, AccessMode(mode), top))
        return found

    async def _found(self, container: bytes) -> AsyncIterator[bytes]:
        done = await self._host.run(
            "find", container + b"/" + _LINKS, "-mindepth", "3", "-maxdepth", "3", "-type", "l", "-printf", "%P\\0"
        )
        for link in done.out.split(b"\0")[:-1]:
            with suppress(ValueError):
                AccessMode(link.partition(b"/")[0].decode("ascii", "replace"))
                yield link

    async def index(self) -> Callable[[bytes], Readable | None]:
        """Know the snapshots in places of ours, and the assets that those lie in."""
        systems = await self._places.file_systems()
        uuids = _read_only(systems)
        assets = {
            (path.rstrip(b"/") + b"/" + CONTAINER): make_id(system.uuid, item.path)
            for system in systems
            for item in system.subvolumes
            if (path := system.path(item.path)) is not None
        }

        def readable(path: bytes) -> Readable | None:
            if CONTAINER not in path.split(b"/"):
                return None
            return Readable(assets.get(path.rpartition(b"/")[0], ""), uuids.get(path, ""))

        return readable


def _read_only(systems: Sequence[FileSystem]) -> dict[bytes, str]:
    return {
        path: item.uuid
        for system in systems
        for item in system.subvolumes
        if item.read_only and (path := system.path(item.path)) is not None
    }


def _note(place: Place, name: str) -> bytes:
    return place.container + b"/.request-" + name.encode()


def _subvolume(path: bytes, found: Mapping[str, str]) -> Subvolume:
    """Return what `btrfs subvolume show` says, as the list would."""
    when = str(found.get("Creation time", "")).rpartition(" ")[0]
    read_only = "readonly" in str(found.get("Flags", ""))
    if not read_only:
        raise Unsupported(f"{shown(path)} is no snapshot: it can be written to")
    return Subvolume(0, 0, 0, str(found.get("UUID", "")), "", False, True, path, when.replace(" ", "T"))
