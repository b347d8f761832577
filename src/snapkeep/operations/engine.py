"""The engine: DBOS. This is the only file that knows it.

One workflow, two recorded steps. `start` begins the work on the system and records the ticket; `finish` waits for
its end and records the result in the catalog. A process that dies between them, or in the middle of either, leaves
the workflow PENDING; it is run again from the first step without a record, by the next process of the same name or by
another worker (`hand_over`). Both steps are safe to run again.

SQLite: the engine has a file of its own. PostgreSQL: it has a schema of its own in the database of the catalog.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID

APPLICATION_VERSION = "2"
"""A number, raised on purpose when the steps change so that running operations could not go on: they begin anew."""

POLLING_SECONDS = 0.1
"""How often a queue is looked at: the longest wait before an operation begins."""

MOVERS_POLLING_SECONDS = 0.5
"""The same for operations that move data."""

SUBMIT_SECONDS = 5.0
"""How long handing an operation to the engine may take; what was not handed over then is found later."""

CHUNK = 500
_UNFINISHED = ["PENDING", "ENQUEUED", "DELAYED"]


class Work(Protocol):
    """What the engine runs. Errors are recorded by the work itself; only a dying process leaves by exception."""

    async def start(self, operation_id: str, generation: int) -> dict[str, Any]:
        """Begin the work; return what `finish` needs, JSON-safe."""

    async def finish(self, operation_id: str, generation: int, started: dict[str, Any]) -> None:
        """Wait for the end of the work and record it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How one process takes part in the work."""

    name: str = "serve"
    """The next process of this name goes on with what this one leaves unfinished."""
    queues: tuple[str, ...] = ("default",)
    """The queues whose operations it runs; none: it only hands operations in."""
    per_system: int = 8
    """Operations that run at once on one system, in all workers together."""
    at_once: int = 64
    """Operations of one queue that run at once in this process."""
    movers_at_once: int = 2
    """Operations that move data, of one queue, that run at once in this process."""
    takeover_seconds: float = 15.0
    """A worker that gives no sign of life for so long is held to be dead."""


class Lane(StrEnum):
    """Which kind of work: each has queues and limits of its own.

    What moves data takes hours, and has other operations do its work on the systems: it must not take their places.
    """

    OPERATIONS = "operations"
    MOVERS = "movers"


class _JsonSerializer(Serializer):
    """JSON, never pickle: what the engine stores can be read by people and cannot run code."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=str)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "snapkeep-json"


class _Registered:
    """The work of this process: DBOS registers functions by name once, so they reach it through here."""

    work: Work | None = None
    tasks: ClassVar[dict[asyncio.Task[Any], str]] = {}

    @classmethod
    @contextmanager
    def running(cls, job: str) -> Iterator[None]:
        """Note the task of a step, so that closing the engine can park it before what it uses is closed."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a step runs in a task")
        cls.tasks[task] = job
        try:
            yield
        finally:
            cls.tasks.pop(task, None)


def _work() -> Work:
    if _Registered.work is None:
        raise RuntimeError("the engine was not launched")
    return _Registered.work


@DBOS.step(name="start")
async def _start(operation_id: str, generation: int) -> dict[str, Any]:
    with _Registered.running(job_id(operation_id, generation)):
        return await _work().start(operation_id, generation)


@DBOS.step(name="finish")
async def _finish(operation_id: str, generation: int, started: dict[str, Any]) -> None:
    with _Registered.running(job_id(operation_id, generation)):
        await _work().finish(operation_id, generation, started)


@DBOS.workflow(name="operation")
async def _operation(operation_id: str, generation: int) -> None:
    await _finish(operation_id, generation, await _start(operation_id, generation))


def job_id(operation_id: str, generation: int) -> str:
    """Return the engine's own id: an operation that is resumed, or begun anew, is another job."""
    return f"{operation_id}.{generation}"


