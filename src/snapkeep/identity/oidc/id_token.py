"""ID tokens (OpenID Connect Core 1.0, section 3.1.3.7): who signed, for whom, when, and in answer to what."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidClaimError, JoseError, MissingClaimError

from snapkeep.catalog.records import ProviderRecord
from snapkeep.identity.oidc.discovery import Discovery, Key, Metadata
from snapkeep.identity.oidc.transport import Json, printable
from snapkeep.model.errors import AuthenticationFailed

LEEWAY = 60
"""Seconds by which the provider's clock may differ from ours."""
LONGEST = 65_536
_TYPES = {"R": "RSA", "P": "RSA", "E": "EC"}
_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}


async def verified(
    token: object,
    provider: ProviderRecord,
    discovery: Discovery,
    *,
    nonce: str | None,
    access_token: object,
    now: datetime,
) -> Json:
    """Return the claims of a token that the provider has made for us, now, and for this login.

    `nonce`: what was asked with; None where nothing could be (RFC 8628). Raises AuthenticationFailed, and what
    `Discovery` raises.
    """
    metadata = await discovery.metadata(provider)
    text, header = _header(token, provider)
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in metadata.algorithms:  # before any key is touched: none, HS256, or what was never announced
        raise _wrong(provider, f"it is signed with {printable(algorithm) or 'nothing'!r}, which is not allowed")
    if kid is not None and not isinstance(kid, str):
        raise _wrong(provider, "the id of its key is no text")
    claims = _opened(text, provider, metadata, str(algorithm), await discovery.keys(provider, kid))
    _check(claims, provider, now)
    if nonce is not None and not _same(claims.get("nonce"), nonce):
        raise _wrong(provider, "its nonce is that of another login")
    if "at_hash" in claims and isinstance(access_token, str):
        digest = hashlib.new(f"sha{str(algorithm)[2:]}", access_token.encode()).digest()
        half = base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()
        if not _same(claims["at_hash"], half):
            raise _wrong(provider, "it belongs to another access token")
    return claims


def _header(token: object, provider: ProviderRecord) -> tuple[bytes, dict[str, Any]]:
    if not isinstance(token, str) or not token.isascii() or len(token) > LONGEST:
        raise _wrong(provider, "there is none, or it is none")
    text = token.encode()
    try:
        return text, jws.extract_compact(text).headers()
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _wrong(provider, "it is none") from error


def _opened(text: bytes, provider: ProviderRecord, metadata: Metadata, algorithm: str, keys: list[Key]) -> Json:
    for key in keys:
        of_type = key.key_type == _TYPES[algorithm[0]] and key.get("alg") in {None, algorithm}
        if not of_type or (algorithm in _CURVES and key.get("crv") != _CURVES[algorithm]):
            continue
        try:
            return jwt.decode(text, key, algorithms=list(metadata.algorithms)).claims
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    raise _wrong(provider, "the provider has not signed it")


def _check(claims: Json, provider: ProviderRecord, now: datetime) -> None:
    registry = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()),
        leeway=LEEWAY,
        iss={"essential": True, "value": provider.issuer},
        sub={"essential": True},
        aud={"essential": True, "value": provider.client_id},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        registry.validate(claims)
    except ExpiredTokenError as error:
        raise _wrong(provider, "it has expired; or the clocks of provider and server differ") from error
    except (InvalidClaimError, MissingClaimError) as error:
        raise _wrong(provider, f"of its claims, this is missing or wrong: {printable(error.description)}") from error
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (several or "azp" in claims) and not _same(claims.get("azp"), provider.client_id):
        raise _wrong(provider, "it was made for another client (azp)")


def _same(found: object, expected: str) -> bool:
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "surrogatepass"), expected.encode())


def _wrong(provider: ProviderRecord, reason: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"The token of {provider.name} is refused: {reason}",
        next_step="Log in again; if it stays so, let an administrator compare the settings of `snapkeep provider show` "
        "with those of the provider.",
    )
