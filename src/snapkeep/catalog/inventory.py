"""Queries on what lies on systems: assets and snapshots."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import FIRST, Listed, Orders, Paging, Sort, holds_text
from snapkeep.catalog.records import AssetRecord, SnapshotRecord, asset_from_row, snapshot_from_row
from snapkeep.catalog.tables import UtcDateTime, assets, operations, snapshots, systems
from snapkeep.catalog.visible import has_label, is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.snapshots import Consistency, Snapshot

_NAMESPACE = uuid.UUID("5f0c1d7e-7c0b-4f6e-9d53-2f4f1f0a9a10")


def asset_row_id(system_id: str, vendor_id: str) -> str:
    """Return the catalog's id of an asset: the same whenever it is found."""
    return _row_id(f"{system_id}/{vendor_id}")


def snapshot_row_id(asset_id: str, vendor_id: str) -> str:
    """Return the catalog's id of a snapshot: the same whenever it is found."""
    return _row_id(f"{asset_id}@{vendor_id}")


def _row_id(text: str) -> str:
    """Return the same id for the same text; lone surrogates, which have no UTF-8, count as their escapes."""
    return str(uuid.uuid5(_NAMESPACE, text.encode("utf-8", "backslashreplace").decode()))


class Inventory:
    """Assets and snapshots as last seen."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- recording -----------------------------------------------------------------------------------------------
    async def record_batch(
        self,
        system_id: str,
        found_assets: Sequence[Asset],
        found_snapshots: Sequence[Snapshot],
        *,
        seen_by: str,
        cursor: str | None = None,
        since: datetime | None = None,
    ) -> None:
        """Store what was seen, and how far the operation `seen_by` came, in one transaction.

        `since`: when the looking began. What was noted as gone after that stays gone: it was seen before it went.
        """
        asset_rows = [_asset_row(system_id, asset, seen_by) for asset in found_assets]
        snapshot_rows = [_snapshot_row(system_id, snapshot, seen_by) for snapshot in found_snapshots]
        async with self._database.begin() as connection:
            await self._upsert(connection, assets, asset_rows, since)
            await self._upsert(connection, snapshots, snapshot_rows, since)
            if cursor is not None:
                await connection.execute(
                    update(operations)
                    .where(operations.c.id == seen_by)
                    .values(
                        cursor=cursor,
                        items=func.coalesce(operations.c["items"], 0) + len(asset_rows) + len(snapshot_rows),
                    )
                )

    async def _upsert(
        self, connection: AsyncConnection, table: Table, rows: Sequence[dict[str, Any]], since: datetime | None
    ) -> None:
        """Insert or update by id, with executemany: far faster than one statement with all values.

        In the order of ids, so that two who record the same things at the same moment wait in line, not for each other.
        """
        if rows:
            statement = _upsert_statement(table, self._database.is_postgresql, since is not None)
            given = [{**row, "since": since} for row in rows] if since is not None else rows
            await connection.execute(statement, sorted(given, key=lambda row: str(row["id"])))

    async def record_made(
        self,
        system_id: str,
        snapshot: Snapshot,
        *,
        seen_by: str,
        consistency: Consistency,
        quiesced: Sequence[str] = (),
        reason: str | None = None,
    ) -> None:
        """Store a snapshot that the operation `seen_by` made, and how consistent it is, in one transaction."""
        row = _snapshot_row(system_id, snapshot, seen_by)
        made = {"consistency": consistency, "quiesced": list(quiesced), "consistency_reason": reason}
        async with self._database.begin() as connection:
            await self._upsert(connection, snapshots, [row], None)
            await connection.execute(update(snapshots).where(snapshots.c.id == row["id"]).values(made))

    async def unseen(
        self, system_id: str, *, not_seen_by: str, before: datetime
    ) -> tuple[list[AssetRecord], list[SnapshotRecord]]:
        """Return what exists by the catalog, but was not seen by a complete discovery.

        What another operation recorded since `before` (the begin of the discovery) is left out.
        """
        recent = select(operations.c.id).where(
            operations.c.system_id == system_id,
            (operations.c.ended_at.is_(None)) | (operations.c.ended_at >= before),
        )

        def missing(table: Table) -> ColumnElement[bool]:
            return and_(
                table.c.system_id == system_id,
                table.c.gone_at.is_(None),
                table.c.seen_by != not_seen_by,
                table.c.seen_by.not_in(recent),
            )

        async with self._database.connect() as connection:
            found = await connection.execute(_asset_query().where(missing(assets)))
            lost = await connection.execute(_snapshot_query().where(missing(snapshots)))
            return [_asset_record(row) for row in found], [_snapshot_record(row) for row in lost]

    async def mark_gone(self, found: Iterable[AssetRecord | SnapshotRecord], now: datetime) -> None:
        """Note that these no longer exist."""
        rows = [(assets if isinstance(item, AssetRecord) else snapshots, item.id) for item in found]
        async with self._database.begin() as connection:
            for table in (assets, snapshots):
                ids = [{"row": row_id} for kind, row_id in sorted(rows, key=lambda row: row[1]) if kind is table]
                if ids:
                    statement = update(table).where(table.c.id == bindparam("row")).values(gone_at=now)
                    await connection.execute(statement, ids)

    async def counts(self, system_id: str) -> dict[str, int]:
        """Count the assets and snapshots that exist on a system."""
        async with self._database.connect() as connection:
            return {
                table.name: (
                    await connection.execute(
                        select(func.count())
                        .select_from(table)
                        .where(table.c.system_id == system_id, table.c.gone_at.is_(None))
                    )
                ).scalar_one()
                for table in (assets, snapshots)
            }

    # -- reading -------------------------------------------------------------------------------------------------
    async def assets(
        self,
        system: str | None = None,
        name: str | None = None,
        *,
        kind: AssetKind | None = None,
        part: str = "",
        labelled: Sequence[str] = (),
        capability: Capability | None = None,
        gone: bool = False,
        paging: Paging = FIRST,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[AssetRecord]:
        """Return assets, by `ASSET_ORDERS`. `part`: of the name; `labelled`: KEY=VALUE, its own or its system's."""
        query = _asset_query().where(_is_visible(visible))
        query = query.where(systems.c.name == system) if system is not None else query
        query = query.where(assets.c.name == name) if name is not None else query
        query = query.where(assets.c.kind == kind.value) if kind else query
        query = query.where(holds_text(assets.c.name, part)) if part else query
        for label in labelled:
            query = query.where(has_label(label, systems.c.id, assets.c.id))
        if capability:  # a JSON list of plain words: as text, it is the same on every database
            query = query.where(cast(assets.c.capabilities, Text).contains(f'"{capability.value}"', autoescape=True))
        query = query if gone else query.where(assets.c.gone_at.is_(None))
        async with self._database.connect() as connection:
            return await ASSET_ORDERS.read(connection, query, _asset_record, paging)

    async def asset(self, row_id: str, *, counted: bool = False) -> AssetRecord:
        """Return one asset by the catalog's id, `counted` with the number of its snapshots. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_COUNTED_ASSET if counted else _ASSET, {"asset": row_id})).first()
        if row is None:
            raise NotFound(f"There is no asset {row_id!r}")
        return _asset_record(row)

    async def find_asset(self, system: str, name: str) -> AssetRecord:
        """Return the one asset of that name. Raises NotFound, or Conflict when several have it."""
        found = await self.assets(system, name, paging=Paging(limit=3))
        if not found:
            raise NotFound(
                f"System {system!r} has no asset {name!r}",
                next_step=f"See `snapkeep asset list {system}`; run `snapkeep discover {system}` if it is new.",
            )
        if len(found) > 1:
            raise Conflict(
                f"System {system!r} has several assets called {name!r}",
                next_step="Use the id of the one that you mean: " + ", ".join(item.id for item in found),
            )
        return found[0]

    async def snapshots(
        self,
        system: str | None = None,
        asset_id: str | None = None,
        name: str | None = None,
        *,
        part: str = "",
        owned: bool | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        gone: bool = False,
        paging: Paging = FIRST,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[SnapshotRecord]:
        """Return snapshots, by `SNAPSHOT_ORDERS`. `part`: of the name; created from `since` on, before `until`."""
        query = _snapshot_query().where(_is_visible(visible))
        query = query.where(systems.c.name == system) if system is not None else query
        query = query.where(snapshots.c.asset_id == asset_id) if asset_id is not None else query
        query = query.where(snapshots.c.name == name) if name is not None else query
        query = query.where(holds_text(snapshots.c.name, part)) if part else query
        query = query.where(snapshots.c.owned.is_(owned)) if owned is not None else query
        query = query.where(snapshots.c.created_at >= since) if since else query
        query = query.where(snapshots.c.created_at < until) if until else query
        query = query if gone else query.where(snapshots.c.gone_at.is_(None))
        async with self._database.connect() as connection:
            return await SNAPSHOT_ORDERS.read(connection, query, _snapshot_record, paging)

    async def snapshot(self, row_id: str) -> SnapshotRecord:
        """Return one snapshot by the catalog's id. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_snapshot_query().where(snapshots.c.id == row_id))).first()
        if row is None:
            raise NotFound(f"There is no snapshot {row_id!r}")
        return _snapshot_record(row)

    async def find_snapshot(self, asset: AssetRecord, name: str) -> SnapshotRecord:
        """Return the one snapshot of that name. Raises NotFound, or Conflict when several have it."""
        found = await self.snapshots(asset_id=asset.id, name=name, paging=Paging(limit=3))
        if not found:
            raise NotFound(
                f"{asset.reference} has no snapshot {name!r}",
                next_step=f"See `snapkeep snapshot list {asset.reference}`.",
            )
        if len(found) > 1:
            raise Conflict(f"{asset.reference} has several snapshots called {name!r}")
        return found[0]


