"""Simulated storage volumes that are real: a directory tree, whole copies of it as snapshots, exact diffs.

Users change `Volume.live` with ordinary tools. A snapshot is an independent copy, read-only by convention: a btrfs
subvolume snapshot, a copy by reflinks or a plain copy, by what a probe shows to work. Only the first is of one
instant; the others take each object as it is when its turn comes.

`Volume.diff` is exact, for at each snapshot a map of all inodes is written; what it lists, and in which order, is
told in `snapkeep.simulators.kit.changes`.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from snapkeep.simulators.kit import changes, tree
from snapkeep.simulators.kit.changes import Entry, ObjectType, Operation

__all__ = ["Entry", "Method", "ObjectType", "Operation", "Volume"]

_SUBVOLUME_INODE = 256  # of the top directory of every btrfs subvolume
_SUFFIX = ".map"
_LONGEST = 255 - len(_SUFFIX)
_CODED = "~"


class Method(StrEnum):
    """How a volume copies its tree."""

    SUBVOLUME = "subvolume"
    REFLINK = "reflink"
    COPY = "copy"


class Volume:
    """A directory `root` that holds `live/`, `snapshots/<dirname>/` and `maps/<dirname>.map`.

    What is missing is made; an existing root is taken up again, and what a killed process left half done is removed
    (or, for a restore that was all but done, finished). Safe against a killed process, not against a power cut.
    Methods may be called by many threads; changes wait for each other. One `Volume` at a time may own a root.
    All methods with a `name` raise ValueError for a bad one: good are 1 to 255 bytes of UTF-8, without `/` and NUL,
    neither `.` nor `..`.
    """

    live: Path
    method: Method

    def __init__(self, root: Path) -> None:
        self.root = root = root.absolute()
        self.live = root / "live"
        self._snapshots, self._maps = root / "snapshots", root / "maps"
        # What is under way lies beside what it will be: without root's rights a directory that forbids writing
        # can be renamed, but not moved to another parent.
        self._copying, self._next, self._old = root / "live.copy", root / "live.next", root / "live.old"
        self._new, self._gone = self._snapshots / f"{_CODED}new", self._snapshots / f"{_CODED}gone"
        self._lock = threading.RLock()
        for folder in (root, self._snapshots, self._maps):
            folder.mkdir(parents=True, exist_ok=True)
        self._recover()
        self.method = _probe(root, self.live)
        if not self.live.exists():
            self._make_top(self.live)

    def snapshot(self, name: str) -> Path:
        """Copy the live tree as it is now; returns where. FileExistsError when the name is taken.

        PermissionError when something in the tree cannot be read; then, as after every error, no snapshot is there.
        What happens after the return differs from the snapshot by its stamps, however soon it happens.
        """
        path = self.snapshot_path(name)
        draft = self._maps / "draft"
        with self._lock:
            if path.exists():
                raise FileExistsError(errno.EEXIST, "snapshot exists", name)
            origins = changes.Origins.load(self._origins_path(self.live))
            try:
                nodes = self._copy(self.live, self._new)
                changes.write_map(draft, name, map(origins.record, nodes))
                draft.replace(self._map_path(name))
                self._new.rename(path)  # from here on it is there
            finally:
                tree.remove(draft)
                _remove_tree(self._new)
            tree.wait_for_tick()
        return path

    def snapshot_path(self, name: str) -> Path:
        """Where the snapshot `name` is, or would be. Its last part is the name, but for some (too long) ones."""
        return self._snapshots / _dirname(name)

    def snapshots(self) -> list[str]:
        """The names of all snapshots, sorted."""
        with self._lock:
            paths = [self._maps / (found.name + _SUFFIX) for found in self._snapshots.iterdir()]
            return sorted(changes.read_header(path).name for path in paths if path.exists())

    def delete(self, name: str) -> None:
        """Remove a snapshot; an absent one is no error."""
        with self._lock:
            if not self.snapshot_path(name).exists():
                return
            self.snapshot_path(name).rename(self._gone)  # from here on it is gone
            self._map_path(name).unlink()
            _remove_tree(self._gone)

    def restore(self, name: str) -> None:
        """Make the live tree equal to a snapshot, metadata included; `live` changes in one step and keeps its path.

        Objects get new inodes but stay the same objects to `diff`: right after a restore, a new snapshot has no
        differences from the restored one. FileNotFoundError when the snapshot is absent; the live tree is as before
        after every error.
        """
        with self._lock:
            path = self._existing(name)
            origins = changes.Origins(self._generation() + 1)
            if self._stage(path):
                records = {record.path: record for record in changes.read_map(self._map_path(name))}
                for node in tree.scan(self._next):
                    if node.path in records:
                        origins.keep(node, records[node.path])
                origins.save(self._origins_path(self._next))
            self._go_live()

    def clone(self, name: str | None, target: "Volume") -> None:
        """Make the live tree of another volume a copy of a snapshot, or with no name of this live tree.

        To the target's diffs all objects of the copy are new (but on btrfs those that it had from an earlier clone
        are known). FileNotFoundError when the snapshot is absent, ValueError when the target is this volume.
        """
        if target.root.resolve() == self.root.resolve():
            raise ValueError("a volume cannot be cloned onto itself: restore it")
        first, second = sorted((self, target), key=lambda volume: str(volume.root.resolve()))
        with first._lock, second._lock:
            source = self.live if name is None else self._existing(name)
            origins = changes.Origins(target._generation() + 1)
            if target._stage(source):
                origins.save(target._origins_path(target._next))
            target._go_live()

    def diff(self, base: str | None, new: str, *, list_renamed_children: bool = False) -> Iterator[Entry]:
        """What changed from `base` to `new`, or with no base all of `new` as ADD, in tree order of the paths.

        A renamed directory is one entry, or with `list_renamed_children` one for each path below it too. The rules
        are in `snapkeep.simulators.kit.changes`. FileNotFoundError, at the call, when one of the two is absent.
        With no base the list is read as it is asked for: the snapshot must stay until then.
        """
        for name in (base, new):
            if name is not None:
                self._existing(name)
        old = None if base is None else self._map_path(base)
        return changes.differences(old, self._map_path(new), list_renamed_children=list_renamed_children)

    def totals(self, name: str) -> tuple[int, int]:
        """How many paths a snapshot has, and how many bytes of file content (hard links count once).

        FileNotFoundError when the snapshot is absent.
        """
        self._existing(name)
        header = changes.read_header(self._map_path(name))
        return header.objects, header.size

    def _existing(self, name: str) -> Path:
        path = self.snapshot_path(name)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no such snapshot", name)
        return path

    def _map_path(self, name: str) -> Path:
        return self._maps / (_dirname(name) + _SUFFIX)

    def _origins_path(self, live: Path) -> Path:
        """The file that goes with one live tree, told by its top: so the two change at the same instant."""
        with tree.opened_top(live) as top:
            found = tree.stat_at(top, b".")
        return self._maps / f"{found.inode}-{found.birth_time}.origins"

    def _generation(self) -> int:
        return changes.Origins.load(self._origins_path(self.live)).generation

    def _recover(self) -> None:
        if self._next.exists() and not self.live.exists():
            self._next.rename(self.live)
        for left in (self._copying, self._next, self._old, self._new, self._gone):
            _remove_tree(left)
        keep = {found.name + _SUFFIX for found in self._snapshots.iterdir()}
        if self.live.exists():
            keep.add(self._origins_path(self.live).name)
        for found in self._maps.iterdir():
            if found.name not in keep:
                found.unlink()

    def _make_top(self, path: Path) -> None:
        if self.method is not Method.SUBVOLUME or not _btrfs("create", path):
            path.mkdir()

    def _copy(self, source: Path, target: Path) -> Iterator[tree.Node]:
        """Copy a whole tree to a new path, yielding what it holds; the inodes told are those of `source`."""
        if self._branch(source, target):
            return tree.scan(target)
        self._make_top(target)
        return tree.copy(source, target, reflink=self.method is not Method.COPY)

    def _branch(self, source: Path, target: Path) -> bool:
        """Copy by a subvolume snapshot, which keeps inodes and all; False when that cannot be."""
        return self.method is Method.SUBVOLUME and _btrfs("snapshot", source, target)

    def _stage(self, source: Path) -> bool:
        """Copy a tree to where it can go live from; True when its objects have new inodes."""
        try:
            branched = self._branch(source, self._copying)
            if not branched:
                self._make_top(self._copying)
                deque(tree.copy(source, self._copying, reflink=self.method is not Method.COPY), maxlen=0)
            self._copying.rename(self._next)
        finally:
            _remove_tree(self._copying)
        return not branched

    def _go_live(self) -> None:
        found = self._next.stat()
        if not tree.exchange(self._next, self.live):
            self.live.rename(self._old)
            self._next.rename(self.live)  # a crash before this line: `_recover` does it
        os.utime(self.live, ns=(found.st_atime_ns, found.st_mtime_ns))  # XFS stamps what it exchanges
        self._recover()
        tree.wait_for_tick()


def _dirname(name: str) -> str:
    """The name itself where it can be one and cannot be mistaken, else a digest of it."""
    encoded = name.encode()
    if not 1 <= len(encoded) <= 255 or name in {".", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"not a name for a snapshot: {name!r}")
    if len(encoded) <= _LONGEST and not name.startswith(_CODED):
        return name
    return _CODED + hashlib.sha256(encoded).hexdigest()


def _probe(root: Path, live: Path) -> Method:
    """What works here, found by doing it."""
    one, two = root / "probe.1", root / "probe.2"
    _remove_tree(one)
    _remove_tree(two)
    try:
        if not live.exists() or live.stat().st_ino == _SUBVOLUME_INODE:
            if _btrfs("create", one) and _btrfs("snapshot", one, two):
                return Method.SUBVOLUME
            _remove_tree(one)
        one.write_bytes(bytes(4096))
        with one.open("rb") as reader, two.open("wb") as writer:
            return Method.REFLINK if tree.clone_file(reader.fileno(), writer.fileno()) else Method.COPY
    finally:
        _remove_tree(one)
        _remove_tree(two)


def _btrfs(action: str, *paths: Path) -> bool:
    """Run `btrfs subvolume <action>`; False when there is no such program or it refuses."""
    program = shutil.which("btrfs")
    if program is None:
        return False
    command = [program, "subvolume", action, "--", *map(os.fspath, paths)]
    done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
    return done.returncode == 0


def _remove_tree(path: Path) -> None:
    """Remove a tree of either kind."""
    if not (path.exists() and path.stat().st_ino == _SUBVOLUME_INODE and _btrfs("delete", path)):
        tree.remove(path)
