"""The HTTP session that plug-ins are given: trust, deadlines, short retries, typed transport errors.

What a status means is the plug-in's business, except where HTTP itself says "try again" (RFC 9110, RFC 6585):
408, 429, 502, 503 and 504 are repeated with back-off, as are broken connections, for `retry_seconds` in all. So a
request that changes something must be safe to repeat: plug-ins send an idempotency id or look before they act.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpcore2
import httpx2
import msgspec
import stamina

from snapkeep import addresses
from snapkeep.model.errors import (
    AuthenticationFailed,
    InvalidInput,
    RateLimited,
    SnapkeepError,
    Unavailable,
    VendorError,
)
from snapkeep.plugin.settings import HttpsSettings
from snapkeep.plugin.tls import trust

MAX_CONNECTIONS = 16
"""A client's pool slows down badly with many connections; a system does not want more of one client either."""

TRY_AGAIN = frozenset({408, 429, 502, 503, 504})
_MAX_BODY = 64 * 1024 * 1024
_SHOWN_BODY = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """True for 2xx."""
        return 200 <= self.status < 300

    @property
    def date(self) -> datetime | None:
        """The server's clock, from the `Date` header."""
        try:
            return email.utils.parsedate_to_datetime(self.headers["date"]).astimezone(UTC)
        except (KeyError, ValueError, OverflowError):
            return None

    def json(self) -> Any:
        """Return the decoded body. Raises VendorError when it is not JSON.

        Bytes that are not UTF-8, and escapes of lone surrogates, become lone surrogates (PEP 383): file names need
        not be text. The quick decoder refuses both, so the standard library's has the second word.
        """
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        try:
            return json.loads(self.body.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            raise VendorError(
                f"The system answered {self.status} with something that is not JSON: {self.excerpt!r} ({error})",
                next_step="Check host and port: another service, or a proxy, may be answering there.",
            ) from error

    @property
    def excerpt(self) -> str:
        """The beginning of the body, for messages."""
        return self.body[:_SHOWN_BODY].decode("utf-8", "replace")


class HttpSession:
    """One system's HTTP connections. Make it with `open_session`."""

    def __init__(self, client: httpx2.AsyncClient, settings: HttpsSettings) -> None:
        self._client = client
        self._settings = settings
        self._where = settings.base_url

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Answer:
        """Send, repeat while HTTP says so, and return the answer whatever its status otherwise.

        Raises Unavailable, RateLimited (both when repeating did not help), AuthenticationFailed (TLS),
        InvalidInput (an address that is none).
        """
        all_headers = {"accept": "application/json", **(headers or {})}
        content = None
        if json is not None:
            content = msgspec.json.encode(json)
            all_headers["content-type"] = "application/json"
        try:
            request = self._client.build_request(
                method, path, params=dict(params or {}), headers=all_headers, content=content
            )
        except httpx2.InvalidURL as error:
            raise InvalidInput(f"{self._where} is not a usable address: {error}") from error
        if self._settings.retry_seconds == 0:
            return await self._once(request)
        deadline = time.monotonic() + self._settings.retry_seconds
        async for attempt in stamina.retry_context(
            on=lambda error: _wait_before_retry(error, deadline),
            attempts=None,
            timeout=self._settings.retry_seconds,
            wait_initial=0.1,
            wait_max=10.0,
            wait_jitter=0.3,
        ):
            with attempt:
                return await self._once(request)
        raise AssertionError("unreachable")  # pragma: no cover - the loop returns or raises

    def forget_cookies(self) -> None:
        """Drop the session that the system keeps for us, so that the next request logs in again."""
        self._client.cookies.clear()

    async def _once(self, request: httpx2.Request) -> Answer:
        what = f"{request.method} {request.url.path}"
        try:
            async with asyncio.timeout(self._settings.request_seconds):
                answer = await self._send(request)
        except TimeoutError as error:
            limit = self._settings.request_seconds
            raise Unavailable(f"{self._where} did not answer {what} within {limit:g} s") from error
        except httpx2.HTTPError as error:
            raise self._transport_error(error, what) from error
        if answer.status in TRY_AGAIN:
            raise _try_again(answer, f"{self._where} answered {what} with {answer.status}")
        return answer

    async def _send(self, request: httpx2.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_BODY:
                    raise VendorError(f"{self._where} answered {request.url.path} with more than {_MAX_BODY} bytes")
            return Answer(response.status_code, dict(response.headers), bytes(body))
        finally:
            await response.aclose()

    def _transport_error(self, error: httpx2.HTTPError, what: str) -> SnapkeepError:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return AuthenticationFailed(
                    f"The certificate of {self._where} is not trusted: {cause.verify_message}",
                    next_step="Give the system's CA as ca_file, or pin its certificate with fingerprint.",
                )
            cause = cause.__cause__ or cause.__context__
        if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):  # OpenSSL gives no number here
            return AuthenticationFailed(
                f"{self._where} does not speak TLS on this port", next_step="Check the port of the system."
            )
        if isinstance(error, httpx2.LocalProtocolError):  # its text would show the header, and so the secret in it
            return InvalidInput("The request cannot be formed: a setting has characters that HTTP does not allow")
        reason = str(error) or type(error).__name__
        return Unavailable(f"{self._where} cannot be reached ({what}): {reason}")


def _try_again(answer: Answer, message: str) -> Unavailable:
    kind = RateLimited if answer.status == 429 else Unavailable
    details: dict[str, Any] = {}
    if (seconds := _retry_after(answer)) is not None:
        details["retry_after"] = seconds
    return kind(message, vendor_code=str(answer.status), vendor_message=answer.excerpt, **details)


def _retry_after(answer: Answer) -> float | None:
    """Return the seconds of a Retry-After header in either form (RFC 9110, section 10.2.3)."""
    value = answer.headers.get("retry-after", "")
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _wait_before_retry(error: Exception, deadline: float) -> bool | float:
    """Say whether to repeat: False, True (own back-off), or the seconds that the server asked for."""
    if not isinstance(error, Unavailable):
        return False
    wanted = error.details.get("retry_after")
    if wanted is None:
        return True
    return wanted if time.monotonic() + wanted <= deadline else False


@asynccontextmanager
async def open_session(settings: HttpsSettings) -> AsyncIterator[HttpSession]:
    """Open the connections to a system; nothing is sent yet, except to read a pinned certificate."""
    verify: ssl.SSLContext | bool = True if settings.plain_http else await trust(settings)
    async with httpx2.AsyncClient(
        base_url=settings.base_url,
        transport=guarded_transport(verify),
        timeout=httpx2.Timeout(settings.request_seconds, connect=min(10.0, settings.request_seconds)),
        follow_redirects=False,
        trust_env=False,
    ) as client:
        yield HttpSession(client, settings)


def guarded_transport(verify: ssl.SSLContext | bool) -> httpx2.AsyncHTTPTransport:
    """Return a transport that connects to allowed addresses only (`snapkeep.addresses`)."""
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)
    transport = httpx2.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)
    pool = transport._pool  # the only way to see an address before something is sent to it
    pool._network_backend = _Guarded(pool._network_backend)
    return transport


