"""A full backup: everything is walked. With a parent, what is as in there is not read."""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from operator import itemgetter

from snapkeep.backup.links import LinkTable
from snapkeep.backup.nodes import Tree, tree_text
from snapkeep.backup.readers import Readers
from snapkeep.backup.reading import MOST_NAMES, Counts, Done, Task, join
from snapkeep.backup.request import BackupRequest, BackupResult, Progress, Report, Stop
from snapkeep.model.errors import Damaged, Unavailable
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

_MOST_AT_ONCE = 16  # directories that one reader is given in one go


@dataclass(slots=True, eq=False)
class _Directory:
    """A directory between its listing and its tree."""

    path: bytes
    parent: _Directory | None
    text: str
    base: bytes | None
    """The id of the tree that it had in the parent."""
    missing: int = 1
    """Answers of readers and trees of its directories that are still to come."""
    nodes: list[tuple[bytes, bytes]] = field(default_factory=list)
    base_tree: Tree | None = None
    """What `base` is, when the directory is so big that it is read in parts."""


class Walk:
    """Walks a source, depth first: in memory are the directories above those being read, and what waits beside them."""

    def __init__(
        self,
        repository: Repository,
        request: BackupRequest,
        readers: Readers,
        result: BackupResult,
        *,
        in_flight: int,
        links: LinkTable,
        report: Report,
        stop: Stop,
    ) -> None:
        """`in_flight`: how many lots of tasks the readers have at a time."""
        self._repository = repository
        self._readers = readers
        self._result = result
        self._links = links
        self._report = report
        self._stop = stop
        self._in_flight = in_flight
        self._counts = Counts()
        self._root: bytes | None = None
        self._last = b""
        self._waiting: list[tuple[_Directory, list[bytes] | None]] = []
        self._given: dict[int, tuple[_Directory, Task]] = {}
        self._lots = 0
        self._number = 0
        self._directories = 0
        self._in_doubt = False

    def run(self, base: bytes | None, *, in_doubt: bool = False) -> bytes:
        """Store everything; return the id of the source's tree.

        `base`: its id in the parent. `in_doubt`: trees of the parent are known to be damaged.
        """
        self._in_doubt = in_doubt
        self._waiting.append((_Directory(b"", None, "", base), None))
        while self._waiting or self._given:
            self._stop()
            while self._waiting and self._lots < self._in_flight:
                self._give_out()
            results = self._readers.results(self._idle)
            self._lots -= 1
            for number, done in results:
                self._take_in(*self._given.pop(number), done)
            self._tell()
        self._result.count(self._counts)
        if self._root is None:
            raise Unavailable(
                "The source of the backup cannot be read", next_step="Check that the snapshot is mounted."
            )
        return self._root

    def _idle(self) -> None:
        self._stop()
        self._tell()

    def _tell(self) -> None:
        where = os.fsdecode(self._last)
        self._report(Progress(self._counts.files, self._directories, self._readers.bytes_read, where))

    def _give_out(self) -> None:
        """Give a reader some directories; many at once when many wait."""
        count = min(_MOST_AT_ONCE, max(1, len(self._waiting) // self._in_flight))
        taken = [self._waiting.pop() for _ in range(min(count, len(self._waiting)))]
        bases = self._bases([directory.base for directory, names in taken if directory.base and names is None])
        tasks = []
        for directory, names in taken:
            if names is None:
                base = bases.get(directory.base) if directory.base else None
            else:
                base = _part(directory.base_tree, names)
            tasks.append(self._task(directory, names, base))
        self._submit(tasks)

    def _bases(self, wanted: list[bytes]) -> dict[bytes, bytes]:
        """Return these trees of the parent but for damaged ones, of which nothing is known: all in them is read."""
        bases: dict[bytes, bytes] = {}
        try:
            bases.update(self._repository.load_many(BlobType.TREE, wanted))
        except Damaged:
            self._in_doubt = True
            for tree in wanted:
                with suppress(Damaged):
                    bases[tree] = self._repository.load(BlobType.TREE, tree)
        return bases

    def _sound(self, tree: bytes) -> bool:
        """Say whether a stored tree can be relied upon: once one was damaged, others may be. A bad one is made anew."""
        if self._in_doubt:
            try:
                self._repository.load(BlobType.TREE, tree)
            except Damaged:
                return False
        return True

    def _task(self, directory: _Directory, names: list[bytes] | None, base: bytes | None) -> Task:
        self._number += 1
        task = Task(self._number, directory.path, names, base=base)
        self._given[task.number] = directory, task
        return task

    def _submit(self, tasks: list[Task]) -> None:
        self._lots += 1
        self._readers.submit(tasks)

    def _take_in(self, directory: _Directory, task: Task, done: Done) -> None:
        if not all(self._repository.has(BlobType.DATA, id) for id in done.reused):
            self._given[task.number] = directory, task
            self._submit([task._replace(reread=True)])  # the parent's data is not all there
            return
        if done.tree is not None and not self._sound(done.tree):
            self._given[task.number] = directory, task
            self._submit([task])  # the reader makes it once more, and now it is stored
            return
        if done.listed is not None:
            self._split(directory, task, done.listed)
            return
        self._counts.add(done.counts)
        self._last = directory.path
        self._note(directory, done)
        directory.missing -= 1
        if done.failed:
            self._without(directory)
            return
        directory.nodes += done.nodes
        directory.missing += len(done.directories)
        for met in reversed(done.directories):
            below = _Directory(join(directory.path, met.name), directory, met.text, met.base)
            self._waiting.append((below, None))
        if not directory.missing:
            self._finish(directory, done.tree)

    def _note(self, directory: _Directory, done: Done) -> None:
        """Keep what is told of links and problems."""
        path = directory.path
        if done.links:
            self._links.add((join(path, name), inode, count) for name, inode, count in done.links)
        for name, reason in done.problems:
            self._result.problem(join(path, name), reason)
        if done.problems:
            self._links.add_unreadable(join(path, name) for name, _ in done.problems)

    def _split(self, directory: _Directory, task: Task, names: list[bytes]) -> None:
        """Let a big directory be read in parts."""
        if task.base is not None:
            directory.base_tree = Tree(task.base) if isinstance(task.base, bytes) else task.base
        parts = [names[start : start + MOST_NAMES] for start in range(0, len(names), MOST_NAMES)]
        directory.missing += len(parts) - 1
        self._waiting += [(directory, part) for part in reversed(parts)]

    def _finish(self, directory: _Directory, tree: bytes | None) -> None:
        """Make the directory's tree, and those above it that only waited for this one."""
        while True:
            if tree is None:
                directory.nodes.sort(key=itemgetter(0))
                tree = self._made(tree_text(text for _, text in directory.nodes))
            self._count_directory(directory, tree)
            above = directory.parent
            if above is None:
                self._root = tree
                return
            name = directory.path.rpartition(b"/")[2]
            above.nodes.append((name, f'{directory.text},"content":null,"subtree":"{tree.hex()}"}}'.encode()))
            above.missing -= 1
            if above.missing:
                return
            directory, tree = above, None

    def _made(self, text: bytes) -> bytes:
        tree = self._repository.add_plain(BlobType.TREE, text)
        return tree if self._sound(tree) else self._repository.add_plain(BlobType.TREE, text)

    def _without(self, directory: _Directory) -> None:
        """Go on without a directory that could not be read."""
        above = directory.parent
        if above is not None and not directory.missing:
            above.missing -= 1
            if not above.missing:
                self._finish(above, None)

    def _count_directory(self, directory: _Directory, tree: bytes) -> None:
        self._directories += 1
        if directory.base is None:
            self._result.directories_new += 1
        elif directory.base == tree:
            self._result.directories_unmodified += 1
        else:
            self._result.directories_changed += 1


def _part(base: Tree | None, names: list[bytes]) -> bytes | None:
    """Return that part of a tree in which these names would be."""
    if base is None:
        return None
    first, last = bisect_left(base.names, names[0]), bisect_right(base.names, names[-1])
    return tree_text(base.texts[first:last])
