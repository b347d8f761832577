"""Webhooks: one POST, signed as the Standard Webhooks specification 1.0 says (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import email.utils
import hashlib
import hmac
import json
import re
import secrets
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime

import httpx2

from snapkeep import __version__
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.model.errors import InvalidInput
from snapkeep.notifications.message import SEND_SECONDS, Outcome, Target, payload_of
from snapkeep.notifications.trust import explained, trust
from snapkeep.plugin.http import guarded_transport

PREFIX = "whsec_"
_KEY_BYTES = range(24, 65)
_MOST_ANSWER = 4096
"""Bytes of an answer that are read."""
_SHOWN = 200
_LONGEST_WAIT = 24 * 3600.0


def new_secret() -> str:
    """Return a new secret with which a channel signs."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def key_of(secret: str) -> bytes:
    """Return the key in a secret. Raises InvalidInput."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _KEY_BYTES:
        raise InvalidInput(
            "The secret is none of a webhook",
            next_step=f"Give {PREFIX} and 24 to 64 random bytes in base64, or none: then one is made.",
        )
    return key


def require_url(url: str) -> None:
    """Raise InvalidInput for an address to which nothing is sent; the error does not repeat it."""
    try:
        parsed = httpx2.URL(url)
        port_is_right = parsed.port is None or 0 < parsed.port < 65536
    except (httpx2.InvalidURL, ValueError):
        parsed, port_is_right = httpx2.URL(""), False
    is_private = parsed.scheme == "http" and parsed.host in {"127.0.0.1", "::1", "localhost"}
    is_host = re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", parsed.raw_host.decode("ascii")) is not None
    if not port_is_right or not is_host or not (parsed.scheme == "https" or is_private):
        raise InvalidInput(
            "The address of a webhook begins with https://, or with http:// when it is on this machine",
            next_step="Give the whole address, such as https://hooks.example.com/snapkeep.",
        )
    if parsed.userinfo:
        raise InvalidInput(
            "The address of a webhook has no user and no password in it",
            next_step="Give an address that lets in whoever knows it; the signature says who sends.",
        )


def shown(url: str) -> str:
    """Return as much of an address as is no secret: whoever knows all of it may send there, too."""
    parsed = httpx2.URL(url)
    origin = f"{parsed.scheme}://{parsed.netloc.decode('ascii')}"
    return origin if parsed.raw_path in {b"", b"/"} else f"{origin}/…"


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


async def send(target: Target, delivery: DeliveryRecord, now: datetime) -> Outcome:
    """Send once. Raises InvalidInput for settings that cannot be used."""
    body = json.dumps(payload_of(delivery), separators=(",", ":")).encode()
    timestamp = int(now.timestamp())
    headers = {
        "Content-Type": "application/json",
        "User-Agent": f"snapkeep/{__version__}",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key_of(target.text("secret")), delivery.id, timestamp, body),
    }
    url = target.text("url")
    require_url(url)
    try:
        async with asyncio.timeout(SEND_SECONDS):
            return await _post(url, trust(target) if url.startswith("https:") else True, headers, body)
    except TimeoutError:
        return Outcome.retry(f"no answer within {SEND_SECONDS:g} s")
    except httpx2.HTTPError as error:
        return Outcome.retry(explained(error))


async def _post(url: str, verify: ssl.SSLContext | bool, headers: Mapping[str, str], body: bytes) -> Outcome:
    async with (
        httpx2.AsyncClient(
            transport=guarded_transport(verify), timeout=SEND_SECONDS, follow_redirects=False, trust_env=False
        ) as client,
        client.stream("POST", url, headers=dict(headers), content=body) as answer,
    ):
        said = b""
        async for chunk in answer.aiter_raw():
            said += chunk
            if len(said) >= _MOST_ANSWER:
                break
        return _outcome(answer, said)


def _outcome(answer: httpx2.Response, said: bytes) -> Outcome:
    status = answer.status_code
    shown = f"{status} {said[:_SHOWN].decode('utf-8', 'replace')}".rstrip()
    if 200 <= status < 300:
        return Outcome.sent(shown)
    if status == 410:
        return Outcome.never(shown, gone=True)
    if 300 <= status < 400:
        return Outcome.retry(f"{status}: redirects are not followed; give the address to which it leads")
    return Outcome.retry(shown, _retry_after(answer.headers.get("retry-after", "")))


def _retry_after(value: str) -> float | None:
    """Return the seconds of a Retry-After header in either form (RFC 9110, section 10.2.3)."""
    try:
        if value.isascii() and value.isdigit():
            seconds = float(value)
        else:
            seconds = (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(seconds, 0.0), _LONGEST_WAIT)
