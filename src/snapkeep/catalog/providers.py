"""Queries on identity providers, and on the people whom they know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.identities import IDENTITIES, identity_of
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort, holds_text
from snapkeep.catalog.records import GroupGrant, IdentityRecord, ProviderRecord
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import accounts, grants, identities, providers, tokens
from snapkeep.model.access import IdentityKind
from snapkeep.model.errors import Conflict, NotFound

_SETTINGS = ("client_id", "scopes", "name_claim", "groups_claim", "allowed_groups", "grants", "ca")


class Providers:
    """Who else proves who somebody is."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self._database = database
        self._box = box

    # -- providers ---------------------------------------------------------------------------------------------------
    async def add(self, record: ProviderRecord, secret: str | None) -> ProviderRecord:
        """Add one, its client secret sealed. Raises Conflict when its name or its issuer is there already."""
        values = {
            "id": record.id,
            "name": record.name,
            "issuer": record.issuer,
            "settings": _settings(record),
            "secrets": self._sealed(record, secret),
            "created_at": record.created_at,
        }
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(providers).values(values))
        except IntegrityError as error:
            raise Conflict(
                f"There is a provider {record.name!r}, or one with the issuer {record.issuer}, already",
                next_step="See `snapkeep provider list`; change or remove that one.",
            ) from error
        return await self.get(record.name)

    async def find(self, *, part: str = "", paging: Paging = ALL) -> Listed[ProviderRecord]:
        """Return providers, by `PROVIDER_ORDERS`. `part`: of the name."""
        query = select(providers)
        query = query.where(holds_text(providers.c.name, part)) if part else query
        async with self._database.connect() as connection:
            return await PROVIDER_ORDERS.read(connection, query, _provider, paging)

    async def get(self, name: str) -> ProviderRecord:
        """Return one. Raises NotFound."""
        return await self._one(providers.c.name == name, f"There is no identity provider {name!r:.80}")

    async def by_id(self, provider_id: str) -> ProviderRecord:
        """Return one by its id. Raises NotFound."""
        return await self._one(providers.c.id == provider_id, "The identity provider was removed")

    async def _one(self, condition: Any, otherwise: str) -> ProviderRecord:
        async with self._database.connect() as connection:
            row = (await connection.execute(select(providers).where(condition))).first()
        if row is None:
            raise NotFound(otherwise, next_step="See `snapkeep provider list`.")
        return _provider(row)

    async def secret(self, provider: ProviderRecord) -> str | None:
        """Return the secret with which we prove to it who we are; None: we have none."""
        query = select(providers.c.secrets).where(providers.c.id == provider.id)
        async with self._database.connect() as connection:
            sealed = (await connection.execute(query)).scalar_one()
        found: str | None = self._box.open(provider.id, sealed)["client_secret"]
        return found

    async def change(self, record: ProviderRecord, *secret: str | None) -> None:
        """Change settings; and the client secret, if one is given."""
        values: dict[str, Any] = {"settings": _settings(record)}
        if secret:
            values["secrets"] = self._sealed(record, secret[0])
        async with self._database.begin() as connection:
            await connection.execute(update(providers).where(providers.c.id == record.id).values(**values))

    async def remove(self, provider: ProviderRecord) -> None:
        """Forget one: sessions of those whom it knows end, and what its groups gave is taken back."""
        async with self._database.begin() as connection:
            known = select(accounts.c.identity_id).where(accounts.c.issuer == provider.issuer)
            theirs = tokens.c.identity_id.in_(known) & (tokens.c.kind == "session")
            await connection.execute(delete(tokens).where(theirs))
            await connection.execute(delete(grants).where(grants.c.provider_id == provider.id))
            await connection.execute(delete(providers).where(providers.c.id == provider.id))

    def _sealed(self, record: ProviderRecord, secret: str | None) -> bytes:
        return self._box.seal(record.id, {"client_secret": secret})

    # -- people ------------------------------------------------------------------------------------------------------
    async def identity(self, issuer: str, subject: str) -> IdentityRecord | None:
        """Return whom an issuer knows by this subject; None: nobody here yet."""
        query = IDENTITIES.where(accounts.c.issuer == issuer, accounts.c.subject == subject)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else identity_of(row)

    async def add_identity(
        self, identity_id: str, name: str, issuer: str, subject: str, now: datetime
    ) -> IdentityRecord:
        """Add a user whom an issuer knows by a subject. Raises Conflict for a name that another identity has."""
        values = {"id": identity_id, "name": name, "kind": IdentityKind.USER.value, "created_at": now}
        account = {"identity_id": identity_id, "issuer": issuer, "subject": subject}
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(identities).values(values))
                await connection.execute(insert(accounts).values(account))
        except IntegrityError as error:
            if found := await self.identity(issuer, subject):  # of another login, a moment ago
                return found
            raise Conflict(
                f"There is an identity {name!r} already, and it is not yours: {issuer} knows you as somebody else",
                next_step="Let an administrator remove or rename the one that is there, or change your name at the "
                "provider.",
            ) from error
        found = await self.identity(issuer, subject)
        if found is None:
            raise NotFound("The identity was removed meanwhile", next_step="Log in again.")
        return found

    async def give(
        self,
        identity: IdentityRecord,
        provider: ProviderRecord,
        wanted: Collection[tuple[str, str]],
        new_id: Callable[[], str],
        now: datetime,
    ) -> None:
        """Give roles within scopes because of groups, and take back what other groups gave before.

        What somebody has granted stays as it is, and apart.
        """
        unique = ["identity_id", "role", "scope"]
        of_group = (grants.c.identity_id == identity.id) & grants.c.provider_id.is_not(None)
        kept = tuple_(grants.c.role, grants.c.scope).in_(sorted(wanted))
        common = {"granted_by": f"provider {provider.name}", "provider_id": provider.id, "created_at": now}
        async with self._database.begin() as connection:
            await connection.execute(delete(grants).where(of_group & ~kept if wanted else of_group))
            for role, scope in sorted(wanted):
                values = {"id": new_id(), "identity_id": identity.id, "role": role, "scope": scope, **common}
                statement = self._database.insert(grants).values(**values)
                await connection.execute(statement.on_conflict_do_nothing(index_elements=unique))


PROVIDER_ORDERS = Orders[ProviderRecord](
    "name",
    name=Sort((providers.c.name,), lambda item: (item.name,)),
    created_at=Sort((providers.c.created_at, providers.c.id), lambda item: (item.created_at, item.id)),
)


def _settings(record: ProviderRecord) -> dict[str, Any]:
    values = asdict(record)
    return {name: values[name] for name in _SETTINGS}


def _provider(row: Any) -> ProviderRecord:
    settings: Mapping[str, Any] = row.settings
    return ProviderRecord(
        id=row.id,
        name=row.name,
        issuer=row.issuer,
        client_id=settings["client_id"],
        scopes=tuple(settings["scopes"]),
        name_claim=settings["name_claim"],
        groups_claim=settings["groups_claim"],
        allowed_groups=tuple(settings["allowed_groups"]),
        grants=tuple(GroupGrant(**item) for item in settings["grants"]),
        ca=settings["ca"],
        created_at=row.created_at,
    )
