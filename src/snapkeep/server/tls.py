"""TLS of the server: on unless it is switched off, by certificates of its own or the operator's."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import structlog

from snapkeep.model.errors import InvalidInput, SnapkeepError
from snapkeep.server.certificates import Pair, given, own
from snapkeep.server.settings import ServerSettings

LOOK_SECONDS = 60.0
"""How often it is looked whether the certificate was replaced, or is to be renewed."""
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others."""

Stamp = tuple[int, int, int]
log = structlog.get_logger(__name__)


class ServerTls:
    """The certificate of the running server, and the context of its connections."""

    def __init__(self, settings: ServerSettings) -> None:
        """Take up, or make, the certificate. Raises InvalidInput for one of the operator's that cannot be used."""
        self._settings = settings
        self._stamps: tuple[Stamp, ...] = ()
        self.pair: Pair
        self.context = _context()
        if settings.tls_client_ca_file is not None:
            _demand(self.context, settings.tls_client_ca_file)
        self.look()

    @property
    def trust(self) -> dict[str, str]:
        """How the command line of this machine knows the server: by its own authority, or by its very certificate."""
        if self.pair.authority is not None:
            return {"ca_file": str(self.pair.authority.absolute())}
        return {"certificate": self.pair.pem}

    def look(self) -> bool:
        """Use the certificate that is there now; say whether it is another one. Raises InvalidInput.

        Connections that are open stay as they are.
        """
        pair, stamps = self._pair()
        if stamps == self._stamps:
            return False
        _load(_context(), pair)  # a context that gets a wrong key is of no use any more: not the one in use
        _load(self.context, pair)
        self.pair, self._stamps = pair, stamps
        return True

    @asynccontextmanager
    async def watched(self, changed: Callable[[], None]) -> AsyncIterator[None]:
        """Use a new certificate as soon as it is there, at once after SIGHUP; then call `changed`."""
        asked = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, asked.set)
        task = asyncio.create_task(self._watch(asked, changed))
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, asked: asyncio.Event, changed: Callable[[], None]) -> None:
        told = ""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asked.wait(), LOOK_SECONDS)
            asked.clear()
            try:
                new, told = self.look(), ""
            except (SnapkeepError, OSError) as error:
                if str(error) != told:
                    log.warning("the new TLS certificate cannot be used; the old one stays", reason=str(error))
                new, told = False, str(error)
            if new:
                log.info("TLS certificate replaced", names=",".join(self.pair.names), ends=_day(self.pair.not_after))
                changed()

    def _pair(self) -> tuple[Pair, tuple[Stamp, ...]]:
        settings = self._settings
        if settings.tls_certificate_file is None:
            pair = own(settings.data_dir / "tls", own_names(settings))
            return pair, (_stamp(pair.certificate),)
        key = settings.tls_key_file or settings.tls_certificate_file
        stamps = _stamp(settings.tls_certificate_file), _stamp(key)  # before it is read: what comes later is seen
        return given(settings.tls_certificate_file, key, settings.tls_names), stamps


def own_names(settings: ServerSettings) -> list[str]:
    """Return the names and addresses for which a certificate of our own is."""
    names = ["localhost", "127.0.0.1", "::1", *settings.tls_names]
    host = socket.gethostname().lower()
    if re.fullmatch(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})*", host):
        names.append(host)
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(settings.host)
        if not address.is_unspecified:
            names.append(str(address))
    return names


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def _demand(context: ssl.SSLContext, authorities: Path) -> None:
    """Let nobody in who shows no certificate of these authorities. Raises InvalidInput."""
    try:
        context.load_verify_locations(cafile=authorities)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The authorities of clients cannot be read from {authorities}: {error}",
            next_step="Give a PEM file with the certificates of the authorities that sign those of clients.",
        ) from error
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0  # a session that is taken up again would not be judged again
    context.options |= ssl.OP_NO_TICKET


def _load(context: ssl.SSLContext, pair: Pair) -> None:
    try:
        context.load_cert_chain(pair.certificate, pair.key)
    except ssl.SSLError as error:
        raise InvalidInput(f"OpenSSL does not take the certificate {pair.certificate}: {error}") from error


def _stamp(path: Path) -> Stamp:
    try:
        found = path.stat()
    except OSError as error:
        raise InvalidInput(f"The TLS certificate or its key cannot be read: {error}") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def _day(time: datetime) -> str:
    return f"{time:%Y-%m-%d}"
