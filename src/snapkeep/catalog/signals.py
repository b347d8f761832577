"""Queries on signals: what was thought of change lists, whether people were told, and what they said to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, or_, select, update

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.audit_chain import Entry
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import Listed, Orders, Paging, Sort
from snapkeep.catalog.tables import assets, repositories, signals, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import Conflict, InvalidInput, NotFound
from snapkeep.model.notifications import Notice

DIFFS = ""
"""The series of diffs that stand alone; that of backups is the id of their repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecord:
    """What was thought of one change list."""

    operation_id: str
    """Of the backup, or of the diff."""
    asset_id: str
    system_id: str
    system_name: str
    asset_name: str
    series: str
    repository_name: str | None
    backup_id: str | None
    snapshot_id: str
    at: datetime
    """When the newer snapshot was taken."""
    features: dict[str, Any]
    verdict: dict[str, Any]
    suspicious: bool
    told: bool
    held: str
    """What is held because of it, as people call it; empty: nothing."""
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledged_reason: str | None

    @property
    def reference(self) -> str:
        """The name of its asset: `system/asset`."""
        return f"{self.system_name}/{self.asset_name}"

    @property
    def reasons(self) -> list[str]:
        """Why it is suspicious, in words."""
        return list(self.verdict["reasons"])

    def to_result(self) -> dict[str, Any]:
        """Return what the result of its operation says of it."""
        return {"suspicious": self.suspicious, "reasons": self.reasons, "held": self.held}


