"""Queries on repositories of backups."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort, holds_text
from snapkeep.catalog.protections import forgetting
from snapkeep.catalog.records import RepositoryRecord
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import backups, operations, repositories
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import ALL_VISIBLE, Visible
from snapkeep.model.errors import Conflict, NotFound

_PLAIN = tuple(column for column in repositories.c if column.name != "secrets")


class Repositories:
    """The repositories that are known here."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self._box = box

    async def add(
        self,
        repository_id: str,
        *,
        name: str,
        location: str,
        restic_id: str,
        secrets: Mapping[str, Any],
        queue: str,
        now: datetime,
    ) -> RepositoryRecord:
        """Store a repository, its secrets sealed. Raises Conflict when name or location is taken."""
        values = {
            "id": repository_id,
            "name": name,
            "location": location,
            "restic_id": restic_id,
            "secrets": self._box.seal(repository_id, secrets),
            "queue": queue,
            "created_at": now,
        }
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(repositories).values(values))
        except IntegrityError as error:
            raise Conflict(
                f"There is a repository {name!r}, or one at {location}, already",
                next_step="See `snapkeep repository list`; choose another name or location.",
            ) from error
        return await self.get(name)

    async def find(
        self, visible: Visible = ALL_VISIBLE, *, part: str = "", queue: str | None = None, paging: Paging = ALL
    ) -> Listed[RepositoryRecord]:
        """Return repositories, by `REPOSITORY_ORDERS`. `part`: of the name."""
        query = select(*_PLAIN).where(is_visible(visible, repository=repositories.c.name))
        query = query.where(holds_text(repositories.c.name, part)) if part else query
        query = query.where(repositories.c.queue == queue) if queue is not None else query
        async with self._database.connect() as connection:
            return await REPOSITORY_ORDERS.read(connection, query, _record, paging)

    async def get(self, name_or_id: str) -> RepositoryRecord:
        """Return one repository. Raises NotFound."""
        named = (repositories.c.name == name_or_id) | (repositories.c.id == name_or_id)
        async with self._database.connect() as connection:
            row = (await connection.execute(select(*_PLAIN).where(named))).first()
        if row is None:
            raise NotFound(f"There is no repository {name_or_id!r}", next_step="See `snapkeep repository list`.")
        return _record(row)

    async def secrets(self, repository_id: str) -> dict[str, Any]:
        """Return password and keys, or references to them (`{"reference": ...}`), for opening only."""
        query = select(repositories.c.secrets).where(repositories.c.id == repository_id)
        async with self._database.connect() as connection:
            sealed = (await connection.execute(query)).scalar_one()
        return self._box.open(repository_id, sealed)

    async def dependents(self, repository_id: str) -> dict[str, int]:
        """Count what would be forgotten with the repository, or is being written to it."""
        count = select(func.count())
        async with self._database.connect() as connection:
            held = count.select_from(backups).where(backups.c.repository_id == repository_id)
            under_way = select(operations.c.request).where(
                operations.c.kind.in_(("backup", "recover", "check", "verify", "drill")),
                operations.c.ended_at.is_(None),
            )
            requests = (await connection.execute(under_way)).scalars()
            return {
                "operations under way": sum(item.get("repository_id") == repository_id for item in requests),
                "recovery points": (await connection.execute(held)).scalar_one(),
            }

    async def remove(self, repository_id: str) -> None:
        """Forget a repository with what is known of its recovery points; the repository itself is not touched.

        Raises Locked while a hold or a lock keeps one of them.
        """
        async with forgetting(self._database, repository_id=repository_id) as connection:
            await connection.execute(delete(repositories).where(repositories.c.id == repository_id))


REPOSITORY_ORDERS = Orders[RepositoryRecord](
    "name",
    name=Sort((repositories.c.name,), lambda item: (item.name,)),
    created_at=Sort((repositories.c.created_at, repositories.c.id), lambda item: (item.created_at, item.id)),
)


def _record(row: Any) -> RepositoryRecord:
    return RepositoryRecord(**row._asdict())