def _is_visible(visible: Visible) -> ColumnElement[bool]:
    return is_visible(visible, system=systems.c.name, system_id=systems.c.id, asset_id=assets.c.id)


def _asset_row(system_id: str, asset: Asset, seen_by: str) -> dict[str, Any]:
    return {
        "id": asset_row_id(system_id, asset.id),
        "system_id": system_id,
        "vendor_id": asset.id,
        "kind": asset.kind.value,
        "name": asset.name,
        "parent_vendor_id": asset.parent_id,
        "capabilities": sorted(asset.capabilities),
        "refusals": dict(asset.refusals),
        "attributes": dict(asset.attributes),
        "seen_by": seen_by,
        "gone_at": None,
    }


def _snapshot_row(system_id: str, snapshot: Snapshot, seen_by: str) -> dict[str, Any]:
    asset_id = asset_row_id(system_id, snapshot.asset_id)
    return {
        "id": snapshot_row_id(asset_id, snapshot.id),
        "system_id": system_id,
        "asset_id": asset_id,
        "vendor_id": snapshot.id,
        "name": snapshot.name,
        "kind": snapshot.kind.value,
        "owned": snapshot.owned,
        "created_at": snapshot.created_at,
        "size_bytes": snapshot.size_bytes,
        "reclaimable_bytes": snapshot.reclaimable_bytes,
        "seen_by": seen_by,
        "gone_at": None,
    }


