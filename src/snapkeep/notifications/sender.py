"""Sends what waits in the outbox: each channel for itself, one after the other, again and again until it is taken.

It is sent at least once: whoever dies between sending and noting that leaves a delivery which is sent again, under the
same id. A channel that fails rests for longer and longer, and keeps no other channel waiting.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.channels import ChannelRecord
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.catalog.outages import is_outage
from snapkeep.model.errors import NotFound, SnapkeepError
from snapkeep.model.notifications import ChannelKind, Notice, OwnEvent
from snapkeep.notifications import mail, webhook
from snapkeep.notifications.message import Outcome, Result, Target
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.operations.references import References

POLL_SECONDS = 1.0
"""How often it is looked for what other processes have written."""
PURGE_SECONDS = 60.0
TRIED_FOR = timedelta(hours=24)
"""After so long a delivery is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 3600.0
"""Seconds from the first try to the second; each further pause is twice as long, up to the longest one."""
LONGEST_REST = 60.0
"""Seconds for which a channel rests at most, of which tries have failed one after the other."""
MOST_FRESH = 1000
"""Of so many events that wait for a channel which does not work, one summary is made."""
SETTLED = timedelta(seconds=20)
"""So long the first of too many events waits for the others: one summary tells of all."""
MAILS_AT_ONCE = 4

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Rest:
    failures: int
    until: float


