"""Why a database cannot be used: whether trying again later helps, and in words what to do."""

from __future__ import annotations

import asyncio
import os
import re
import select
import sqlite3
import time
from typing import Any

import psycopg
from psycopg import pq
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from snapkeep.catalog.database_url import CONNECT_SECONDS, address_of
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, PermissionDenied, SnapkeepError, Unavailable

DATABASE_OUTAGE: tuple[type[Exception], ...] = (OperationalError, InterfaceError, InternalError, PoolTimeout)
"""What is raised when the database is away, busy or full. Other things are raised so, too: ask `is_outage`."""

_SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
_POSTGRESQL_OUTAGES = (
    "08",  # connection lost
    "25006",  # read only: a standby, during a switch-over
    "25P03",  # transaction idle or open for too long
    "25P04",
    "40001",  # serialization failure, deadlock
    "40P01",
    "53",  # disk full, out of memory, too many connections
    "55006",  # in use, locked
    "55P03",
    "57014",  # query cancelled, by an administrator or a time limit
    "57P01",  # server shutting down, crashed, starting
    "57P02",
    "57P03",
    "57P05",
    "58000",  # I/O error
    "58030",
)


def is_outage(error: BaseException) -> bool:
    """Say whether the database is away, busy or full, so that trying again later helps."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or (error.orig is not None and is_outage(error.orig))
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", 0) & 0xFF in _SQLITE_OUTAGES
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # not said by the server: it was not reached, or the connection broke
            return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
        return error.sqlstate.startswith(_POSTGRESQL_OUTAGES)
    return False


async def explained(error: SQLAlchemyError, url: URL) -> SnapkeepError:
    """Return why a database could not be used, as an error for people; the password is never in it."""
    cause = error.orig if isinstance(error, DBAPIError) else None
    reason = " ".join(str(cause or error).split())
    if isinstance(cause, sqlite3.Error):
        return explained_sqlite(cause, address_of(url))
    state = getattr(cause, "sqlstate", None)
    tls = password = False
    if isinstance(cause, psycopg.OperationalError) and state is None:
        state, tls, password = await asyncio.to_thread(_login, url)
    address = address_of(url)
    given: dict[str, Any] = {"vendor_code": state, "vendor_message": reason}
    if state == "3D000":
        return Unavailable(
            f"There is no database {url.database!r} at {address}",
            next_step="Create it (CREATE DATABASE, encoding UTF8), or correct the database URL.",
            **given,
        )
    if alert := re.search(r"\balert (.+)$", reason):  # the word of OpenSSL, which speaks no other language
        return AuthenticationFailed(
            f"The database {address} refused the client certificate: {alert[1]}",
            next_step="Check sslcert and sslkey in the database URL: the certificate must be valid now, and of an "
            "authority that the server trusts (its ssl_ca_file).",
            **given,
        )
    if "sslcert" in url.query and not password and (state or "").startswith("28"):
        return AuthenticationFailed(
            f"The database {address} refused the user {url.username!r} with this client certificate",
            next_step="The files sslcert and sslkey of the database URL must be there, and the common name of the "
            "certificate must be that user, or be mapped to it (pg_hba.conf, pg_ident.conf).",
            **given,
        )
    if password or (state or "").startswith("28"):
        return AuthenticationFailed(
            f"The database {address} refused user or password",
            next_step="Check user and password, or sslcert and sslkey, in the database URL, and pg_hba.conf of the "
            "server.",
            **given,
        )
    if tls:
        return AuthenticationFailed(
            f"No TLS connection to the database {address} came about",
            next_step="Check sslmode, sslrootcert and sslkey in the database URL, and the certificate of the server.",
            **given,
        )
    if state == "42501":
        return PermissionDenied(
            f"The user of the database {address} may not do what Snapkeep needs",
            next_step="Make this user the owner of the database, or grant it CREATE on its schema.",
            **given,
        )
    if is_outage(error):
        return Unavailable(
            f"The database {address} cannot be used now",
            next_step="Check host, port and network, and that PostgreSQL runs and has room; then try again.",
            **given,
        )
    return InvalidInput(f"The database {address} cannot be used", next_step="Check the database and its URL.", **given)


def explained_sqlite(cause: sqlite3.Error, address: str) -> SnapkeepError:
    """Return why a SQLite file could not be used, as an error for people."""
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
        return InvalidInput(
            f"The catalog {address} cannot be used: {cause}",
            next_step="Restore it from its backup with `snapkeep database restore`, or choose another --data-dir.",
        )
    if code != sqlite3.SQLITE_CANTOPEN and is_outage(cause):
        return Unavailable(
            f"The catalog {address} cannot be used now: {cause}",
            next_step="Check that there is room on the disk, and that nothing else holds the file; then try again.",
        )
    return InvalidInput(
        f"The catalog {address} cannot be used: {cause}",
        next_step="Check that it is a file which this user may read and write, or choose another --data-dir.",
    )


def _login(url: URL) -> tuple[str | None, bool, bool]:
    """Log in once more to learn why it fails: (SQLSTATE, TLS did not come about, a password was needed).

    libpq says why a login failed in words of the server's language only; the SQLSTATE is seen in its trace alone. The
    trace stays in memory, and libpq leaves out of it what is secret.
    """
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    parts = {"host": url.host, "port": url.port, "user": url.username, "password": url.password, "dbname": url.database}
    given: dict[str, Any] = {name: value for name, value in parts.items() if value is not None}
    trace = os.memfd_create("libpq")
    try:
        connection = pq.PGconn.connect_start(psycopg.conninfo.make_conninfo(**given | query).encode())
        if connection.status == pq.ConnStatus.BAD:
            return None, False, False
        connection.trace(trace)
        connection.set_trace_flags(pq.Trace.SUPPRESS_TIMESTAMPS | pq.Trace.REGRESS_MODE)
        end = time.monotonic() + CONNECT_SECONDS
        while (polled := connection.connect_poll()) in {pq.PollingStatus.READING, pq.PollingStatus.WRITING}:
            reading = polled == pq.PollingStatus.READING
            sockets = [connection.socket]
            left = max(0.0, end - time.monotonic())
            if not any(select.select(sockets if reading else [], [] if reading else sockets, [], left)):
                break
        needs_password = connection.needs_password
        connection.untrace()  # written out; the stream of libpq is never used again
        connection.finish()
        lines = os.pread(trace, 1 << 20, 0).decode(errors="replace").split("\n")
    except (psycopg.Error, OSError):
        return None, False, False
    finally:
        os.close(trace)
    refused = next((line for line in lines if "\tErrorResponse\t" in line), "")
    state = refused.partition(' C "')[2][:5] or None
    seen = {line.split("\t")[2] for line in lines if line.count("\t") > 2}
    return state, "SSLResponse" in seen and "StartupMessage" not in seen, needs_password