_parents = assets.alias("parents")


def _asset_query(counted: bool = True) -> Select[Any]:
    count = (
        select(func.count())
        .select_from(snapshots)
        .where(snapshots.c.asset_id == assets.c.id, snapshots.c.gone_at.is_(None))
        .scalar_subquery()
    )
    parent = and_(_parents.c.system_id == assets.c.system_id, _parents.c.vendor_id == assets.c.parent_vendor_id)
    return select(
        assets,
        systems.c.name.label("system_name"),
        _parents.c.name.label("parent_name"),
        (count if counted else null()).label("count"),
    ).select_from(assets.join(systems).outerjoin(_parents, parent))


_ASSET = _asset_query(counted=False).where(assets.c.id == bindparam("asset"))
_COUNTED_ASSET = _asset_query().where(assets.c.id == bindparam("asset"))


_KEPT = {"id", "system_id", "asset_id", "vendor_id", "consistency", "quiesced", "consistency_reason"}
"""Columns that looking at a system does not change."""


@cache
def _upsert_statement(table: Table, is_postgresql: bool, with_since: bool) -> postgresql.Insert | sqlite.Insert:
    statement = postgresql.insert(table) if is_postgresql else sqlite.insert(table)
    changed: dict[str, Any] = {
        column.name: statement.excluded[column.name] for column in table.c if column.name not in _KEPT
    }
    if "owned" in changed:  # once known as ours, always ours: a discovery can only go by the name
        changed["owned"] = or_(table.c.owned, statement.excluded.owned)
    if with_since:
        since = bindparam("since", type_=UtcDateTime)
        changed["gone_at"] = case((table.c.gone_at >= since, table.c.gone_at), else_=None)
    return statement.on_conflict_do_update(index_elements=["id"], set_=changed)


