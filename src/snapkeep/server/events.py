"""Operations as server-sent events: one look at the catalog feeds all streams, whoever runs the operations.

Streams tell states, not steps: who is slow, or was away, is told the newest state of each operation, and misses none
that lasts. So nothing has to be kept for anybody.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.operation_lists import REPOSITORY
from snapkeep.catalog.operations import Face
from snapkeep.catalog.outages import is_outage
from snapkeep.catalog.paging import Paging
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.access import Action, IdentityKind, Principal, Subject
from snapkeep.model.errors import RateLimited
from snapkeep.operations.clock import Clock
from snapkeep.operations.service import Operations
from snapkeep.server.schemas_operations import OperationOut

LOOK_SECONDS = 0.2
LONGEST_PAUSE = 2.0
BUSY_SHARE = 10
"""Between two looks lies at least so many times what the last one took, up to the longest pause."""
EXPLAIN_SECONDS = 5.0
"""How often it is found out anew what an operation waits for, of those that have a stream of their own."""
EXPLAINED_AT_ONCE = 5
"""Of how many at one look: each costs some queries, and nobody else is to wait for them."""
HEARTBEAT_SECONDS = 15.0
RECHECK_SECONDS = 30.0
"""How often it is looked whether the caller may still see what he is shown."""
OVERLAP = timedelta(seconds=10)
"""Ends of operations are told by the clocks of their workers, which differ a little."""
MOST_STREAMS = 1000
MOST_OF_ONE = 50
"""Streams of one identity; nobody keeps the others out."""
MOST_AT_FIRST = 1000

_EVENT_ID = re.compile(r"([0-9]{1,14})-([0-9a-f]{16})")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """The state of an operation, ready to be sent."""

    record: OperationRecord
    subject: Subject
    mark: str
    """The same for the same state, whoever tells it."""
    text: bytes


@dataclass(frozen=True, slots=True)
class Filter:
    """Which operations a stream is about; those of the list of operations."""

    system: str | None = None
    kinds: frozenset[str] = frozenset()
    states: frozenset[OperationState] = frozenset()
    asset_id: str | None = None
    requester: str | None = None

    def fits(self, record: OperationRecord) -> bool:
        """Say whether it is about this one."""
        return (
            self.system in {None, record.system_name}
            and (not self.kinds or record.kind in self.kinds)
            and (not self.states or record.state in self.states)
            and self.asset_id in {None, record.asset_id}
            and self.requester in {None, record.requester}
        )


@dataclass(slots=True, eq=False)
class Stream:
    """One caller who listens: to one operation, or to all that fit and that he may see."""

    principal: Principal
    only: str | None = None
    filter: Filter = Filter()
    waiting: dict[str, Event] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    closed: bool = False
    _sent: dict[str, str] = field(default_factory=dict)

    def offer(self, event: Event) -> None:
        """Take an event that is for this stream; one that waits for the same operation is outdated."""
        row = event.record.id
        if self.only not in {None, row} or self._sent.get(row) == event.mark:
            return
        if self.principal.may(Action.OPERATION_READ, event.subject) and (
            self.only or row in self._sent or self.filter.fits(event.record)
        ):
            self.waiting[row] = event
            self.wake.set()

    def has(self, row: str, mark: str) -> None:
        """Note that the caller knows this state already."""
        self._sent[row] = mark

    def take(self) -> list[Event]:
        """Return what is to be sent now."""
        events, self.waiting = list(self.waiting.values()), {}
        self.wake.clear()
        for event in events:
            if event.record.state.ended:
                self._sent.pop(event.record.id, None)
            else:
                self._sent[event.record.id] = event.mark
        return events

    def close(self) -> None:
        """End it."""
        self.closed = True
        self.wake.set()


class Feed:
    """Looks at the operations as long as somebody listens, and tells the streams what has changed."""

    def __init__(self, catalog: Catalog, operations: Operations, clock: Clock, is_ending: Callable[[], bool]) -> None:
        """`is_ending`: whether the server ends; then all streams do."""
        self._catalog = catalog
        self._operations = operations
        self._clock = clock
        self._is_ending = is_ending
        self._streams: set[Stream] = set()
        self._task: asyncio.Task[None] | None = None
        self._known: dict[str, Face] = {}
        self._explained: dict[str, tuple[float, str]] = {}
        self._since = clock.now()

    def require_room(self, principal: Principal) -> None:
        """Raise RateLimited when too many streams are open, or too many of one identity."""
        own = sum(stream.principal.name == principal.name for stream in self._streams)
        is_local = principal.kind is IdentityKind.LOCAL
        if len(self._streams) >= MOST_STREAMS or (own >= MOST_OF_ONE and not is_local):
            raise RateLimited(
                f"{len(self._streams)} streams of events are open, {own} of them {principal.name!r}'s",
                next_step="Close some, or try later.",
                retry_after=10,
            )

    @contextmanager
    def _listening(self, stream: Stream) -> Iterator[None]:
        self._streams.add(stream)
        if self._task is None or self._task.done():
            self._known.clear()
            self._since = self._clock.now() - OVERLAP
            self._task = asyncio.create_task(self._look_again_and_again())
        try:
            yield
        finally:
            self._streams.discard(stream)

    async def follow(
        self, stream: Stream, last_event_id: str | None, again: Callable[[], Awaitable[Principal | None]]
    ) -> AsyncIterator[bytes]:
        """Yield events as text. `again` tells who the caller is now, None when he is let in no more."""
        with self._listening(stream):
            yield b": events of operations\n\n"
            for event in await self._first(stream, last_event_id):
                stream.offer(event)
            checked = self._clock.monotonic()
            while not stream.closed:
                events = stream.take()
                for event in events:
                    yield event.text
                if stream.only and any(event.record.state.ended for event in events):
                    return
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        await stream.wake.wait()
                except TimeoutError:
                    yield b":\n\n"
                if self._clock.monotonic() - checked >= RECHECK_SECONDS:
                    checked = self._clock.monotonic()
                    principal = await again()
                    if principal is None:
                        return
                    stream.principal = principal

    async def _first(self, stream: Stream, last_event_id: str | None) -> list[Event]:
        """Return how things stand: the one operation; or those under way, and what ended since the last event."""
        last = _EVENT_ID.fullmatch(last_event_id or "")
        if stream.only:
            record = await self._catalog.operations.known(stream.only)
            found = [] if record is None else [record]
        else:
            states = [state for state in OperationState if not state.ended]
            visible = stream.principal.visible(Action.OPERATION_READ)
            paging = Paging(limit=MOST_AT_FIRST)
            found = [*await self._catalog.operations.find(states=states, paging=paging, visible=visible)]
            if last:
                since = datetime.fromtimestamp(int(last[1]) / 1000, UTC) - OVERLAP
                found += await self._catalog.operations.ended_since(since, MOST_AT_FIRST)
        events = await self._events(found)
        if stream.only and last and events and events[0].mark == last[2]:
            if not events[0].record.state.ended:
                stream.has(stream.only, last[2])
            else:
                stream.close()
        return events

    # -- looking -----------------------------------------------------------------------------------------------------
    async def _look_again_and_again(self) -> None:
        away = False
        while self._streams:
            began = self._clock.monotonic()
            try:
                if self._is_ending():
                    break
                await self._look()
                away = False
            except Exception as error:
                if not is_outage(error):
                    log.exception("events of operations end")
                    break
                if not away:
                    log.warning("the database is away; events of operations wait", reason=str(error))
                away = True
            took = self._clock.monotonic() - began
            await self._clock.sleep(min(max(LOOK_SECONDS, BUSY_SHARE * took), LONGEST_PAUSE))
        for stream in self._streams:
            stream.close()

    async def _look(self) -> None:
        """Find what is other than at the last look, and offer it to the streams."""
        of_one = {stream.only for stream in self._streams if stream.only}
        of_all = any(not stream.only for stream in self._streams)
        now = self._clock.now()
        since = self._since if of_all else None
        faces = {face.id: face for face in await self._catalog.operations.faces(of_one, since)}
        self._since = now - OVERLAP
        # Ended, by a clock that is far behind, or forgotten.
        gone = [row for row, face in self._known.items() if row not in faces and not face.ended]
        changed = [row for row, face in faces.items() if self._known.get(row) != face]
        if of_all:
            changed += gone
        self._known = faces
        changed += [row for row in await self._explain(of_one, faces) if row not in changed]
        if changed:
            for event in await self._events(await self._catalog.operations.of_ids(changed)):
                for stream in self._streams:
                    stream.offer(event)

    async def _explain(self, of_one: Iterable[str], faces: dict[str, Face]) -> list[str]:
        """Find out what operations wait for; return those for which that is another thing than before."""
        now = self._clock.monotonic()
        waiting = [row for row in of_one if row in faces and not faces[row].ended]
        due = [row for row in waiting if now - self._explained.get(row, (0.0, ""))[0] >= EXPLAIN_SECONDS]
        told = {row: self._explained.get(row, (0.0, ""))[1] for row in waiting}
        self._explained = {row: self._explained[row] for row in waiting if row in self._explained}
        if not due:
            return []
        for record in await self._catalog.operations.of_ids(due[:EXPLAINED_AT_ONCE]):
            phase = await self._operations.explain(record)
            self._explained[record.id] = now, "" if phase == record.phase else phase
        return [row for row in due if self._explained.get(row, (0.0, ""))[1] != told[row]]

    async def _events(self, records: Sequence[OperationRecord]) -> list[Event]:
        systems = await self._catalog.operations.seen_by(records)
        labels = await self._labels(records, systems)
        stamp = int(self._clock.now().timestamp() * 1000)
        return [self._event(record, systems.get(record.id), labels, stamp) for record in records]

    def _event(
        self,
        record: OperationRecord,
        system: tuple[str, str] | None,
        labels: dict[str, dict[str, str]],
        stamp: int,
    ) -> Event:
        name = record.system_name
        system_id, system_name = system or ("", None)
        pairs = {
            f"{key}={value}"
            for subject in (system_id, record.asset_id or "")
            for key, value in labels.get(subject, {}).items()
        }
        repository = name.removeprefix(REPOSITORY) if name.startswith(REPOSITORY) else None
        phase = self._explained.get(record.id, (0.0, ""))[1] if not record.state.ended else ""
        mark = hashlib.blake2b(repr((Face.of(record), phase)).encode("utf-8", "surrogatepass"), digest_size=8)
        data = OperationOut.of(record, phase or None).model_dump_json().encode()
        return Event(
            record=record,
            subject=Subject(system_name, record.asset_id, repository, frozenset(pairs)),
            mark=mark.hexdigest(),
            text=b"event: operation\nid: %d-%s\ndata: %s\n\n" % (stamp, mark.hexdigest().encode(), data),
        )

    async def _labels(
        self, records: Sequence[OperationRecord], systems: Mapping[str, tuple[str, str]]
    ) -> dict[str, dict[str, str]]:
        """Return the labels that decide who may see these; read only when somebody's grants go by labels."""
        if not any(stream.principal.goes_by_labels for stream in self._streams):
            return {}
        ids = {record.asset_id for record in records if record.asset_id is not None}
        ids |= {system_id for system_id, _ in systems.values()}
        return await self._catalog.identities.labels_of(ids)
