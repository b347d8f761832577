"""Thin volumes of LVM (lvmthin(7)), by the programs of lvm2.

An asset is a thin volume; its id is the UUID of the group and the volume's name, since after a restore another volume
has that name. A snapshot is a read-only thin snapshot `VOLUME-NAME`, whose tags say whose it is and which request made
it; a name may have any characters, of which those that LVM does not take are written `+XX`. A thin volume that has an
origin and is not activated by itself, or is read-only, is a snapshot of somebody else; any other is a volume.

A restore makes a writable snapshot of the snapshot and exchanges the names, if nothing has the volume open: a merge
(`lvconvert --merge`) would keep nothing of what was there. Both have the UUID of the file system, so that the old one
is deactivated. An export activates the snapshot and mounts it read-only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from snapkeep.model.assets import Asset
from snapkeep.model.errors import (
    Busy,
    Conflict,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
    VendorError,
)
from snapkeep.model.exports import AccessMode
from snapkeep.model.snapshots import Snapshot, SnapshotKind, is_owned_name
from snapkeep.plugins.linux_host.file_systems.kind import Data, Group, Link, Program, Readable
from snapkeep.plugins.linux_host.file_systems.links import Links
from snapkeep.plugins.linux_host.file_systems.lvm_volumes import (
    ASSET,
    LIST,
    REQUEST,
    Volume,
    asset_id_of,
    asset_of,
    encoded,
    find,
    is_asset,
    read_volumes,
    require_room,
    snapshot_of,
)
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

_MOST_NAME = 127
"""Longest name of a device of device-mapper (DM_NAME_LEN without its NUL)."""
_VOLUME = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")
_RESERVED = re.compile(r"(snapshot|pvmove).*|.*_([cv]data|[ct]meta|tdata|corig|cpool|cvol|i?meta|iorig|mimage|mlog|"
                       r"pmspare|rimage|rmeta|vorigin|wcorig).*")  # fmt: skip
"""Names that LVM keeps for itself (lvm(8), VALID NAMES)."""
_OPTIONS = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), ("noload",)),
    "xfs": ("norecovery", "nouuid"),
    **dict.fromkeys(("exfat", "squashfs", "vfat"), ()),
}
"""What lets a file system be mounted beside the one that it is a snapshot of, without a write."""
_SAFE = ("ro", "nodev", "nosuid", "noexec")


class LvmKind:
    """Plays `Kind`. Each program of LVM ends when the thing is done, so that a ticket is a note of that."""

    name = "lvm"
    title = "LVM"
    program = Program("lvm2", ("lvs", "--reportformat", "json", "-o", "lv_name"), as_root=True)
    shows = True

    def __init__(self, host: Host, settings: LinuxHostSettings) -> None:
        self._host = host
        self._prefix = settings.snapshot_prefix
        self._only = frozenset(map(str, settings.only))
        directory = os.fsencode(settings.export_directory)
        self._links = Links(host, directory, self.name)
        self._shown = directory.rstrip(b"/") + b"/lvm/snapshots/"

    def owns(self, asset_id: str) -> bool:
        """Say whether an id is that of a volume."""
        return asset_id.startswith("lvm:")

    # -- discovery -------------------------------------------------------------------------------------------------
    async def is_present(self) -> bool:
        """Say whether a logical volume is active."""
        done = await self._host.see("lsblk", "-J", "-l", "-o", "NAME,TYPE")
        try:
            return not done.code and any(item["type"] == "lvm" for item in json.loads(done.out)["blockdevices"])
        except (ValueError, KeyError, TypeError) as error:
            raise VendorError("lsblk answers in a form that is not known", vendor_message=str(error)) from error

    async def mounted(self) -> Sequence[bytes]:
        """Return the directories of groups."""
        return sorted({os.fsencode(f"/dev/{volume.group}") for volume in await self._volumes()})

    async def groups(self) -> list[Group]:
        """Return a group for each group of volumes."""
        found: dict[str, list[Volume]] = {}
        for volume in await self._volumes():
            if not self._only or f"/dev/{volume.group}" in self._only:
                found.setdefault(volume.group_uuid, []).append(volume)
        return [self._group(uuid, volumes) for uuid, volumes in found.items()]

    def _group(self, uuid: str, volumes: Sequence[Volume]) -> Group:
        assets = {volume.name: asset_of(volume) for volume in volumes if is_asset(volume)}
        snapshots = [self._snapshot(volume) for volume in volumes if volume.is_snapshot and volume.asset in assets]
        return Group(f"lvm:{uuid}", list(assets.values()), snapshots)

    async def exists(self, asset: Asset, snapshot: Snapshot | None) -> bool:
        """Look for it in all groups. Raises Unavailable where its group is not: it may be there."""
        volumes = await self._of_group(asset.id)
        if snapshot is not None:
            return any(
                volume.uuid == snapshot.id and volume.is_snapshot and asset_id_of(volume, volume.asset) == asset.id
                for volume in volumes
            )
        return any(is_asset(volume) and asset_id_of(volume, volume.name) == asset.id for volume in volumes)

    # -- snapshots -------------------------------------------------------------------------------------------------
    def require_name(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what cannot be written as a name of LVM."""
        group, _, volume = asset.name.partition("/")
        text = encoded(name)
        if not name or not name.isprintable() or "/" in name or name in {".", ".."}:
            raise InvalidInput(f"{name!r:.120} is not a name that can be given here")
        if _length(group, f"{volume}-{text}") > _MOST_NAME:
            raise InvalidInput(
                f"{name!r:.120} is too long for a snapshot of {asset.name!r}",
                next_step="LVM takes some 100 letters and digits together; of other characters, a third of that.",
            )

    async def create(self, asset: Asset, name: str, request_id: str, *, owned: bool) -> Data:
        """Take a thin snapshot, with the request as its tag."""
        volumes = await self._of_group(asset.id)
        volume = find(volumes, asset)
        wanted = f"{volume.name}-{encoded(name)}"
        doing = f"Creating snapshot {name!r} of {asset.name!r}"
        there = next(
            (item for item in volumes if item.is_snapshot and item.asset == volume.name and item.own == name), None
        )
        if there is not None and (there.name != wanted or not (owned or there.tag(REQUEST) == request_id)):
            raise Conflict(f"{asset.name!r} has a snapshot {name!r} already")
        if there is None:
            require_room(volumes, volume)
            await self._make(doing, volume, wanted, f"{REQUEST}{request_id}", f"{ASSET}{volume.name}", keep=True)
        return {"name": name, "full": f"{volume.group}/{wanted}"}

    async def _make(self, doing: str, source: Volume, name: str, *tags: str, keep: bool) -> None:
        """Take a thin snapshot: `keep` as it is, or to be written to and activated."""
        options = ("--permission", "r" if keep else "rw", "--setactivationskip", "y" if keep else "n")
        given = [word for tag in tags for word in ("--addtag", tag)]
        await self._host.do(doing, "lvcreate", "--snapshot", *options, *given, "--name", name, source.full_name)

    async def created(self, ticket: Data) -> Snapshot | None:
        """Return the snapshot, as lvs lists it."""
        found = [volume for volume in await self._volumes() if volume.full_name == ticket["full"]]
        return self._snapshot(found[0]) if found else None

    async def delete(self, asset: Asset, snapshot: Snapshot) -> Data:
        """Remove it, also where it is shown; not where somebody else uses it."""
        try:
            volume = snapshot_of(await self._of_group(asset.id), asset, snapshot)
        except NotFound:
            return {"snapshot": snapshot.id}
        await self._unmount(snapshot.id)
        done = await self._host.run("lvremove", "--yes", volume.full_name)
        if done.code and not await self._is_gone(snapshot.id):
            self._host.require(done, f"Deleting snapshot {snapshot.name!r} of {asset.name!r}")
        return {"snapshot": snapshot.id}

    async def deleted(self, ticket: Data) -> bool:
        """Say whether LVM has no such volume."""
        return await self._is_gone(ticket["snapshot"])

    async def restore(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Data:
        """Exchange the volume for a copy of the snapshot. Each step is found done when it is run again."""
        doing = f"Restoring {asset.name!r} to snapshot {snapshot.name!r}"
        mark = request_id.partition("-")[0]
        volumes = await self._of_group(asset.id)
        there = {volume.name: volume for volume in volumes}
        group, _, name = asset.name.partition("/")
        new, old = f"{name}.restoring-{mark}", f"{name}.before-{mark}"
        if old not in there:
            volume, source = find(volumes, asset), snapshot_of(volumes, asset, snapshot)
            if volume.is_open:
                raise Busy(
                    f"{asset.name!r} is in use on the host",
                    next_step="Unmount it, or stop the virtual machine that has it; then try again.",
                )
            if new not in there:
                require_room(volumes, volume)
                tags = [tag for tag in sorted(volume.tags) if not tag.startswith("snapkeep.")]
                await self._make(doing, source, new, f"{REQUEST}{request_id}", *tags, keep=False)
            await self._host.do(doing, "lvrename", group, name, old)
        if old not in there or name not in there:
            await self._host.do(doing, "lvrename", group, new, name)
        await self._host.do(doing, "lvchange", "--activate", "n", f"{group}/{old}")
        return {"name": asset.name, "old": f"{group}/{old}", "request": request_id}

    async def restored(self, ticket: Data) -> None:
        """Raise VendorError unless the volume is the one that was made for the request."""
        for volume in await self._of_group(ticket["asset"]):
            if volume.full_name == ticket["name"] and volume.tag(REQUEST) == ticket["request"]:
                return
        raise VendorError(
            f"{ticket['name']} was exchanged by somebody else meanwhile",
            next_step=f"What it was before is {ticket['old']}.",
        )

    def require_target(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what is no name of a volume in the same group."""
        group, _, volume = name.partition("/")
        valid = _VOLUME.fullmatch(volume) and not _RESERVED.fullmatch(volume) and volume not in {".", ".."}
        if not valid or group != asset.name.partition("/")[0] or _length(group, volume) > _MOST_NAME:
            raise InvalidInput(
                f"{name!r:.120} is not a name for a new volume",
                next_step=f"Give group and name of a volume in the same group, such as {asset.name}-before.",
            )

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str, request_id: str) -> Data:
        """Make a writable volume of the snapshot, with the request as its tag."""
        volumes = await self._of_group(asset.id)
        source = snapshot_of(volumes, asset, snapshot)
        there = next((volume for volume in volumes if volume.full_name == name), None)
        if there is not None and there.tag(REQUEST) != request_id:
            raise Conflict(f"There is a volume {name!r} already")
        if there is None:
            require_room(volumes, source)
            doing = f"Cloning {asset.name!r} to {name!r}"
            await self._make(doing, source, name.partition("/")[2], f"{REQUEST}{request_id}", keep=False)
        return {"name": name}

    async def cloned(self, ticket: Data) -> Asset:
        """Return the new volume."""
        for volume in await self._volumes():
            if volume.full_name == ticket["name"]:
                return asset_of(volume)
        raise VendorError(f"LVM reported success, but there is no volume {ticket['name']!r}")

    # -- where a snapshot can be read ------------------------------------------------------------------------------
    async def path(self, asset: Asset, snapshot: Snapshot) -> bytes:
        """Return the directory in which it is mounted once it is shown."""
        snapshot_of(await self._of_group(asset.id), asset, snapshot)
        return self._shown + snapshot.id.encode()

    async def show(self, asset_id: str, snapshot_id: str) -> None:
        """Activate it, and mount it read-only without replaying its journal."""
        volume = next((item for item in await self._of_group(asset_id) if item.uuid == snapshot_id), None)
        if volume is None:
            raise NotFound("The snapshot no longer exists on the host")
        doing, place = f"Mounting {volume.full_name}", self._shown + snapshot_id.encode()
        if await self._is_mounted(place):
            return
        await self._host.do(doing, "lvchange", "--activate", "y", "--ignoreactivationskip", volume.full_name)
        kind = (await self._host.run("blkid", "-o", "value", "-s", "TYPE", "--", volume.path)).out.decode().strip()
        if kind not in _OPTIONS:
            await self._deactivate(volume)
            raise Unsupported(
                f"{volume.full_name} holds {kind or 'no file system'}, of which a snapshot cannot be mounted safely",
                next_step=f"These can be: {', '.join(_OPTIONS)}.",
            )
        await self._host.do(doing, "mkdir", "-p", "--", place)
        await self._host.do(doing, "chmod", "0700", "--", self._shown)  # users here are not those of a virtual machine
        options = ",".join((*_SAFE, *_OPTIONS[kind]))
        done = await self._host.run("mount", "-o", options, "--", volume.path, place)
        if not await self._is_mounted(place):
            self._host.require(done, doing)
            raise Unavailable(f"{volume.full_name} is not mounted, although mount reported success")

    async def hide(self, asset_id: str, snapshot_id: str) -> None:
        """Unmount and deactivate it."""
        await self._unmount(snapshot_id)
        for volume in await self._of_group(asset_id):
            if volume.uuid == snapshot_id:
                await self._deactivate(volume)

    async def _unmount(self, snapshot_id: str) -> None:
        place = self._shown + snapshot_id.encode()
        if await self._is_mounted(place):
            done = await self._host.run("umount", "--", place)
            if await self._is_mounted(place):  # else another request did it meanwhile
                self._host.require(done, "Unmounting a snapshot")
                raise Unavailable(f"{os.fsdecode(place)} is mounted still, although umount reported success")
        await self._host.remove_empty(place)

    async def _deactivate(self, volume: Volume) -> None:
        await self._host.do(f"Deactivating {volume.full_name}", "lvchange", "--activate", "n", volume.full_name)

    async def _is_mounted(self, place: bytes) -> bool:
        done = await self._host.see("findmnt", "-n", "-o", "SOURCE", "--mountpoint", place)
        if done.code == 1 and not done.out and not done.err:
            return False
        return bool(done.succeeded().strip())

    def fsid(self, snapshot: Snapshot) -> str:
        """Return a UUID made of the volume's, which has another form."""
        return str(uuid5(NAMESPACE_URL, f"lvm:{snapshot.id}"))

    async def link(self, asset: Asset, snapshot: Snapshot, address: str, mode: AccessMode) -> bytes:
        """Return a path in the directory of exports."""
        return self._links.path(asset.id, snapshot.id, address, mode)

    async def links(self) -> list[Link]:
        """Return those of volumes that there are."""
        found = await self._links.every()
        assets = {asset_id_of(volume, volume.name) for volume in await self._volumes()} if found else set()
        return [link for link in found if link.asset_id in assets]

    async def index(self) -> Callable[[bytes], Readable | None]:
        """Know the snapshots by their UUIDs, by which they are mounted."""
        assets = {
            volume.uuid: asset_id_of(volume, volume.asset) for volume in await self._volumes() if volume.is_snapshot
        }

        def readable(path: bytes) -> Readable | None:
            directory, _, uuid = path.rpartition(b"/")
            name = os.fsdecode(uuid)
            return Readable(assets.get(name, ""), name) if directory + b"/" == self._shown else None

        return readable

    # -- what LVM says ---------------------------------------------------------------------------------------------
    async def _volumes(self) -> list[Volume]:
        return read_volumes((await self._host.run(*LIST)).succeeded())

    async def _of_group(self, asset_id: str) -> list[Volume]:
        """Return the volumes in an asset's group. Raises Unavailable when the group is not there."""
        uuid = asset_id.removeprefix("lvm:").partition("/")[0]
        found = [volume for volume in await self._volumes() if volume.group_uuid == uuid]
        if not found:
            raise Unavailable(  # NotFound would say that its snapshots are gone
                f"The volume group of {asset_id!r} is not on the host",
                next_step="See `vgs` and `pvs` there; or, if it is gone for good, remove the system.",
            )
        return found

    async def _is_gone(self, uuid: str) -> bool:
        return all(volume.uuid != uuid for volume in await self._volumes())

    def _snapshot(self, volume: Volume) -> Snapshot:
        return Snapshot(
            id=volume.uuid,
            asset_id=asset_id_of(volume, volume.asset),
            name=volume.own,
            kind=SnapshotKind.USER,
            owned=bool(volume.tag(ASSET)) and is_owned_name(self._prefix, volume.own),
            created_at=datetime.fromtimestamp(volume.time, UTC),
        )


def _length(group: str, volume: str) -> int:
    """Return the length of the device's name, in which each dash is doubled (dm_build_dm_name)."""
    return sum(len(part) + part.count("-") for part in (group, volume)) + 1
