"""Queries on identities: who there is, with which roles, tokens and labels of what they may see."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort, holds_text
from snapkeep.catalog.records import GrantRecord, IdentityRecord, RoleRecord, TokenRecord
from snapkeep.catalog.tables import accounts, grants, identities, labels, roles, tokens
from snapkeep.model.access import ROLES, IdentityKind
from snapkeep.model.errors import Busy, Conflict, NotFound

USED_EVERY = timedelta(minutes=5)
"""A token's last use is noted no more often."""


class Identities:
    """Users, service accounts, roles, grants, tokens, labels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- identities --------------------------------------------------------------------------------------------------
    async def add(
        self, identity_id: str, name: str, kind: IdentityKind, password: str | None, now: datetime
    ) -> IdentityRecord:
        """Add one without any grant; `password`: its hash. Raises Conflict when the name is taken."""
        values = {"id": identity_id, "name": name, "kind": kind.value, "password": password, "created_at": now}
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(identities).values(values))
        except IntegrityError as error:
            raise Conflict(f"There is an identity {name!r} already", next_step="Choose another name.") from error
        return await self.get(name)

    async def find(
        self,
        *,
        kind: IdentityKind | None = None,
        disabled: bool | None = None,
        part: str = "",
        paging: Paging = ALL,
    ) -> Listed[IdentityRecord]:
        """Return identities, by `IDENTITY_ORDERS`. `part`: of the name."""
        query = IDENTITIES
        query = query.where(identities.c.kind == kind.value) if kind else query
        query = query.where(identities.c.disabled.is_(disabled)) if disabled is not None else query
        query = query.where(holds_text(identities.c.name, part)) if part else query
        async with self._database.connect() as connection:
            return await IDENTITY_ORDERS.read(connection, query, identity_of, paging)

    async def get(self, name: str) -> IdentityRecord:
        """Return one. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(IDENTITIES.where(identities.c.name == name))).first()
        if row is None:
            raise NotFound(f"There is no identity {name!r}", next_step="See `snapkeep identity list`.")
        return identity_of(row)

    async def change(self, identity_id: str, *, ends: Collection[str] = (), **values: Any) -> None:
        """Change password or whether it is disabled; tokens of the kinds `ends` let nobody in any more."""
        async with self._database.begin() as connection:
            await connection.execute(update(identities).where(identities.c.id == identity_id).values(**values))
            theirs = (tokens.c.identity_id == identity_id) & tokens.c.kind.in_(ends)
            await connection.execute(delete(tokens).where(theirs))

    async def remove(self, identity_id: str) -> None:
        """Forget one, with grants and tokens."""
        async with self._database.begin() as connection:
            await connection.execute(delete(identities).where(identities.c.id == identity_id))

    # -- roles and grants --------------------------------------------------------------------------------------------
    async def roles(self) -> dict[str, RoleRecord]:
        """Return all roles by name, those that are always there first."""
        found = {
            name: RoleRecord(name=name, description=text, actions=tuple(sorted(actions)), built_in=True)
            for name, (text, actions) in ROLES.items()
        }
        async with self._database.connect() as connection:
            rows = (await connection.execute(select(roles).order_by(roles.c.name))).all()
        for row in rows:
            found.setdefault(row.name, _role(row))
        return found

    async def put_role(self, name: str, description: str, actions: Sequence[str], now: datetime) -> None:
        """Make a role, or give it other actions. Raises Conflict for one that is always there."""
        _require_own(name)
        values = {"name": name, "description": description, "actions": sorted(actions), "created_at": now}
        changed = {"description": description, "actions": sorted(actions)}
        statement = self._database.insert(roles).values(values)
        async with self._database.begin() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))

    async def remove_role(self, name: str, *, only_check: bool = False) -> None:
        """Forget a role, or only look whether that can be. Raises NotFound, Conflict (always there), Busy (granted)."""
        _require_own(name)
        async with self._database.begin() as connection:
            holders = select(identities.c.name).join(grants).where(grants.c.role == name).distinct()
            held = (await connection.execute(holders.order_by(identities.c.name))).scalars().all()
            if held:
                raise Busy(
                    f"The role {name!r} is granted to {', '.join(held)}",
                    next_step="Revoke it first.",
                    dependents=list(held),
                )
            found = select(roles.c.name).where(roles.c.name == name)
            if (await connection.execute(found)).first() is None:
                raise NotFound(f"There is no role {name!r}", next_step="See `snapkeep role list`.")
            if not only_check:
                await connection.execute(delete(roles).where(roles.c.name == name))

    async def grant(
        self, grant_id: str, identity: IdentityRecord, role: str, scope: str, by: str, now: datetime
    ) -> GrantRecord:
        """Give a role within a scope; one that is there already stays as it is, and no provider takes it back."""
        values = {"id": grant_id, "identity_id": identity.id, "role": role, "scope": scope}
        statement = self._database.insert(grants).values(**values, granted_by=by, created_at=now)
        by_hand = {"provider_id": None, "granted_by": by, "created_at": now}
        statement = statement.on_conflict_do_update(
            index_elements=["identity_id", "role", "scope"], set_=by_hand, where=grants.c.provider_id.is_not(None)
        )
        async with self._database.begin() as connection:
            await connection.execute(statement)
        found = await self.grants_of(identity)
        return next(item for item in found if (item.role, item.scope) == (role, scope))

    async def revoke(self, identity: IdentityRecord, grant_id: str) -> None:
        """Take a role away. Raises NotFound."""
        mine = (grants.c.id == grant_id) & (grants.c.identity_id == identity.id)
        async with self._database.begin() as connection:
            if not (await connection.execute(delete(grants).where(mine))).rowcount:
                raise NotFound(
                    f"{identity.name!r} has no grant {grant_id!r}",
                    next_step=f"See `snapkeep identity show {identity.name}`.",
                )

    async def grants_of(self, identity: IdentityRecord) -> list[GrantRecord]:
        """Return what somebody was granted."""
        query = select(grants).where(grants.c.identity_id == identity.id).order_by(grants.c.role, grants.c.scope)
        async with self._database.connect() as connection:
            rows = await connection.execute(query)
            return [GrantRecord(row.id, row.role, row.scope, row.granted_by, row.created_at) for row in rows]

    async def grants_of_all(self, found: Sequence[IdentityRecord]) -> dict[str, list[GrantRecord]]:
        """Return what each of these was granted, by the id of the identity."""
        held: dict[str, list[GrantRecord]] = {identity.id: [] for identity in found}
        query = select(grants).where(grants.c.identity_id.in_(held)).order_by(grants.c.role, grants.c.scope)
        async with self._database.connect() as connection:
            for row in await connection.execute(query):
                held[row.identity_id].append(GrantRecord(row.id, row.role, row.scope, row.granted_by, row.created_at))
        return held

    # -- tokens ------------------------------------------------------------------------------------------------------
    async def add_token(
        self,
        token_id: str,
        identity: IdentityRecord,
        *,
        name: str,
        kind: str,
        digest: bytes,
        limits: list[tuple[str, str]] | None,
        now: datetime,
        expires_at: datetime,
    ) -> TokenRecord:
        """Store a token by its digest."""
        values = {
            "id": token_id,
            "identity_id": identity.id,
            "name": name,
            "kind": kind,
            "digest": digest,
            "limits": limits,
            "created_at": now,
            "expires_at": expires_at,
        }
        async with self._database.begin() as connection:
            await connection.execute(delete(tokens).where(tokens.c.expires_at < now, tokens.c.kind == "session"))
            await connection.execute(insert(tokens).values(values))
        return await self.token(token_id)

    async def tokens(
        self,
        identity_id: str | None = None,
        *,
        identity: str | None = None,
        kind: str | None = None,
        paging: Paging = ALL,
    ) -> Listed[TokenRecord]:
        """Return tokens, by `TOKEN_ORDERS`; all, or those of an identity, by its id or name."""
        query = _TOKENS
        query = query.where(tokens.c.identity_id == identity_id) if identity_id is not None else query
        query = query.where(identities.c.name == identity) if identity is not None else query
        query = query.where(tokens.c.kind == kind) if kind is not None else query
        async with self._database.connect() as connection:
            return await TOKEN_ORDERS.read(connection, query, _token, paging)

    async def token(self, token_id: str) -> TokenRecord:
        """Return one by its id. Raises NotFound."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_TOKENS.where(tokens.c.id == token_id))).first()
        if row is None:
            raise NotFound(f"There is no token {token_id!r}", next_step="See `snapkeep token list`.")
        return _token(row)

    async def remove_token(self, token_id: str) -> None:
        """Forget a token: nobody is let in by it any more."""
        async with self._database.begin() as connection:
            await connection.execute(delete(tokens).where(tokens.c.id == token_id))

    async def by_digest(self, digest: bytes) -> tuple[TokenRecord, list[GrantRecord], dict[str, list[str]]] | None:
        """Return the token of a digest, what its identity was granted, and the actions of the roles that are not
        always there; None when there is no such token."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_BY_DIGEST, {"digest": digest})).first()
            if row is None:
                return None
            rows = (await connection.execute(_GRANTED, {"identity": row.identity_id})).all()
            held = [GrantRecord(item.id, item.role, item.scope, item.granted_by, item.created_at) for item in rows]
            own = {item.role: list(item.actions) for item in rows if item.actions is not None}
            missing = {role for role, _ in row.limits or ()} - ROLES.keys() - own.keys()
            if missing:
                more = select(roles.c.name, roles.c.actions).where(roles.c.name.in_(missing))
                own |= {item.name: list(item.actions) for item in await connection.execute(more)}
        return _token(row), held, own

    async def used(self, token: TokenRecord, now: datetime) -> None:
        """Note when a token was used, now and then."""
        if token.used_at is None or now - token.used_at > USED_EVERY:
            async with self._database.single() as connection:
                await connection.execute(update(tokens).where(tokens.c.id == token.id).values(used_at=now))

    # -- labels ------------------------------------------------------------------------------------------------------
    async def labels_of(self, subjects: Iterable[str]) -> dict[str, dict[str, str]]:
        """Return the labels of systems and assets by id."""
        wanted = sorted(set(subjects))
        found: dict[str, dict[str, str]] = {subject: {} for subject in wanted}
        async with self._database.connect() as connection:
            for start in range(0, len(wanted), 500):
                some = labels.c.subject_id.in_(wanted[start : start + 500])
                for row in await connection.execute(select(labels).where(some).order_by(labels.c.key)):
                    found[row.subject_id][row.key] = row.value
        return found

    async def set_labels(self, subject_id: str, values: Mapping[str, str]) -> None:
        """Give a system or an asset these labels, and no others."""
        rows = [{"subject_id": subject_id, "key": key, "value": value} for key, value in sorted(values.items())]
        async with self._database.begin() as connection:
            await connection.execute(delete(labels).where(labels.c.subject_id == subject_id))
            if rows:
                await connection.execute(insert(labels), rows)


