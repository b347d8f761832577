"""`snapkeep serve`: API, engine and maintenance in one process, on SQLite."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database import sqlite_url
from snapkeep.catalog.secrets import load_key
from snapkeep.model.errors import Conflict, InvalidInput
from snapkeep.operations.clock import Clock
from snapkeep.operations.run import Limits
from snapkeep.operations.service import Operations, open_operations
from snapkeep.server import logs
from snapkeep.server.app import create_app
from snapkeep.server.context import Context
from snapkeep.server.datadir import DataDir, claim
from snapkeep.server.settings import ServerSettings

EXECUTOR = "serve"
"""The engine's name for this process: the next `serve` on the same data directory goes on with its work."""

MAINTENANCE_SECONDS = 1.0
SHUTDOWN_SECONDS = 5

log = structlog.get_logger(__name__)


def serve(settings: ServerSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises Busy, Conflict or InvalidInput when it cannot start."""
    os.umask(0o077)  # catalog and engine are for the owner alone, also in a directory that others may enter
    logs.configure(settings.log_format, settings.log_level)
    with claim(settings.data_dir) as directory, _listen(settings) as listener:
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        failed: list[Exception] = []
        app = create_app(directory.load_token(), lambda: _open(settings, directory, url, failed))
        config = uvicorn.Config(
            app,
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        with contextlib.suppress(SystemExit):  # uvicorn's way to say that the application did not start
            uvicorn.Server(config).run(sockets=[listener])
        if failed:
            raise failed[0]


@asynccontextmanager
async def _open(
    settings: ServerSettings, directory: DataDir, url: str, failed: list[Exception]
) -> AsyncIterator[Context]:
    """Open everything; why it could not be opened goes to `failed`, as uvicorn would only log it."""
    try:
        async with _opened(settings, directory, url) as context:
            yield context
    except SQLAlchemyError as error:
        failed.append(
            InvalidInput(
                f"The catalog {directory.catalog} cannot be used: {error.__cause__ or error}",
                next_step="Restore it from its backup, or choose another --data-dir.",
            )
        )
        raise
    except Exception as error:
        failed.append(error)
        raise


@asynccontextmanager
async def _opened(settings: ServerSettings, directory: DataDir, url: str) -> AsyncIterator[Context]:
    clock = Clock()
    limits = Limits(deadline=settings.operation_seconds, stall=settings.stall_seconds, outage=settings.outage_seconds)
    async with (
        open_catalog(sqlite_url(directory.catalog), load_key(directory.key)) as catalog,
        open_operations(catalog, directory.engine, executor_id=EXECUTOR, clock=clock, limits=limits) as (
            operations,
            connections,
        ),
    ):
        upkeep = asyncio.create_task(_maintain(operations))
        directory.write_address(url)
        gc.freeze()  # what is here now stays: the collector need not look at it again and again
        log.info("ready", url=url, data_dir=str(directory.root))
        try:
            yield Context(catalog, operations, connections, clock)
        finally:
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)


async def _maintain(operations: Operations) -> None:
    """Renew exports before they expire, for as long as the server runs."""
    while True:
        try:
            await operations.refresh_exports()
        except Exception:
            log.exception("maintenance failed; it is tried again")
        await asyncio.sleep(MAINTENANCE_SECONDS)


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
