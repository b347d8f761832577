"""The schemas of identities, roles, grants and tokens."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from snapkeep.catalog.records import GrantRecord, IdentityRecord, RoleRecord, TokenRecord
from snapkeep.model.access import Principal
from snapkeep.server.schemas import In, Out

IdentityName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?$")]
ScopeText = Annotated[
    str, Field(max_length=300, description="all, system:NAME, asset:ID, label:KEY=VALUE or repository:NAME.")
]


# -- requests ----------------------------------------------------------------------------------------------------------
class LoginIn(In):
    """A user and his password."""

    name: str = Field(min_length=1, max_length=63)
    password: SecretStr


class PasswordIn(In):
    """Another password for oneself."""

    old: SecretStr
    new: SecretStr


class IdentityIn(In):
    """A user or service account to be added."""

    name: IdentityName
    kind: Literal["user", "service"] = "user"
    password: SecretStr | None = Field(default=None, description="Of a user; without one he cannot log in yet.")


class IdentityChange(In):
    """What is to be changed; what is left away stays."""

    password: SecretStr | None = Field(default=None, description="Another password; sessions end.")
    disabled: bool | None = Field(default=None, description="Whether nobody is let in under it.")


class GrantIn(In):
    """A role within a scope."""

    role: str = Field(min_length=1, max_length=63)
    scope: ScopeText = "all"


class TokenIn(In):
    """A token to be made."""

    name: str = Field(min_length=1, max_length=63, pattern=r"^[ -~]+$", description="What it is for.")
    identity: str | None = Field(
        default=None, max_length=63, description="Service account that gets it; null: the caller himself."
    )
    days: int = Field(default=90, ge=1, le=366, description="How long it is valid.")
    limits: list[GrantIn] | None = Field(
        default=None, max_length=50, description="It may do no more than this, of what its identity may; null: as much."
    )


class RoleIn(In):
    """A role of one's own."""

    description: str = Field(default="", max_length=300)
    actions: list[str] = Field(min_length=1, max_length=200)


# -- answers -----------------------------------------------------------------------------------------------------------
class GrantOut(Out):
    """A role that somebody has within a scope."""

    id: str
    role: str
    scope: str
    granted_by: str
    created_at: datetime

    @classmethod
    def of(cls, record: GrantRecord) -> GrantOut:
        """Map the record."""
        return cls(
            id=record.id,
            role=record.role,
            scope=record.scope,
            granted_by=record.granted_by,
            created_at=record.created_at,
        )


class IdentityOut(Out):
    """A user or a service account; `issuer` and `subject`: as whom an identity provider knows a user."""

    id: str
    name: str
    kind: str
    disabled: bool
    has_password: bool
    issuer: str | None
    subject: str | None
    created_at: datetime
    grants: list[GrantOut]

    @classmethod
    def of(cls, record: IdentityRecord, grants: list[GrantRecord]) -> IdentityOut:
        """Map the record."""
        return cls(
            id=record.id,
            name=record.name,
            kind=record.kind.value,
            disabled=record.disabled,
            has_password=record.password is not None,
            issuer=record.issuer,
            subject=record.subject,
            created_at=record.created_at,
            grants=[GrantOut.of(grant) for grant in grants],
        )


class Held(Out):
    """A role within a scope, with all that it allows."""

    role: str
    scope: str
    actions: list[str]


class MeOut(Out):
    """Who the caller is, and what he may do; `limits`: what his token was narrowed to."""

    name: str
    kind: str
    grants: list[Held]
    limits: list[Held] | None

    @classmethod
    def of(cls, principal: Principal) -> MeOut:
        """Map it."""
        held, limits = (
            None
            if grants is None
            else [
                Held(role=grant.role, scope=str(grant.scope), actions=sorted(map(str, grant.actions)))
                for grant in grants
            ]
            for grants in (principal.grants, principal.limits)
        )
        return cls(name=principal.name, kind=principal.kind.value, grants=held or [], limits=limits)


class RoleOut(Out):
    """A role; `built_in`: always there, and always the same."""

    name: str
    description: str
    actions: list[str]
    built_in: bool

    @classmethod
    def of(cls, record: RoleRecord) -> RoleOut:
        """Map the record."""
        return cls(
            name=record.name,
            description=record.description,
            actions=list(record.actions),
            built_in=record.built_in,
        )


class TokenOut(Out):
    """A token, without the token."""

    id: str
    name: str
    kind: str
    identity: str
    limits: list[GrantIn] | None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None

    @classmethod
    def of(cls, record: TokenRecord) -> TokenOut:
        """Map the record."""
        limits = record.limits
        return cls(
            id=record.id,
            name=record.name,
            kind=record.kind,
            identity=record.identity_name,
            limits=None if limits is None else [GrantIn(role=role, scope=scope) for role, scope in limits],
            created_at=record.created_at,
            expires_at=record.expires_at,
            used_at=record.used_at,
        )


class NewTokenOut(Out):
    """A new token. `token` is shown this once."""

    token: str
    about: TokenOut