class ChangeSignals:
    """Signals of all assets."""

    def __init__(self, database: Database, audit: Audit, outbox: Outbox) -> None:
        self._database = database
        self._audit = audit
        self._outbox = outbox

    # -- writing -----------------------------------------------------------------------------------------------------
    async def record(
        self,
        operation_id: str,
        *,
        asset_id: str,
        series: str,
        backup_id: str | None,
        snapshot_id: str,
        at: datetime,
        features: dict[str, Any],
        verdict: dict[str, Any],
    ) -> SignalRecord:
        """Store what is thought of a list. Whoever comes again with the same operation gets what is stored."""
        values = {
            "operation_id": operation_id,
            "asset_id": asset_id,
            "series": series,
            "backup_id": backup_id,
            "snapshot_id": snapshot_id,
            "at": at,
            "features": features,
            "verdict": verdict,
            "suspicious": bool(verdict["suspicious"]),
            "told": False,
            "held": "",
        }
        adding = self._database.insert(signals).values(values).on_conflict_do_nothing(index_elements=["operation_id"])
        async with self._database.begin() as connection:
            await connection.execute(adding)
        return await self.get(operation_id)

    async def tell(self, signal: SignalRecord, held: str, notice: Notice, entries: Sequence[Entry]) -> SignalRecord:
        """Tell people once, note what is held, and append lines to the audit log: all, or nothing. Safe to repeat."""
        mine = (signals.c.operation_id == signal.operation_id) & ~signals.c.told
        async with self._database.begin() as connection:
            telling = await connection.execute(update(signals).where(mine).values(told=True, held=held))
            if telling.rowcount:
                await self._outbox.put(connection, notice)
                if entries:
                    await self._audit.append_in(connection, entries)
        self._outbox.wake()
        return await self.get(signal.operation_id)

    async def acknowledge(self, signal: SignalRecord, *, by: str, reason: str) -> SignalRecord:
        """Note that somebody holds a suspicious list to be harmless: from now on it is a part of what is usual.

        Doing so again changes nothing. Raises Conflict when it is not suspicious, or was acknowledged by somebody else,
        or for another reason.
        """
        waits = (signals.c.operation_id == signal.operation_id) & signals.c.suspicious
        waits &= signals.c.acknowledged_at.is_(None)
        now = await self._database.now()
        values = {"acknowledged_at": now, "acknowledged_by": by, "acknowledged_reason": reason}
        async with self._database.begin() as connection:
            changed = (await connection.execute(update(signals).where(waits).values(**values))).rowcount
        found = await self.get(signal.operation_id)
        if changed or (found.acknowledged_by, found.acknowledged_reason) == (by, reason):
            return found
        if not found.suspicious:
            raise Conflict("This change list is not suspicious", next_step="There is nothing to be done.")
        raise Conflict(
            f"{found.acknowledged_by} has acknowledged this already, at {found.acknowledged_at:%Y-%m-%d %H:%M} UTC",
            next_step="There is nothing to be done.",
        )

    async def purge(self, before: datetime) -> None:
        """Forget what lies long back, but nothing that waits for somebody."""
        done = ~signals.c.suspicious | signals.c.acknowledged_at.is_not(None)
        async with self._database.single() as connection:
            await connection.execute(delete(signals).where(signals.c.at < before, done))

    # -- reading -----------------------------------------------------------------------------------------------------
    async def known(self, operation_id: str) -> SignalRecord | None:
        """Return that of an operation, if there is one."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_query().where(signals.c.operation_id == operation_id))).first()
        return _record(row) if row is not None else None

    async def get(self, operation_id: str, visible: Visible = ALL_VISIBLE) -> SignalRecord:
        """Return one by the id of its operation, or the beginning of it. Raises NotFound, InvalidInput (not unique)."""
        of = signals.c.operation_id
        wanted = of == operation_id if len(operation_id) >= 36 else of.startswith(operation_id, autoescape=True)
        async with self._database.connect() as connection:
            rows = (await connection.execute(_query().where(wanted, _is_visible(visible)).limit(2))).all()
        if not rows or not operation_id:
            raise NotFound(f"There is no signal {operation_id!r}", next_step="See `snapkeep signal list`.")
        if len(rows) > 1:
            raise InvalidInput(f"{operation_id!r} is the beginning of several signals", next_step="Give more of it.")
        return _record(rows[0])

    async def find(
        self,
        paging: Paging,
        *,
        asset_id: str | None = None,
        suspicious: bool | None = None,
        acknowledged: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[SignalRecord]:
        """Return signals, by `SIGNAL_ORDERS`; of lists from `since` on, before `until`."""
        query = _query().where(_is_visible(visible))
        query = query.where(signals.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(signals.c.suspicious.is_(suspicious)) if suspicious is not None else query
        if acknowledged is not None:
            at = signals.c.acknowledged_at
            query = query.where(at.is_not(None) if acknowledged else at.is_(None))
        query = query.where(signals.c.at >= since) if since else query
        query = query.where(signals.c.at < until) if until else query
        async with self._database.connect() as connection:
            return await SIGNAL_ORDERS.read(connection, query, _record, paging)

    async def history(
        self, asset_id: str, series: str, *, before: datetime, limit: int
    ) -> list[tuple[dict[str, Any], bool]]:
        """Return the features of the latest lists before a time that are usual, and whether each was acknowledged.

        Suspicious ones are not usual before somebody has acknowledged them. Of several lists up to the same snapshot,
        there is one.
        """
        usual = or_(~signals.c.suspicious, signals.c.acknowledged_at.is_not(None))
        query = (
            select(signals.c.snapshot_id, signals.c.features, signals.c.suspicious)
            .where(signals.c.asset_id == asset_id, signals.c.series == series, signals.c.at < before, usual)
            .order_by(signals.c.at.desc(), signals.c.operation_id)
            .limit(limit)
        )
        async with self._database.connect() as connection:
            rows = (await connection.execute(query)).all()
        return list({row.snapshot_id: (row.features, row.suspicious) for row in rows}.values())

    async def first_open(self, asset_id: str, series: str) -> SignalRecord | None:
        """Return the first suspicious list that nobody has acknowledged."""
        waits = signals.c.suspicious & signals.c.acknowledged_at.is_(None)
        query = _query().where(signals.c.asset_id == asset_id, signals.c.series == series, waits)
        query = query.order_by(signals.c.at, signals.c.operation_id).limit(1)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).first()
        return _record(row) if row is not None else None


SIGNAL_ORDERS = Orders[SignalRecord](
    "-at", at=Sort((signals.c.at, signals.c.operation_id), lambda item: (item.at, item.operation_id))
)


def _query() -> Select[Any]:
    return select(
        signals,
        assets.c.name.label("asset_name"),
        systems.c.id.label("system_id"),
        systems.c.name.label("system_name"),
        repositories.c.name.label("repository_name"),
    ).select_from(
        signals.join(assets, signals.c.asset_id == assets.c.id)
        .join(systems, assets.c.system_id == systems.c.id)
        .outerjoin(repositories, signals.c.series == repositories.c.id)
    )


def _is_visible(visible: Visible) -> ColumnElement[bool]:
    return is_visible(
        visible,
        system=systems.c.name,
        system_id=systems.c.id,
        asset_id=signals.c.asset_id,
        repository=repositories.c.name,
    )


def _record(row: Any) -> SignalRecord:
    return SignalRecord(**row._asdict())
