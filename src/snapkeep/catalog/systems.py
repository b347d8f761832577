"""Queries on systems."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort, holds_text
from snapkeep.catalog.protections import Protections, forgetting
from snapkeep.catalog.records import SystemRecord
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import exports, labels, operations, snapshots, systems
from snapkeep.catalog.visible import has_label, is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import Conflict, NotFound


class Systems:
    """The configured systems."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self._box = box

    async def add(
        self,
        system_id: str,
        name: str,
        plugin: str,
        settings: dict[str, Any],
        secrets: dict[str, str],
        queue: str,
        now: datetime,
    ) -> SystemRecord:
        """Store a system, its secrets sealed. Raises Conflict when the name is taken."""
        try:
            async with self._database.begin() as connection:
                await connection.execute(
                    insert(systems).values(
                        id=system_id,
                        name=name,
                        plugin=plugin,
                        settings=settings,
                        secrets=self._box.seal(system_id, secrets),
                        queue=queue,
                        created_at=now,
                    )
                )
        except IntegrityError as error:
            raise Conflict(
                f"There is a system {name!r} already",
                next_step=f"Choose another name, or change it with `snapkeep system set {name}`.",
            ) from error
        return await self.get(name)

    async def find(
        self,
        visible: Visible = ALL_VISIBLE,
        *,
        plugin: str | None = None,
        part: str = "",
        labelled: Sequence[str] = (),
        paging: Paging = ALL,
    ) -> Listed[SystemRecord]:
        """Return systems, by `SYSTEM_ORDERS`. `part`: of the name; `labelled`: KEY=VALUE."""
        query = select(systems).where(is_visible(visible, system=systems.c.name, system_id=systems.c.id))
        query = query.where(systems.c.plugin == plugin) if plugin is not None else query
        query = query.where(holds_text(systems.c.name, part)) if part else query
        for label in labelled:
            query = query.where(has_label(label, systems.c.id))
        async with self._database.connect() as connection:
            return await SYSTEM_ORDERS.read(connection, query, _record, paging)

    async def get(self, name_or_id: str) -> SystemRecord:
        """Return one system. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_NAMED, {"wanted": name_or_id})).first()
        if row is None:
            raise NotFound(f"There is no system {name_or_id!r}", next_step="See `snapkeep system list`.")
        return _record(row)

    async def all_settings(self, system: SystemRecord) -> dict[str, Any]:
        """Return plain settings and secrets together, for connecting only."""
        async with self._database.connect() as connection:
            sealed = (await connection.execute(select(systems.c.secrets).where(systems.c.id == system.id))).scalar_one()
        return {**system.settings, **self._box.open(system.id, sealed)}

    async def change(
        self, system_id: str, settings: dict[str, Any], secrets: dict[str, str], queue: str
    ) -> SystemRecord:
        """Store other settings, secrets and queue."""
        sealed = self._box.seal(system_id, secrets)
        async with self._database.begin() as connection:
            await connection.execute(
                update(systems)
                .where(systems.c.id == system_id)
                .values(settings=settings, secrets=sealed, queue=queue, revision=systems.c.revision + 1)
            )
        return await self.get(system_id)

    async def discovered(self, system_id: str, now: datetime) -> None:
        """Note when a discovery last came to its end."""
        async with self._database.begin() as connection:
            await connection.execute(update(systems).where(systems.c.id == system_id).values(discovered_at=now))

    async def dependents(self, system_id: str) -> dict[str, int]:
        """Count what would be forgotten with the system: our snapshots, exports in force, operations under way."""
        async with self._database.connect() as connection:
            owned = await connection.execute(
                select(func.count())
                .select_from(snapshots)
                .where(snapshots.c.system_id == system_id, snapshots.c.owned, snapshots.c.gone_at.is_(None))
            )
            opened = await connection.execute(
                select(func.count())
                .select_from(exports.join(snapshots))
                .where(snapshots.c.system_id == system_id, exports.c.state != "ended")
            )
            working = await connection.execute(
                select(func.count())
                .select_from(operations)
                .where(operations.c.system_id == system_id, operations.c.ended_at.is_(None))
            )
            return {
                "snapshots made by Snapkeep": owned.scalar_one(),
                "holds and locks": await Protections(self._database).count(system_id),
                "exports": opened.scalar_one(),
                "operations under way": working.scalar_one(),
            }

    async def remove(self, system_id: str) -> None:
        """Forget a system with all that is known about it; the system itself is not touched.

        Raises Locked while a hold or a lock keeps one of its snapshots, also one that is gone.
        """
        async with forgetting(self._database, system_id=system_id) as connection:
            await connection.execute(delete(labels).where(labels.c.subject_id == system_id))
            await connection.execute(delete(systems).where(systems.c.id == system_id))


SYSTEM_ORDERS = Orders[SystemRecord](
    "name",
    name=Sort((systems.c.name,), lambda item: (item.name,)),
    created_at=Sort((systems.c.created_at, systems.c.id), lambda item: (item.created_at, item.id)),
)

_NAMED = select(systems).where((systems.c.name == bindparam("wanted")) | (systems.c.id == bindparam("wanted")))


def _record(row: Any) -> SystemRecord:
    return SystemRecord(
        id=row.id,
        name=row.name,
        plugin=row.plugin,
        settings=row.settings,
        queue=row.queue,
        revision=row.revision,
        created_at=row.created_at,
        discovered_at=row.discovered_at,
    )