class Sender:
    """Sends, in this process; others may do so at the same time."""

    def __init__(self, catalog: Catalog, references: References, clock: Clock) -> None:
        self._catalog = catalog
        self._references = references
        self._clock = clock
        self._threads = ThreadPoolExecutor(MAILS_AT_ONCE, "mail")
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._rests: dict[str, _Rest] = {}
        self._purged = -PURGE_SECONDS

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send in the background."""
        try:
            async with in_background(again_and_again("notifications", self._look, self._rest_until_news)):
                yield
        finally:
            tasks = list(self._serving.values())
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def test(self, channel: ChannelRecord, by: str) -> DeliveryRecord | None:
        """Send something now, once; return it with what became of it. None: the channel was removed meanwhile."""
        notice = Notice(event=OwnEvent.TEST, message=f"{by} tries whether the channel {channel.name} works", actor=by)
        delivery = await self._catalog.deliveries.begin_test(channel.id, notice, await self._now())
        if delivery is None:
            return None
        outcome = await self._send(channel, delivery)
        await self._note(channel, delivery, outcome, once=True)
        return await self._catalog.deliveries.known(delivery.id)

    # -- which channels ----------------------------------------------------------------------------------------------
    async def _rest_until_news(self) -> None:
        """Wait for what is written in this process, and for that of others no longer than `POLL_SECONDS`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(POLL_SECONDS):
                await self._catalog.outbox.news.wait()

    async def _look(self) -> None:
        """Begin to serve the channels for which something is due."""
        self._catalog.outbox.news.clear()
        now = await self._now()
        if self._clock.monotonic() - self._purged >= PURGE_SECONDS:
            self._purged = self._clock.monotonic()
            await self._catalog.deliveries.give_up_before(now - TRIED_FOR, now)
            await self._catalog.deliveries.purge(now)
        for channel_id in await self._catalog.deliveries.due(now):
            rest = self._rests.get(channel_id)
            if channel_id not in self._serving and (rest is None or self._clock.monotonic() >= rest.until):
                task = asyncio.create_task(self._serve(channel_id))
                self._serving[channel_id] = task
                task.add_done_callback(partial(self._served, channel_id))

    def _served(self, channel_id: str, _task: asyncio.Task[None]) -> None:
        self._serving.pop(channel_id, None)

    async def _serve(self, channel_id: str) -> None:
        """Send what is due for a channel, until nothing is, or it fails."""
        try:
            while True:
                channel = await self._catalog.channels.get(channel_id)
                delivery = await self._next(channel)
                if delivery is None:
                    return
                outcome = await self._send(channel, delivery)
                await self._note(channel, delivery, outcome)
                if outcome.result in {Result.RETRY, Result.GONE} and outcome.left is None:
                    return
        except NotFound:
            return
        except Exception as error:
            if not is_outage(error):
                log.exception("sending notifications failed; it is tried again", channel=channel_id)
            self._rest(channel_id)

    async def _next(self, channel: ChannelRecord) -> DeliveryRecord | None:
        """Take what is to be sent next. Of more events than a channel wants in a minute, the rest becomes a summary."""
        now = await self._now()
        deliveries = self._catalog.deliveries
        told, has_summary = await deliveries.told_lately(channel.id, now)
        is_full = told >= channel.per_minute
        if is_full or channel.id in self._rests:
            number, first = await deliveries.fresh(channel.id, now)
            is_told = is_full and not has_summary and now - first >= SETTLED
            if number > 1 and (is_told or number > MOST_FRESH):
                await deliveries.summarise(channel.id, now)
        return await deliveries.claim(channel.id, now, tried=is_full)

    # -- sending once ------------------------------------------------------------------------------------------------
    async def _send(self, channel: ChannelRecord, delivery: DeliveryRecord) -> Outcome:
        try:
            secrets = await self._catalog.channels.secrets(channel.id)
            target = Target(await self._references.resolve({**channel.settings, **secrets}))
            if channel.kind is ChannelKind.WEBHOOK:
                return await webhook.send(target, delivery, self._clock.now())
            file = await self._catalog.report_schedules.attachment(delivery.id)
            if file is None and delivery.event == OwnEvent.REPORT.value:  # files are there until a delivery has ended
                return Outcome.sent("another server has dealt with it")
            return await mail.send(target, delivery, self._threads, file)
        except SnapkeepError as error:
            return Outcome.retry(error.message)
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("a notification cannot be sent", channel=channel.name, delivery=delivery.id)
            return Outcome.retry(f"a defect of Snapkeep: {type(error).__name__}")

    async def _note(
        self, channel: ChannelRecord, delivery: DeliveryRecord, outcome: Outcome, *, once: bool = False
    ) -> None:
        """Note how it ended, and when it is tried again. `once`: not at all."""
        now = await self._now()
        channels, deliveries = self._catalog.channels, self._catalog.deliveries
        if outcome.result is Result.SENT:
            await deliveries.sent(delivery, now, outcome.answer)
            await channels.succeeded(channel.id, now)
            self._rests.pop(channel.id, None)
            return
        last = delivery.created_at + TRIED_FOR
        due = min(now + timedelta(seconds=_pause(delivery.attempts, outcome.after)), last)
        log.warning("a notification was not taken", channel=channel.name, delivery=delivery.id, reason=outcome.answer)
        if outcome.result is Result.RETRY and not once and now < last:
            left = outcome.left or delivery.recipients
            await deliveries.put_off(delivery, due, outcome.answer, left)
            if outcome.left is None:
                self._rest(channel.id, outcome.after)
        else:
            await deliveries.give_up(delivery, now, outcome.answer)
        await channels.failed(channel.id, now, outcome.answer)
        if outcome.result is Result.GONE:
            await channels.turn_off(channel, f"it wants nothing any more: {outcome.answer}")

    def _rest(self, channel_id: str, after: float | None = None) -> None:
        """Leave a channel alone for a while."""
        failures = self._rests.get(channel_id, _Rest(0, 0.0)).failures + 1
        own = min(LONGEST_REST, 2.0 ** min(failures, 6)) * random.uniform(0.8, 1.2)
        seconds = max(own, min(after or 0.0, LONGEST_PAUSE))
        self._rests[channel_id] = _Rest(failures, self._clock.monotonic() + seconds)

    async def _now(self) -> datetime:
        """Return the time that all processes share."""
        return await self._catalog.database.now()


def _pause(attempts: int, after: float | None) -> float:
    """Return the seconds until the next try: as many as the other side wants, or ever more, not all at once."""
    own = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(attempts - 1, 20)) * random.uniform(0.8, 1.2)
    return max(own, after or 0.0)
