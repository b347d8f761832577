"""One worker among others: its name, its heartbeat, and what it does when another one dies."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

import structlog

from snapkeep import __version__
from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.records import WorkerRecord, WorkerState
from snapkeep.model.errors import Conflict
from snapkeep.operations import metrics
from snapkeep.operations.clock import Clock
from snapkeep.operations.engine import Engine, WorkerSettings

BEATS = 6
"""Heartbeats in the time after which a worker is held to be dead."""

log = structlog.get_logger(__name__)


class Membership:
    """Keeps a worker known as alive, and takes over what dead ones have begun.

    Who is dead is judged twice, by the clock of the database and by this process: no sign in the same time by its own
    clock, that cannot jump. A wrong judgement costs work that is done twice, never its result: see `catalog.fencing`.
    """

    def __init__(self, catalog: Catalog, engine: Engine, clock: Clock, settings: WorkerSettings) -> None:
        self._catalog = catalog
        self._engine = engine
        self._clock = clock
        self._settings = settings
        self._incarnation = clock.new_id()
        self._seen: dict[str, tuple[WorkerRecord, float]] = {}
        self._looked = clock.monotonic()

    async def join(self, *, alone: bool) -> WorkerRecord | None:
        """Take the name; return the earlier worker of that name if it has crashed. Raises Conflict when it lives.

        `alone`: the caller has made sure that no other process of this name lives.
        """
        earlier = await self._find(self._settings.name)
        if earlier is not None and not alone:
            await self._outlive(earlier)
        await self._register()
        return earlier if earlier is not None and earlier.left_at is None else None

    async def leave(self) -> None:
        """Say that this worker has ended as it should. With the database away, the others will miss its heartbeat."""
        try:
            await self._catalog.workers.leave(self._settings.name, self._incarnation)
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("the database is away; the others are not told of the end", reason=str(error))

    async def beat(self) -> None:
        """Give a sign of life. Raises Conflict when the name is somebody else's now."""
        if not await self._catalog.workers.beat(self._settings.name, self._incarnation):
            await self._return_to_life()

    async def rescue(self) -> None:
        """Put back what is ours by name, but runs nowhere."""
        for operation_id in await self._engine.rescue_stranded():
            log.warning("operation ran nowhere; it goes on", operation=operation_id, worker=self._settings.name)

    async def look_after_others(self) -> list[str]:
        """Take over what dead workers, and those that left, have not ended; return what the dead ones had begun."""
        taken: list[str] = []
        workers = await self._catalog.workers.find()
        self._forget_after_a_gap()
        for worker in workers:
            if worker.name != self._settings.name and not worker.cleared and self._is_gone(worker):
                taken += await self._take_over(worker)
        return taken

    @property
    def identity(self) -> tuple[str, str]:
        """Name and incarnation."""
        return self._settings.name, self._incarnation

    @property
    def pause(self) -> float:
        """Seconds from one heartbeat to the next."""
        return self._settings.takeover_seconds / BEATS

    # -- inside ------------------------------------------------------------------------------------------------------
    async def _register(self) -> None:
        await self._catalog.workers.register(
            self._settings.name,
            self._incarnation,
            queues=self._settings.queues,
            host=socket.gethostname(),
            place=_place(),
            pid=os.getpid(),
            version=__version__,
        )

    async def _find(self, name: str) -> WorkerRecord | None:
        return next((item for item in await self._catalog.workers.find() if item.name == name), None)

    async def _outlive(self, earlier: WorkerRecord) -> None:
        """Wait until the worker that had this name is dead. Raises Conflict as soon as it gives a sign of life."""
        waited = False
        while earlier.state(self._settings.takeover_seconds) is WorkerState.ALIVE and not _is_dead_process(earlier):
            if not waited:
                log.info("waiting whether the worker of the same name is alive", worker=earlier.name, host=earlier.host)
                waited = True
            await self._clock.sleep(self.pause / 4)
            now = await self._find(self._settings.name)
            if now is None:
                return
            if now.heartbeat_at != earlier.heartbeat_at:
                raise Conflict(
                    f"A worker named {now.name!r} is alive: process {now.pid} on {now.host}",
                    next_step="Give each worker a name of its own with --name, or stop the other one.",
                )
            earlier = now

    async def _return_to_life(self) -> None:
        """The others hold this worker to be dead, and run what it ran. It goes on as a new one, if its name is free."""
        now = await self._find(self._settings.name)
        mine = now is None or now.incarnation == self._incarnation
        if not mine:
            raise Conflict(
                f"Another worker has taken the name {self._settings.name!r}",
                next_step="Give each worker a name of its own with --name.",
            )
        log.warning("this worker gave no sign of life for too long; others have taken over what it ran")
        self._incarnation = self._clock.new_id()
        await self._register()

    def _forget_after_a_gap(self) -> None:
        """Count silence anew when this process has not looked for long: what was away was the database, or itself."""
        now = self._clock.monotonic()
        if now - self._looked > self._settings.takeover_seconds / 2:
            self._seen.clear()
        self._looked = now

    def _is_gone(self, worker: WorkerRecord) -> bool:
        """Say whether a worker has left, or is dead by both clocks."""
        known, since = self._seen.get(worker.name, (worker, self._clock.monotonic()))
        if (known.incarnation, known.heartbeat_at) != (worker.incarnation, worker.heartbeat_at):
            since = self._clock.monotonic()
        self._seen[worker.name] = (worker, since)
        if worker.left_at is not None:
            return True
        silent = self._clock.monotonic() - since
        limit = self._settings.takeover_seconds
        return worker.state(limit) is WorkerState.DEAD and silent >= limit - self.pause

    async def _take_over(self, worker: WorkerRecord) -> list[str]:
        if not await self._catalog.workers.take(worker, self._incarnation):
            return []
        taken = await self._engine.hand_over(worker.name)
        await self._catalog.workers.cleared(worker, self._incarnation)
        if worker.left_at is not None:  # it has parked them on purpose
            return []
        log.warning("a worker has died", name=worker.name, host=worker.host, operations=len(taken))
        for operation_id in taken:
            metrics.taken_over()
            log.warning(
                "operation taken over", operation=operation_id, from_worker=worker.name, worker=self._settings.name
            )
        return taken


def _is_dead_process(worker: WorkerRecord) -> bool:
    """Say whether its process is known to be no more: only of one at the same place."""
    if worker.place != _place() or worker.pid == os.getpid():
        return worker.place == _place()
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _place() -> str:
    """Return an id of where process ids mean the same: this boot of this machine, this namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return str(uuid.uuid5(uuid.UUID(boot), str(Path("/proc/self/ns/pid").readlink())))
    except (OSError, ValueError):
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, socket.gethostname()))
