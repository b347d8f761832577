"""The schemas of identity providers, and of logins with them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, SecretStr

from snapkeep.catalog.records import GroupGrant, ProviderRecord
from snapkeep.identity.oidc.service import BrowserLogin, DeviceLogin, Session
from snapkeep.server.schemas import In, Out
from snapkeep.server.schemas_identities import NewTokenOut, ScopeText, TokenOut

ProviderName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?$")]
ClientId = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[ -~]+$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=2048)]
Claim = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[!-~]+$")]
Group = Annotated[str, Field(min_length=1, max_length=255)]
Groups = Annotated[list[Group], Field(max_length=500)]
OAuthScopes = Annotated[
    list[Annotated[str, Field(max_length=255, pattern=r"^[!#-\[\]-~]+$")]],
    Field(max_length=50, description="What is asked for; openid always is."),
]
Pem = Annotated[str, Field(max_length=65_536, description="PEM of its authority; null: those of the server's machine.")]
Ticket = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Written = Annotated[str, Field(max_length=4096, pattern=r"^[ -~]*$")]


# -- providers ---------------------------------------------------------------------------------------------------------
class GroupGrantIn(In):
    """A role within a scope for who is in a group."""

    group: Group
    role: str = Field(min_length=1, max_length=63)
    scope: ScopeText = "all"


Given = Annotated[list[GroupGrantIn], Field(max_length=500)]


class ProviderIn(In):
    """An identity provider to be added."""

    name: ProviderName
    issuer: str = Field(max_length=300, description="As the provider writes it, https.")
    client_id: ClientId
    client_secret: Secret | None = Field(default=None, description="null: it knows us as a public client.")
    scopes: OAuthScopes = ["openid", "profile"]
    name_claim: Claim = Field(default="preferred_username", description="Becomes the name of who is new here.")
    groups_claim: Claim = "groups"
    allowed_groups: Groups = Field(default=[], description="Who may log in; empty: all whom the provider lets in.")
    grants: Given = Field(default=[], description="What groups give, at each login anew.")
    ca: Pem | None = None


class ProviderChange(In):
    """Settings to be changed; what is left away stays. A list replaces the one before."""

    client_id: ClientId | None = None
    client_secret: Secret | None = Field(default=None, description="null, when it is given: there is none any more.")
    scopes: OAuthScopes | None = None
    name_claim: Claim | None = None
    groups_claim: Claim | None = None
    allowed_groups: Groups | None = None
    grants: Given | None = None
    ca: Pem | None = None


class GroupGrantOut(Out):
    """A role within a scope for who is in a group."""

    group: str
    role: str
    scope: str


class ProviderOut(Out):
    """An identity provider, without its client secret."""

    id: str
    name: str
    issuer: str
    client_id: str
    scopes: list[str]
    name_claim: str
    groups_claim: str
    allowed_groups: list[str]
    grants: list[GroupGrantOut]
    ca: str | None
    created_at: datetime

    @classmethod
    def of(cls, record: ProviderRecord) -> ProviderOut:
        """Map the record."""
        return cls(
            id=record.id,
            name=record.name,
            issuer=record.issuer,
            client_id=record.client_id,
            scopes=list(record.scopes),
            name_claim=record.name_claim,
            groups_claim=record.groups_claim,
            allowed_groups=list(record.allowed_groups),
            grants=[GroupGrantOut(group=item.group, role=item.role, scope=item.scope) for item in record.grants],
            ca=record.ca,
            created_at=record.created_at,
        )


def settings_of(body: ProviderIn | ProviderChange) -> dict[str, Any]:
    """Return the settings that a body gives, as a record has them."""
    given: dict[str, Any] = {}
    wanted = type(body).model_fields.keys() - {"name", "issuer", "client_secret"}
    for name in wanted if isinstance(body, ProviderIn) else wanted & body.model_fields_set:
        value = getattr(body, name)
        if name == "grants" and value is not None:
            value = [GroupGrant(item.group, item.role, item.scope) for item in value]
        if value is not None or name == "ca":
            given[name] = tuple(value) if isinstance(value, list) else value
    return given


# -- logins ------------------------------------------------------------------------------------------------------------
Named = Annotated[str | None, Field(default=None, max_length=40, description="null: the only one that there is.")]


class BrowserLoginIn(In):
    """A login in a browser."""

    provider: Named
    redirect_uri: str = Field(
        max_length=64,
        pattern=r"^http://(127\.0\.0\.1|\[::1\]):[1-9][0-9]{0,4}/callback$",
        description="Where the program waits that has begun the login, on the machine of the browser (RFC 8252).",
    )


class BrowserLoginOut(Out):
    """A login that goes on in a browser at `url`. Keep `ticket` secret; compare `state` with what comes back."""

    ticket: str
    provider: str
    url: str
    state: str
    expires_at: datetime

    @classmethod
    def of(cls, login: BrowserLogin) -> BrowserLoginOut:
        """Map it."""
        return cls(
            ticket=login.ticket,
            provider=login.provider,
            url=login.url,
            state=login.state,
            expires_at=login.expires_at,
        )


class BrowserAnswerIn(In):
    """What the browser has brought back, with the ticket of who began the login."""

    ticket: Ticket
    state: Written
    code: Written | None = None
    iss: Written | None = None
    error: Written | None = None
    error_description: str | None = Field(default=None, max_length=4096)


class DeviceLoginIn(In):
    """A login to which somebody agrees on another device."""

    provider: Named


class DeviceLoginOut(Out):
    """A login that goes on where somebody opens `url` and types `code`. Keep `ticket` secret."""

    ticket: str
    provider: str
    code: str
    url: str
    url_with_code: str | None
    seconds: int
    expires_at: datetime

    @classmethod
    def of(cls, login: DeviceLogin) -> DeviceLoginOut:
        """Map it."""
        return cls(
            ticket=login.ticket,
            provider=login.provider,
            code=login.code,
            url=login.url,
            url_with_code=login.url_with_code,
            seconds=login.seconds,
            expires_at=login.expires_at,
        )


class DeviceTicketIn(In):
    """The ticket of who began the login."""

    ticket: Ticket


class DeviceAnswerOut(Out):
    """The session; null as long as nobody has agreed: then ask again after so many `seconds`."""

    session: NewTokenOut | None
    seconds: int | None


def session_of(session: Session) -> NewTokenOut:
    """Return a session as logins answer it."""
    return NewTokenOut(token=session.token, about=TokenOut.of(session.record))
