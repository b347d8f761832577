"""The engine: DBOS. This is the only file that knows it.

One workflow, two recorded steps. `start` begins the work on the system and records the ticket; `finish` waits for
its end and records the result in the catalog. A process that dies between them, or in the middle of either, leaves
the workflow PENDING; the next start with the same executor id runs it again from the first step without a record. Both
steps are safe to run again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID

APPLICATION_VERSION = "1"
"""Changed on purpose, when the steps change so that running operations could not go on."""

POLLING_SECONDS = 0.1
"""How often a queue is looked at: the longest wait before an operation begins."""


class Work(Protocol):
    """What the engine runs. Errors are recorded by the work itself; only a dying process leaves by exception."""

    async def start(self, operation_id: str) -> dict[str, Any]:
        """Begin the work; return what `finish` needs, JSON-safe."""

    async def finish(self, operation_id: str, started: dict[str, Any]) -> None:
        """Wait for the end of the work and record it."""


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
    tasks: ClassVar[set[asyncio.Task[Any]]] = set()

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[None]:
        """Note the task of a step, so that closing the engine can park it before what it uses is closed."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a step runs in a task")
        cls.tasks.add(task)
        try:
            yield
        finally:
            cls.tasks.discard(task)


def _work() -> Work:
    if _Registered.work is None:
        raise RuntimeError("the engine was not launched")
    return _Registered.work


@DBOS.step(name="start")
async def _start(operation_id: str) -> dict[str, Any]:
    with _Registered.running():
        return await _work().start(operation_id)


@DBOS.step(name="finish")
async def _finish(operation_id: str, started: dict[str, Any]) -> None:
    with _Registered.running():
        await _work().finish(operation_id, started)


@DBOS.workflow(name="operation")
async def _operation(operation_id: str) -> None:
    await _finish(operation_id, await _start(operation_id))


class Engine:
    """Queues of operations: so many at once for each system; for one asset, some kinds one after another."""

    async def submit(self, operation_id: str, *, queue: str, key: str) -> None:
        """Put an operation into a queue; doing so again changes nothing."""
        with SetWorkflowID(operation_id), SetEnqueueOptions(queue_partition_key=key):
            await DBOS.enqueue_workflow_async(queue, _operation, operation_id)

    async def has_ended(self, operation_id: str) -> bool:
        """Say whether the engine has nothing more to do for an operation that it knows."""
        status = await DBOS.get_workflow_status_async(operation_id)
        return status is not None and status.status not in {"PENDING", "ENQUEUED", "DELAYED"}


OPERATIONS = "operations"
ONE_BY_ONE = "one-by-one"


@asynccontextmanager
async def launch(path: Path, work: Work, *, executor_id: str, per_system: int) -> AsyncIterator[Engine]:
    """Run the engine on a SQLite file; unfinished operations of this executor go on at once."""
    logging.getLogger("dbos").setLevel(logging.ERROR)  # it warns of every task that a shutdown parks
    url = sa.URL.create("sqlite", database=str(path))
    database = sa.create_engine(url, pool_size=10, max_overflow=20)
    sa.event.listen(database, "connect", _prepare_sqlite)
    _Registered.work = work
    config = DBOSConfig(
        name="snapkeep",
        system_database_url=url.render_as_string(hide_password=False),
        system_database_engine=database,
        serializer=_JsonSerializer(),
        executor_id=executor_id,
        application_version=APPLICATION_VERSION,
        log_level="ERROR",
    )
    DBOS(config=config)
    try:
        DBOS.launch()  # in the running loop on purpose: DBOS then runs every workflow in it
        await _queue(OPERATIONS, per_system)
        await _queue(ONE_BY_ONE, 1)
        yield Engine()
    finally:
        await asyncio.to_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=0))
        parked = list(_Registered.tasks)
        for task in parked:
            task.cancel()
        await asyncio.gather(*parked, return_exceptions=True)
        database.dispose()
        _Registered.work = None


def _queue(name: str, at_once: int) -> Awaitable[Any]:
    return DBOS.register_queue_async(
        name, partition_concurrency=at_once, polling_interval_sec=POLLING_SECONDS, on_conflict="always_update"
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = "IMMEDIATE"
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")
