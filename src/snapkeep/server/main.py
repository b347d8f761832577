"""`snapkeep serve`: API, engine and upkeep in one process; on SQLite, or on PostgreSQL beside workers."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import FrameType

import structlog
import uvicorn

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.secrets import load_key
from snapkeep.model.errors import Conflict, InvalidInput
from snapkeep.operations.clock import Clock
from snapkeep.operations.open import Opened, open_operations
from snapkeep.server import logs
from snapkeep.server.app import create_app
from snapkeep.server.context import Context
from snapkeep.server.datadir import DataDir, claim
from snapkeep.server.health import Health
from snapkeep.server.metrics import CatalogMetrics
from snapkeep.server.opening import leave_in_time, patiently
from snapkeep.server.settings import ServerSettings

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
    with claim(settings.data_dir) as directory, _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        failed: list[Exception] = []

        @asynccontextmanager
        async def opened() -> AsyncIterator[Context]:
            try:
                async with _opened(settings, directory, url, server, failed) as context:
                    yield context
            except Exception as error:
                failed.append(error)  # uvicorn would only log it
                raise

        config = uvicorn.Config(
            create_app(directory.load_token(), opened),
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        server = _Server(config)
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application did not start
            server.run(sockets=[listener])
        if failed:
            raise failed[0]


@asynccontextmanager
async def _opened(
    settings: ServerSettings, directory: DataDir, url: str, server: uvicorn.Server, failed: list[Exception]
) -> AsyncIterator[Context]:
    """Open everything. When this process must end because of another one of its name, the reason goes to `failed`."""
    clock = Clock()
    sqlite = settings.catalog_url().startswith("sqlite")
    queues = settings.queues if settings.work else ()
    is_new = not settings.key_file.exists()
    key = load_key(settings.key_file)

    def must_end(error: Exception) -> None:
        failed.append(error)
        leave_in_time(1)
        server.should_exit = True

    @asynccontextmanager
    async def opened() -> AsyncIterator[tuple[Catalog, Opened]]:
        operations = settings.operations(settings.name, queues, alone=sqlite)
        async with (
            _catalog(settings, key, is_new) as catalog,
            open_operations(catalog, operations, clock=clock, on_failure=must_end) as opened,
        ):
            yield catalog, opened

    async with patiently(opened, settings, clock) as (catalog, parts):
        directory.write_address(url)
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        log.info("ready", url=url, data_dir=str(directory.root), worker=settings.name, queues=",".join(queues))
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
            CatalogMetrics(catalog),
        )


@asynccontextmanager
async def _catalog(settings: ServerSettings, key: bytes, is_new: bool) -> AsyncIterator[Catalog]:
    """Open the catalog. A new key, made for a catalog that has another one, is not left behind."""
    async with AsyncExitStack() as stack:
        try:
            catalog = await stack.enter_async_context(open_catalog(settings.catalog_url(), key))
        except InvalidInput:
            if is_new:
                settings.key_file.unlink()
            raise
        yield catalog


def _listen(settings: ServerSettings) -> socket.socket:
    """Open the port before anything else is touched. Raises InvalidInput or Conflict."""
    try:
        address = ipaddress.ip_address(settings.host)
    except ValueError:
        address = None
    if settings.host != "localhost" and not (address and address.is_loopback):
        raise InvalidInput(
            f"The server listens on loopback only, not on {settings.host!r}: it has no TLS of its own",
            next_step="Use 127.0.0.1 or ::1, and a reverse proxy with TLS where others must reach it.",
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
