"""The readers: threads that read directories at the same time, in this process or in several others.

What a reader does (hash, compress, encrypt, write text) holds Python's lock most of the time, so for a whole share
there is a process for each core. For some changed files threads of this process are enough, and start at once.

Threads that all have something to compute only take Python's lock from each other, which doubles the work. So a process
begins with few of them, and starts more while it waits for the storage more than it computes.

A process is a plain `python -m snapkeep.backup.readers` with one end of a socket: it knows nothing of the one that
started it, and ends when the other end is closed.
"""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, Protocol

from snapkeep.backup.heap import share_arenas
from snapkeep.backup.reading import Done, Reader, Task
from snapkeep.model.errors import Unavailable
from snapkeep.repository.blobs import BlobType, SealedBlob
from snapkeep.repository.crypto import OVERHEAD, Key

_FIRST = 1  # threads in this process
_SEND = 512 << 10  # bytes of blobs that a process sends at once


_IDLE = 0.5  # seconds after which `idle` is called
_LOOK = 0.01  # seconds after which it is looked whether more threads would help
_BUSY = 0.5  # a process that computes for such a part of the time needs no more threads


class Source(NamedTuple):
    """What readers need to know."""

    path: Path
    key: Key
    polynomial: int
    device_id: int


Emit = Callable[[SealedBlob], object]
Result = tuple[int, Done]


class Readers(Protocol):
    """Gives out tasks and takes in what became of them, in any order."""

    def submit(self, tasks: list[Task]) -> None:
        """Let one reader do these tasks one after the other."""

    def results(self, idle: Callable[[], None]) -> list[Result]:
        """Wait for what the next lot came to; a big file takes long, so `idle` is called about once a second at least.

        Raises what a reader or `idle` raised.
        """

    @property
    def bytes_read(self) -> int:
        """Bytes of files that were read so far, those of files that are still being read among them."""

    def close(self) -> None:
        """End all readers; what they are doing is lost."""


class _Unwanted(Exception):
    """Ends a thread in the middle of a file."""


