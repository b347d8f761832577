"""From a send stream, which is a script, to a change list, which is a set of facts.

The stream says what to do one after the other to turn the base into the new snapshot: objects are made under names such
as `o257-7-0`, moved into place, moved out of each other's way. Played on a tree that holds only what the stream
touches, in the end it tells for each object where it was and where it is. Memory follows the changes, not the share.

What the stream does not say (types, sizes, times) is asked of the snapshots afterwards (`facts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete
from snapkeep.plugins.linux_host.send_stream import Step, Verb

_MADE = {
    Verb.MKFILE: ObjectType.FILE,
    Verb.MKDIR: ObjectType.DIRECTORY,
    Verb.MKNOD: ObjectType.OTHER,
    Verb.MKFIFO: ObjectType.FIFO,
    Verb.MKSOCK: ObjectType.SOCKET,
    Verb.SYMLINK: ObjectType.SYMLINK,
}
_CONTENT = frozenset({Verb.WRITE, Verb.CLONE, Verb.TRUNCATE, Verb.UPDATE_EXTENT, Verb.FALLOCATE, Verb.ENCODED_WRITE})


class Found(NamedTuple):
    """One fact, before the snapshots are asked about it."""

    operation: ChangeOperation
    path: bytes
    """In the new snapshot; of a delete, in the base."""
    old_path: bytes | None = None
    inode: int | None = None
    base: bytes | None = None
    """Of MODIFY and METADATA: its path in the base, if the base is to be asked whether there is anything to it."""
    times: bool = False
    """Only its times were set, which the stream does to all that was given a name, too."""
    renamed: bool = False
    """A rename of it was told before."""


class _Node:
    """An object that the stream names, or that lies above one."""

    __slots__ = ("attributes", "base", "children", "content", "gone", "in_place", "inode", "names", "times", "told")

    def __init__(self, base: bytes | None, inode: int | None = None) -> None:
        self.base = base
        """Its path in the base; None: it is new."""
        self.inode = inode
        self.children: dict[bytes, _Node] | None = None
        self.gone: set[bytes] | None = None
        """Names in the base of what is not here any more."""
        self.names = 0
        self.in_place = False
        """Whether one of its names is the one that it had in the base."""
        self.content = False
        self.attributes = False
        self.times = False
        """Whether times were set; the stream does that to all that it touches."""
        self.told = False

    def touch(self, verb: int) -> None:
        """Note that a command changes it. One that is not known may change anything but the content."""
        if verb == Verb.UTIMES:
            self.times = True
        elif verb in _CONTENT:
            self.content = True
        else:
            self.attributes = True


class Script:
    """The stream, played."""

    def __init__(self) -> None:
        self._root = _Node(b"")
        self._left: list[_Node] = []
        """Objects of the base that were taken from their place."""

    def play(self, step: Step) -> None:
        """Do what one command says. Raises Incomplete when it cannot be: the stream is not of this base."""
        verb, path = step.verb, step.path
        if verb in {Verb.SUBVOLUME, Verb.SNAPSHOT, Verb.END}:
            return
        if verb in _MADE:
            self._attach(path, _Node(None, step.inode))
        elif verb == Verb.RENAME:
            node = self._find(path)
            self._detach(path)
            self._attach(step.other, node)
        elif verb == Verb.LINK:
            self._attach(path, self._find(step.other))
        elif verb in {Verb.UNLINK, Verb.RMDIR}:
            self._find(path)
            self._detach(path)
        else:
            self._find(path).touch(verb)

    def facts(self) -> Iterator[Found]:
        """Yield what the whole stream came to: what is in the new snapshot, then what is gone. To be called once."""
        waiting: list[tuple[bytes, _Node, bytes | None]] = [(b"", self._root, b"")]
        while waiting:
            path, node, place = waiting.pop()
            if path:
                yield from self._present(path, node, place)
            waiting += [
                (_below(path, name), child, _join(node.base, name))
                for name, child in sorted((node.children or {}).items(), reverse=True)
            ]
        for node in self._left:
            if not node.names and not node.told and node.base is not None:
                node.told = True
                yield Found(ChangeOperation.DELETE, node.base)

    def _present(self, path: bytes, node: _Node, place: bytes | None) -> Iterator[Found]:
        """Tell of an object at a path; `place` is where it would have been in the base had it not moved."""
        first, node.told = not node.told, True
        if node.base is None:
            yield Found(ChangeOperation.ADD, path, None, node.inode)
            return
        renamed = node.base != place
        if renamed:
            if node.in_place or not first:  # one more name of a file
                yield Found(ChangeOperation.ADD, path)
                return
            yield Found(ChangeOperation.RENAME, path, node.base)
        if node.content or node.attributes or node.times:
            operation = ChangeOperation.MODIFY if node.content else ChangeOperation.METADATA
            times = not node.content and not node.attributes
            yield Found(operation, path, None, None, node.base if times or renamed else None, times, renamed)

    # -- the tree --------------------------------------------------------------------------------------------------
    def _find(self, path: bytes) -> _Node:
        node = self._root
        if path:
            for name in path.split(b"/"):
                node = self._child(node, name, path)
        return node

    def _child(self, node: _Node, name: bytes, path: bytes) -> _Node:
        children = node.children
        if children is None:
            children = node.children = {}
        found = children.get(name)
        if found is None:
            if node.base is None or (node.gone is not None and name in node.gone):
                raise Incomplete(f"The send stream names {path!r:.300}, which is not there at that moment")
            found = children[name] = _Node(_join(node.base, name))
            found.names, found.in_place = 1, True
        return found

    def _parent(self, path: bytes) -> tuple[_Node, bytes]:
        directory, _, name = path.rpartition(b"/")
        if name in {b"", b".", b".."}:
            raise Incomplete(f"The send stream has an impossible path: {path!r:.300}")
        return self._find(directory), name

    def _attach(self, path: bytes, node: _Node) -> None:
        parent, name = self._parent(path)
        if parent.children is None:
            parent.children = {}
        if name in parent.children:
            self._detach(path)
        parent.children[name] = node
        node.names += 1
        if node.base is not None and node.base == _join(parent.base, name):
            node.in_place = True

    def _detach(self, path: bytes) -> None:
        parent, name = self._parent(path)
        node = self._child(parent, name, path)
        node.names -= 1
        if parent.children is not None:
            del parent.children[name]
        if parent.base is not None:
            if parent.gone is None:
                parent.gone = set()
            parent.gone.add(name)
            if node.base is not None and node.base == _join(parent.base, name):
                node.in_place = False
                self._left.append(node)


def _join(directory: bytes | None, name: bytes) -> bytes | None:
    return None if directory is None else _below(directory, name)


def _below(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name