class _Guarded(httpcore2.AsyncNetworkBackend):
    """Opens connections to allowed addresses only."""

    def __init__(self, backend: httpcore2.AsyncNetworkBackend) -> None:
        self._backend = backend

    async def connect_tcp(self, host: str, port: int, *arguments: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        """Open a connection. Raises InvalidInput before anything is sent to an address that is refused."""
        await addresses.require_host(host, port)
        stream = await self._backend.connect_tcp(host, port, *arguments, **options)
        try:
            addresses.require_allowed(host, str(stream.get_extra_info("server_addr")[0]))  # it was looked up again
        except BaseException:
            await stream.aclose()
            raise
        return _Connection(stream)

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await self._backend.sleep(seconds)


class _Connection(httpcore2.AsyncNetworkStream):
    """A connection that is closed when its TLS handshake comes to no end, whatever ended it.

    The library closes it after errors alone, and leaves it open when whoever waits for the handshake is cancelled.
    """

    def __init__(self, stream: httpcore2.AsyncNetworkStream) -> None:
        self._stream = stream

    async def start_tls(self, *arguments: Any, **options: Any) -> httpcore2.AsyncNetworkStream:
        """Return the connection under TLS."""
        try:
            return await self._stream.start_tls(*arguments, **options)
        except BaseException:
            await self._stream.aclose()
            raise

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - theirs
        """Read."""
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - theirs
        """Write."""
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close it."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """Return what is known of it."""
        return self._stream.get_extra_info(info)
