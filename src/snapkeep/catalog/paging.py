"""Keyset paging: the cursor is the id of the last row of the page before."""

from __future__ import annotations

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.model.errors import InvalidInput


async def require_cursor(connection: AsyncConnection, table: Table, row_id: str) -> None:
    """Raise InvalidInput for a cursor whose row is unknown, or was removed: the page would silently be the last."""
    if row_id and (await connection.execute(select(table.c.id).where(table.c.id == row_id))).first() is None:
        raise InvalidInput(f"There is no page behind {row_id!r}", next_step="List again from the beginning.")
