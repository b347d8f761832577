"""Is a recovery point what its source was? A sample of both is compared."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from snapkeep.backup.metadata import attributes_text, node_text
from snapkeep.backup.nodes import Known, Node, Tree, read_node, same_time
from snapkeep.backup.reading import join, opened
from snapkeep.backup.recovery_point import share_tree
from snapkeep.backup.request import PARTIAL, BackupRequest, Stop, never_stop
from snapkeep.model.changes import PLACEHOLDER_INODE
from snapkeep.model.errors import Damaged, Unavailable
from snapkeep.repository.blobs import BlobId, BlobType
from snapkeep.repository.crypto import OVERHEAD
from snapkeep.repository.repository import Repository

EXAMPLES = 20
"""So many differences are named; all are counted."""

_CONTENT = 64 << 20  # bytes of content that are compared in all
_MOST_CHUNKS = 20_000  # of one file, among which some are chosen
_MOST_SIZES = 1000  # in one directory
_MOST_WEIGHED = 256  # directories in one directory
_NODE = 300  # bytes that a node has, about
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COMPARED = ("type", "mode", "uid", "gid", "size", "links", "linktarget", "linktarget_raw", "device")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
}


def compare(
    repository: Repository, snapshot_id: str, request: BackupRequest, *, files: int, seed: int, stop: Stop = never_stop
) -> dict[str, Any]:
    """Compare a random sample of a recovery point with its source; return a JSON-safe answer.

    The sample is so many objects that are no directories, found by going down from the top. Compared are their
    metadata and content (of big files some pieces), and in each directory on the way which names there are, of what
    type and size. What belongs to the one copy and not to the data is left out: access and change time, inode, device,
    and the names of owners. A recovery point with the tag `partial` may lack objects: they are counted as `lacking`.
    """
    snapshot = repository.snapshot(snapshot_id)
    tree, node = share_tree(repository, snapshot, request.logical_path)
    try:
        top = os.open(request.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"The source to compare with cannot be read: {request.source}: {error.strerror}") from error
    try:
        comparison = _Comparison(repository, top, PARTIAL in snapshot.tags, seed, stop)
        if node is not None:
            comparison.same_metadata(b"", node)
        comparison.descend(tree, files)
        comparison.same_content()
        return comparison.answer(seed)
    finally:
        os.close(top)


class _Piece(NamedTuple):
    """A part of a file that is one blob."""

    path: bytes
    offset: int
    id: BlobId


class _Comparison:
    def __init__(self, repository: Repository, top: int, partial: bool, seed: int, stop: Stop) -> None:
        self._repository = repository
        self._top = top
        self._partial = partial
        self._random = random.Random(seed)
        self._stop = stop
        self._content: list[tuple[int, bytes, list[str]]] = []  # size, path and blobs of the files in the sample
        self._files = self._directories = self._bytes = self._lacking = self._unreadable = 0
        self._differing = 0
        self._examples: list[str] = []

    def descend(self, tree: bytes, files: int) -> None:
        """Choose so many objects, each directory's share of them by how much is in it, and compare their metadata."""
        waiting = [(b"", tree, files)]
        left = 0  # what directories with too little in them did not take
        while waiting:
            self._stop()
            path, tree, share = waiting.pop()
            try:
                found = Tree(self._repository.load(BlobType.TREE, tree))
            except Damaged as error:
                self._differ(path, f"what the repository has of this directory cannot be read: {error}")
                left += share
                continue
            self._directories += 1
            both = self._same_names(path, found)
            chosen, below, left = self._choose(both, share + left)
            self._same_sizes(path, both, set(chosen))
            for name in [*chosen, *(name for name, _, _ in below)]:
                at = found.position(name)
                self._object(join(path, name), read_node(found.texts[at or 0]))
            waiting += [(join(path, name), bytes.fromhex(subtree), count) for name, subtree, count in below]

    def _same_names(self, path: bytes, tree: Tree) -> list[tuple[bytes, Known]]:
        """Compare which names a directory has, and of what type; return those that are the same in both."""
        try:
            with opened(self._top, path) as here, os.scandir(b"/proc/self/fd/%d" % here) as entries:
                there = {entry.name: _kind(entry) for entry in entries}
        except OSError as error:
            self._unread(path, error)
            return []
        both = []
        for name, known in tree.knowns():
            kind = there.pop(name, None)
            if kind == known.type:
                both.append((name, known))
            elif kind is None:
                self._differ(join(path, name), "it is not in the snapshot")
            else:
                self._differ(join(path, name), f"its type is {known.type}, in the snapshot {kind}")
        for name, kind in there.items():
            if kind == "socket":
                continue
            if self._partial:
                self._lacking += 1
            else:
                self._differ(join(path, name), "it is not in the recovery point")
        return both

    def _choose(
        self, both: list[tuple[bytes, Known]], count: int
    ) -> tuple[list[bytes], list[tuple[bytes, str, int]], int]:
        """Return what of a directory comes into the sample, the directories to go down, each with its share; the rest.

        How much is in a directory is guessed from the size of its tree, which the index knows.
        """
        files = [name for name, known in both if known.type != "dir"]
        directories = [(name, known.subtree) for name, known in both if known.subtree]
        weighed = self._random.sample(directories, min(len(directories), _MOST_WEIGHED))
        if not weighed:
            taken = min(count, len(files))
            return self._random.sample(files, taken), [], count - taken
        if count >= len(files) + len(weighed):
            taken, shares = len(files), dict.fromkeys(range(len(weighed)), 1)
        else:
            taken, shares = 0, {}
        weights = [len(files), *(self._weight(subtree) * len(directories) / len(weighed) for _, subtree in weighed)]
        if taken:
            weights[0] = 0
        for drawn in self._random.choices(range(-1, len(weighed)), weights, k=count - taken - len(shares)):
            if drawn < 0:
                taken += 1
            else:
                shares[drawn] = shares.get(drawn, 0) + 1
        rest = max(0, taken - len(files))
        below = [(*weighed[number], share) for number, share in shares.items()]
        return self._random.sample(files, taken - rest), below, rest

    def _weight(self, tree: str) -> float:
        for place in self._repository.locations(BlobType.TREE, bytes.fromhex(tree)):
            return 1 + (place.uncompressed_length or place.length) / _NODE
        return 1

    def _same_sizes(self, path: bytes, both: list[tuple[bytes, Known]], chosen: set[bytes]) -> None:
        """Compare the sizes of files that are not in the sample themselves."""
        sized = [(name, known.size) for name, known in both if known.type == "file" and name not in chosen]
        if not sized:
            return
        with suppress(OSError), opened(self._top, path) as here:
            for name, size in self._random.sample(sized, min(len(sized), _MOST_SIZES)):
                try:
                    there = os.stat(name, dir_fd=here, follow_symlinks=False).st_size
                except OSError as error:
                    self._unread(join(path, name), error)
                    continue
                if there != size:
                    self._differ(join(path, name), f"its size is {size}, in the snapshot {there}")

    def _object(self, path: bytes, node: Node) -> None:
        self._stop()
        if node.type != "dir":
            self._files += 1
        if self.same_metadata(path, node) and node.content:
            self._content.append((node.size, path, node.content))

    def same_metadata(self, path: bytes, node: Node) -> bool:
        """Compare a node with the one that would be written now."""
        parent, _, name = path.rpartition(b"/")
        try:
            with opened(self._top, parent) as here:
                now = _node(here, name or b".")
        except OSError as error:
            self._unread(path, error)
            return False
        different = [field for field in _COMPARED if getattr(node, field) != getattr(now, field)]
        placeholder = now.type == "dir" and now.inode == PLACEHOLDER_INODE
        if not placeholder and not same_time(node.mtime, now.mtime):
            different.append("mtime")
        if _attributes(node) != _attributes(now):
            different.append("extended attributes")
        if different:
            self._differ(path, f"it differs in {', '.join(different)}")
        return not different

    def same_content(self) -> None:
        """Compare content of the chosen files: small ones wholly, of big ones some pieces."""
        wanted: dict[BlobId, list[_Piece]] = {}
        for piece in self._pieces():
            wanted.setdefault(piece.id, []).append(piece)
        different: set[bytes] = set()
        for id, data in self._blobs(wanted, different):
            self._stop()
            for piece in wanted.pop(id):
                if piece.path in different:
                    continue
                try:
                    same = self._read(piece, len(data)) == data
                except OSError as error:
                    self._unread(piece.path, error)
                    continue
                self._bytes += len(data)
                if not same:
                    different.add(piece.path)
                    self._differ(piece.path, f"its content differs within {len(data)} bytes from {piece.offset} on")

    def _pieces(self) -> Iterator[_Piece]:
        """Yield the pieces to compare: in turn one of each file, the smallest files first, up to a sum of bytes."""
        left = _CONTENT
        self._content.sort(key=lambda file: file[:2])
        turns = [self._shuffled(path, size, content) for size, path, content in self._content]
        while turns and left > 0:
            still = []
            for pieces in turns:
                if pieces and left > 0:
                    length, piece = pieces.pop()
                    left -= length
                    yield piece
                    still.append(pieces)
            turns = still

    def _shuffled(self, path: bytes, size: int, content: list[str]) -> list[tuple[int, _Piece]]:
        """Return a file's pieces in random order, each with its length."""
        pieces = []
        offset = 0
        for text in content[:_MOST_CHUNKS]:
            id = bytes.fromhex(text)
            places = self._repository.locations(BlobType.DATA, id)
            if not places:
                self._differ(path, f"its content is not all in the repository: blob {text} is missing")
                return []
            length = places[0].uncompressed_length or places[0].length - OVERHEAD
            pieces.append((length, _Piece(path, offset, id)))
            offset += length
        if len(content) <= _MOST_CHUNKS and offset != size:
            self._differ(path, f"the repository has {offset} bytes of it, not {size}")
            return []
        self._random.shuffle(pieces)
        return pieces

    def _blobs(self, wanted: dict[BlobId, list[_Piece]], different: set[bytes]) -> Iterator[tuple[BlobId, bytes]]:
        """Yield the blobs, which the caller takes out of `wanted`; a damaged one is a difference."""
        try:
            yield from self._repository.load_many(BlobType.DATA, list(wanted))
            return
        except Damaged:
            pass
        for id in list(wanted):
            try:
                yield id, self._repository.load(BlobType.DATA, id)
            except Damaged as error:
                for piece in wanted[id]:
                    if piece.path not in different:
                        different.add(piece.path)
                        self._differ(piece.path, f"what the repository has of it cannot be read: {error}")

    def _read(self, piece: _Piece, length: int) -> bytes:
        parent, _, name = piece.path.rpartition(b"/")
        with opened(self._top, parent) as here:
            file = os.open(name, _FILE, dir_fd=here)
        try:
            data = b""
            while len(data) < length and (more := os.pread(file, length - len(data), piece.offset + len(data))):
                data += more
            return data
        finally:
            os.close(file)

    def _differ(self, path: bytes, what: str) -> None:
        self._differing += 1
        if len(self._examples) < EXAMPLES:
            self._examples.append(f"{path.decode(errors='backslashreplace') or 'the share itself'}: {what}")

    def _unread(self, path: bytes, error: OSError) -> None:
        """What cannot be read now was not compared; what is not there differs."""
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self._differ(path, "it is not in the snapshot")
        else:
            self._unreadable += 1

    def answer(self, seed: int) -> dict[str, Any]:
        """Return what was found."""
        return {
            "method": "sample",
            "seed": seed,
            "files": self._files,
            "directories": self._directories,
            "bytes": self._bytes,
            "lacking": self._lacking,
            "unreadable": self._unreadable,
            "differing": self._differing,
            "examples": self._examples,
            "verdict": self._verdict(),
        }

    def _verdict(self) -> str:
        looked = f"compared: {self._files:,} files in {self._directories:,} directories, {self._bytes:,} bytes"
        parts = [
            f"the recovery point is WRONG: {self._differing:,} objects differ from the snapshot ({looked})"
            if self._differing
            else f"the recovery point is true ({looked})"
        ]
        if self._lacking:
            parts.append(f"it lacks {self._lacking:,} of the objects met, as its tag `{PARTIAL}` says")
        if self._unreadable:
            parts.append(f"{self._unreadable:,} could not be read now, and were not compared")
        return "; ".join(parts)


def _kind(entry: os.DirEntry[bytes]) -> str:
    """Return a node's word for the type."""
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "dir"
    if entry.is_file(follow_symlinks=False):
        return "file"
    return _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), "socket")


def _node(here: int, name: bytes) -> Node:
    """Return the node that a backup would write."""
    found = os.stat(name, dir_fd=here, follow_symlinks=False)
    kind = stat.S_IFMT(found.st_mode)
    if kind not in _KINDS:
        raise FileNotFoundError
    target = os.readlink(name, dir_fd=here) if kind == stat.S_IFLNK else b""
    attributes = attributes_text(b"/proc/self/fd/%d/%s" % (here, name))
    size = found.st_size if kind == stat.S_IFREG else 0
    text = node_text(name, found, device_id=0, size=size, attributes=attributes, target=target)
    return read_node(text.encode() + b"}")


def _attributes(node: Node) -> list[tuple[str, bytes]]:
    return sorted((attribute.name, attribute.value or b"") for attribute in node.extended_attributes or ())
