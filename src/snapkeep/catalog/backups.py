"""Queries on backups: recovery points, and where the next incremental one starts."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, or_, select, update

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.audit_chain import Entry
from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import FIRST, Listed, Orders, Paging, Sort
from snapkeep.catalog.protections import forgetting
from snapkeep.catalog.records import BackupRecord, ChainRecord
from snapkeep.catalog.tables import backups, chains, repositories, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import InvalidInput, NotFound


class Backups:
    """Recovery points and the chains that they form."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def record(self, backup: BackupRecord) -> None:
        """Store a recovery point, and move the pin of its chain to its snapshot. Safe to repeat."""
        values = asdict(backup)
        del values["repository_name"]
        link = {
            "asset_id": backup.asset_id,
            "repository_id": backup.repository_id,
            "backup_id": backup.id,
            "snapshot_id": backup.snapshot_id,
        }
        insert = self._database.insert
        async with self._database.begin() as connection:
            await connection.execute(insert(backups).values(values).on_conflict_do_nothing(index_elements=["id"]))
            moved = insert(chains).values(link)
            await connection.execute(
                moved.on_conflict_do_update(index_elements=["asset_id", "repository_id"], set_=link)
            )

    async def get(self, backup_id: str, visible: Visible = ALL_VISIBLE) -> BackupRecord:
        """Return one by its id, or by the beginning of its id or of restic's. Raises NotFound, InvalidInput."""
        begins = or_(
            backups.c.id.startswith(backup_id, autoescape=True),
            backups.c.restic_id.startswith(backup_id, autoescape=True),
        )
        async with self._database.connect() as connection:
            rows = (await connection.execute(_query().where(begins, _is_visible(visible)).limit(2))).all()
        exact = [row for row in rows if backup_id in {row.id, row.restic_id}]
        if len(rows) > 1 and len(exact) != 1:
            raise InvalidInput(
                f"{backup_id!r} is the beginning of several recovery points", next_step="Give more of it."
            )
        if not rows or not backup_id:
            raise NotFound(f"There is no recovery point {backup_id!r}", next_step="See `snapkeep backup list`.")
        return _record((exact or rows)[0])

    async def known(self, backup_id: str) -> BackupRecord | None:
        """Return one by its whole id, if it is there."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_query().where(backups.c.id == backup_id))).first()
        return _record(row) if row is not None else None

    async def find(
        self,
        *,
        system: str | None = None,
        asset_id: str | None = None,
        repository_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        paging: Paging = FIRST,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[BackupRecord]:
        """Return recovery points, by `BACKUP_ORDERS`; made from `since` on, before `until`."""
        query = _query().where(_is_visible(visible))
        query = query.where(backups.c.system_name == system) if system is not None else query
        query = query.where(backups.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(backups.c.repository_id == repository_id) if repository_id is not None else query
        query = query.where(backups.c.created_at >= since) if since else query
        query = query.where(backups.c.created_at < until) if until else query
        async with self._database.connect() as connection:
            return await BACKUP_ORDERS.read(connection, query, _record, paging)

    async def remove(self, backup_id: str, entry: Entry | None = None) -> None:
        """Forget a recovery point, and append a line to the audit log: both, or nothing. A chain that goes on from it
        ends. Raises Locked while something keeps it."""
        async with forgetting(self._database, backup_id=backup_id) as connection:
            removed = (await connection.execute(delete(backups).where(backups.c.id == backup_id))).rowcount
            if removed and entry is not None:
                await self._audit.append_in(connection, [entry])

    async def verified(self, backup_id: str, verification: dict[str, Any]) -> None:
        """Note what a check has found."""
        async with self._database.begin() as connection:
            await connection.execute(update(backups).where(backups.c.id == backup_id).values(verification=verification))

    # -- chains ------------------------------------------------------------------------------------------------------
    async def chain(self, asset_id: str, repository_id: str) -> ChainRecord | None:
        """Return where the next incremental backup of the asset starts."""
        wanted = and_(chains.c.asset_id == asset_id, chains.c.repository_id == repository_id)
        found = await self._chains(wanted)
        return found[0] if found else None

    async def chains_from(self, snapshot_id: str) -> list[ChainRecord]:
        """Return the chains that go on from a snapshot: it is pinned by them."""
        return await self._chains(chains.c.snapshot_id == snapshot_id)

    async def chains_of(self, repository_id: str) -> list[ChainRecord]:
        """Return the chains of a repository."""
        return await self._chains(chains.c.repository_id == repository_id)

    async def _chains(self, wanted: Any) -> list[ChainRecord]:
        query = select(chains, repositories.c.name.label("repository_name")).join(repositories).where(wanted)
        async with self._database.connect() as connection:
            return [ChainRecord(**row._asdict()) for row in await connection.execute(query)]


BACKUP_ORDERS = Orders[BackupRecord](
    "-created_at",
    created_at=Sort((backups.c.created_at, backups.c.id), lambda item: (item.created_at, item.id)),
    asset=Sort(
        (backups.c.system_name, backups.c.asset_name, backups.c.created_at, backups.c.id),
        lambda item: (item.system_name, item.asset_name, item.created_at, item.id),
    ),
)


def _is_visible(visible: Visible) -> ColumnElement[bool]:
    return is_visible(
        visible,
        system=backups.c.system_name,
        system_id=select(systems.c.id).where(systems.c.name == backups.c.system_name).scalar_subquery(),
        asset_id=backups.c.asset_id,
        repository=repositories.c.name,
    )


def _query() -> Select[Any]:
    return select(backups, repositories.c.name.label("repository_name")).join(repositories)


def _record(row: Any) -> BackupRecord:
    return BackupRecord(**row._asdict())
