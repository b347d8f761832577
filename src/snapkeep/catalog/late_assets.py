"""Queries on assets of which the last good recovery point is older than a policy promises: who is told of it, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, select

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.tables import assets, late_assets
from snapkeep.model.notifications import Notice


class LateAssets:
    """The assets that are late, as was noted last."""

    def __init__(self, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    async def of(self, asset_ids: Sequence[str]) -> dict[str, tuple[datetime, bool]]:
        """Return which of some assets, at most some hundreds, are late: since when, and whether that was told."""
        query = select(late_assets).where(late_assets.c.asset_id.in_(asset_ids))
        async with self._database.connect() as connection:
            return {row.asset_id: (row.since, row.told) for row in await connection.execute(query)}

    async def change(self, late: Mapping[str, Notice | None], good: Mapping[str, Notice | None], now: datetime) -> None:
        """Note assets that have become late, and others that are not any more, by their ids, in one transaction.

        With what is to be told of each; None: nothing yet, or nothing at all. Of several servers that note the same,
        one tells it; that an asset is good again is told only when it was told that it was late.
        """
        if not late and not good:
            return
        async with self._database.begin() as connection:
            for asset_id, notice in sorted(late.items(), key=lambda item: item[0]):
                insert = self._database.insert(late_assets).values(
                    asset_id=asset_id, since=now, told=notice is not None
                )
                if notice is None:
                    await connection.execute(insert.on_conflict_do_nothing(index_elements=["asset_id"]))
                    continue
                untold = late_assets.c.told.is_(False)
                telling = insert.on_conflict_do_update(index_elements=["asset_id"], set_={"told": True}, where=untold)
                if (await connection.execute(telling.returning(late_assets.c.asset_id))).first() is not None:
                    await self._outbox.put(connection, notice)
            for asset_id, notice in sorted(good.items(), key=lambda item: item[0]):
                ended = delete(late_assets).where(late_assets.c.asset_id == asset_id).returning(late_assets.c.told)
                row = (await connection.execute(ended)).first()
                if row is not None and row.told and notice is not None:
                    await self._outbox.put(connection, notice)
        self._outbox.wake()

    async def forget_gone(self) -> None:
        """Forget assets that exist no more."""
        gone = select(assets.c.id).where(assets.c.gone_at.is_not(None))
        async with self._database.single() as connection:
            await connection.execute(delete(late_assets).where(late_assets.c.asset_id.in_(gone)))
