"""Queries on repositories of backups."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.records import RepositoryRecord
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import backups, operations, repositories
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
        secrets: dict[str, str],
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

    async def find(self) -> list[RepositoryRecord]:
        """Return all repositories by name."""
        async with self._database.connect() as connection:
            rows = await connection.execute(select(*_PLAIN).order_by(repositories.c.name))
            return [_record(row) for row in rows]

    async def get(self, name_or_id: str) -> RepositoryRecord:
        """Return one repository. Raises NotFound naming those that exist."""
        named = (repositories.c.name == name_or_id) | (repositories.c.id == name_or_id)
        async with self._database.connect() as connection:
            row = (await connection.execute(select(*_PLAIN).where(named))).first()
            if row is not None:
                return _record(row)
            names = (await connection.execute(select(repositories.c.name).order_by(repositories.c.name))).scalars()
            known = ", ".join(names)
        next_step = f"Known repositories: {known}." if known else "Add one with `snapkeep repository add`."
        raise NotFound(f"There is no repository {name_or_id!r}", next_step=next_step)

    async def secrets(self, repository_id: str) -> dict[str, str]:
        """Return password and keys, for opening only."""
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
                operations.c.kind.in_(("backup", "recover", "check")), operations.c.ended_at.is_(None)
            )
            requests = (await connection.execute(under_way)).scalars()
            return {
                "operations under way": sum(item.get("repository_id") == repository_id for item in requests),
                "recovery points": (await connection.execute(held)).scalar_one(),
            }

    async def remove(self, repository_id: str) -> None:
        """Forget a repository with what is known of its recovery points; the repository itself is not touched."""
        async with self._database.begin() as connection:
            await connection.execute(delete(repositories).where(repositories.c.id == repository_id))


def _record(row: Any) -> RepositoryRecord:
    return RepositoryRecord(**row._asdict())
