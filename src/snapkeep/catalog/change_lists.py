"""Queries on change lists: heads, and blocks of entries as bytes (what is in a block, `snapkeep.changes` knows)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort
from snapkeep.catalog.records import ChangeListRecord, ChangeListState
from snapkeep.catalog.tables import assets, change_blocks, change_lists, operations, snapshots, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import NotFound


class ChangeLists:
    """Stored change lists."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(
        self, list_id: str, *, asset_id: str, base_id: str | None, new_id: str, source: str, now: datetime
    ) -> ChangeListRecord:
        """Make the head of a list, unless it is there already."""
        async with self._database.begin() as connection:
            known = await connection.execute(select(change_lists.c.id).where(change_lists.c.id == list_id))
            if known.first() is None:
                await connection.execute(
                    insert(change_lists).values(
                        id=list_id,
                        asset_id=asset_id,
                        base_id=base_id,
                        new_id=new_id,
                        source=source,
                        state=ChangeListState.COMPUTING.value,
                        entries=0,
                        created_at=now,
                    )
                )
        return await self.get(list_id)

    async def append(self, list_id: str, data: bytes, entries: int, cursor: str) -> None:
        """Add a block and move the cursor, in one transaction."""
        async with self._database.begin() as connection:
            seq = await connection.execute(
                select(func.coalesce(func.max(change_blocks.c.seq), -1) + 1).where(change_blocks.c.list_id == list_id)
            )
            await connection.execute(
                insert(change_blocks).values(list_id=list_id, seq=seq.scalar_one(), entries=entries, data=data)
            )
            await connection.execute(
                update(change_lists)
                .where(change_lists.c.id == list_id)
                .values(cursor=cursor, entries=change_lists.c.entries + entries)
            )
            await connection.execute(
                update(operations)
                .where(operations.c.id == list_id)
                .values(items=func.coalesce(operations.c["items"], 0) + entries)
            )

    async def replace(self, list_id: str, seq: int, data: bytes, entries: int) -> None:
        """Put other entries into a block."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(change_blocks)
                .where(change_blocks.c.list_id == list_id, change_blocks.c.seq == seq)
                .values(data=data, entries=entries)
            )

    async def finish(
        self, list_id: str, state: ChangeListState, now: datetime, entries: int, summary: dict[str, Any] | None
    ) -> None:
        """Say whether the list may be trusted."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(change_lists)
                .where(change_lists.c.id == list_id)
                .values(state=state.value, completed_at=now, entries=entries, summary=summary)
            )

    async def restart(self, list_id: str) -> None:
        """Throw away what was fetched, to begin again."""
        async with self._database.begin() as connection:
            await connection.execute(delete(change_blocks).where(change_blocks.c.list_id == list_id))
            await connection.execute(
                update(change_lists).where(change_lists.c.id == list_id).values(cursor=None, entries=0)
            )

    async def blocks(self, list_id: str) -> AsyncIterator[tuple[int, bytes, int]]:
        """Yield (seq, data, entries), one block in memory at a time."""
        seq = -1
        while True:
            query = (
                select(change_blocks.c.seq, change_blocks.c.data, change_blocks.c.entries)
                .where(change_blocks.c.list_id == list_id, change_blocks.c.seq > seq)
                .order_by(change_blocks.c.seq)
                .limit(1)
            )
            async with self._database.connect() as connection:
                row = (await connection.execute(query)).first()
            if row is None:
                return
            seq = row.seq
            yield row.seq, row.data, row.entries

    async def get(self, list_id: str) -> ChangeListRecord:
        """Return the head of a list. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_query().where(change_lists.c.id == list_id))).first()
        if row is None:
            raise NotFound(f"There is no change list {list_id!r}")
        return _record(row)

    async def find(
        self,
        *,
        system: str | None = None,
        asset_id: str | None = None,
        base_id: str | None = None,
        new_id: str | None = None,
        state: ChangeListState | None = None,
        paging: Paging = ALL,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[ChangeListRecord]:
        """Return change lists, by `CHANGE_LIST_ORDERS`."""
        seen = is_visible(visible, system=systems.c.name, system_id=systems.c.id, asset_id=assets.c.id)
        query = _query().where(seen)
        query = query.where(systems.c.name == system) if system is not None else query
        query = query.where(change_lists.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(change_lists.c.base_id == base_id) if base_id is not None else query
        query = query.where(change_lists.c.new_id == new_id) if new_id is not None else query
        query = query.where(change_lists.c.state == state.value) if state else query
        async with self._database.connect() as connection:
            return await CHANGE_LIST_ORDERS.read(connection, query, _record, paging)


CHANGE_LIST_ORDERS = Orders[ChangeListRecord](
    "-created_at",
    created_at=Sort((change_lists.c.created_at, change_lists.c.id), lambda item: (item.created_at, item.id)),
)

_base, _new = snapshots.alias("base"), snapshots.alias("new")


def _query() -> Select[Any]:
    return select(
        change_lists,
        _base.c.name.label("base_name"),
        _new.c.name.label("new_name"),
        assets.c.name.label("asset_name"),
        systems.c.name.label("system_name"),
    ).select_from(
        change_lists.join(assets, change_lists.c.asset_id == assets.c.id)
        .join(systems, assets.c.system_id == systems.c.id)
        .join(_new, change_lists.c.new_id == _new.c.id)
        .outerjoin(_base, change_lists.c.base_id == _base.c.id)
    )


def _record(row: Any) -> ChangeListRecord:
    return ChangeListRecord(
        id=row.id,
        asset_id=row.asset_id,
        base_id=row.base_id,
        new_id=row.new_id,
        base_name=row.base_name,
        new_name=row.new_name,
        asset=f"{row.system_name}/{row.asset_name}",
        source=row.source,
        state=ChangeListState(row.state),
        cursor=row.cursor,
        entries=row.entries,
        summary=row.summary,
        created_at=row.created_at,
        completed_at=row.completed_at,
    )
