"""Queries that only reconcile needs: what operations are about, what is held to be ours, ends that came unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, or_, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.records import ChangeListState, ExportRecord, ExportState, OperationState
from snapkeep.catalog.tables import assets, change_blocks, change_lists, exports, operations, snapshots, systems

CHUNK = 1000
"""Rows that are asked for, or returned, at once."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """What operations are about that are under way, or have just ended. Ids are the catalog's."""

    snapshots: frozenset[str]
    names: frozenset[tuple[str, str]]
    """(asset, name) of snapshots that are being taken."""
    exported: frozenset[str]
    """Assets that are being exported or deported."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the catalog holds of a snapshot."""

    owned: bool
    gone: bool


class Comparison:
    """The catalog's side of a comparison with a system."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- operations ------------------------------------------------------------------------------------------------
    async def in_flight(self, system_ids: Sequence[str], *, besides: str, since: datetime) -> InFlight:
        """Return what operations are about that have not ended, or ended after `since`."""
        query = select(operations.c.kind, operations.c.request).where(
            operations.c.system_id.in_(system_ids), operations.c.id != besides, _in_flight(since)
        )
        found, names, exported = set(), set(), set()
        async with self._database.connect() as connection:
            for kind, request in await connection.execute(query):
                found |= {request.get(key) for key in ("snapshot_id", "base_id", "new_id")}
                if kind == "create":
                    names.add((request["asset_id"], request["name"]))
                if kind in {"export", "deport"}:
                    exported.add(request["asset_id"])
        return InFlight(frozenset(found), frozenset(names), frozenset(exported))

    async def promised(self, system_id: str) -> dict[tuple[str, str], datetime]:
        """Return (asset, name) of snapshots that a create may have left behind, and when the first of them was asked.

        A create that was refused has made nothing: what has its name is somebody else's.
        """
        query = select(
            operations.c.request, operations.c.error, operations.c.cancel_requested, operations.c.created_at
        ).where(
            operations.c.system_id == system_id,
            operations.c.kind == "create",
            operations.c.state.in_([OperationState.FAILED.value, OperationState.CANCELLED.value]),
        )
        began: dict[tuple[str, str], datetime] = {}
        async with self._database.connect() as connection:
            for request, error, cancelled, created_at in await connection.execute(query):
                key = (request["asset_id"], request["name"])
                if cancelled or key[1] == ((error or {}).get("details") or {}).get("may_exist"):
                    began[key] = min(created_at, began.get(key, created_at))
        return began

    # -- assets and snapshots --------------------------------------------------------------------------------------
    async def names(self, asset_rows: Sequence[str]) -> dict[str, str]:
        """Return the names of those of these assets that exist by the catalog."""
        found: dict[str, str] = {}
        async with self._database.connect() as connection:
            for rows in _chunks(asset_rows):
                query = select(assets.c.id, assets.c.name).where(assets.c.id.in_(rows), assets.c.gone_at.is_(None))
                found |= {row.id: row.name for row in await connection.execute(query)}
        return found

    async def known(self, snapshot_rows: Sequence[str]) -> dict[str, Known]:
        """Return what the catalog holds of these snapshots."""
        found: dict[str, Known] = {}
        columns = (snapshots.c.id, snapshots.c.owned, snapshots.c.gone_at)
        async with self._database.connect() as connection:
            for rows in _chunks(snapshot_rows):
                query = select(*columns).where(snapshots.c.id.in_(rows))
                found |= {row.id: Known(row.owned, row.gone_at is not None) for row in await connection.execute(query)}
        return found

    async def ours(self, system_id: str) -> AsyncIterator[list[str]]:
        """Yield the ids of the snapshots of ours that exist by the catalog, some at a time."""
        last = ""
        while True:
            query = (
                select(snapshots.c.id)
                .where(
                    snapshots.c.system_id == system_id,
                    snapshots.c.owned,
                    snapshots.c.gone_at.is_(None),
                    snapshots.c.id > last,
                )
                .order_by(snapshots.c.id)
                .limit(CHUNK)
            )
            async with self._database.connect() as connection:
                found = list((await connection.execute(query)).scalars())
            if not found:
                return
            yield found
            last = found[-1]

    # -- exports and change lists ----------------------------------------------------------------------------------
    async def end_export(self, record: ExportRecord, now: datetime) -> bool:
        """Note that an export is not in force any more, unless it was renewed or opened again since it was read."""
        read = record.export.refresh_at
        unchanged = (
            exports.c.id == record.id,
            exports.c.state == record.state.value,
            exports.c.created_at == record.created_at,
            exports.c.refresh_at.is_(None) if read is None else exports.c.refresh_at == read,
        )
        ended = update(exports).where(*unchanged).values(state=ExportState.ENDED.value, ended_at=now)
        async with self._database.begin() as connection:
            return bool((await connection.execute(ended)).rowcount)

    async def unfinished_change_lists(self, system_id: str, *, since: datetime) -> list[tuple[str, str]]:
        """Return (id, asset's reference) of lists that nobody computes any more, although they are not complete."""
        query = (
            select(change_lists.c.id, systems.c.name.label("system"), assets.c.name)
            .select_from(change_lists.join(assets, change_lists.c.asset_id == assets.c.id).join(systems))
            .where(assets.c.system_id == system_id, _abandoned(since))
            .order_by(change_lists.c.created_at, change_lists.c.id)
        )
        async with self._database.connect() as connection:
            return [(row.id, f"{row.system}/{row.name}") for row in await connection.execute(query)]

    async def give_up_change_list(self, list_id: str, now: datetime, *, since: datetime) -> bool:
        """Mark such a list as incomplete, and throw away what was fetched of it."""
        values: dict[str, Any] = {
            "state": ChangeListState.INCOMPLETE.value,
            "completed_at": now,
            "entries": 0,
            "cursor": None,
        }
        async with self._database.begin() as connection:
            given_up = await connection.execute(
                update(change_lists).where(change_lists.c.id == list_id, _abandoned(since)).values(values)
            )
            if given_up.rowcount:
                await connection.execute(delete(change_blocks).where(change_blocks.c.list_id == list_id))
            return bool(given_up.rowcount)


def _chunks(rows: Sequence[str]) -> Iterator[Sequence[str]]:
    return (rows[first : first + CHUNK] for first in range(0, len(rows), CHUNK))


def _in_flight(since: datetime) -> ColumnElement[bool]:
    return or_(operations.c.ended_at.is_(None), operations.c.ended_at >= since)


def _abandoned(since: datetime) -> ColumnElement[bool]:
    working = exists().where(operations.c.id == change_lists.c.id, _in_flight(since))
    return (change_lists.c.state == ChangeListState.COMPUTING.value) & ~working
