"""Where things are: file systems, their subvolumes, and the paths under which the host reaches them.

An asset is a subvolume that can be written to; its id is the file system's UUID and the path in it, since its own UUID
is another one after a restore. Our snapshots lie in a subvolume `.snapkeep` of the asset itself, so that they are
reached wherever the asset is mounted, and no snapshot holds them. Other read-only subvolumes are foreign snapshots of
the asset that they were taken from.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from snapkeep.model.errors import NotFound, Unavailable
from snapkeep.plugins.linux_host.btrfs import TOP, Btrfs, Mount, Subvolume

CONTAINER = b".snapkeep"
"""Name of the subvolume in each asset that holds our snapshots of it."""
SNAPPER = b".snapshots"
"""That of snapper (snapper(8))."""


class FileSystem(NamedTuple):
    """A btrfs file system with all that is in it."""

    uuid: str
    mounts: tuple[Mount, ...]
    subvolumes: tuple[Subvolume, ...]
    """The top-level one among them."""

    def path(self, inside: bytes) -> bytes | None:
        """Return the path on the host of one in the file system; None: no mount leads there."""
        mount = self.mount(inside)
        return None if mount is None else _below(mount.target, inside[len(_root(mount)) :].lstrip(b"/"))

    def mount(self, inside: bytes) -> Mount | None:
        """Return the mount that leads to a path: the nearest, one that can be written to before others."""
        leading = [mount for mount in self.mounts if _is_in(inside, _root(mount))]
        return max(leading, key=lambda mount: (len(_root(mount)), not mount.read_only), default=None)


class Place(NamedTuple):
    """Where an asset is on the host, now."""

    path: bytes
    is_mounted: bool
    """Whether it is the root of a mount: then its place cannot be given to another one."""
    inside: bytes
    """Its path in the file system."""
    uuid: str
    """The file system's."""

    @property
    def container(self) -> bytes:
        """Where our snapshots of it are."""
        return _below(self.path, CONTAINER)

    def snapshot(self, name: str) -> bytes:
        """Return where our snapshot of that name is."""
        return _below(self.container, name.encode())


class Places:
    """Finds them by asking the host anew: mounts come and go."""

    def __init__(self, btrfs: Btrfs, only: Sequence[bytes] = ()) -> None:
        """`only`: mount points to look at; none: all."""
        self._btrfs = btrfs
        self._only = frozenset(only)

    async def file_systems(self) -> list[FileSystem]:
        """Return all that are mounted."""
        found = []
        for uuid, mounts in (await self._mounts()).items():
            listed = await self._btrfs.subvolumes(mounts[0].target)
            top = Subvolume(TOP, 0, 0, "", "", False, False, b"")
            found.append(FileSystem(uuid, tuple(mounts), (top, *listed)))
        return found

    async def find(self, asset_id: str) -> Place:
        """Return where an asset is. Raises NotFound when it is not there, Unavailable when it is not mounted."""
        uuid, inside = read_id(asset_id)
        mounts = (await self._mounts()).get(uuid, [])
        system = FileSystem(uuid, tuple(mounts), ())
        path = system.path(inside)
        if path is None:
            raise Unavailable(  # NotFound would say that its snapshots are gone
                f"The file system {uuid} is not mounted, or not the part of it that the asset is in",
                next_step="Mount it on the host, then try again.",
            )
        if not await self._btrfs.exists(path):
            raise NotFound(f"{shown(path)} is no subvolume any more", next_step="Run `snapkeep discover`.")
        return Place(path, path in {mount.target for mount in mounts}, inside, uuid)

    async def below(self, uuid: str, inside: bytes) -> bytes | None:
        """Return the path on the host of one in a file system."""
        return FileSystem(uuid, tuple((await self._mounts()).get(uuid, [])), ()).path(inside)

    async def _mounts(self) -> dict[str, list[Mount]]:
        found: dict[str, list[Mount]] = {}
        for mount in await self._btrfs.mounts():
            if not self._only or mount.target in self._only:
                found.setdefault(mount.uuid, []).append(mount)
        return found


def make_id(uuid: str, inside: bytes) -> str:
    """Return the id of an asset."""
    return f"{uuid}/{quote(inside)}"


def read_id(asset_id: str) -> tuple[str, bytes]:
    """Return file system and path of an asset's id."""
    uuid, _, inside = asset_id.partition("/")
    return uuid, unquote_to_bytes(inside)


def shown(path: bytes) -> str:
    """Return a path for people."""
    return path.decode("utf-8", "backslashreplace")


def is_ours(inside: bytes) -> bool:
    """Say whether a path in a file system is that of a container of ours, or in one."""
    return CONTAINER in inside.split(b"/")


class Layout:
    """Which subvolumes of a file system lie in which others."""

    def __init__(self, system: FileSystem) -> None:
        self.system = system
        self._by_id = {item.id: item for item in system.subvolumes}
        self._paths = sorted(
            item.path
            for item in system.subvolumes
            if item.path and not is_ours(item.path) and SNAPPER not in item.path.split(b"/")
        )

    def parent(self, subvolume: Subvolume) -> Subvolume | None:
        """Return the subvolume that one lies in; None: in the top-level one, or in none."""
        return self._by_id.get(subvolume.parent) if subvolume.parent != TOP else None

    def nested(self, asset: Subvolume) -> list[bytes]:
        """Return the subvolumes in an asset, by their paths in it: its snapshots do not hold what is in them."""
        if not asset.path:
            return list(self._paths)
        prefix = asset.path + b"/"
        begin, end = (bisect_left(self._paths, edge) for edge in (prefix, asset.path + b"0"))  # what comes after "/"
        return [path[len(prefix) :] for path in self._paths[begin:end]]


def _root(mount: Mount) -> bytes:
    return mount.root.strip(b"/")


def _is_in(path: bytes, directory: bytes) -> bool:
    return not directory or path == directory or path.startswith(directory + b"/")


def _below(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name if name else directory
