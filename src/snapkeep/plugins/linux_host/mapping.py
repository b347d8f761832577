"""From what btrfs says to our nouns: pure."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.snapshots import Snapshot, SnapshotKind, is_owned_name
from snapkeep.plugins.linux_host.btrfs import Status, Subvolume
from snapkeep.plugins.linux_host.places import CONTAINER, SNAPPER, FileSystem, Layout, is_ours, make_id, shown
from snapkeep.plugins.linux_host.script import Found

HOST = "host"
"""Id of the host itself."""

VOLUME_CAPABILITIES = frozenset(
    {
        Capability.CREATE,
        Capability.DELETE,
        Capability.RESTORE,
        Capability.CLONE,
        Capability.EXPORT,
        Capability.DIFF_FILES,
    }
)
DATASET_CAPABILITIES = VOLUME_CAPABILITIES - {Capability.DIFF_FILES}
"""What can be done with any kind of file system that has snapshots; btrfs alone tells what differs."""
_WRITING = (Capability.CREATE, Capability.RESTORE, Capability.CLONE, Capability.DELETE)

_TYPES = {
    stat.S_IFREG: ObjectType.FILE,
    stat.S_IFDIR: ObjectType.DIRECTORY,
    stat.S_IFLNK: ObjectType.SYMLINK,
    stat.S_IFIFO: ObjectType.FIFO,
    stat.S_IFSOCK: ObjectType.SOCKET,
    stat.S_IFBLK: ObjectType.BLOCK_DEVICE,
    stat.S_IFCHR: ObjectType.CHARACTER_DEVICE,
}


def host_asset(name: str) -> Asset:
    """Return the host."""
    return Asset(id=HOST, kind=AssetKind.HOST, name=name, capabilities=frozenset({Capability.DISCOVER}))


def file_system_asset(system: FileSystem) -> Asset:
    """Return a file system: a parent of what can be protected."""
    return Asset(
        id=system.uuid,
        kind=AssetKind.FILE_SYSTEM,
        name=f"btrfs-{system.uuid}",
        parent_id=HOST,
        refusals={
            **dict.fromkeys(DATASET_CAPABILITIES, "btrfs has snapshots of subvolumes: protect those in it"),
            Capability.QUIESCE: "a snapshot of btrfs needs no freeze, and would wait for its end",
        },
        attributes={"mounted": ", ".join(sorted(shown(mount.target) for mount in system.mounts))},
    )


def is_asset(subvolume: Subvolume) -> bool:
    """Say whether a subvolume can be protected: it can be written to, and holds no snapshots for another one."""
    name = subvolume.path.rpartition(b"/")[2]
    return not subvolume.read_only and not is_ours(subvolume.path) and name != SNAPPER


def volume_asset(layout: Layout, subvolume: Subvolume) -> Asset:
    """Return a subvolume."""
    system = layout.system
    mount, path = system.mount(subvolume.path), system.path(subvolume.path)
    refusals: dict[Capability, str] = {}
    if mount is None or path is None:
        refusals = dict.fromkeys(VOLUME_CAPABILITIES, "it is not mounted on the host")
    elif mount.read_only:
        refusals = dict.fromkeys(_WRITING, "it is mounted read-only")
    inner = layout.nested(subvolume)
    if Capability.RESTORE not in refusals and path in {item.target for item in system.mounts}:
        refusals[Capability.RESTORE] = "it is the root of a mount, where no other can take its place: clone it instead"
    elif Capability.RESTORE not in refusals and inner:
        refusals[Capability.RESTORE] = "other subvolumes lie in it, which would stay behind: clone it instead"
    attributes = {"uuid": subvolume.uuid}
    if inner:
        attributes["not_in_snapshots"] = ", ".join(sorted(map(shown, inner))[:20])
    return Asset(
        id=make_id(system.uuid, subvolume.path),
        kind=AssetKind.VOLUME,
        name=volume_name(path) if path is not None else f"{system.uuid}/{shown(subvolume.path)}",
        parent_id=_parent(layout, subvolume),
        capabilities=VOLUME_CAPABILITIES - refusals.keys(),
        refusals=refusals,
        attributes=attributes,
    )


def _parent(layout: Layout, subvolume: Subvolume) -> str:
    """Return the asset that a subvolume lies in, which may be the file system alone."""
    above, uuid = layout.parent(subvolume), layout.system.uuid
    return uuid if above is None or not is_asset(above) else make_id(uuid, above.path)


def volume_name(path: bytes) -> str:
    """Return how an asset at a path of the host is called: that path without its first slash."""
    return shown(path).strip("/") or "rootfs"


def snapshots(system: FileSystem, prefix: str) -> Iterator[Snapshot]:
    """Yield the snapshots of a file system: ours by where they are, others by what they were taken from."""
    by_path = {item.path: item for item in system.subvolumes}
    by_uuid = {item.uuid: item for item in system.subvolumes if item.uuid and is_asset(item)}
    for item in system.subvolumes:
        if not item.read_only:
            continue
        directory, _, name = item.path.rpartition(b"/")
        above, _, container = directory.rpartition(b"/")
        source = by_path.get(above) if container == CONTAINER else by_uuid.get(item.source)
        if source is not None:
            own = container == CONTAINER
            yield snapshot(make_id(system.uuid, source.path), name if own else item.path, item, prefix, ours=own)


def snapshot(asset_id: str, name: bytes, found: Subvolume, prefix: str, *, ours: bool) -> Snapshot:
    """Return a snapshot. A foreign one is called by its path in the file system."""
    text = shown(name)
    owned = ours and is_owned_name(prefix, text)
    by_schedule = SNAPPER in found.path.split(b"/")
    return Snapshot(
        id=found.uuid,
        asset_id=asset_id,
        name=text,
        kind=SnapshotKind.SCHEDULE if by_schedule else SnapshotKind.USER,
        owned=owned,
        created_at=datetime.fromisoformat(found.created).replace(tzinfo=UTC) if found.created else None,
    )


def old_path(found: Found) -> bytes | None:
    """Return where an object was in the base, if that is to be asked about."""
    return found.path if found.operation is ChangeOperation.DELETE else found.old_path or found.base


def changes(found: Found, before: Mapping[bytes, Status], after: Mapping[bytes, Status]) -> Iterator[Change]:
    """Yield what a fact means, with what base and new snapshot say of the object.

    Of a file with several names none is renamed: one goes, and one comes, as it is now.
    """
    old = before.get(old_path(found) or b"")
    now = after.get(found.path)
    several = _has_several(old), _has_several(now)
    if found.operation is ChangeOperation.DELETE:
        yield _change(found, old)
    elif found.old_path is not None and any(several):
        yield _change(Found(ChangeOperation.DELETE, found.old_path), old, linked=True)
        yield _change(Found(ChangeOperation.ADD, found.path), now, linked=True)
    elif found.renamed and any(several) and not all(several):
        return  # it is all new under this name; only of two with several names may another one have stayed
    elif not found.times or not _is_same(old, now, moved=found.renamed):
        yield _change(found, now)


def _is_same(old: Status | None, now: Status | None, *, moved: bool) -> bool:
    """Say whether only the time of access differs. A name that moved or went changes the time of change, too.

    Of one that came the file is told as well: who knows only its first name learns so that it has several.
    """
    if old is None or now is None or old.modified != now.modified:
        return False
    return moved or now.links < old.links or old.changed == now.changed


def _change(found: Found, status: Status | None, *, linked: bool = False) -> Change:
    if status is None:
        return Change(found.operation, ObjectType.OTHER, found.path, found.old_path, 0, found.inode)
    kind = _TYPES.get(stat.S_IFMT(status.mode), ObjectType.OTHER)
    size = status.size if kind is ObjectType.FILE else 0
    if linked or _has_several(status):
        kind = ObjectType.HARD_LINK
    return Change(
        found.operation,
        kind,
        found.path,
        found.old_path,
        size,
        status.inode,
        status.created or None,
        status.changed,
        status.accessed,
    )


def _has_several(status: Status | None) -> bool:
    return status is not None and status.links > 1 and not stat.S_ISDIR(status.mode)


def kept(found: Iterable[Found]) -> Iterator[Found]:
    """Leave out what is no entry: the root itself, and what stands in a snapshot for a subvolume of ours."""
    for item in found:
        if item.path and item.path != CONTAINER:
            yield item
