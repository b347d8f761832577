"""`snapkeep serve`: API, engine and upkeep in one process; on SQLite, or on PostgreSQL beside workers."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from types import FrameType

import structlog
import uvicorn

from snapkeep.backup.heap import share_arenas
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.key_sources import KeyFile, KeySource
from snapkeep.identity.oidc.service import SingleSignOn
from snapkeep.identity.service import Identities
from snapkeep.model.errors import Conflict, InvalidInput
from snapkeep.notifications.sender import Sender
from snapkeep.operations.clock import Clock
from snapkeep.operations.open import Opened, open_operations
from snapkeep.policy.open import running_policies
from snapkeep.reports.sending import ReportSender
from snapkeep.server import logs
from snapkeep.server.app import create_app
from snapkeep.server.context import Context
from snapkeep.server.datadir import DataDir, claim
from snapkeep.server.events import Feed
from snapkeep.server.headers import SecurityHeaders
from snapkeep.server.health import Health
from snapkeep.server.keys import watched_keys
from snapkeep.server.metrics import CatalogMetrics
from snapkeep.server.opening import leave_in_time, patiently
from snapkeep.server.protocol import Protocol
from snapkeep.server.rates import Rates
from snapkeep.server.requests import MOST_HEAD, Requests
from snapkeep.server.settings import ServerSettings
from snapkeep.server.tls import ServerTls

SHUTDOWN_SECONDS = 3
"""How long answers that are being sent may take at the end."""

log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See that asking for the end leads to it, whatever hangs."""
        leave_in_time()
        super().handle_exit(sig, frame)


def serve(settings: ServerSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises Busy, Conflict, InvalidInput or Unavailable when it cannot start or go on."""
    os.umask(0o077)  # catalog and engine are for the owner alone, also in a directory that others may enter
    logs.configure(settings.log_format, settings.log_level)
    settings.protect_process()
    share_arenas()
    with claim(settings.data_dir) as directory, _listen(settings) as listener:
        tls = ServerTls(settings) if settings.tls else None
        url = _url(listener, "https" if tls else "http")
        failed: list[Exception] = []

        @asynccontextmanager
        async def opened() -> AsyncIterator[Context]:
            try:
                async with _opened(settings, directory, url, server, failed, tls) as context:
                    yield context
            except Exception as error:
                failed.append(error)  # uvicorn would only log it
                raise

        config = uvicorn.Config(
            SecurityHeaders(Requests(create_app(directory.load_token() if settings.local_token else None, opened))),
            http=Protocol,
            ws="none",
            h11_max_incomplete_event_size=MOST_HEAD,
            lifespan="on",
            ssl_context_factory=(lambda *_: tls.context) if tls else None,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        server = _Server(config)
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application did not start
            server.run(sockets=[listener])
        if failed:
            raise failed[0]


@asynccontextmanager
async def _opened(
    settings: ServerSettings,
    directory: DataDir,
    url: str,
    server: uvicorn.Server,
    failed: list[Exception],
    tls: ServerTls | None,
) -> AsyncIterator[Context]:
    """Open everything. When this process must end because of another one of its name, the reason goes to `failed`."""
    clock = Clock()
    sqlite = settings.catalog_url().startswith("sqlite")
    queues = settings.queues if settings.work else ()
    keys = settings.keys()
    new = keys if isinstance(keys, KeyFile) and not keys.path.exists() and keys.make() else None

    def must_end(error: Exception) -> None:
        failed.append(error)
        leave_in_time(1)
        server.should_exit = True

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Catalog, Opened]]:
        operations = settings.operations(settings.name, queues, alone=sqlite)
        async with (
            _catalog(settings, keys, new) as catalog,
            open_operations(catalog, operations, clock=clock, on_failure=must_end) as opened,
            watched_keys(catalog, settings.name, seals=True),
        ):
            yield catalog, opened

    def tell_address() -> None:
        directory.write_address(url, **(tls.trust if tls else {}))

    async with (
        patiently(opened, settings, clock) as (catalog, parts),
        _sending(catalog, parts, clock) as sender,
        running_policies(catalog, parts, clock) as watcher,
        ReportSender(catalog, clock).running(),
        tls.watched(tell_address) if tls else nullcontext(),
    ):
        await catalog.protections.end_lost_deletions()
        key = await catalog.derived_key("idempotency")
        tell_address()
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        log.info("ready", url=url, data_dir=str(directory.root), worker=settings.name, queues=",".join(queues))
        identities = Identities(catalog, clock)
        yield Context(
            catalog,
            parts.operations,
            parts.connections,
            clock,
            parts.host,
            Health(
                catalog,
                engine_runs=parts.engine.runs,
                worker=lambda: parts.membership.identity,
                takeover_seconds=settings.takeover_seconds,
            ),
            CatalogMetrics(catalog, watcher),
            identities,
            SingleSignOn(catalog, identities, clock),
            Rates(settings.requests_per_second, settings.requests_burst, clock.monotonic),
            Feed(catalog, parts.operations, clock, lambda: server.should_exit),
            sender,
            key,
        )


@asynccontextmanager
async def _sending(catalog: Catalog, parts: Opened, clock: Clock) -> AsyncIterator[Sender]:
    """Send notifications as long as this runs."""
    sender = Sender(catalog, parts.host.references, clock)
    async with sender.running():
        yield sender


@asynccontextmanager
async def _catalog(settings: ServerSettings, keys: KeySource, new: KeyFile | None) -> AsyncIterator[Catalog]:
    """Open the catalog. A new key, made for a catalog that has another one, is not left behind."""
    async with AsyncExitStack() as stack:
        try:
            catalog = await stack.enter_async_context(open_catalog(settings.catalog_url(), keys))
        except InvalidInput:
            if new is not None:
                new.path.unlink()
            raise
        yield catalog


def _url(listener: socket.socket, scheme: str) -> str:
    """Return where this machine itself reaches the server."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        host = "127.0.0.1" if address.version == 4 else "::1"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _listen(settings: ServerSettings) -> socket.socket:
    """Open the port before anything else is touched. Raises InvalidInput or Conflict."""
    try:
        address = ipaddress.ip_address(settings.host)
    except ValueError:
        address = None
    if settings.host != "localhost" and address is None:
        raise InvalidInput(
            f"{settings.host!r} is no address to listen on", next_step="Give an IPv4 or IPv6 address of this machine."
        )
    if not settings.tls and address is not None and not address.is_loopback:
        raise InvalidInput(
            f"Without TLS the server listens on loopback only, not on {settings.host!r}",
            next_step="Leave TLS on, or use 127.0.0.1 or ::1 and a reverse proxy with TLS.",
        )
    family = socket.AF_INET6 if address and address.version == 6 else socket.AF_INET
    # Named as TCP: only then does asyncio switch Nagle's algorithm off on its connections.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"Cannot listen on {settings.host}:{settings.port}: {error.strerror}",
            next_step="Stop what uses this port, or choose another one with --port.",
        ) from error
    listener.listen(128)
    return listener
