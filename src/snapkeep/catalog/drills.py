"""Queries on drills: what was proved of recovery points, and what was found to be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, func, not_, or_, select

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import FIRST, Listed, Orders, Paging, Sort
from snapkeep.catalog.tables import drills, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible


class DrillKind(StrEnum):
    """How it was looked at."""

    VERIFY = "verify"
    """What the repository has was read."""
    DRILL = "drill"
    """Files were restored, and compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillRecord:
    """What one verification or drill has found."""

    operation_id: str
    asset_id: str
    system_name: str
    asset_name: str
    repository_id: str
    repository_name: str
    backup_id: str
    kind: str
    whole: bool
    """All content was looked at; else a sample."""
    at: datetime
    seconds: float
    files: int
    """Whose content was looked at."""
    bytes: int
    passed: bool
    reason: str
    """Why it has not passed."""

    @property
    def proves(self) -> bool:
        """Whether it proves that the recovery point can be restored."""
        return self.passed and (self.kind == DrillKind.DRILL or self.whole)


class Standing(NamedTuple):
    """What is known of one asset."""

    proved: DrillRecord | None
    """The last that proves that a recovery point can be restored."""
    failed: DrillRecord | None
    """The last that has found something wrong, if that was after it."""


class Drills:
    """What verifications and drills have found."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, drill: DrillRecord) -> None:
        """Store what was found. Safe to repeat."""
        insert = self._database.insert(drills).values(asdict(drill))
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_nothing(index_elements=["operation_id"]))

    async def known(self, operation_id: str) -> DrillRecord | None:
        """Return what an operation has found, if it has come so far."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(drills).where(drills.c.operation_id == operation_id))).first()
        return _record(row) if row is not None else None

    async def find(
        self,
        *,
        asset_id: str | None = None,
        passed: bool | None = None,
        paging: Paging = FIRST,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[DrillRecord]:
        """Return what was found, by `DRILL_ORDERS`."""
        query = select(drills).where(_is_visible(visible))
        query = query.where(drills.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(drills.c.passed.is_(passed)) if passed is not None else query
        async with self._database.connect() as connection:
            return await DRILL_ORDERS.read(connection, query, _record, paging)

    async def standing(self, asset_ids: Sequence[str], until: datetime) -> dict[str, Standing]:
        """Return how it is with assets, at most some hundreds; those of which nothing is known are not there.

        `until`: what was found later than that is of a clock that was wrong, and does not count.
        """
        rank = func.row_number().over(
            partition_by=(drills.c.asset_id, drills.c.passed), order_by=(drills.c.at.desc(), drills.c.operation_id)
        )
        counts = or_(not_(drills.c.passed), _proves())
        wanted = drills.c.asset_id.in_(asset_ids), drills.c.at <= until, counts
        ranked = select(drills, rank.label("rank")).where(*wanted).subquery()
        columns = [ranked.c[column.name] for column in drills.c]
        found: dict[str, list[DrillRecord]] = {}
        async with self._database.connect() as connection:
            for row in await connection.execute(select(*columns).where(ranked.c.rank == 1)):
                found.setdefault(row.asset_id, []).append(_record(row))
        return {asset_id: _standing(several) for asset_id, several in found.items()}

    async def purge(self, before: datetime) -> None:
        """Forget what was found before, except the last that proves something of its asset."""
        later = drills.alias()
        newer = and_(later.c.asset_id == drills.c.asset_id, later.c.at > drills.c.at, _proves(later))
        last = and_(_proves(), ~select(later.c.operation_id).where(newer).exists())
        async with self._database.single() as connection:
            await connection.execute(delete(drills).where(drills.c.at < before, not_(last)))


DRILL_ORDERS = Orders[DrillRecord](
    "-at",
    at=Sort((drills.c.at, drills.c.operation_id), lambda item: (item.at, item.operation_id)),
)


def _standing(found: Sequence[DrillRecord]) -> Standing:
    proved = next((item for item in found if item.passed), None)
    failed = next((item for item in found if not item.passed), None)
    return Standing(proved, failed if failed and (proved is None or failed.at > proved.at) else None)


def _proves(table: Any = drills) -> ColumnElement[bool]:
    return and_(table.c.passed, or_(table.c.kind == DrillKind.DRILL.value, table.c.whole))


def _is_visible(visible: Visible) -> ColumnElement[bool]:
    return is_visible(
        visible,
        system=drills.c.system_name,
        system_id=select(systems.c.id).where(systems.c.name == drills.c.system_name).scalar_subquery(),
        asset_id=drills.c.asset_id,
        repository=drills.c.repository_name,
    )


def _record(row: Any) -> DrillRecord:
    return DrillRecord(**row._asdict())
