"""What is mounted besides what takes snapshots: local file systems, which can be frozen, and those of other machines.

Programs: findmnt (util-linux) and printenv (coreutils).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import VendorError
from snapkeep.plugin.commands import Output
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mapping import DATASET_CAPABILITIES, HOST
from snapkeep.plugins.linux_host.places import shown
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

PREFIX = "mount:"
"""How the ids of these assets begin."""

FREEZABLE = ("ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "xfs")
"""Types whose driver can be frozen (FIFREEZE, ioctl_fsfreeze(2)) and does not need it for its own snapshots."""
_OTHERS = ("exfat", "gfs2", "hfsplus", "ntfs", "ntfs3", "ocfs2", "vfat")
_ELSEWHERE = (
    *("9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
    *("glusterfs", "lustre", "nfs", "nfs4", "smb3", "virtiofs"),
)

_HERE_COLUMNS = "TARGET,FSROOT,SOURCE,FSTYPE,OPTIONS,UUID,SIZE"
_ELSEWHERE_COLUMNS = "TARGET,FSROOT,SOURCE,FSTYPE,OPTIONS"
"""Nothing for which the other machine is asked, which may not answer."""

_SYSTEM = (
    *("/bin", "/etc", "/lib", "/root", "/run", "/sbin", "/tmp", "/usr", "/var"),  # noqa: S108 - no file is made there
    *("/var/lib", "/var/log", "/var/log/audit", "/var/spool", "/var/tmp"),  # noqa: S108
)
"""Who freezes what holds one of these may wait for ever to thaw it: logins, sudo and shells write there."""


class Mounted(NamedTuple):
    """A file system where it is mounted."""

    target: bytes
    root: bytes
    """The directory of it that is mounted there."""
    source: str
    """Its device, or server and path."""
    type: str
    read_only: bool
    uuid: str
    size: int | None

    @property
    def id(self) -> str:
        """The id of its asset: by its UUID where one is known, else by device and place."""
        return PREFIX + (self.uuid or f"{quote(self.source)}:{quote(self.target)}")

    @property
    def path(self) -> str:
        """Where it is mounted, for people."""
        return shown(self.target)

    @property
    def name(self) -> str:
        """The name of its asset: that path without its first slash."""
        return self.path.strip("/") or "rootfs"


class Mounts:
    """The mounted file systems of one host; asked for anew each time, since they come and go."""

    def __init__(self, host: Host, settings: LinuxHostSettings) -> None:
        self._host = host
        self._only = frozenset(os.fsencode(path) for path in settings.only)
        self._ours = os.fsencode(settings.export_directory) + b"/"
        self._home: str | None = None

    async def assets(self) -> list[Asset]:
        """Return them as assets, each once, where it was mounted first."""
        home, every = await self._users_home(), await self._every()
        return [_asset(mounted, _views(mounted, every), home) for mounted in _once(self._wanted(every))]

    async def place(self, asset: Asset) -> bytes | None:
        """Return where an asset is mounted, if it is where it was. Raises Unsupported when it cannot be frozen now."""
        home, every = await self._users_home(), await self._every()
        for mounted in _once(self._wanted(every)):
            if (mounted.id, mounted.name) == (asset.id, asset.name):
                _asset(mounted, _views(mounted, every), home).require(Capability.QUIESCE)
                return mounted.target
        return None

    async def mounted(self) -> list[Mounted]:
        """Return what is mounted, in the order in which it was; without what we show for exports. Raises VendorError.

        Only root may read a UUID from the device, where no udev knows it: then it has none for other users.
        """
        return self._wanted(await self._every())

    def _wanted(self, every: Sequence[Mounted]) -> list[Mounted]:
        return [
            mounted
            for mounted in every
            if (not self._only or mounted.target in self._only) and not mounted.target.startswith(self._ours)
        ]

    async def _every(self) -> list[Mounted]:
        here = await self._listed((*FREEZABLE, *_OTHERS), _HERE_COLUMNS)
        return [*here, *await self._listed(_ELSEWHERE, _ELSEWHERE_COLUMNS)]

    async def _listed(self, types: Sequence[str], columns: str) -> list[Mounted]:
        done = await self._host.see("findmnt", "-J", "-l", "-b", "-t", ",".join(types), "-o", columns)
        if done.code == 1 and not done.out and not done.err:
            return []  # there is none (findmnt(8))
        return _read(done)

    async def _users_home(self) -> str:
        if self._home is None:
            self._home = shown((await self._host.see("printenv", "HOME")).out.removesuffix(b"\n"))
        return self._home


def _read(done: Output) -> list[Mounted]:
    try:
        return [_mounted(item) for item in json.loads(done.succeeded())["filesystems"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VendorError("findmnt answers in a form that is not known", vendor_message=str(error)) from error


def _mounted(item: dict[str, Any]) -> Mounted:
    return Mounted(
        os.fsencode(item["target"]),
        os.fsencode(item["fsroot"]),
        item["source"].partition("[")[0],  # of a directory that is mounted, findmnt shows it behind the device
        item["fstype"],
        "ro" in item["options"].split(","),
        item.get("uuid") or "",
        None if item.get("size") is None else int(item["size"]),
    )


def _once(every: Sequence[Mounted]) -> Iterator[Mounted]:
    """Leave out what is another view of the same, and copies of a device, which have its UUID."""
    known: set[str] = set()
    for mounted in sorted(every, key=lambda mounted: mounted.root != b"/"):
        if mounted.id not in known:
            known.add(mounted.id)
            yield mounted


def _views(mounted: Mounted, every: Sequence[Mounted]) -> list[Mounted]:
    """Return all places where a file system is seen, or a part of it: who freezes it freezes it in all of them."""
    key = mounted.uuid or mounted.source
    return [view for view in every if (view.uuid or view.source) == key]


def _asset(mounted: Mounted, views: Sequence[Mounted], home: str) -> Asset:
    refusals = dict.fromkeys(
        DATASET_CAPABILITIES, f"{mounted.type} has no snapshots of its own: protect the volume that it lies on"
    )
    if refusal := _refusal(mounted, views, home):
        refusals[Capability.QUIESCE] = refusal
    attributes = {"device": mounted.source, "type": mounted.type, "mounted": mounted.path}
    if mounted.type in _ELSEWHERE and (server := _server(mounted.source)):
        attributes["server"] = server
    if mounted.uuid:
        attributes["uuid"] = mounted.uuid
    if mounted.size is not None:
        attributes["size_bytes"] = str(mounted.size)
    return Asset(
        id=mounted.id,
        kind=AssetKind.FILE_SYSTEM,
        name=mounted.name,
        parent_id=HOST,
        capabilities=frozenset() if refusal else frozenset({Capability.QUIESCE}),
        refusals=refusals,
        attributes=attributes,
    )


def _refusal(mounted: Mounted, views: Sequence[Mounted], home: str) -> str:
    """Return why it cannot be frozen, also for one of its views; empty: it can."""
    if mounted.type in _ELSEWHERE:
        return f"it lies on another machine: {_server(mounted.source) or mounted.source}"
    if mounted.type not in FREEZABLE:
        return f"a file system of type {mounted.type} cannot be frozen"
    if mounted.read_only:
        return "it is mounted read-only: nothing changes in it"
    for view in views:
        if held := _holds(view.path, [*_SYSTEM, home]):
            return f"it holds {held}, and what thaws it again might wait for that"
    return ""


def _holds(target: str, paths: Sequence[str]) -> str:
    """Return the first of some directories that lies in a file system, if it has nothing mounted above it."""
    if target == "/":
        return "all that has no file system of its own"
    return next((path for path in paths if path == target or path.startswith(f"{target}/")), "")


def _server(source: str) -> str:
    """Return the machine of `server:/path`, `//server/share` or `user@server:`; empty where none is named."""
    if source.startswith("//"):
        return source[2:].partition("/")[0]
    name, colon, _ = source.rpartition(":/") if ":/" in source else source.rpartition(":")
    return name.rpartition("@")[2].strip("[]") if colon else ""
