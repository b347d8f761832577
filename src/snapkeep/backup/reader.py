"""Reading a recovery point: what is in it, and the content of its files.

Paths begin at the top of the recovery point, without a slash: `files1/projects/a/b`. Any recovery point in restic's
format can be read, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase

from snapkeep.backup.nodes import Node, Tree, read_node
from snapkeep.backup.reading import join
from snapkeep.model.errors import Damaged, InvalidInput, NotFound
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.crypto import OVERHEAD
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile


class RecoveryPoint:
    """What a snapshot file leads to."""

    def __init__(self, repository: Repository, snapshot: SnapshotFile) -> None:
        self.repository = repository
        self.snapshot = snapshot

    @classmethod
    def open(cls, repository: Repository, snapshot_id: str) -> RecoveryPoint:
        """Return a recovery point by its id, or by the beginning of it. Raises NotFound, InvalidInput."""
        return cls(repository, repository.snapshot(snapshot_id))

    def node(self, path: bytes) -> Node:
        """Return what is at a path. Raises NotFound, Damaged; InvalidInput for the top, which has no node."""
        return read_node(self.text(path))

    def text(self, path: bytes) -> bytes:
        """Return the text of the node at a path, as `node` does."""
        names = [name for name in path.split(b"/") if name]
        if not names:
            raise InvalidInput("The top of a recovery point is a directory without properties")
        tree: str | None = self.snapshot.tree
        text = b""
        for name in names:
            found = Tree(self.repository.load(BlobType.TREE, bytes.fromhex(tree))) if tree else None
            at = found.position(name) if found else None
            if found is None or at is None:
                raise NotFound(f"Recovery point {self.snapshot.id[:8]} holds no {path.decode(errors='replace')!r}")
            text = bytes(found.texts[at])
            tree = read_node(text).subtree
        return text

    def list(self, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """Yield name and node of all in a directory, sorted. Raises NotFound, Damaged; InvalidInput for a file."""
        tree: str | None = self.snapshot.tree
        if path.strip(b"/"):
            tree = self.node(path).subtree
        if tree is None:
            raise InvalidInput(f"{path.decode(errors='replace')!r} is no directory")
        return self.list_tree(tree)

    def list_tree(self, tree: str) -> Iterator[tuple[bytes, Node]]:
        """Yield name and node of all in a tree. A name that leads out of its directory is Damaged."""
        found = Tree(self.repository.load(BlobType.TREE, bytes.fromhex(tree)))
        for name, text in zip(found.names, found.texts, strict=True):
            if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
                raise Damaged(f"Tree {tree} holds an object with an impossible name: {name!r}")
            yield name, read_node(text)

    def walk(self, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """Yield path and node of all below a directory, a directory before what it holds."""
        path = path.strip(b"/")
        waiting = [(path, self.list(path))]
        while waiting:
            directory, inside = waiting[-1]
            for name, node in inside:
                below = join(directory, name)
                yield below, node
                if node.subtree:
                    waiting.append((below, self.list_tree(node.subtree)))
                    break
            else:
                waiting.pop()

    def find(self, pattern: bytes, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
        """Yield what has a name like `*.txt`; a pattern with a slash is compared with the whole path."""
        wanted = pattern.decode("utf-8", "surrogateescape")
        for found, node in self.walk(path):
            text = found if b"/" in pattern else found.rpartition(b"/")[2]
            if fnmatchcase(text.decode("utf-8", "surrogateescape"), wanted):
                yield found, node

    def read(self, node: Node, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the content of a file, or a part of it, piece by piece; only what is asked for is loaded.

        Raises Damaged; InvalidInput for what is no file.
        """
        if node.type != "file":
            raise InvalidInput(f"{node.name!r} is no file")
        ids = map(bytes.fromhex, node.content or ())
        if not offset and length is None:
            yield from self.repository.load_in_order(BlobType.DATA, ids)
            return
        end = node.size if length is None else offset + length
        chosen: list[bytes] = []
        first = at = 0
        for id in ids:
            size = self.size_of(id)
            if at + size > offset and at < end:
                first = first if chosen else at
                chosen.append(id)
            at += size
        at = first
        for data in self.repository.load_in_order(BlobType.DATA, chosen):
            yield data[max(0, offset - at) : end - at]
            at += len(data)

    def size_of(self, id: bytes) -> int:
        """Return how many bytes of content a blob has. Raises Damaged when it is missing."""
        places = self.repository.locations(BlobType.DATA, id)
        if not places:
            return len(self.repository.load(BlobType.DATA, id))  # not flushed yet, or missing
        return places[0].uncompressed_length or places[0].length - OVERHEAD
