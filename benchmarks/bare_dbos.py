"""The same work by DBOS alone: what somebody would write who needs no catalog, no REST and no second thought.

    python -m benchmarks.bare_dbos JOB

One workflow of two steps: ask for the snapshot, poll it to its end. Same plug-in, same queue, limits and serializer as
in `snapkeep.operations.engine`. JOB is a file: see `Job`. A process that has items to `submit` reads a line from its
standard input, enqueues them, and writes when the last workflow ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from benchmarks.steady import PLUGIN
from dbos import DBOS, DBOSConfig, Serializer, SetEnqueueOptions, SetWorkflowID

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.work import Pending, Ticket
from snapkeep.plugin.roles import Create

QUEUE = "operations-default"
POLLING_SECONDS = 0.1
LOOK_SECONDS = 0.5


class Item(msgspec.Struct):
    """One snapshot to take."""

    system: str
    share: str
    share_name: str
    name: str


class Job(msgspec.Struct, kw_only=True):
    """What one process does."""

    name: str
    database: str
    systems: dict[str, dict[str, Any]]
    """Settings of the plug-in by name of the system."""
    works: bool
    per_system: int
    at_once: int
    submitters: int
    submit: list[Item] = []


class _Json(Serializer):
    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=str)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "bare-json"


_roles: dict[str, Create] = {}


@DBOS.step(name="start")
async def _start(system: str, share: str, share_name: str, name: str, request_id: str) -> dict[str, Any]:
    asset = Asset(id=share, kind=AssetKind.SHARE, name=share_name, capabilities=frozenset({Capability.CREATE}))
    return dict((await _roles[system].start_create(asset, name, request_id)).data)


@DBOS.step(name="finish")
async def _finish(system: str, ticket: dict[str, Any]) -> str:
    while isinstance(answer := await _roles[system].poll_create(Ticket(ticket)), Pending):
        await asyncio.sleep(answer.after)
    return answer.id


@DBOS.workflow(name="create")
async def _create(system: str, share: str, share_name: str, name: str, request_id: str) -> str:
    return await _finish(system, await _start(system, share, share_name, name, request_id))


def main() -> None:
    asyncio.run(_run(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Job)))


async def _run(job: Job) -> None:
    url = sa.make_url(job.database)
    engine = _engine(url)
    config = DBOSConfig(
        name="bare",
        system_database_url=url.render_as_string(hide_password=False),
        system_database_engine=engine,
        serializer=_Json(),
        executor_id=job.name,
        application_version="1",
        log_level="ERROR",
    )
    async with AsyncExitStack() as stack:
        for name, settings in job.systems.items():
            roles = await stack.enter_async_context(PLUGIN.connect(PLUGIN.settings.parse(settings)))
            if roles.create is not None:
                _roles[name] = roles.create
        DBOS(config=config)
        DBOS.listen_queues([QUEUE] if job.works else [])
        DBOS.launch()
        await DBOS.register_queue_async(
            QUEUE,
            partition_concurrency=job.per_system,
            worker_concurrency=job.at_once,
            polling_interval_sec=POLLING_SECONDS,
            on_conflict="always_update",
        )
        try:
            await asyncio.sleep(1.5)  # DBOS looks once a second for new queues
            print("ready", flush=True)
            while line := await asyncio.to_thread(sys.stdin.readline):
                if line == "go\n":
                    print(json.dumps(await _submit(job)), flush=True)
        finally:
            await asyncio.to_thread(lambda: DBOS.destroy(workflow_completion_timeout_sec=0))
            engine.dispose()


async def _submit(job: Job) -> dict[str, float]:
    """Enqueue everything and wait for its end; return when it began and ended, in seconds since the epoch."""
    began = time.time()
    items = iter(job.submit)

    async def some() -> None:
        for item in items:
            request_id = str(uuid.uuid4())
            with SetWorkflowID(f"{request_id}.1"), SetEnqueueOptions(queue_partition_key=item.system):
                await DBOS.enqueue_workflow_async(
                    QUEUE, _create, item.system, item.share, item.share_name, item.name, request_id
                )

    await asyncio.gather(*(some() for _ in range(job.submitters)))
    submitted = time.time()
    while await DBOS.list_workflows_async(status=["ENQUEUED", "PENDING"], limit=1, load_input=False, load_output=False):
        await asyncio.sleep(LOOK_SECONDS)
    done = await DBOS.list_workflows_async(status="SUCCESS", load_input=False, load_output=False)
    if len(done) != len(job.submit):
        raise RuntimeError(f"only {len(done)} of {len(job.submit)} workflows succeeded")
    ended = max(float(item.updated_at or 0) for item in done) / 1000
    return {"began": began, "submitted": submitted, "ended": ended}


def _engine(url: sa.URL) -> sa.Engine:
    """Return an engine like that of `snapkeep.operations.engine`."""
    if url.get_backend_name() == "postgresql":
        return sa.create_engine(url, pool_size=10, max_overflow=0, pool_pre_ping=True, pool_timeout=10)
    engine = sa.create_engine(url, pool_size=10, max_overflow=20)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}")

    return engine


if __name__ == "__main__":
    main()
