"""Queries on approvals: requests of one person that others approve, and which requests need that."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, or_, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import Listed, Orders, Paging, Sort
from snapkeep.catalog.records import ApprovalRecord, Decision
from snapkeep.catalog.tables import approvals, notes
from snapkeep.model.approvals import ApprovalState, FourEyes
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.notifications import Event, Notice

_KEY = "four-eyes"

APPROVAL_ORDERS = Orders[ApprovalRecord](
    "-created_at",
    created_at=Sort((approvals.c.created_at, approvals.c.id), lambda item: (item.created_at, item.id)),
    expires_at=Sort((approvals.c.expires_at, approvals.c.id), lambda item: (item.expires_at, item.id)),
)


class Approvals:
    """What was asked for, and how others decided."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    # -- which requests need one -------------------------------------------------------------------------------------
    async def four_eyes(self) -> FourEyes | None:
        """Return which actions need approval; None when it is off."""
        async with self._database.connect() as connection:
            found = await connection.scalar(select(notes.c.value).where(notes.c.key == _KEY))
        if found is None:
            return None
        value = json.loads(found)
        return FourEyes(frozenset(value["actions"]), value["needed"], value["hours"])

    async def set_four_eyes(self, wanted: FourEyes | None, *, by: str) -> None:
        """Turn it on, with these actions; or off."""
        async with self._database.begin() as connection:
            await connection.execute(delete(notes).where(notes.c.key == _KEY))
            if wanted is not None:
                value = {"actions": sorted(wanted.actions), "needed": wanted.needed, "hours": wanted.hours}
                await connection.execute(insert(notes).values(key=_KEY, value=json.dumps(value).encode()))
            await self._outbox.put(connection, _changed(wanted, by))
        self._outbox.wake()

    # -- approvals ---------------------------------------------------------------------------------------------------
    async def add(self, record: ApprovalRecord) -> None:
        """Record what somebody asks for."""
        values = {column.name: getattr(record, column.name) for column in approvals.c}
        async with self._database.begin() as connection:
            await connection.execute(insert(approvals).values(values | {"decisions": [], "state": record.state.value}))
            await self._outbox.put(connection, _asked(record))
        self._outbox.wake()

    async def get(self, approval_id: str, requester: str | None = None) -> ApprovalRecord:
        """Return one by its id, or by the beginning of it; only of this requester, if one is given. Raises NotFound."""
        query = select(approvals).where(approvals.c.id.startswith(approval_id, autoescape=True)).limit(2)
        query = query.where(approvals.c.requester == requester) if requester is not None else query
        async with self._database.connect() as connection:
            rows = (await connection.execute(query)).all()
        if len(rows) != 1 or not approval_id:
            raise NotFound(
                f"There is no approval {approval_id!r:.80}",
                next_step="See `snapkeep approval list`; give the whole id, if several begin so.",
            )
        return _record(rows[0])

    async def find(
        self,
        *,
        requester: str | None = None,
        digest: str | None = None,
        states: tuple[ApprovalState, ...] = (),
        at: datetime | None = None,
        paging: Paging,
    ) -> Listed[ApprovalRecord]:
        """Return approvals; `states` as they are `at` a time, by which those that wait may have expired."""
        query = select(approvals)
        query = query.where(approvals.c.requester == requester) if requester is not None else query
        query = query.where(approvals.c.digest == digest) if digest is not None else query
        if states:
            query = query.where(or_(*(_is(state, at) for state in states)))
        async with self._database.connect() as connection:
            return await APPROVAL_ORDERS.read(connection, query, _record, paging)

    async def decide(self, approval: ApprovalRecord, decision: Decision) -> ApprovalRecord:
        """Add a decision. Raises Conflict when it is not open any more, or this person has decided already."""
        waiting = (approvals.c.id == approval.id) & _is(ApprovalState.OPEN, decision.at)
        async with self._database.begin() as connection:
            held = update(approvals).where(waiting).values(state=approvals.c.state).returning(approvals)
            row = (await connection.execute(held)).first()
            if row is None:
                raise Conflict("This is not open any more", next_step=f"See `snapkeep approval show {approval.id}`.")
            record = _record(row)
            if any(other.by == decision.by for other in record.decisions):
                raise Conflict(f"{decision.by!r} has decided already", next_step="Let somebody else decide, too.")
            decisions = [*record.decisions, decision]
            state = ApprovalState.OPEN
            if not decision.approves:
                state = ApprovalState.REFUSED
            elif sum(other.approves for other in decisions) >= record.needed:
                state = ApprovalState.APPROVED
            values: dict[str, Any] = {"decisions": [_plain(one) for one in decisions], "state": state.value}
            await connection.execute(update(approvals).where(approvals.c.id == approval.id).values(values))
            if state is not ApprovalState.OPEN:
                await self._outbox.put(connection, _decided(record, state, decision.by))
        self._outbox.wake()
        return await self.get(approval.id)

    async def end(self, approval: ApprovalRecord, state: ApprovalState, now: datetime) -> bool:
        """Let one that is approved end, as used or otherwise; say whether it was approved still."""
        approved = (approvals.c.id == approval.id) & _is(ApprovalState.APPROVED, now)
        async with self._database.begin() as connection:
            ended = await connection.execute(update(approvals).where(approved).values(state=state.value))
            return bool(ended.rowcount)

    async def purge(self, before: datetime) -> None:
        """Forget those that were asked for before."""
        async with self._database.single() as connection:
            await connection.execute(delete(approvals).where(approvals.c.created_at < before))


