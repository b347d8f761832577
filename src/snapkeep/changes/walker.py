"""Going through two trees at once: many directories are read ahead, for latency is what a walk waits for."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from snapkeep.changes.trees import Node, Nodes, Tree

WORKERS = 8
"""How many directories are read at the same time."""

_HELD = 200_000
"""Entries that were read ahead and wait; beyond, no directory is read before its turn."""
_WAITING = 100_000
"""Directories from which a sample is drawn."""


class WalkProgress(NamedTuple):
    """How far a walk is, of both sides together."""

    directories: int = 0
    objects: int = 0


Progress = Callable[[WalkProgress], None]
Stop = Callable[[], None]


class Step:
    """A directory to compare: its path on each side, None where it is not there; and what identifies it."""

    __slots__ = ("_base", "_new", "base_id", "future", "new_id")

    def __init__(self, base: bytes | None, new: bytes | None, base_id: bytes = b"", new_id: bytes = b"") -> None:
        self._base = base
        self._new = new
        self.base_id = base_id
        self.new_id = new_id
        self.future: Future[tuple[int, Nodes, Nodes]] | None = None

    @property
    def in_base(self) -> bool:
        """Whether it is there in the base."""
        return self._base is not None

    @property
    def base(self) -> bytes:
        """Its path in the base."""
        return self._base or b""

    @property
    def new(self) -> bytes:
        """Its path in the new tree."""
        return self._new or b""

    def read(self, base: Tree | None, new: Tree) -> tuple[int, Nodes, Nodes]:
        """Return how many entries there are on both sides, and the entries."""
        olds: tuple[int, Nodes] = (0, ())
        nows: tuple[int, Nodes] = (0, ())
        if self._base is not None and base is not None:
            olds = base.read(self._base)
        if self._new is not None:
            nows = new.read(self._new)
        return olds[0] + nows[0], olds[1], nows[1]


class Walker:
    """Yields directory after directory; the consumer says with `below` where it goes on.

    With `sample` only so many directories, drawn by `seed`: in turn one of those found last, which leads to the bottom
    of the tree, and any other one.
    """

    def __init__(
        self,
        base: Tree | None,
        new: Tree,
        workers: int = WORKERS,
        progress: Progress = lambda _: None,
        stop: Stop = lambda: None,
        *,
        sample: int | None = None,
        seed: int = 0,
    ) -> None:
        self._base = base
        self._new = new
        self._progress = progress
        self._stop = stop
        self._sample = sample
        self._random = random.Random(seed)
        self._ahead = 2 * workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="walk")
        self._lock = threading.Lock()
        self._held = 0
        self._stack = [Step(None if base is None else b"", b"")]
        self._found: list[Step] = []
        self._drawn: list[Step] = []
        self.directories = self.objects = 0

    def __enter__(self) -> Walker:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def whole(self) -> bool:
        """True when nothing was left out."""
        return not (self._stack or self._drawn)

    def below(self, step: Step) -> None:
        """Go on there, in the order of the calls, before what is still to do."""
        self._found.append(step)

    def __iter__(self) -> Iterator[tuple[Step, Nodes, Nodes]]:
        while not self.whole and (self._sample is None or self.directories < self._sample):
            self._stop()
            step = self._take() if self._sample is None else self._draw()
            future = step.future or self._begin(step)
            count, olds, nows = future.result()
            step.future = None
            yield step, olds, nows
            with self._lock:
                self._held -= count
            self._stack.extend(reversed(self._found))
            self._found = []
            self.directories += 1
            self.objects += count
            self._progress(WalkProgress(self.directories, self.objects))

    def _take(self) -> Step:
        """Take the next directory, and begin to read those after it."""
        self._begin(self._stack[-1])
        for step in reversed(self._stack[-self._ahead : -1]):
            if self._held < _HELD:
                self._begin(step)
        return self._stack.pop()

    def _draw(self) -> Step:
        """Take a directory by chance."""
        if not self._drawn:
            if len(self._stack) > _WAITING:
                self._stack = self._random.sample(self._stack, _WAITING // 2)
            while self._stack and len(self._drawn) < self._ahead:
                if len(self._drawn) % 2:
                    chosen = self._random.randrange(len(self._stack))
                    self._stack[chosen], self._stack[-1] = self._stack[-1], self._stack[chosen]
                self._drawn.append(self._stack.pop())
            for step in self._drawn:
                self._begin(step)
        return self._drawn.pop()

    def _begin(self, step: Step) -> Future[tuple[int, Nodes, Nodes]]:
        if step.future is None:
            step.future = self._pool.submit(self._read, step)
        return step.future

    def _read(self, step: Step) -> tuple[int, Nodes, Nodes]:
        found = step.read(self._base, self._new)
        with self._lock:
            self._held += found[0]
        return found


def paired(olds: Nodes, nows: Nodes) -> Iterator[tuple[Node | None, Node | None]]:
    """Yield the entries of both sides by name."""
    left, right = iter(olds), iter(nows)
    old, now = next(left, None), next(right, None)
    while old is not None and now is not None:
        if old.name == now.name:
            yield old, now
            old, now = next(left, None), next(right, None)
        elif old.name < now.name:
            yield old, None
            old = next(left, None)
        else:
            yield None, now
            now = next(right, None)
    while old is not None:
        yield old, None
        old = next(left, None)
    while now is not None:
        yield None, now
        now = next(right, None)
