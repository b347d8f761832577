"""An incremental backup: only what a list of changes names is looked at; everything else is linked from the parent.

The list says where to look, never what to write: each path that it names is looked at in the new snapshot, so an entry
too many does no harm. A file that it says was written is read, even if its times are those of the parent: a write just
after the parent's snapshot may lie within the same tick of the clock. In four steps:

1. **Learn**: every change becomes paths to look at, with all directories above them.
2. **Look**: one depth after the other, since a directory must be known before what it holds. What is found out there
   brings more paths: all that is in new directories, and the other names of files that have several.
3. **Build** the trees, the deepest first: the parent's nodes as they are, but for those names that were looked at.
4. **Remember** which files have several names.

Two name spaces must be kept apart: paths in the base (of deletes, of old names, of the table of links) and paths in the
new snapshot. Renamed directories lead from one to the other, the nearest one above a path counting.
"""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import groupby, islice
from operator import attrgetter

from msgspec import Raw

from snapkeep.backup.links import LinkTable, find_names
from snapkeep.backup.nodes import EMPTY_TREE, Known, Tree, tree_text
from snapkeep.backup.readers import Readers
from snapkeep.backup.reading import Counts, Directory, Done, Task, join
from snapkeep.backup.request import BackupResult, Progress, Report, Stop
from snapkeep.backup.worklist import DOUBT, WALK, Entry, Place, WorkList, check_path
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import BaseMissing, Unavailable
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

_PAGE = 4000  # paths that are looked at in one go
_LOT = 64  # paths for one reader
_MOST_AT_ONCE = 16  # directories that one reader is given in one go
_FETCH = 256  # trees of the parent that are read in one go
_CACHED = 48 << 20  # bytes of trees of the parent
_FLAGS = {
    ChangeOperation.ADD: WALK | DOUBT,
    ChangeOperation.MODIFY: DOUBT,
    ChangeOperation.METADATA: DOUBT,
    ChangeOperation.DELETE: 0,
    ChangeOperation.RENAME: 0,
    ChangeOperation.UNKNOWN: WALK | DOUBT,
}


_NOTHING = Tree(EMPTY_TREE)


class Renames:
    """The renamed directories, in both directions. In memory: there are few."""

    def __init__(self) -> None:
        self.old_by_new: dict[bytes, bytes] = {}
        self.new_by_old: dict[bytes, bytes] = {}

    def add(self, old: bytes, new: bytes) -> None:
        """Note that a directory was renamed. Raises Incomplete when one of the two is no path."""
        check_path(old)
        check_path(new)
        self.old_by_new[new] = old
        self.new_by_old[old] = new

    def now(self, path: bytes) -> bytes:
        """Return where an object of the base is now, unless it was itself renamed or deleted."""
        return _translated(path, self.new_by_old)

    def before(self, path: bytes) -> bytes:
        """Return where an object of the new snapshot was in the base, unless it is new or was itself renamed."""
        return _translated(path, self.old_by_new)


def _translated(path: bytes, directories: dict[bytes, bytes]) -> bytes:
    """Exchange the nearest directory above a path that has another name."""
    end = path.rfind(b"/") if directories else 0
    while end > 0:
        if (other := directories.get(path[:end])) is not None:
            return other + path[end:]
        end = path.rfind(b"/", 0, end)
    return path


class BaseTrees:
    """The parent's trees, those used last in memory."""

    def __init__(self, repository: Repository, root: bytes) -> None:
        self._repository = repository
        self._root = root
        self._trees: OrderedDict[bytes, Tree] = OrderedDict()
        self._size = 0

    def tree(self, tree: bytes) -> Tree:
        """Return a tree. Raises Damaged."""
        found = self._trees.get(tree)
        if found is None:
            found = Tree(self._repository.load(BlobType.TREE, tree))
            self._keep(tree, found)
        else:
            self._trees.move_to_end(tree)
        return found

    def fetch(self, trees: Iterable[bytes]) -> None:
        """Bring many trees at once."""
        wanted = [tree for tree in dict.fromkeys(trees) if tree not in self._trees]
        if len(wanted) > 1:
            for tree, text in self._repository.load_many(BlobType.TREE, wanted):
                self._keep(tree, Tree(text))

    def node(self, path: bytes) -> tuple[Known, bytes] | None:
        """Return what is known of an object of the base, and its node's text."""
        tree: bytes | None = self._root
        found: tuple[Known, bytes] | None = None
        for name in path.split(b"/"):
            if tree is None:
                return None
            here = self.tree(tree)
            at = here.position(name)
            known = here.known(name)
            if at is None or known is None:
                return None
            found = known, bytes(here.texts[at])
            tree = bytes.fromhex(known.subtree) if known.subtree else None
        return found

    def _keep(self, tree: bytes, found: Tree) -> None:
        if tree in self._trees:
            return
        self._trees[tree] = found
        self._size += len(found.text)
        while self._size > _CACHED and len(self._trees) > 1:
            self._size -= len(self._trees.popitem(last=False)[1].text)