def _is(state: ApprovalState, now: datetime | None) -> Any:
    """Return the condition that an approval is in a state, now that it may have expired."""
    waits = approvals.c.state.in_((ApprovalState.OPEN.value, ApprovalState.APPROVED.value))
    if now is None:
        return approvals.c.state == state.value
    if state is ApprovalState.EXPIRED:
        return (approvals.c.state == state.value) | (waits & (approvals.c.expires_at <= now))
    return (approvals.c.state == state.value) & (~waits | (approvals.c.expires_at > now))


def _asked(record: ApprovalRecord) -> Notice:
    return Notice(
        event=Event.APPROVAL_ASKED,
        message=f"{record.requester} asks for {record.action} {record.subject}".rstrip(),
        next_step=f"Look at it, and decide: `snapkeep approval show {record.id[:8]}`.",
        subject=record.subject,
        actor=record.requester,
        details={
            "approval": record.id,
            "action": record.action,
            "needed": record.needed,
            "expires_at": record.expires_at.isoformat(),
        },
    )


def _decided(record: ApprovalRecord, state: ApprovalState, by: str) -> Notice:
    step = f"Do it: `snapkeep approval run {record.id[:8]}`." if state is ApprovalState.APPROVED else ""
    return Notice(
        event=Event.APPROVAL_DECIDED,
        message=f"{record.action} {record.subject} of {record.requester} was {state}",
        next_step=step,
        subject=record.subject,
        actor=by,
        details={
            "approval": record.id,
            "action": record.action,
            "state": state.value,
            "requester": record.requester,
        },
    )


def _changed(wanted: FourEyes | None, by: str) -> Notice:
    now = {} if wanted is None else {"needed": wanted.needed, "hours": wanted.hours, "actions": sorted(wanted.actions)}
    return Notice(
        event=Event.PROTECTION_CHANGED,
        message=f"Four-eyes was {'changed' if wanted else 'turned off'} by {by}",
        next_step="See whether that was meant: `snapkeep four-eyes show`.",
        subject="four-eyes",
        actor=by,
        details={"enabled": wanted is not None, **now},
    )


def _plain(decision: Decision) -> dict[str, Any]:
    return {
        "by": decision.by,
        "at": decision.at.isoformat(),
        "approves": decision.approves,
        "comment": decision.comment,
    }


def _record(row: Any) -> ApprovalRecord:
    decisions = tuple(
        Decision(item["by"], datetime.fromisoformat(item["at"]), item["approves"], item["comment"])
        for item in row.decisions
    )
    return ApprovalRecord(**row._asdict() | {"decisions": decisions, "state": ApprovalState(row.state)})
