"""The readers: threads that read directories at the same time, in this process or in several others.

What a reader does (hash, compress, encrypt, write text) holds Python's lock most of the time, so for a whole share
there is a process for each core, and in each as many threads as waiting for the storage asks for. For some changed
files threads of this process are enough, and start at once.

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
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple, Protocol

from snapkeep.backup.reading import Done, Reader, Task
from snapkeep.model.errors import Unavailable
from snapkeep.repository.blobs import SealedBlob
from snapkeep.repository.crypto import Key

_SEND = 512 << 10  # bytes of blobs that a process sends at once


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

    def results(self) -> list[Result]:
        """Wait for what the next lot came to. Raises what a reader raised."""

    def close(self) -> None:
        """End all readers; what they are doing is lost."""


class ThreadReaders:
    """Readers in this process. `emit` is called by all of them."""

    def __init__(self, source: Source, count: int, emit: Emit) -> None:
        """Raises OSError when the source cannot be opened."""
        self._tasks: queue.SimpleQueue[list[Task] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[list[Result] | BaseException] = queue.SimpleQueue()
        self._ended = False
        self._top = os.open(source.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._threads = [
            threading.Thread(target=self._run, args=(source, emit), name=f"reader-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, tasks: list[Task]) -> None:
        """Give them to the next thread that is free."""
        self._tasks.put(tasks)

    def results(self) -> list[Result]:
        """Return what one lot came to."""
        found = self._results.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the threads; waits for the tasks that they are at."""
        self._ended = True
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self._top)

    def _run(self, source: Source, emit: Emit) -> None:
        reader = Reader(self._top, key=source.key, polynomial=source.polynomial, device_id=source.device_id, emit=emit)
        while (tasks := self._tasks.get()) is not None and not self._ended:
            try:
                self._results.put([(task.number, reader.read(task)) for task in tasks])
            except BaseException as error:  # noqa: BLE001  (raised where the results are waited for)
                self._results.put(error)


class ProcessReaders:
    """Readers in other processes. `emit` is called by the one who waits for results."""

    def __init__(self, source: Source, count: int, emit: Emit) -> None:
        processes = max(1, min(count, len(os.sched_getaffinity(0))))
        self._emit = emit
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

    def results(self) -> list[Result]:
        """Return what one lot came to; meanwhile blobs are handed on as they come."""
        while not self._ready:
            for ready in wait(list(self._children)):
                if isinstance(ready, Connection):
                    self._receive(ready)
        return self._ready.popleft()

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
        for _ in range(threads):
            threading.Thread(target=self._run, args=(source, top), daemon=True).start()
        with suppress(EOFError, OSError):
            while True:
                self._tasks.put(self._connection.recv())

    def _run(self, source: Source, top: int) -> None:
        held: list[SealedBlob] = []
        size = 0

        def emit(blob: SealedBlob) -> None:
            nonlocal held, size
            held.append(blob)
            size += len(blob.sealed)
            if size >= _SEND:
                self._send(held, [])
                held, size = [], 0

        reader = Reader(top, key=source.key, polynomial=source.polynomial, device_id=source.device_id, emit=emit)
        while True:
            tasks = self._tasks.get()
            results: list[Result] | BaseException
            try:
                results = [(task.number, reader.read(task)) for task in tasks]
            except BaseException as error:  # noqa: BLE001  (raised where the results are waited for)
                results = error
            self._send(held, results)
            held, size = [], 0

    def _send(self, blobs: list[SealedBlob], results: list[Result] | BaseException) -> None:
        with self._sending:
            self._connection.send((blobs, results))


if __name__ == "__main__":
    _Child(Connection(int(sys.argv[1]))).serve()
    os._exit(0)  # without waiting for what nobody wants any more
