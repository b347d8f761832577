"""Queries on exports."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Select, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort
from snapkeep.catalog.records import ExportRecord, ExportState, export_from_row
from snapkeep.catalog.tables import assets, exports, snapshots, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import NotFound
from snapkeep.model.exports import AccessMode, BackupHost, Export

_NAMESPACE = uuid.UUID("0b8f0a52-9a6a-4f0e-8f0e-5a3a8f1f3a77")


def export_row_id(snapshot_row: str, host: BackupHost) -> str:
    """Return the catalog's id of an export: one for each snapshot and host, however often it is repeated."""
    return str(uuid.uuid5(_NAMESPACE, f"{snapshot_row}>{host.address}"))


class Exports:
    """Exports, in force and ended."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def opening(self, snapshot_row: str, host: BackupHost, mode: AccessMode, now: datetime) -> str:
        """Record the intent, before the system is asked; an export in force stays in force. Return its id."""
        row_id = export_row_id(snapshot_row, host)
        values: dict[str, Any] = {
            "id": row_id,
            "snapshot_id": snapshot_row,
            "host_name": host.name,
            "host_address": host.address,
            "mode": mode.value,
            "state": ExportState.OPENING.value,
            "locations": [],
            "created_at": now,
            "ended_at": None,
        }
        statement = self._database.insert(exports).values(values)
        reopened = {key: values[key] for key in ("host_name", "mode", "state", "created_at", "ended_at")}
        async with self._database.begin() as connection:
            await connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["id"], set_=reopened, where=exports.c.state == ExportState.ENDED.value
                )
            )
        return row_id

    async def active(self, row_id: str, export: Export) -> None:
        """Record that the system confirmed the export."""
        values = {
            "state": ExportState.ACTIVE.value,
            "host_name": export.host.name,
            "mode": export.mode.value,
            "locations": [asdict(location) for location in export.locations],
            "expires_at": export.expires_at,
            "refresh_at": export.refresh_at,
        }
        async with self._database.begin() as connection:
            await connection.execute(update(exports).where(exports.c.id == row_id).values(values))

    async def ended(self, row_id: str, now: datetime) -> None:
        """Record that nothing is open any more."""
        async with self._database.begin() as connection:
            await connection.execute(
                update(exports).where(exports.c.id == row_id).values(state=ExportState.ENDED.value, ended_at=now)
            )

    async def expired(self, record: ExportRecord, now: datetime) -> None:
        """Record that an export has expired, unless it was renewed or ended since it was read."""
        unchanged = exports.c.state == record.state.value, exports.c.refresh_at == record.export.refresh_at
        async with self._database.begin() as connection:
            await connection.execute(
                update(exports)
                .where(exports.c.id == record.id, *unchanged)
                .values(state=ExportState.ENDED.value, ended_at=now)
            )

    async def find(
        self,
        *,
        system_id: str | None = None,
        system: str | None = None,
        snapshot_row: str | None = None,
        host: str | None = None,
        ended: bool = False,
        paging: Paging = ALL,
        visible: Visible = ALL_VISIBLE,
    ) -> Listed[ExportRecord]:
        """Return exports, by `EXPORT_ORDERS`. `system`: its name; `host`: name or address of a backup host."""
        seen = is_visible(visible, system=systems.c.name, system_id=systems.c.id, asset_id=assets.c.id)
        query = _query().where(seen)
        query = query.where(snapshots.c.system_id == system_id) if system_id else query
        query = query.where(systems.c.name == system) if system is not None else query
        query = query.where(exports.c.snapshot_id == snapshot_row) if snapshot_row is not None else query
        if host is not None:
            query = query.where((exports.c.host_name == host) | (exports.c.host_address == host))
        query = query if ended else query.where(exports.c.state != ExportState.ENDED.value)
        async with self._database.connect() as connection:
            return await EXPORT_ORDERS.read(connection, query, _record, paging)

    async def due(self, now: datetime) -> list[ExportRecord]:
        """Return the exports in force that must be renewed by now."""
        query = _query().where(exports.c.state == ExportState.ACTIVE.value, exports.c.refresh_at <= now)
        async with self._database.connect() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def get(self, row_id: str) -> ExportRecord:
        """Return one export. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_query().where(exports.c.id == row_id))).first()
        if row is None:
            raise NotFound(f"There is no export {row_id!r}")
        return _record(row)


EXPORT_ORDERS = Orders[ExportRecord](
    "created_at",
    created_at=Sort((exports.c.created_at, exports.c.id), lambda item: (item.created_at, item.id)),
    host=Sort((exports.c.host_name, exports.c.id), lambda item: (item.export.host.name, item.id)),
)


def _query() -> Select[Any]:
    return select(
        exports,
        snapshots.c.system_id,
        snapshots.c.vendor_id.label("snapshot_vendor_id"),
        snapshots.c.name.label("snapshot_name"),
        assets.c.vendor_id.label("asset_vendor_id"),
        assets.c.name.label("asset_name"),
        systems.c.name.label("system_name"),
    ).select_from(
        exports.join(snapshots, exports.c.snapshot_id == snapshots.c.id)
        .join(assets, snapshots.c.asset_id == assets.c.id)
        .join(systems, assets.c.system_id == systems.c.id)
    )


def _record(row: Any) -> ExportRecord:
    return ExportRecord(
        id=row.id,
        system_id=row.system_id,
        snapshot_id=row.snapshot_id,
        reference=f"{row.system_name}/{row.asset_name}@{row.snapshot_name}",
        export=export_from_row(row, row.snapshot_vendor_id, row.asset_vendor_id),
        state=ExportState(row.state),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
