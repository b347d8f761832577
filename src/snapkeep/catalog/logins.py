"""Queries on logins with an identity provider that are under way: short-lived, few, and each of use once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import delete, func, insert, select, update

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.records import LoginRecord
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import logins
from snapkeep.model.errors import RateLimited

MOST = 1000
"""Logins that are under way at once."""


class Logins:
    """Logins by what was given to who began them."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self._box = box

    async def begin(
        self,
        login_id: str,
        provider_id: str,
        *,
        kind: str,
        digest: bytes,
        secrets: Mapping[str, str],
        now: datetime,
        expires_at: datetime,
        seconds: int | None = None,
    ) -> None:
        """Store one; those that have expired are forgotten. Raises RateLimited when there are too many."""
        values = {
            "id": login_id,
            "provider_id": provider_id,
            "digest": digest,
            "kind": kind,
            "secrets": self._box.seal(login_id, secrets),
            "seconds": seconds,
            "ask_at": now,
            "expires_at": expires_at,
        }
        async with self._database.begin() as connection:
            await connection.execute(delete(logins).where(logins.c.expires_at <= now))
            if (await connection.scalar(select(func.count()).select_from(logins)) or 0) >= MOST:
                raise RateLimited(
                    f"{MOST} logins with identity providers are under way",
                    next_step="Try again in a few minutes.",
                    retry_after=60.0,
                )
            await connection.execute(insert(logins).values(values))

    async def get(self, digest: bytes, kind: str, now: datetime) -> LoginRecord | None:
        """Return one; None: there is none, it has expired, or it was used."""
        query = select(logins).where(logins.c.digest == digest, logins.c.kind == kind, logins.c.expires_at > now)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            return None
        return LoginRecord(row.id, row.provider_id, self._box.open(row.id, row.secrets), row.seconds, row.expires_at)

    async def end(self, login_id: str) -> bool:
        """Use one up; say whether it was this call that did."""
        async with self._database.begin() as connection:
            return bool((await connection.execute(delete(logins).where(logins.c.id == login_id))).rowcount)

    async def may_ask(self, login: LoginRecord, now: datetime) -> bool:
        """Say whether it is time to ask the provider about it, and let the others wait from now on."""
        due = (logins.c.id == login.id) & (logins.c.ask_at <= now)
        change = update(logins).where(due).values(ask_at=now + timedelta(seconds=login.seconds or 0))
        async with self._database.begin() as connection:
            return bool((await connection.execute(change)).rowcount)

    async def slow_down(self, login: LoginRecord, seconds: int, now: datetime) -> None:
        """Ask about one less often."""
        change = update(logins).where(logins.c.id == login.id)
        async with self._database.begin() as connection:
            await connection.execute(change.values(seconds=seconds, ask_at=now + timedelta(seconds=seconds)))