IDENTITIES = select(identities, accounts.c.issuer, accounts.c.subject).outerjoin(accounts)
_TOKENS = select(
    tokens,
    identities.c.name.label("identity_name"),
    identities.c.kind.label("identity_kind"),
    identities.c.disabled.label("disabled"),
).join(identities)
_BY_DIGEST = _TOKENS.where(tokens.c.digest == bindparam("digest"))
_GRANTED = (
    select(grants, roles.c.actions)
    .outerjoin(roles, roles.c.name == grants.c.role)
    .where(grants.c.identity_id == bindparam("identity"))
)


IDENTITY_ORDERS = Orders[IdentityRecord](
    "name",
    name=Sort((identities.c.name,), lambda item: (item.name,)),
    created_at=Sort((identities.c.created_at, identities.c.id), lambda item: (item.created_at, item.id)),
)
TOKEN_ORDERS = Orders[TokenRecord](
    "-created_at",
    created_at=Sort((tokens.c.created_at, tokens.c.id), lambda item: (item.created_at, item.id)),
    expires_at=Sort((tokens.c.expires_at, tokens.c.id), lambda item: (item.expires_at, item.id)),
    name=Sort((tokens.c.name, tokens.c.id), lambda item: (item.name, item.id)),
)


def _require_own(name: str) -> None:
    if name in ROLES:
        raise Conflict(f"The role {name!r} is always there, and always the same", next_step="Make one of another name.")


def identity_of(row: Any) -> IdentityRecord:
    """Return a row of `IDENTITIES` as a record."""
    return IdentityRecord(
        id=row.id,
        name=row.name,
        kind=IdentityKind(row.kind),
        password=row.password,
        disabled=row.disabled,
        created_at=row.created_at,
        issuer=row.issuer,
        subject=row.subject,
    )


def _role(row: Any) -> RoleRecord:
    return RoleRecord(name=row.name, description=row.description, actions=tuple(row.actions), built_in=False)


def _token(row: Any) -> TokenRecord:
    return TokenRecord(
        id=row.id,
        identity_id=row.identity_id,
        identity_name=row.identity_name,
        identity_kind=IdentityKind(row.identity_kind),
        disabled=row.disabled,
        name=row.name,
        kind=row.kind,
        limits=None if row.limits is None else tuple((role, scope) for role, scope in row.limits),
        created_at=row.created_at,
        expires_at=row.expires_at,
        used_at=row.used_at,
    )
