"""Renewing exports, so that access that ends by itself lasts as long as it is wanted."""

from __future__ import annotations

import itertools
import uuid
from datetime import datetime, timedelta

import structlog

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import (
    ExportRecord,
)
from snapkeep.model.errors import SnapkeepError, Timeout
from snapkeep.operations.asking import Asking
from snapkeep.operations.requester import Requester

log = structlog.get_logger(__name__)


class Renewal:
    """Asks for the renewal of exports that are due."""

    def __init__(self, catalog: Catalog, operations: Asking) -> None:
        self._catalog = catalog
        self._operations = operations

    async def refresh_exports(self) -> None:
        """Renew the exports that are due. One that cannot be renewed does not keep the others from it."""
        now = await self._catalog.database.now()  # this machine's clock alone ends nothing
        for record in await self._catalog.exports.due(now):
            try:
                await self._renew(record, now)
            except SnapkeepError as error:
                log.warning("export cannot be renewed", export=record.id, code=error.code, reason=error.message)
                if _expired(record, now):
                    await self._catalog.exports.expired(record, now)

    async def _renew(self, record: ExportRecord, now: datetime) -> None:
        """Start the next try to renew, with back-off after failed ones. Raises Timeout once the export has expired."""
        by = Requester("snapkeep")
        for attempt in itertools.count():
            due = f"refresh {record.export.refresh_at} {attempt}"
            operation_id = str(uuid.uuid5(uuid.UUID(record.id), due))
            by = Requester("snapkeep", operation_id)
            known = await self._catalog.operations.known(operation_id)
            if known is None:
                break
            pause = timedelta(seconds=min(60, 2**attempt))
            if known.ended_at is None or (now < known.ended_at + pause and not _expired(record, now)):
                return
        if _expired(record, now):
            raise Timeout("The export expired before it could be renewed")
        snapshot = await self._catalog.inventory.snapshot(record.snapshot_id)
        await self._operations.export(snapshot, record.export.host, record.export.mode, by, renews=True)


def _expired(record: ExportRecord, now: datetime) -> bool:
    return record.export.expires_at is not None and record.export.expires_at < now
