"""Proves who somebody is, and manages who there is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import GrantRecord, IdentityRecord, TokenRecord
from snapkeep.identity.attempts import Attempts
from snapkeep.identity.names import RESERVED
from snapkeep.identity.passwords import hash_password, is_outdated, is_password
from snapkeep.identity.tokens import digest, new_token
from snapkeep.model.access import (
    EVERYTHING,
    EVERYWHERE,
    LABEL_FORM,
    ROLES,
    Action,
    Grant,
    IdentityKind,
    Principal,
    Scope,
)
from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from snapkeep.model.notifications import Event, Notice
from snapkeep.operations.clock import Clock

SESSION = timedelta(hours=12)
LONGEST_TOKEN = timedelta(days=366)
MOST_LABELS = 50

LOCAL = Principal("administrator", IdentityKind.LOCAL, (Grant("local", EVERYTHING, EVERYWHERE),))
"""Who has the token of the data directory: who can read it can also read the catalog and its key."""


class Identities:
    """Users and service accounts, as the server uses them."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock
        self._attempts = Attempts(clock.monotonic)

    # -- who somebody is ---------------------------------------------------------------------------------------------
    async def authenticate(self, token: str) -> Principal | None:
        """Return whose token it is, None when it is nobody's: unknown, expired, or of one who is disabled."""
        found = await self._catalog.identities.by_digest(digest(token))
        if found is None:
            return None
        record, granted, own = found
        now = self._clock.now()
        if record.disabled or record.expires_at <= now:
            return None
        await self._catalog.identities.used(record, now)
        limits = None if record.limits is None else tuple(_grant(role, scope, own) for role, scope in record.limits)
        grants = tuple(_grant(item.role, item.scope, own) for item in granted)
        is_session = record.kind == "session"
        return Principal(record.identity_name, record.identity_kind, grants, limits, record.id, is_session)

    async def known(self, name: str) -> Principal | None:
        """Return somebody as he is now, whatever he is logged in with; None when nobody is let in under this name."""
        try:
            identity = await self._catalog.identities.get(name)
        except NotFound:
            return None
        if identity.disabled:
            return None
        roles = await self._catalog.identities.roles()
        own = {role.name: role.actions for role in roles.values() if not role.built_in}
        granted = await self._catalog.identities.grants_of(identity)
        return Principal(name, identity.kind, tuple(_grant(item.role, item.scope, own) for item in granted))

    async def login(self, name: str, password: str, address: str) -> tuple[str, TokenRecord]:
        """Return a token of a new session. Raises AuthenticationFailed, RateLimited."""
        await self._begin_attempt(name, address)
        try:
            identity = await self._catalog.identities.get(name)
        except NotFound:
            identity = None
        usable = identity is not None and identity.kind is IdentityKind.USER and not identity.disabled
        right = await is_password(identity.password if identity and usable else None, password)
        if identity is None or not right:
            raise AuthenticationFailed(
                "Name or password is wrong", next_step="Check both; an administrator can set a new password."
            )
        self._attempts.succeeded(name, address)
        if identity.password is not None and is_outdated(identity.password):
            await self._catalog.identities.change(identity.id, password=await hash_password(password))
        return await self.open_session(identity)

    async def open_session(self, identity: IdentityRecord) -> tuple[str, TokenRecord]:
        """Return a token of a new session of somebody who has proved who he is."""
        return await self._token(identity, "login", "session", None, self._clock.now() + SESSION)

    async def _begin_attempt(self, name: str, address: str) -> None:
        """Note an attempt; tell who wants to know when it has to wait. Raises RateLimited."""
        try:
            self._attempts.begin(name, address)
        except RateLimited:
            if (failures := self._attempts.news(name, address)) is not None:
                await self._catalog.outbox.tell(
                    Notice(
                        event=Event.LOGIN_BRAKED,
                        message=f"{failures} logins as {name!r:.80} or from {address} have failed; further ones wait",
                        next_step="See who tries, and from where: `snapkeep audit list --action login`.",
                        subject=name[:80],
                        details={"address": address, "failures": failures},
                    )
                )
            raise

    # -- tokens ------------------------------------------------------------------------------------------------------
    async def make_token(
        self,
        by: Principal,
        identity: IdentityRecord,
        name: str,
        limits: Sequence[tuple[str, str]] | None,
        expires_at: datetime,
    ) -> tuple[str, TokenRecord]:
        """Return a new token, to be shown once: one's own, made in a session, or that of a service account.

        A token makes no others for whom it stands: it could be narrow, or stolen, and would outlive itself. Raises
        InvalidInput, PermissionDenied.
        """
        now = self._clock.now()
        if not now < expires_at <= now + LONGEST_TOKEN:
            raise InvalidInput(
                "A token ends some day, within a year",
                next_step=f"Choose a time up to {(now + LONGEST_TOKEN).date()}.",
            )
        if identity.name != by.name and identity.kind is not IdentityKind.SERVICE:
            raise PermissionDenied(
                f"{identity.name!r} makes his own tokens", next_step="Tokens for others are for service accounts."
            )
        if identity.name == by.name and not by.is_session:
            raise PermissionDenied(
                "A token makes no other tokens for whom it stands",
                next_step="Log in with `snapkeep login`, and make it then; for a service account, let somebody make it "
                "who manages identities.",
            )
        if limits is not None:
            await self.require_roles(role for role, _ in limits)
            limits = [(role, str(Scope.parse(scope))) for role, scope in limits]
        return await self._token(identity, name, "api", limits, expires_at)

    async def _token(
        self,
        identity: IdentityRecord,
        name: str,
        kind: str,
        limits: Sequence[tuple[str, str]] | None,
        expires_at: datetime,
    ) -> tuple[str, TokenRecord]:
        token = new_token()
        record = await self._catalog.identities.add_token(
            self._clock.new_id(),
            identity,
            name=name,
            kind=kind,
            digest=digest(token),
            limits=None if limits is None else list(limits),
            now=self._clock.now(),
            expires_at=expires_at,
        )
        return token, record

    # -- people ------------------------------------------------------------------------------------------------------
    async def add(self, name: str, kind: IdentityKind, password: str | None) -> IdentityRecord:
        """Add a user or a service account, who may do nothing yet. Raises Conflict, InvalidInput."""
        if name in RESERVED:
            raise Conflict(f"{name!r} is the installation itself", next_step="Choose another name.")
        if kind is IdentityKind.SERVICE and password is not None:
            raise InvalidInput("A service account has tokens, no password", next_step="Leave the password away.")
        kept = None if password is None else await hash_password(password)
        return await self._catalog.identities.add(self._clock.new_id(), name, kind, kept, self._clock.now())

    async def set_password(self, identity: IdentityRecord, password: str) -> None:
        """Give a user another password, and end his sessions and tokens: somebody else may have had the old one.

        Raises InvalidInput.
        """
        await self._set_password(identity, password, ends=("session", "api"))

    async def _set_password(self, identity: IdentityRecord, password: str, *, ends: Collection[str]) -> None:
        if identity.kind is not IdentityKind.USER:
            raise InvalidInput(f"{identity.name!r} is a service account: it has tokens, no password")
        _require_password(identity)
        await self._catalog.identities.change(identity.id, ends=ends, password=await hash_password(password))

    async def change_password(self, identity: IdentityRecord, old: str, new: str, address: str) -> None:
        """Change one's own password; sessions end. Raises AuthenticationFailed, RateLimited, InvalidInput."""
        _require_password(identity)
        await self._begin_attempt(identity.name, address)
        if not await is_password(identity.password, old):
            raise AuthenticationFailed("The old password is wrong", next_step="Try again.")
        self._attempts.succeeded(identity.name, address)
        await self._set_password(identity, new, ends=("session",))

    async def disable(self, identity: IdentityRecord, *, disabled: bool) -> None:
        """Let nobody in under this identity, or let him in again; its sessions end."""
        await self._catalog.identities.change(identity.id, ends=("session",) if disabled else (), disabled=disabled)

    async def grant(self, by: Principal, identity: IdentityRecord, role: str, scope: str) -> GrantRecord:
        """Give a role within a scope. Raises NotFound, InvalidInput, PermissionDenied (oneself)."""
        require_another(by, identity)
        await self.require_roles([role])
        parsed = Scope.parse(scope)
        now = self._clock.now()
        return await self._catalog.identities.grant(self._clock.new_id(), identity, role, str(parsed), by.name, now)

    async def put_role(self, by: Principal, name: str, description: str, actions: Sequence[str]) -> None:
        """Make a role, or give it other actions. Raises InvalidInput, Conflict, PermissionDenied (one's own)."""
        unknown = sorted(set(actions) - set(Action))
        if unknown:
            raise InvalidInput(
                f"There is no action {unknown[0]!r:.120}", next_step="See `snapkeep role actions` for all of them."
            )
        if any(grant.role == name for grant in by.grants):
            raise PermissionDenied(
                "Nobody changes a role that is granted to himself", next_step="Let another security officer do it."
            )
        await self._catalog.identities.put_role(name, description, actions, self._clock.now())

    async def require_roles(self, names: Iterable[str]) -> None:
        """Raise NotFound for a role that is not there."""
        known = await self._catalog.identities.roles()
        for name in names:
            if name not in known:
                raise NotFound(f"There is no role {name!r:.80}", next_step=f"Choose one of {', '.join(known)}.")

    # -- labels ------------------------------------------------------------------------------------------------------
    async def set_labels(self, subject_id: str, labels: Mapping[str, str]) -> None:
        """Give a system or an asset these labels. Raises InvalidInput."""
        wrong = [f"{key}={value}" for key, value in labels.items() if not LABEL_FORM.fullmatch(f"{key}={value}")]
        if wrong or len(labels) > MOST_LABELS:
            raise InvalidInput(
                f"{wrong[0]!r:.120} is no label" if wrong else f"There are more than {MOST_LABELS} labels",
                next_step="A label is KEY=VALUE of letters, digits, '.', '_' and '-', at most 63 each; keys are "
                "lower-case, and may have a '/'.",
            )
        await self._catalog.identities.set_labels(subject_id, labels)


def require_another(by: Principal, identity: IdentityRecord) -> None:
    """Raise PermissionDenied for who would change what he himself may do."""
    if by.name == identity.name and by.kind is not IdentityKind.LOCAL:
        raise PermissionDenied("Nobody changes what he himself may do", next_step="Let another security officer do it.")


def _require_password(identity: IdentityRecord) -> None:
    """Raise InvalidInput for who is known by an identity provider, and must not get in past it."""
    if identity.issuer is not None:
        raise InvalidInput(
            f"{identity.name!r} logs in with the provider {identity.issuer}, and has no password here",
            next_step="Change the password there.",
        )


def _grant(role: str, scope: str, own: Mapping[str, Sequence[str]]) -> Grant:
    """Return a grant with what its role allows; a role that is no more allows nothing."""
    actions = ROLES[role][1] if role in ROLES else frozenset(own.get(role, ()))
    return Grant(role, actions, Scope.parse(scope))