class Engine:
    """Queues of operations: so many at once for each system, and in each process."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._queues: set[str] = set()
        self._idle: set[str] = set()

    @asynccontextmanager
    async def running(self, database: sa.URL, work: Work) -> AsyncIterator[None]:
        """Run `work`; unfinished operations of this name go on at once."""
        logging.getLogger("dbos").setLevel(logging.ERROR)  # it warns of every task that a shutdown parks
        engine = _sqlalchemy_engine(database)
        _Registered.work = work
        config = DBOSConfig(
            name="snapkeep",
            system_database_url=database.render_as_string(hide_password=False),
            system_database_engine=engine,
            serializer=_JsonSerializer(),
            executor_id=self._settings.name,
            application_version=APPLICATION_VERSION,
            log_level="ERROR",
        )
        DBOS(config=config)
        try:
            DBOS.listen_queues([_queue_name(queue, lane) for queue in self._settings.queues for lane in Lane])
            DBOS.launch()  # in the running loop on purpose: DBOS then runs every workflow in it
            for queue in self._settings.queues:
                await self._register(queue)
            yield
        finally:
            await asyncio.to_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=0))
            # DBOS gave the loop its own threads, and has ended them: whatever is closed from now on needs some, too.
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
            parked = list(_Registered.tasks)
            for task in parked:
                task.cancel()
            await asyncio.gather(*parked, return_exceptions=True)
            engine.dispose()
            _Registered.work = None

    async def submit(self, operation_id: str, generation: int, *, queue: str, lane: Lane, key: str) -> None:
        """Put an operation into a queue; doing so again changes nothing. Raises TimeoutError."""

        async def enqueue() -> None:
            await self._register(queue)
            with SetWorkflowID(job_id(operation_id, generation)), SetEnqueueOptions(queue_partition_key=key):
                await DBOS.enqueue_workflow_async(_queue_name(queue, lane), _operation, operation_id, generation)

        outside = contextvars.Context()  # the end of one operation hands in the next: DBOS refuses that inside a step
        async with asyncio.timeout(SUBMIT_SECONDS):
            await asyncio.create_task(enqueue(), context=outside)

    async def jobs(self, wanted: Sequence[str]) -> dict[str, bool]:
        """Return of the jobs that the engine knows whether they have ended."""
        found: dict[str, bool] = {}
        for chunk in _chunks(wanted):
            for status in await DBOS.list_workflows_async(
                workflow_ids=list(chunk), load_input=False, load_output=False
            ):
                outdated = int(status.app_version or 0) < int(APPLICATION_VERSION)  # its steps are not ours any more
                if outdated and status.status in _UNFINISHED:
                    await DBOS.cancel_workflow_async(status.workflow_id)
                found[status.workflow_id] = outdated or status.status not in _UNFINISHED
        return found

    async def hand_over(self, name: str) -> list[str]:
        """Put what a worker has left unfinished back into its queues; return the ids of the operations."""
        left = await DBOS.list_workflows_async(executor_id=name, status="PENDING", load_input=False, load_output=False)
        for status in left:
            await DBOS.resume_workflow_async(status.workflow_id, queue_name=status.queue_name)
        return [status.workflow_id.partition(".")[0] for status in left]

    async def rescue_stranded(self) -> list[str]:
        """Put back what is this worker's by its name, but does not run here; return the ids of the operations.

        A process of the same name took it and died before it gave the name up, or the answer of the database, that it
        is ours, was lost. Twice in a row, as a job between its two steps is nowhere for a moment.
        """
        mine = {
            status.workflow_id: status.queue_name
            for status in await DBOS.list_workflows_async(
                executor_id=self._settings.name, status="PENDING", load_input=False, load_output=False
            )
        }
        idle = mine.keys() - set(_Registered.tasks.values())
        stranded, self._idle = idle & self._idle, idle
        for job in stranded:
            await DBOS.resume_workflow_async(job, queue_name=mine[job])
        return [job.partition(".")[0] for job in stranded]

    async def runs(self) -> bool:
        """Say whether the engine is launched and its database answers."""
        await DBOS.get_workflow_status_async("health")
        return _Registered.work is not None

    async def purge(self, before: datetime) -> None:
        """Forget jobs that ended before: the catalog has their results."""
        while ended := await DBOS.list_workflows_async(
            completed_before=before.isoformat(), limit=CHUNK, load_input=False, load_output=False
        ):
            await DBOS.delete_workflows_async([status.workflow_id for status in ended])

    async def _register(self, queue: str) -> None:
        if queue in self._queues:
            return
        settings = self._settings
        for lane, at_once in ((Lane.OPERATIONS, settings.at_once), (Lane.MOVERS, settings.movers_at_once)):
            await DBOS.register_queue_async(
                _queue_name(queue, lane),
                partition_concurrency=settings.per_system,
                worker_concurrency=at_once,
                polling_interval_sec=POLLING_SECONDS if lane is Lane.OPERATIONS else MOVERS_POLLING_SECONDS,
                on_conflict="always_update",
            )
        self._queues.add(queue)


def engine_url(catalog: sa.URL, file: Path) -> sa.URL:
    """Return where the engine keeps its state: the catalog's PostgreSQL, else a file of its own."""
    if catalog.get_backend_name() == "postgresql":
        return catalog
    return sa.URL.create("sqlite", database=str(file))


def _queue_name(queue: str, lane: Lane) -> str:
    return f"{lane}-{queue}"


def _chunks(wanted: Sequence[str]) -> Iterable[Sequence[str]]:
    return (wanted[begin : begin + CHUNK] for begin in range(0, len(wanted), CHUNK))


def _sqlalchemy_engine(database: sa.URL) -> sa.Engine:
    if database.get_backend_name() == "postgresql":
        arguments = {"connect_timeout": 5, "application_name": "snapkeep engine"}
        return sa.create_engine(
            database,
            pool_size=10,
            max_overflow=0,
            pool_pre_ping=True,
            connect_args=arguments,
            pool_timeout=10,
            hide_parameters=True,
        )
    engine = sa.create_engine(database, pool_size=10, max_overflow=20, hide_parameters=True)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")
