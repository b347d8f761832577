"""Requests to an identity provider: over TLS, to allowed addresses, of small answers, without redirects."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus, urlsplit

import httpx2
import msgspec

from snapkeep.model.errors import AuthenticationFailed, InvalidInput, RateLimited, SnapkeepError, Unavailable
from snapkeep.plugin.http import guarded_transport

SECONDS = 10.0
"""How long an answer may take."""
MOST_BYTES = 1024 * 1024
_SHOWN = 200

Json = dict[str, Any]


class Refused(AuthenticationFailed):
    """The provider has refused; `error` is its code (RFC 6749, section 5.2)."""

    def __init__(self, message: str, error: str, text: str, next_step: str) -> None:
        super().__init__(message, next_step=next_step, vendor_code=error, vendor_message=text)
        self.error = error


def trust_of(ca: str | None) -> ssl.SSLContext:
    """Return how to know a provider: by the authority of a PEM, or those of this machine. Raises InvalidInput."""
    try:
        context = ssl.create_default_context(cadata=ca)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(
            f"The authority of the provider cannot be used: {error}", next_step="Give its certificates as PEM."
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def require_https(url: object, what: str) -> str:
    """Return an address that is usable. Raises InvalidInput."""
    if isinstance(url, str) and len(url) <= 2000 and url.isascii() and url.isprintable() and " " not in url:
        try:
            parts = urlsplit(url)
            if parts.scheme == "https" and parts.hostname and parts.port != 0 and "@" not in parts.netloc:
                return url
        except ValueError:
            pass
    raise InvalidInput(f"{what} is no https address: {url!r:.200}", next_step="Give one that begins with https://.")


class Transport:
    """Connections to one provider."""

    def __init__(self, ca: str | None) -> None:
        self._trust = trust_of(ca)

    async def get(self, url: str, token: str | None = None) -> Json:
        """Return what is there. Raises Unavailable, AuthenticationFailed, InvalidInput."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        status, content = await self._send("GET", url, headers=headers)
        if status != 200:
            raise _unusable(url, f"it answered {status}")
        return content

    async def post(self, url: str, form: Mapping[str, str], client: tuple[str, str | None], methods: object) -> Json:
        """Send a form, with the proof of who we are (RFC 6749, section 2.3.1). Raises Refused, and as `get`."""
        name, secret = client
        headers, fields = {}, dict(form)
        if secret is None:
            fields["client_id"] = name
        elif isinstance(methods, list) and "client_secret_post" in methods and "client_secret_basic" not in methods:
            fields |= {"client_id": name, "client_secret": secret}
        else:
            pair = f"{quote_plus(name)}:{quote_plus(secret)}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        status, content = await self._send("POST", url, headers=headers, data=fields)
        if status == 200:
            return content
        error = content.get("error")
        if not isinstance(error, str):
            raise _unusable(url, f"it answered {status}")
        raise Refused(
            "The identity provider has refused",
            printable(error),
            printable(content.get("error_description")),
            "Read its reason, and log in again; of invalid_client, an administrator has to correct client id and "
            "secret: `snapkeep provider change`.",
        )

    async def _send(self, method: str, url: str, **values: Any) -> tuple[int, Json]:
        try:
            async with (
                asyncio.timeout(SECONDS),
                httpx2.AsyncClient(
                    transport=guarded_transport(self._trust),
                    follow_redirects=False,
                    trust_env=False,
                    headers={"Accept": "application/json"},
                ) as client,
                client.stream(method, url, **values) as answer,
            ):
                body = bytearray()
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise _unusable(url, f"its answer has more than {MOST_BYTES} bytes")
        except TimeoutError as error:
            raise _down(url, f"no answer within {SECONDS:g} seconds") from error
        except httpx2.InvalidURL as error:
            raise InvalidInput(f"{url!r:.200} is no usable address: {error}") from error
        except httpx2.HTTPError as error:
            raise _transport_error(url, error) from error
        if answer.status_code == 429:
            raise RateLimited(f"{_host(url)} wants fewer requests", next_step="Wait a minute, and log in again.")
        if answer.status_code >= 500:
            raise _down(url, f"it answered {answer.status_code}")
        return answer.status_code, _decoded(url, bytes(body))


def printable(text: object) -> str:
    """Return what somebody else has written, fit to be shown."""
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN]) if isinstance(text, str) else ""


def _decoded(url: str, body: bytes) -> Json:
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unusable(url, "its answer is no JSON") from error
    if not isinstance(content, dict):
        raise _unusable(url, "its answer is no JSON object")
    return content


def _transport_error(url: str, error: Exception) -> SnapkeepError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return AuthenticationFailed(
                f"The certificate of {_host(url)} is not trusted: {cause.verify_message}",
                next_step="Let an administrator give its authority: `snapkeep provider change NAME --authority FILE`.",
            )
        cause = cause.__cause__ or cause.__context__
    return _down(url, str(error) or type(error).__name__)


def _down(url: str, reason: str) -> Unavailable:
    return Unavailable(
        f"The identity provider at {_host(url)} cannot be reached: {printable(reason)}",
        next_step="Try again in a moment; if it stays away, an administrator gets in by a local user.",
    )


def _unusable(url: str, reason: str) -> AuthenticationFailed:
    return AuthenticationFailed(
        f"What answers at {_host(url)}{urlsplit(url).path} is no identity provider: {reason}",
        next_step="Let an administrator compare the provider's issuer with `snapkeep provider show`.",
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc
