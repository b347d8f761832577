"""Runs policies: what is due is claimed, then asked for. Of several servers, each due moment is run by one.

The claim and the intent are one transaction: the position moves on from where it was seen, and the run is noted under
the id that its operation will have. Whoever dies before he has asked for it leaves a run that is asked for later, under
the same id; so nothing is lost, and nothing runs twice. What is looked at in one tick is bounded, and taken from every
policy and system in turn.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

import structlog

from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.policies import PolicyRecord
from snapkeep.catalog.policy_runs import Move, Position, RunRecord
from snapkeep.catalog.records import AssetRecord
from snapkeep.model.errors import NotFound, SnapkeepError
from snapkeep.operations.background import again_and_again, in_background
from snapkeep.operations.clock import Clock
from snapkeep.operations.metrics import policy_ran
from snapkeep.operations.requester import Requester
from snapkeep.policy.asks import Asks, LeftOut
from snapkeep.policy.firing import AHEAD, Verdict, decide, first_look
from snapkeep.policy.selecting import Loaded, places

TICK_SECONDS: Final = 5.0
AT_ONCE: Final = 200
"""Positions that are looked at in one tick."""
SELECT_SECONDS: Final = 60.0
"""How often it is looked which assets there are."""
LEFT_SECONDS: Final = 30
"""A run that was claimed so long ago, and not asked for, is asked for by whoever sees it."""
TRIED_FOR: Final = timedelta(hours=1)
STEADY_SECONDS: Final = 900.0
"""How long a clock that was set must go steadily before its time counts: a machine that starts may set it again."""
FAR: Final = timedelta(days=2)
"""What waits for longer than that at a start is looked at once."""
PURGE_SECONDS: Final = 3600.0
RUNS_KEPT: Final = timedelta(days=2)

_RUNS: Final = uuid.UUID("0c9d3a52-3a0e-4a35-8a53-0a5d0f4c6e11")

log = structlog.get_logger(__name__)


def run_id(position: Position, due_at: datetime) -> str:
    """Return the id of a run and of its operation: the same for the same due moment after the same run before, whoever
    asks. So a moment that comes again, since the clock was wrong, has another."""
    where = f"{position.policy_id} {position.step} {position.asset_id}"
    return str(uuid.uuid5(_RUNS, f"{where} {due_at.isoformat()} {position.operation_id or ''}"))


class Runner:
    """Runs the policies of a catalog, in this process; others may do so at the same time."""

    def __init__(self, catalog: Catalog, asks: Asks, clock: Clock) -> None:
        self._catalog = catalog
        self._asks = asks
        self._clock = clock
        self._loaded: dict[str, Loaded] = {}
        self._revisions: dict[str, int] = {}
        self._selected = self._purged = -PURGE_SECONDS
        self._fresh = True
        self._more = False
        self._offset: float | None = None
        """Of the clock to the monotonic one, at the last look."""
        self._steady_from: float | None = None
        """Since when the clock goes steadily, when it is to be seen whether it was set back; else None."""
        self._saw_back = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run them in the background."""
        async with in_background(again_and_again("policies", self._look, self._rest)):
            yield

    async def _look(self) -> None:
        self._more = False
        self._more = await self.tick()

    async def _rest(self) -> None:
        await self._clock.sleep(0.05 if self._more else TICK_SECONDS)

    async def tick(self) -> bool:
        """Do what is due now; say whether there is more of it than was taken."""
        now = self._clock.now()
        await self._read(now)
        await self._correct(now)
        await self._finish_left(now)
        if not self._loaded:
            return False
        positions = await self._catalog.policy_runs.due(now, AT_ONCE)
        if positions:
            await self._fire(positions, now)
        return len(positions) == AT_ONCE

    # -- what there is -----------------------------------------------------------------------------------------------
    async def _read(self, now: datetime) -> None:
        """Take note of policies that were changed, and of assets that came or went."""
        revisions = await self._catalog.policies.enabled()
        changed = revisions != self._revisions
        if changed:
            self._revisions, self._loaded = revisions, {}
            for record in await self._catalog.policies.find():
                if record.enabled:
                    self._load(record.id, record)
        monotonic = self._clock.monotonic()
        if self._loaded and (changed or monotonic - self._selected >= SELECT_SECONDS):
            self._selected = monotonic
            await self._select(now)
        if monotonic - self._purged >= PURGE_SECONDS:
            self._purged = monotonic
            await self._catalog.policy_runs.purge(now - RUNS_KEPT)

    def _load(self, policy_id: str, record: PolicyRecord) -> None:
        try:
            self._loaded[policy_id] = Loaded.of(record)
        except ValueError as error:
            log.warning("a policy cannot be read, and does not run", policy=record.name, reason=str(error))

    async def _select(self, now: datetime) -> None:
        """Begin with assets that have come under a policy, and end with those that have left it."""
        for policy_id, wanted in (await places(self._catalog, self._loaded.values())).items():
            one = self._loaded[policy_id]
            known = await self._catalog.policy_runs.places(policy_id)
            begin = [
                (place, first_look(one.calendars[place.step], self._delay(one, place.step, place.asset_id), now))
                for place in wanted - known
            ]
            await self._catalog.policy_runs.begin(policy_id, begin, now)
            await self._catalog.policy_runs.end(policy_id, known - wanted)

    @staticmethod
    def _delay(one: Loaded, step: str, asset_id: str) -> timedelta:
        return one.calendars[step].schedule.delay(one.policy.name, step, asset_id)

    async def _correct(self, now: datetime) -> None:
        """Go by the new time when the clock was set back far: as we have seen, or before this process began.

        Not before the clock goes steadily, nor while it is behind that of the database: then it is ours that is wrong.
        """
        monotonic = self._clock.monotonic()
        offset = now.timestamp() - monotonic
        if (stepped := self._offset - offset if self._offset is not None else 0.0) > AHEAD.total_seconds():
            self._saw_back = True
        if self._offset is None or abs(stepped) > AHEAD.total_seconds():
            self._steady_from = monotonic
        self._offset = offset
        if self._steady_from is None or monotonic - self._steady_from < STEADY_SECONDS:
            return
        if now >= await self._catalog.database.now() - AHEAD:
            after, later = (now, now) if self._saw_back else (now + AHEAD, now + FAR)
            if ahead := await self._catalog.policy_runs.begin_anew(after, later, now):
                log.warning("the clock was set back; what it was ahead of begins anew", positions=ahead)
        else:
            log.warning("the clock is behind that of the database: set it")
        self._steady_from, self._saw_back = None, False

    # -- what is due -------------------------------------------------------------------------------------------------
    async def _fire(self, positions: list[Position], now: datetime) -> None:
        before = {position.operation_id for position in positions if position.operation_id is not None}
        unended = await self._asks.unended(before) if before else set()
        moves = [self._move(position, position.operation_id in unended, now) for position in positions]
        for run in await self._catalog.policy_runs.move(moves):
            await self._ask(run, now)

    def _move(self, position: Position, still_runs: bool, now: datetime) -> Move:
        one = self._loaded.get(position.policy_id)
        if one is None or position.step not in one.steps:  # it was changed at this moment; the next look ends it
            return Move(position, position.due_at, now + timedelta(seconds=SELECT_SECONDS))
        step = one.steps[position.step]
        decision = decide(
            one.calendars[step.name],
            step,
            self._delay(one, step.name, position.asset_id),
            position.due_at,
            still_runs=still_runs,
            now=now,
        )
        run: RunRecord | None = None
        if decision.verdict is Verdict.RUN:
            run = RunRecord(
                operation_id=run_id(position, decision.due_at),
                policy_id=position.policy_id,
                policy=one.policy.name,
                step=step.name,
                asset_id=position.asset_id,
                due_at=decision.due_at,
                claimed_at=now,
            )
        skipped = decision.reason if decision.verdict is Verdict.SKIP else None
        if skipped is not None:
            policy_ran("skipped")
        return Move(position, decision.due_at, decision.look_at, run, skipped)

    # -- what was claimed --------------------------------------------------------------------------------------------
    async def _finish_left(self, now: datetime) -> None:
        """Ask for what was claimed and not asked for: by who died in between, or when a system was away."""
        before = None if self._fresh else now - timedelta(seconds=LEFT_SECONDS)
        left = await self._catalog.policy_runs.claimed(before, AT_ONCE)
        for run in left:
            await self._ask(run, now)
        self._fresh = self._fresh and len(left) == AT_ONCE

    async def _ask(self, run: RunRecord, now: datetime) -> None:
        """Ask for the operation of a run. What cannot be is noted, and told in the audit log."""
        subject = run.asset_id
        try:
            asset = await self._catalog.inventory.asset(run.asset_id)
            subject = asset.reference
            if asset.gone_at is not None:
                raise NotFound(f"{subject} no longer exists on the system")
            name = await self._ask_for(run, asset)
        except LeftOut as reason:
            await self._catalog.policy_runs.left_out(run, str(reason))
            policy_ran("skipped")
        except SnapkeepError as error:
            if error.retryable and now - run.claimed_at < TRIED_FOR:
                log.warning("a run waits", policy=run.policy, step=run.step, asset=subject, reason=error.message)
                return
            await self._refuse(run, subject, error)
        else:
            await self._catalog.policy_runs.asked(run, name)
            policy_ran("asked")

    async def _ask_for(self, run: RunRecord, asset: AssetRecord) -> str | None:
        one = self._loaded.get(run.policy_id)
        step = one.steps.get(run.step) if one is not None else None
        if step is None:
            raise NotFound(f"The policy {run.policy!r} was changed, removed or disabled at this moment")
        by = Requester(f"policy:{run.policy}", run.operation_id)
        return await self._asks.ask(step, asset, by)

    async def _refuse(self, run: RunRecord, subject: str, error: SnapkeepError) -> None:
        log.warning("a run is refused", policy=run.policy, step=run.step, asset=subject, reason=error.message)
        entry = Entry(
            actor=f"policy:{run.policy}",
            actor_kind="operation",
            source="",
            action=f"policy.run.{run.step}",
            subject=shortened(subject),
            outcome=Outcome.FAILED,
            detail={"code": error.code, "reason": shortened(error.message)},
        )
        await self._catalog.audit.append(entry)
        await self._catalog.policy_runs.refused(run, error.message)
        policy_ran("refused")