class Update:
    """Makes a share's new tree from the parent's."""

    def __init__(
        self,
        repository: Repository,
        result: BackupResult,
        base: bytes,
        *,
        table: LinkTable,
        inodes_stay: bool,
        report: Report,
        stop: Stop,
    ) -> None:
        """`base`: the id of the share's tree in the parent, of which `table` tells.

        `inodes_stay`: an object has the same inode in all snapshots.
        """
        self._repository = repository
        self._result = result
        self._base = base
        self._bases = BaseTrees(repository, base)
        self._table = table
        self._inodes_stay = inodes_stay
        self._report = report
        self._stop = stop
        self._work = WorkList()
        self._renames = Renames()
        self._deleted: dict[int, bytes] = {}  # directories: inode, path in the base
        self._counts = Counts()
        self._unreadable: list[bytes] = []
        self._expanded: set[tuple[int, int]] = set()  # inode, flags
        self._doubted: set[int] = set()  # inodes with several names, of which one is in doubt
        self._searched: set[int] = set()
        self._number = 0
        self._last = b""

    def close(self) -> None:
        """Let go of what is on disk."""
        self._work.close()

    def learn(self, changes: Iterable[Change]) -> int:
        """Take in the list; return how many paths are to be looked at. Raises Incomplete for a bad one."""
        for number, change in enumerate(changes):
            if number % 1000 == 0:
                self._stop()
            self._learn(change)
        for path in list(self._renames.new_by_old):
            self._work.add_gone(path)
        for path in self._work.gone():
            self._work.add(self._renames.now(path))
            self._expand(self._table.inodes(path, below=path not in self._renames.new_by_old))
        if self._table.has_names():
            for path, flags in self._work.paths():
                self._expand(self._table.inodes(self._renames.before(path)), flags & DOUBT)
        for path in self._table.take_unreadable():
            self._work.add(self._renames.now(path), WALK | DOUBT)
        self._work.set_place(b"", Place(self._base, False))
        return len(self._work)

    def look(self, readers: Readers, in_flight: int) -> None:
        """Look at everything, and at what that brings."""
        while True:
            while page := self._work.to_do(_PAGE):
                self._stop()
                self._look_at(page, readers, in_flight)
            if not self._complete_links():
                break
        self._result.count(self._counts)

    def build(self) -> bytes:
        """Store all trees that differ; return the id of the share's."""
        for portion in self._work.directories():
            self._stop()
            self._bases.fetch(place.base for _, place in portion if place.base and not place.walked)
            for path, place in portion:
                self._work.set_tree(path, self._build(path, place))
        tree = self._work.tree(b"")
        if tree is None:
            raise Unavailable(
                "The source of the backup cannot be read", next_step="Check that the snapshot is mounted."
            )
        return tree

    def remember(self) -> None:
        """Let the table tell of the new recovery point."""
        moved: list[tuple[bytes, int, int]] = []
        for old in sorted(self._renames.new_by_old, key=len, reverse=True):  # the nearest above a path counts
            moved += self._table.below(old)
            self._table.remove(old)
        for path in self._work.gone():
            self._table.remove(path)
        self._table.add((self._renames.now(path), inode, links) for path, inode, links in moved)
        for path, there, directory in self._work.all_found():
            self._table.remove(path, below=not (there and directory))
        self._table.add(self._work.linked())
        self._table.add_unreadable(self._unreadable)

    # Learn

    def _learn(self, change: Change) -> None:
        operation, kind, path, old = change.operation, change.type, change.path, change.old_path
        if operation is ChangeOperation.DELETE:
            self._work.add_gone(path)
            if kind is ObjectType.DIRECTORY and change.inode:
                self._deleted[change.inode] = path
            return
        if operation is not ChangeOperation.RENAME:
            old = None
        elif old is not None:
            if kind is ObjectType.DIRECTORY:
                self._renames.add(old, path)
            else:
                self._work.add_gone(old)
        self._work.add(path, _FLAGS[operation], old)

    def _expand(self, inodes: Iterable[int], flags: int = 0) -> None:
        """Look at all known names of these inodes."""
        for inode in inodes:
            if (inode, flags) not in self._expanded:
                self._expanded.add((inode, flags))
                for name in self._table.names(inode):
                    self._work.add(self._renames.now(name), flags)

    # Look

    def _look_at(self, page: list[Entry], readers: Readers, in_flight: int) -> None:
        given: dict[int, Task] = {}
        waiting: deque[Task] = deque()  # what came up while looking
        groups = [(parent, list(entries)) for parent, entries in groupby(page, attrgetter("parent"))]
        coming = self._tasks(groups)
        size = min(_MOST_AT_ONCE, max(1, len(groups) // (2 * in_flight)))
        lots = 0
        idle = partial(self._idle, readers)
        while True:
            while lots < in_flight and (lot := list(islice(coming, size)) or _taken(waiting, size)):
                given.update((task.number, task) for task in lot)
                readers.submit(lot)
                lots += 1
            if not lots:
                return
            for number, done in readers.results(idle):
                waiting += self._take_in(given.pop(number), done)
            lots -= 1
            self._tell(readers)

    def _idle(self, readers: Readers) -> None:
        self._stop()
        self._tell(readers)

    def _tell(self, readers: Readers) -> None:
        self._report(Progress(self._counts.files, 0, readers.bytes_read, os.fsdecode(self._last)))

    def _tasks(self, groups: list[tuple[bytes, list[Entry]]]) -> Iterator[Task]:
        """Yield the tasks for these names of these directories."""
        for first in range(0, len(groups), _FETCH):
            some = groups[first : first + _FETCH]
            places = [self._work.place(parent) for parent, _ in some]
            self._bases.fetch(place.base for place in places if place and place.base)
            for (parent, entries), place in zip(some, places, strict=True):
                if place is None:  # there is no such directory, so nothing in it
                    self._work.done(parent, [(entry.name, None, False) for entry in entries])
                    continue
                base = self._bases.tree(place.base) if place.base else None
                for doubt in (0, DOUBT):
                    alike = [entry for entry in entries if entry.flags & DOUBT == doubt]
                    for start in range(0, len(alike), _LOT):
                        yield self._task(parent, alike[start : start + _LOT], base, reread=bool(doubt))

    def _task(self, parent: bytes, entries: list[Entry], base: Tree | None, *, reread: bool) -> Task:
        self._number += 1
        names = [entry.name for entry in entries]
        moved = {}
        for entry in entries:
            if entry.old and not reread and (found := self._bases.node(entry.old)):
                moved[entry.name] = found[1]
        return Task(self._number, parent, names, reread=reread, base=base, moved=moved)

    def _take_in(self, task: Task, done: Done) -> list[Task]:
        """Note what was found; return what must be done besides."""
        parent = self._last = task.directory
        if not all(self._repository.has(BlobType.DATA, id) for id in done.reused):
            return [task._replace(reread=True)]  # the parent's data is not all there
        if done.failed and self._work.place(parent) is None:
            return []  # known already
        for name, reason in done.problems:
            self._result.problem(join(parent, name), reason)
            self._unreadable.append(join(parent, name))
        if done.failed:
            self._without(parent)
        if task.list_only:
            self._work.add_names(parent, done.listed or [])
            return []
        self._counts.add(done.counts)
        if done.links:
            self._work.add_linked((join(parent, name), inode, links) for name, inode, links in done.links)
            if task.reread:
                self._doubted.update(inode for _, inode, _ in done.links)
        found: dict[bytes, tuple[bytes | None, bool]] = dict.fromkeys(task.names or (), (None, False))
        found.update((name, (text, False)) for name, text in done.nodes)
        found.update((met.name, (met.text.encode(), True)) for met in done.directories)
        self._work.done(parent, ((name, node, directory) for name, (node, directory) in found.items()))
        return [listing for met in done.directories if (listing := self._enter(parent, met))]

    def _enter(self, parent: bytes, met: Directory) -> Task | None:
        """Decide what of a directory is taken over from the parent; return the task to list it, if nothing is."""
        path = join(parent, met.name)
        base, inode = met.base, met.base_inode
        old = self._renames.old_by_new.get(path)
        if old is not None:
            base, inode = self._subtree(old)
        within = self._work.place(parent)
        walked = (
            base is None
            or self._work.flags(path) & WALK != 0
            or (self._inodes_stay and inode != met.inode)
            or (old is None and within is not None and within.walked)
            or (old is None and self._work.is_gone(self._renames.before(path)))
        )
        if base is None and met.inode in self._deleted:
            base, _ = self._subtree(self._deleted[met.inode])  # a rename that is not called one
        self._work.set_place(path, Place(base, walked))
        if not walked:
            return None
        self._number += 1
        return Task(self._number, path, list_only=True)

    def _subtree(self, path: bytes) -> tuple[bytes | None, int]:
        found = self._bases.node(path)
        if found is None or found[0].subtree is None:
            return None, 0
        return bytes.fromhex(found[0].subtree), found[0].inode

    def _without(self, directory: bytes) -> None:
        """A directory cannot be read: it is left out."""
        if not directory:
            raise Unavailable(
                "The source of the backup cannot be read", next_step="Check that the snapshot is mounted."
            )
        self._work.drop_place(directory)
        parent, _, name = directory.rpartition(b"/")
        self._work.done(parent, [(name, None, False)])

    # Files with several names

    def _complete_links(self) -> bool:
        """See that all names of what has several are looked at; True when there are more to look at."""
        found = self._work.linked_inodes()
        self._expand(inode for inode, _, _ in found)
        self._expand(self._doubted, DOUBT)
        if self._work.to_do(1):
            return True
        missing = {inode for inode, links, met in found if self._missing(inode, links - met)} - self._searched
        if not missing:
            return False
        if not self._inodes_stay:
            raise BaseMissing("Not all names of a file can be found, since inodes differ between the snapshots")
        self._searched |= missing
        for path in find_names(self._repository, self._base, missing):
            self._work.add(self._renames.now(path), DOUBT)
        return bool(self._work.to_do(1))

    def _missing(self, inode: int, count: int) -> bool:
        """Say whether `count` names that were not met are worth a search; some may lie outside of the share."""
        return count > 0 and count > self._table.outside(inode)

    # Build

    def _build(self, path: bytes, place: Place) -> bytes:
        """Return the id of a directory's new tree."""
        found = list(self._work.found(path))
        if not found and place.base and not place.walked:
            return place.base  # moved, or looked at: what it holds is as it was
        base = self._bases.tree(place.base) if place.base and not place.walked else _NOTHING
        tree = self._repository.add_plain(BlobType.TREE, self._text(path, base, found))
        if place.base is None:
            self._result.directories_new += 1
        elif place.base == tree:
            self._result.directories_unmodified += 1
        else:
            self._result.directories_changed += 1
        return tree

    def _text(self, path: bytes, base: Tree, found: list[tuple[bytes, bytes | None, bool]]) -> bytes:
        """Return the text of a directory's new tree: the parent's with other nodes in it."""
        nodes = [(name, self._closed(join(path, name), node) if directory else node) for name, node, directory in found]
        spans = [base.span(name) if node is not None else None for name, node in nodes]
        if None not in spans:  # all were there: what lies between them stays
            pieces: list[bytes] = []
            taken = 0
            for (_, node), span in zip(nodes, spans, strict=True):
                start, end = span or (0, 0)
                pieces += base.text[taken:start], node or b""
                taken = end
            return b"".join([*pieces, base.text[taken:]])
        texts: list[bytes | Raw] = []
        taken = 0  # nodes of the base that are dealt with
        for name, text in nodes:
            at, there = base.place(name)
            texts += base.texts[taken:at]
            taken = at + there
            if text is not None:
                texts.append(text)
        texts += base.texts[taken:]
        return tree_text(texts)

    def _closed(self, path: bytes, node: bytes | None) -> bytes | None:
        """Return the whole node of a directory."""
        tree = self._work.tree(path)
        return node + b',"content":null,"subtree":"%s"}' % tree.hex().encode() if node and tree else None


def _taken(waiting: deque[Task], most: int) -> list[Task]:
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]