def _snapshot_query() -> Select[Any]:
    return select(
        snapshots,
        systems.c.name.label("system_name"),
        assets.c.name.label("asset_name"),
        assets.c.vendor_id.label("asset_vendor_id"),
    ).select_from(
        snapshots.join(assets, snapshots.c.asset_id == assets.c.id).join(systems, assets.c.system_id == systems.c.id)
    )


ASSET_ORDERS = Orders[AssetRecord](
    "reference",
    reference=Sort(
        (systems.c.name, assets.c.name, assets.c.id), lambda item: (item.system_name, item.asset.name, item.id)
    ),
    name=Sort((assets.c.name, assets.c.id), lambda item: (item.asset.name, item.id)),
    kind=Sort((assets.c.kind, assets.c.name, assets.c.id), lambda item: (item.asset.kind, item.asset.name, item.id)),
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""What does not say when it was created counts as the oldest, on every database."""

SNAPSHOT_ORDERS = Orders[SnapshotRecord](
    "reference",
    reference=Sort(
        (systems.c.name, assets.c.name, snapshots.c.name, snapshots.c.id),
        lambda item: (item.system_name, item.asset_name, item.snapshot.name, item.id),
    ),
    name=Sort((snapshots.c.name, snapshots.c.id), lambda item: (item.snapshot.name, item.id)),
    created_at=Sort(
        (func.coalesce(snapshots.c.created_at, literal(_EPOCH, UtcDateTime)), snapshots.c.id),
        lambda item: (item.snapshot.created_at or _EPOCH, item.id),
    ),
)


def _asset_record(row: Any) -> AssetRecord:
    return AssetRecord(
        id=row.id,
        system_id=row.system_id,
        system_name=row.system_name,
        asset=asset_from_row(row),
        parent_name=row.parent_name,
        snapshots=row.count,
        gone_at=row.gone_at,
    )


def _snapshot_record(row: Any) -> SnapshotRecord:
    return SnapshotRecord(
        id=row.id,
        system_id=row.system_id,
        system_name=row.system_name,
        asset_id=row.asset_id,
        asset_name=row.asset_name,
        snapshot=snapshot_from_row(row, row.asset_vendor_id),
        consistency=Consistency(row.consistency) if row.consistency else None,
        quiesced=tuple(row.quiesced or ()),
        consistency_reason=row.consistency_reason,
        seen_by=row.seen_by,
        gone_at=row.gone_at,
    )
