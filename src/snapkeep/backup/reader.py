"""Reading a recovery point: what is in it, and the content of its files.

Paths begin at the top of the recovery point, without a slash: `files1/projects/a/b`. Any recovery point in restic's
format can be read, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice

from snapkeep.backup.nodes import Node, Tree, read_node
from snapkeep.backup.reading import join
from snapkeep.model.errors import Damaged, InvalidInput, NotFound
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile

_AHEAD = 8
"""Blobs of one file that are read at once."""


class RecoveryPoint:
    """What a snapshot file leads to."""

    def __init__(self, repository: Repository, snapshot: SnapshotFile) -> None:
        self._repository = repository
        self.snapshot = snapshot

    def node(self, path: bytes) -> Node:
        """Return what is at a path. Raises NotFound, Damaged; InvalidInput for the top, which has no node."""
        names = [name for name in path.split(b"/") if name]
        if not names:
            raise InvalidInput("The top of a recovery point is a directory without properties")
        tree: str | None = self.snapshot.tree
        node: Node | None = None
        for name in names:
            node = self._in_tree(tree, name) if tree else None
            if node is None:
                raise NotFound(f"Recovery point {self.snapshot.id[:8]} holds no {path.decode(errors='replace')!r}")
            tree = node.subtree
        if node is None:
            raise NotFound("There is nothing")
        return node

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
        found = Tree(self._repository.load(BlobType.TREE, bytes.fromhex(tree)))
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

    def read(self, node: Node) -> Iterator[bytes]:
        """Yield the content of a file, piece by piece. Raises Damaged; InvalidInput for what is no file."""
        if node.type != "file":
            raise InvalidInput(f"{node.name!r} is no file")
        ids = map(bytes.fromhex, node.content or ())
        while some := list(islice(ids, _AHEAD)):
            loaded = dict(self._repository.load_many(BlobType.DATA, some))
            for id in some:
                yield loaded[id]

    def _in_tree(self, tree: str, name: bytes) -> Node | None:
        found = Tree(self._repository.load(BlobType.TREE, bytes.fromhex(tree)))
        at = found.position(name)
        return None if at is None else read_node(found.texts[at])
