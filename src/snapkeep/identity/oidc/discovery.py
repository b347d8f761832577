"""What a provider says of itself, and the keys with which it signs: read once, kept for a while, read again in time.

OpenID Connect Discovery 1.0. A key that is not known may be a new one: then the keys are read again, but not as often
as somebody likes to send made-up ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from snapkeep.catalog.records import ProviderRecord
from snapkeep.identity.oidc.transport import Json, Transport, printable, require_https
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, SnapkeepError, Unavailable, Unsupported

KEPT_SECONDS = 3600.0
AGAIN_SECONDS = 60.0
"""The keys are read again for an unknown one no sooner than this after they were read for one."""
FAILED_SECONDS = 5.0
"""So long a provider that did not answer is not asked again: many who wait for it do not wait one after the other."""
MOST_KEYS = 100
MOST_PROVIDERS = 100
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
"""With which a token may be signed. None is symmetric: our own secret, or a public key, would then sign."""

Key = RSAKey | ECKey
_PUBLIC = ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
_LEAST_MODULUS = 342
"""Characters of a modulus of 2048 bits, in base64url."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself."""

    authorization: str
    token: str
    jwks: str
    userinfo: str | None
    device: str | None
    algorithms: tuple[str, ...]
    """Those that it announces, and that are allowed."""
    methods: object
    """How a client proves to it who he is."""
    names_itself: bool
    """It says in its redirects who it is (RFC 9207)."""


@dataclass(slots=True)
class _Kept:
    transport: Transport
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    metadata: Metadata | None = None
    keys: list[Key] = field(default_factory=list)
    read_at: float = 0.0
    missed_at: float | None = None
    failed: tuple[float, SnapkeepError] | None = None


class Discovery:
    """What is known of providers, in this process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._kept: dict[tuple[str, str | None], _Kept] = {}

    def transport(self, provider: ProviderRecord) -> Transport:
        """Return the way to a provider. Raises InvalidInput for an authority that is none."""
        return self._of(provider).transport

    async def metadata(self, provider: ProviderRecord) -> Metadata:
        """Return what a provider says of itself.

        Raises Unavailable, AuthenticationFailed, InvalidInput, Unsupported.
        """
        kept = self._of(provider)
        async with kept.lock:
            return await self._refresh(provider, kept)

    async def keys(self, provider: ProviderRecord, kid: str | None) -> list[Key]:
        """Return the keys with which something may be signed: that of this id, or all when it has none.

        Raises AuthenticationFailed when there is none, and what `metadata` raises.
        """
        kept = self._of(provider)
        async with kept.lock:
            await self._refresh(provider, kept)
            found = _named(kept.keys, kid)
            now = self._monotonic()
            if not found and (kept.missed_at is None or now - kept.missed_at >= AGAIN_SECONDS):
                kept.missed_at = now
                await self._read_keys(kept)
                found = _named(kept.keys, kid)
        if not found:
            raise AuthenticationFailed(
                f"The token of {provider.name} is signed with a key that the provider does not publish",
                next_step="Log in again in a minute; if it stays so, look at the provider's keys (jwks_uri).",
            )
        return found

    def _of(self, provider: ProviderRecord) -> _Kept:
        place = (provider.issuer, provider.ca)
        if place not in self._kept:
            while len(self._kept) >= MOST_PROVIDERS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[place] = _Kept(Transport(provider.ca))
        return self._kept[place]

    async def _refresh(self, provider: ProviderRecord, kept: _Kept) -> Metadata:
        if kept.metadata is not None and self._monotonic() - kept.read_at < KEPT_SECONDS:
            return kept.metadata
        if kept.failed is not None and self._monotonic() - kept.failed[0] < FAILED_SECONDS:
            raise SnapkeepError.from_dict(kept.failed[1].to_dict())
        try:
            said = await kept.transport.get(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
            kept.metadata = metadata = _metadata(provider, said)
            await self._read_keys(kept)
        except Unavailable as error:
            kept.metadata, kept.failed = None, (self._monotonic(), error)
            raise
        except SnapkeepError:
            kept.metadata = None
            raise
        kept.read_at = self._monotonic()
        return metadata

    async def _read_keys(self, kept: _Kept) -> None:
        if kept.metadata is not None:
            kept.keys = _keys(await kept.transport.get(kept.metadata.jwks))


def _metadata(provider: ProviderRecord, said: Json) -> Metadata:
    if said.get("issuer") != provider.issuer:
        raise AuthenticationFailed(
            f"What answers at {provider.issuer} calls itself {printable(said.get('issuer'))!r}",
            next_step="Give the issuer exactly as the provider writes it; a '/' at the end counts.",
        )
    announced = said.get("id_token_signing_alg_values_supported")
    announced = announced if isinstance(announced, list) else ["RS256"]
    algorithms = tuple(name for name in ALGORITHMS if name in announced)
    if not algorithms:
        raise Unsupported(
            f"{provider.name} signs with none of {', '.join(ALGORITHMS)}",
            next_step="Have the provider sign its tokens with one of them; RS256 is what all can do.",
        )
    try:
        return Metadata(
            authorization=require_https(said.get("authorization_endpoint"), "authorization_endpoint"),
            token=require_https(said.get("token_endpoint"), "token_endpoint"),
            jwks=require_https(said.get("jwks_uri"), "jwks_uri"),
            userinfo=_optional(said, "userinfo_endpoint"),
            device=_optional(said, "device_authorization_endpoint"),
            algorithms=algorithms,
            methods=said.get("token_endpoint_auth_methods_supported"),
            names_itself=said.get("authorization_response_iss_parameter_supported") is True,
        )
    except InvalidInput as error:
        raise AuthenticationFailed(
            f"{provider.name} announces something that cannot be used: {error.message}",
            next_step="Correct it at the provider (its openid-configuration).",
        ) from error


def _optional(said: Json, name: str) -> str | None:
    return None if said.get(name) is None else require_https(said[name], name)


def _keys(said: Json) -> list[Key]:
    """Return the keys that can be used; one that cannot does not spoil the others."""
    listed = said.get("keys")
    found: list[Key] = []
    for data in listed[:MOST_KEYS] if isinstance(listed, list) else ():
        if not isinstance(data, dict) or data.get("kty") not in {"RSA", "EC"} or data.get("use", "sig") != "sig":
            continue
        if data["kty"] == "RSA" and len(str(data.get("n"))) < _LEAST_MODULUS:
            continue
        public: dict[str, Any] = {name: data[name] for name in _PUBLIC if isinstance(data.get(name), str)}
        try:
            key = JWKRegistry.import_key(public)
        except (JoseError, ValueError, KeyError, TypeError):
            continue
        if isinstance(key, RSAKey | ECKey):
            found.append(key)
    return found


def _named(keys: list[Key], kid: str | None) -> list[Key]:
    return [key for key in keys if kid is None or key.get("kid") == kid]
