"""Logging in with an identity provider: what the server does of it, in a browser (RFC 8252) or by a code (RFC 8628).

Who begins a login gets a ticket, and only with that it comes to its end. What must stay secret on the way - nonce,
verifier, device code, client secret - stays here.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import urlencode

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import LoginRecord, ProviderRecord, TokenRecord
from snapkeep.identity.attempts import Attempts
from snapkeep.identity.oidc.claims import name_of, person_of, require_allowed, subject_of, wanted_grants
from snapkeep.identity.oidc.discovery import Discovery
from snapkeep.identity.oidc.id_token import verified
from snapkeep.identity.oidc.transport import Json, Refused, printable, require_https
from snapkeep.identity.service import Identities
from snapkeep.identity.tokens import digest
from snapkeep.model.errors import (
    AuthenticationFailed,
    InvalidInput,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unsupported,
)
from snapkeep.operations.clock import Clock

BROWSER_SECONDS = 600
LONGEST_DEVICE_SECONDS = 1800
SLOWER = 5
"""Seconds that are added when a provider asks to be asked less often (RFC 8628, section 3.5)."""
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """A login that goes on in a browser, at `url`."""

    ticket: str
    provider: str
    url: str
    state: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """A login that goes on where somebody opens `url` and types the code."""

    ticket: str
    provider: str
    code: str
    url: str
    url_with_code: str | None
    seconds: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Session:
    """A session that a login has given."""

    token: str
    record: TokenRecord


class SingleSignOn:
    """Logins with identity providers."""

    def __init__(self, catalog: Catalog, identities: Identities, clock: Clock) -> None:
        self._catalog = catalog
        self._identities = identities
        self._clock = clock
        self._attempts = Attempts(clock.monotonic)
        self.discovery = Discovery(clock.monotonic)

    # -- in a browser ------------------------------------------------------------------------------------------------
    async def begin_browser(self, name: str | None, redirect: str, address: str) -> BrowserLogin:
        """Begin a login that comes back to `redirect`.

        Raises NotFound, InvalidInput, RateLimited, and what `Discovery` raises.
        """
        login_id = self._begin(address)
        provider = await self._provider(name)
        metadata = await self.discovery.metadata(provider)
        ticket, state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(4))
        expires_at = self._clock.now() + timedelta(seconds=BROWSER_SECONDS)
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "redirect": redirect}
        await self._keep(login_id, provider, "browser", ticket, kept, expires_at)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(provider.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        joint = "&" if "?" in metadata.authorization else "?"
        return BrowserLogin(ticket, provider.name, metadata.authorization + joint + urlencode(asked), state, expires_at)

    async def end_browser(self, ticket: str, given: Json, address: str) -> Session:
        """End a login with what the browser has brought back: state, and code or error.

        Raises AuthenticationFailed, PermissionDenied, Conflict, and as `Discovery`. Whatever it raises, it is over.
        """
        login = await self._find(ticket, "browser", address)
        if not await self._catalog.logins.end(login.id):
            raise _over()
        provider = await self._catalog.providers.by_id(login.provider_id)
        if not secrets.compare_digest(given["state"].encode(), login.secrets["state"].encode()):
            raise AuthenticationFailed(
                "What the browser has brought back belongs to another login (state)", next_step="Log in again."
            )
        metadata = await self.discovery.metadata(provider)
        issuer = given.get("iss")
        if (metadata.names_itself or issuer is not None) and issuer != provider.issuer:
            raise AuthenticationFailed(
                f"What the browser has brought back is not from {provider.name}: {printable(issuer) or 'nobody'}",
                next_step="Log in again; do not open links to logins that others have begun.",
            )
        if given.get("error") is not None:
            raise _denied(provider, str(given["error"]), given.get("error_description"))
        form = {
            "grant_type": "authorization_code",
            "code": str(given.get("code") or ""),
            "redirect_uri": login.secrets["redirect"],
            "code_verifier": login.secrets["verifier"],
        }
        answer = await self._post(provider, metadata.token, form)
        return await self._enter(provider, answer, login.secrets["nonce"], login.id, address)

    # -- by a code ---------------------------------------------------------------------------------------------------
    async def begin_device(self, name: str | None, address: str) -> DeviceLogin:
        """Begin a login that somebody agrees to elsewhere. Raises Unsupported, and as `begin_browser`."""
        login_id = self._begin(address)
        provider = await self._provider(name)
        metadata = await self.discovery.metadata(provider)
        if metadata.device is None:
            raise Unsupported(
                f"{provider.name} offers no login by a code (device_authorization_endpoint)",
                next_step="Log in with `snapkeep login --browser`.",
            )
        answer = await self._post(provider, metadata.device, {"scope": " ".join(provider.scopes)})
        ticket = secrets.token_urlsafe(32)
        seconds = _number(answer.get("interval"), 5, 1, 60)
        lasts = _number(answer.get("expires_in"), 600, 1, LONGEST_DEVICE_SECONDS)
        code, device_code = answer.get("user_code"), answer.get("device_code")
        if not isinstance(code, str) or not isinstance(device_code, str) or not code or code != printable(code):
            raise AuthenticationFailed(f"{provider.name} gives no code to log in with", next_step="Try --browser.")
        try:
            url = require_https(answer.get("verification_uri"), "verification_uri")
            whole = answer.get("verification_uri_complete")
            whole = None if whole is None else require_https(whole, "verification_uri_complete")
        except InvalidInput as error:
            raise AuthenticationFailed(f"{provider.name}: {error.message}", next_step="Try --browser.") from error
        expires_at = self._clock.now() + timedelta(seconds=lasts)
        await self._keep(login_id, provider, "device", ticket, {"device_code": device_code}, expires_at, seconds)
        return DeviceLogin(ticket, provider.name, code, url, whole, seconds, expires_at)

    async def end_device(self, ticket: str, address: str) -> Session | int:
        """End a login if somebody has agreed; else return after how many seconds to ask again.

        Raises what `end_browser` raises.
        """
        login = await self._find(ticket, "device", address)
        seconds, now = login.seconds or SLOWER, self._clock.now()
        if not await self._catalog.logins.may_ask(login, now):
            return seconds
        provider = await self._catalog.providers.by_id(login.provider_id)
        metadata = await self.discovery.metadata(provider)
        form = {"grant_type": DEVICE_GRANT, "device_code": login.secrets["device_code"]}
        try:
            answer = await self._post(provider, metadata.token, form)
        except Refused as error:
            if error.error == "authorization_pending":
                return seconds
            if error.error == "slow_down":
                await self._catalog.logins.slow_down(login, seconds + SLOWER, now)
                return seconds + SLOWER
            await self._catalog.logins.end(login.id)
            if error.error == "expired_token":
                raise _over() from error
            raise _denied(provider, error.error, error.vendor_message) from error
        if not await self._catalog.logins.end(login.id):
            raise _over()
        return await self._enter(provider, answer, None, login.id, address)

    # -- both --------------------------------------------------------------------------------------------------------
    def _begin(self, address: str) -> str:
        """Return the id of a new login, which counts as failed until it succeeds. Raises RateLimited."""
        login_id = self._clock.new_id()
        self._attempts.begin(login_id, address)
        return login_id

    async def _provider(self, name: str | None) -> ProviderRecord:
        """Return the provider that is meant: the only one, when none is named. Raises NotFound, InvalidInput."""
        if name is not None:
            return await self._catalog.providers.get(name)
        found = await self._catalog.providers.find()
        if not found:
            raise NotFound(
                "No identity provider is known here", next_step="Log in with name and password: `snapkeep login NAME`."
            )
        if len(found) > 1:
            names = ", ".join(item.name for item in found)
            raise InvalidInput(f"There are several identity providers: {names}", next_step="Give one with --provider.")
        return found[0]

    async def _keep(
        self,
        login_id: str,
        provider: ProviderRecord,
        kind: str,
        ticket: str,
        kept: dict[str, str],
        expires_at: datetime,
        seconds: int | None = None,
    ) -> None:
        await self._catalog.logins.begin(
            login_id,
            provider.id,
            kind=kind,
            digest=digest(ticket),
            secrets=kept,
            now=self._clock.now(),
            expires_at=expires_at,
            seconds=seconds,
        )

    async def _find(self, ticket: str, kind: str, address: str) -> LoginRecord:
        login = await self._catalog.logins.get(digest(ticket), kind, self._clock.now())
        if login is None:
            self._begin(address)  # who guesses is braked
            raise _over()
        return login

    async def _post(self, provider: ProviderRecord, url: str, form: dict[str, str]) -> Json:
        metadata = await self.discovery.metadata(provider)
        client = provider.client_id, await self._catalog.providers.secret(provider)
        return await self.discovery.transport(provider).post(url, form, client, metadata.methods)

    async def _claims(self, provider: ProviderRecord, answer: Json, nonce: str | None) -> Json:
        """Return what the ID token says, and for what is wanted and not in there, what the provider says besides."""
        access_token = answer.get("access_token")
        claims = await verified(
            answer.get("id_token"),
            provider,
            self.discovery,
            nonce=nonce,
            access_token=access_token,
            now=self._clock.now(),
        )
        wanted = {provider.name_claim}
        if provider.grants or provider.allowed_groups:
            wanted.add(provider.groups_claim)
        metadata = await self.discovery.metadata(provider)
        if wanted <= claims.keys() or metadata.userinfo is None or not isinstance(access_token, str):
            return claims
        if not access_token.isascii() or not access_token.isprintable():
            raise AuthenticationFailed("The access token of the provider is none", next_step="Log in again.")
        more = await self.discovery.transport(provider).get(metadata.userinfo, access_token)
        if subject_of(more) != subject_of(claims):  # OpenID Connect Core 1.0, section 5.3.2
            raise AuthenticationFailed(f"{provider.name} tells of somebody else", next_step="Log in again.")
        return {**more, **claims}

    async def _enter(
        self, provider: ProviderRecord, answer: Json, nonce: str | None, login_id: str, address: str
    ) -> Session:
        """Let somebody in whom the provider has named, with what his groups give him now."""
        person = person_of(await self._claims(provider, answer, nonce), provider)
        providers = self._catalog.providers
        identity = await providers.identity(provider.issuer, person.subject)
        try:
            require_allowed(person, provider)
        except PermissionDenied:
            if identity is not None:
                await providers.give(identity, provider, (), self._clock.new_id, self._clock.now())
            raise
        if identity is None:
            name, now = name_of(person, provider), self._clock.now()
            identity = await providers.add_identity(self._clock.new_id(), name, provider.issuer, person.subject, now)
        if identity.disabled:
            raise AuthenticationFailed(
                f"{identity.name!r} is disabled here", next_step="Ask an administrator: `snapkeep identity enable`."
            )
        wanted = wanted_grants(person, provider, await self._catalog.identities.roles())
        await providers.give(identity, provider, wanted, self._clock.new_id, self._clock.now())
        token, record = await self._identities.open_session(identity)
        self._attempts.succeeded(login_id, address)
        return Session(token, record)


def _number(value: object, otherwise: int, least: int, most: int) -> int:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and least <= value
    return min(most, int(value)) if is_number and isinstance(value, int | float) else otherwise


def _over() -> AuthenticationFailed:
    return AuthenticationFailed(
        "This login has expired, or was used already", next_step="Log in again, and finish within a few minutes."
    )


def _denied(provider: ProviderRecord, error: str, text: object) -> SnapkeepError:
    if error == "access_denied":
        return AuthenticationFailed(
            f"The login was refused at {provider.name}",
            next_step="Log in again, and agree; if the provider does not let you, ask who manages it.",
            vendor_code=error,
            vendor_message=printable(text),
        )
    return AuthenticationFailed(
        f"{provider.name} has refused the login",
        next_step="Read its reason; an administrator compares the settings of `snapkeep provider show` with those of "
        "the provider.",
        vendor_code=printable(error),
        vendor_message=printable(text),
    )