class _BytesRead:
    """Counts what was read of files; for people, so that two threads may once lose one of two additions."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, blob: SealedBlob) -> None:
        kind, _, sealed, uncompressed_length = blob
        if kind == BlobType.DATA:
            self.count += uncompressed_length or len(sealed) - OVERHEAD


class _Threads:
    """Threads that do the same; more of them when they wait."""

    def __init__(self, run: Callable[[], None], most: int, first: int) -> None:
        self._run = run
        self._most = most
        self._threads: list[threading.Thread] = []
        self._start(min(first, most))
        self._looked = time.monotonic(), time.process_time()

    def __len__(self) -> int:
        return len(self._threads)

    def look(self, *, backlog: bool) -> None:
        """Start more, if that would help; to be called often. `backlog`: there was work that waits for a thread."""
        now = time.monotonic()
        if len(self) == self._most or (backlog and now - self._looked[0] < _LOOK):
            return
        computed = time.process_time()
        busy = (computed - self._looked[1]) > _BUSY * (now - self._looked[0])
        self._looked = now, computed
        if backlog and not busy:
            self._start(min(len(self), self._most - len(self)))

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _start(self, count: int) -> None:
        for _ in range(count):
            thread = threading.Thread(target=self._run, name=f"reader-{len(self)}", daemon=True)
            thread.start()
            self._threads.append(thread)


class ThreadReaders:
    """Readers in this process. `emit` is called by all of them."""

    def __init__(self, source: Source, count: int, emit: Emit) -> None:
        """Raises OSError when the source cannot be opened."""
        self._tasks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[Result] | BaseException] = queue.SimpleQueue()
        self._ended = False
        self._emit = emit
        self._read = _BytesRead()
        self._most = count
        self._top = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._threads = _Threads(partial(self._run, source), count, _FIRST)

    def submit(self, tasks: list[Task]) -> None:
        """Give them to the next thread that is free."""
        self._tasks.put(tasks)

    def results(self, idle: Callable[[], None]) -> list[Result]:
        """Return what one lot came to."""
        while True:
            self._threads.look(backlog=not self._tasks.empty())
            with suppress(queue.Empty):
                found = self._results.get(timeout=_IDLE if len(self._threads) == self._most else _LOOK)
                break
            idle()
        if isinstance(found, BaseException):
            raise found
        return found

    @property
    def bytes_read(self) -> int:
        """Bytes of files that were read so far."""
        return self._read.count

    def close(self) -> None:
        """End the threads; waits for the chunks that they are at."""
        self._ended = True
        for _ in range(len(self._threads)):
            self._tasks.put(None)
        self._threads.join()
        os.close(self._top)

    def _take(self, blob: SealedBlob) -> None:
        if self._ended:
            raise _Unwanted
        self._read.add(blob)
        self._emit(blob)

    def _run(self, source: Source) -> None:
        reader = Reader(
            self._top, key=source.key, polynomial=source.polynomial, device_id=source.device_id, emit=self._take
        )
        while (tasks := self._tasks.get()) is not None and not self._ended:
            try:
                self._results.put([(task.number, reader.read(task)) for task in tasks])
            except BaseException as error:  # noqa: BLE001 - whatever it is, `results` raises it
                self._results.put(error)


class ProcessReaders:
    """Readers in other processes. `emit` is called by the one who waits for results."""

    def __init__(self, source: Source, count: int, emit: Emit) -> None:
        processes = max(1, min(count, len(os.sched_getaffinity(0))))
        self._emit = emit
        self._read = _BytesRead()
        self._children: dict[Connection, subprocess.Popen[bytes]] = {}
        self._load: dict[Connection, int] = {}
        self._ready: deque[list[Result]] = deque()
        try:
            for number in range(processes):
                threads = len(range(number, count, processes))
                self._start((source, threads))
        except BaseException:
            self.close()
            raise

    def submit(self, tasks: list[Task]) -> None:
        """Give them to the process that has the fewest."""
        least = min(self._load, key=self._load.__getitem__)
        self._load[least] += 1
        try:
            least.send(tasks)
        except OSError as error:
            raise _lost(self._children[least]) from error

    def results(self, idle: Callable[[], None]) -> list[Result]:
        """Return what one lot came to; meanwhile blobs are handed on as they come."""
        while not self._ready:
            for ready in wait(list(self._children), _IDLE):
                if isinstance(ready, Connection):
                    self._receive(ready)
            if not self._ready:
                idle()
        return self._ready.popleft()

    @property
    def bytes_read(self) -> int:
        """Bytes of files that were read so far."""
        return self._read.count

    def close(self) -> None:
        """End the processes at once."""
        for connection, child in self._children.items():
            connection.close()
            child.kill()
        for child in self._children.values():
            child.wait()

    def _start(self, about: tuple[Source, int]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "snapkeep.backup.readers", str(theirs.fileno())]
            child = subprocess.Popen(  # noqa: S603
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        connection = Connection(ours.detach())
        self._children[connection] = child
        self._load[connection] = 0
        connection.send(about)

    def _receive(self, connection: Connection) -> None:
        try:
            blobs, results = connection.recv()
        except (EOFError, OSError) as error:
            raise _lost(self._children[connection]) from error
        for blob in blobs:
            self._read.add(blob)
            self._emit(blob)
        if isinstance(results, BaseException):
            raise results
        if results:
            self._load[connection] -= 1
            self._ready.append(results)


def _lost(child: subprocess.Popen[bytes]) -> Unavailable:
    with suppress(subprocess.TimeoutExpired):
        child.wait(5)
    return Unavailable(
        f"A process that reads for the backup ended (exit code {child.returncode})",
        next_step="Look for the reason in the system's log (memory?); then try again.",
    )


class _Child:
    """The other end: threads that read, and one way out for all of them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._tasks: queue.SimpleQueue[list[Task]] = queue.SimpleQueue()

    def serve(self) -> None:
        source, threads = self._connection.recv()
        top = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        running = _Threads(partial(self._run, source, top), threads, 1)
        with suppress(EOFError, OSError):
            while True:
                backlog = not self._tasks.empty()
                if self._connection.poll(_LOOK if backlog and len(running) < threads else None):
                    self._tasks.put(self._connection.recv())
                running.look(backlog=backlog)

    def _run(self, source: Source, top: int) -> None:
        held: list[SealedBlob] = []
        size = 0
        since = time.monotonic()

        def emit(blob: SealedBlob) -> None:
            nonlocal held, size, since
            held.append(blob)
            size += len(blob.sealed)
            if size >= _SEND or time.monotonic() - since > _IDLE:
                self._send(held, [])
                held, size, since = [], 0, time.monotonic()

        reader = Reader(top, key=source.key, polynomial=source.polynomial, device_id=source.device_id, emit=emit)
        while True:
            tasks = self._tasks.get()
            results: list[Result] | BaseException
            try:
                results = [(task.number, reader.read(task)) for task in tasks]
            except BaseException as error:  # noqa: BLE001 - whatever it is, `results` raises it
                results = error
            self._send(held, results)
            held, size, since = [], 0, time.monotonic()

    def _send(self, blobs: list[SealedBlob], results: list[Result] | BaseException) -> None:
        plain = [(int(blob.type), *blob[1:]) for blob in blobs]  # it is much quicker to send than names and classes
        with self._sending:
            self._connection.send((plain, results))


if __name__ == "__main__":
    share_arenas()
    _Child(Connection(int(sys.argv[1]))).serve()
    os._exit(0)  # without waiting for what nobody wants any more
