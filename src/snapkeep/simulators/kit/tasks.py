"""Work that takes time: queued, running, then succeeded or failed; it goes on after a restart.

An effect has two parts. The slow one (copying files) runs in a thread, may run again after a crash, and so must
give the same result when repeated. The quick one, which it returns, changes the state and is written together with
the task's end in one transaction.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from snapkeep.simulators.kit.store import Store

KIND = "task"
KEPT = 5_000

logger = logging.getLogger(__name__)


class Entity(msgspec.Struct):
    """Something that a task made or touched."""

    id: str
    rel: str
    name: str


class Problem(msgspec.Struct):
    """Why a task failed."""

    code: str
    message: str


class Task(msgspec.Struct, kw_only=True):
    """One piece of work. Times are seconds since the epoch of the real clock."""

    id: str
    operation: str
    created: float
    due: float
    arguments: dict[str, Any]
    entities: list[Entity] = []
    status: Literal["OPEN", "SUCCEEDED", "FAILED"] = "OPEN"
    completed: float | None = None
    problems: list[Problem] = []
    fault: Literal["stuck", "fail", "lie"] | None = None
    fault_code: str | None = None
    fault_message: str | None = None


class TaskFailure(Exception):
    """The task ends as failed, with a code and a text."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(code, message)


Finish = Callable[[], list[Entity]]
Effect = Callable[[Task], Awaitable[Finish]]


class TaskBoard:
    """All tasks of a simulator."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._effects: dict[str, Effect] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self.by_id = {task.id: task for task in store.all(KIND, Task)}
        self._open = {task.id: task for task in self.by_id.values() if task.status == "OPEN"}
        self.generic_code = "TASK-FAILED"

    def register(self, operation: str, effect: Effect) -> None:
        """Say what an operation does."""
        self._effects[operation] = effect

    def start(self, task: Task) -> None:
        """Write the task (in the caller's transaction) and begin to work on it."""
        self.by_id[task.id] = self._open[task.id] = task
        self._store.put(KIND, task.id, task)
        self._forget_old()
        self._launch(task)

    def resume(self) -> None:
        """After a restart: go on with what was not done."""
        for task in self._open.values():
            self._launch(task)

    def open_tasks(self, operation: str) -> list[Task]:
        """What is queued or running, of one operation."""
        return [task for task in self._open.values() if task.operation == operation]

    async def stop(self) -> None:
        """Stop working; what waits goes on at the next start, what copies files is waited for."""
        for running in self._running & self._waiting:
            running.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def forget_all(self) -> None:
        """For a reset, after :meth:`stop`."""
        self.by_id.clear()
        self._open.clear()
        self._store.clear(KIND)

    def _launch(self, task: Task) -> None:
        running = asyncio.get_running_loop().create_task(self._run(task))
        self._running.add(running)
        self._waiting.add(running)
        running.add_done_callback(self._running.discard)
        running.add_done_callback(self._waiting.discard)

    async def _run(self, task: Task) -> None:
        await asyncio.sleep(max(0.0, task.due - self._clock()))
        if task.fault == "stuck":
            return
        if (this := asyncio.current_task()) is not None:
            self._waiting.discard(this)
        finish: Finish = list
        try:
            if task.fault == "fail":
                raise TaskFailure(task.fault_code or self.generic_code, task.fault_message or "The operation failed.")
            if task.fault is None:
                finish = await self._effects[task.operation](task)
            with self._store.transaction():
                task.entities = task.entities + finish()
                self._end(task, "SUCCEEDED")
        except TaskFailure as failure:
            self._fail(task, failure.problem)
        except Exception as error:
            logger.exception("task %s (%s) failed", task.id, task.operation)
            self._fail(task, Problem(self.generic_code, f"{type(error).__name__}: {error}"))

    def _fail(self, task: Task, problem: Problem) -> None:
        with self._store.transaction():
            task.problems = [problem]
            self._end(task, "FAILED")

    def _end(self, task: Task, status: Literal["SUCCEEDED", "FAILED"]) -> None:
        task.status = status
        task.completed = self._clock()
        self._open.pop(task.id, None)
        self._store.put(KIND, task.id, task)

    def _forget_old(self) -> None:
        if len(self.by_id) <= KEPT:
            return
        for old in [task for task in self.by_id.values() if task.status != "OPEN"][: KEPT // 10]:
            del self.by_id[old.id]
            self._store.delete(KIND, old.id)
