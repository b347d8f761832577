"""Opening the database: one code path for SQLite and PostgreSQL, and clear words about the state that it is in."""

from __future__ import annotations

import asyncio
import os
import re
import select
import sqlite3
import time
from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any

import alembic.command
import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import pq
from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    Float,
    create_engine,
    event,
    inspect,
    literal,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.functions import FunctionElement

from snapkeep.catalog import in_loop
from snapkeep.catalog.tables import UtcDateTime
from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)

MIGRATIONS = Path(__file__).parent / "migrations"
SINCE_EVER = {"systems", "assets", "snapshots", "operations"}
"""Tables that every revision of the catalog has: by them it is known as ours."""

ADVISORY_LOCK = 0x736E61706B656570
"""The number under which PostgreSQL lets one process at a time migrate or fill a database."""

CONNECT_SECONDS = 5


# -- opening -----------------------------------------------------------------------------------------------------------
def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


async def open_database(url: str) -> AsyncEngine:
    """Return an engine on a database that has the newest schema; an empty one gets it.

    Raises Conflict when the schema is an older or a newer one, InvalidInput when it is no catalog, and what fits when
    it cannot be reached. Nothing is changed then.
    """
    engine = connect_database(url)
    try:
        schema = await read_schema(engine)
        if schema.state is State.EMPTY:
            schema = await migrate_database(engine, {State.EMPTY})
        _require_current(schema, engine.url)
        if engine.dialect.name == "sqlite":
            await _use_write_ahead_log(engine)
    except SQLAlchemyError as error:
        await engine.dispose()
        raise await explained(error, engine.url) from error
    except BaseException:
        await engine.dispose()
        raise
    return engine


def connect_database(url: str, *, autocommit: bool = False) -> AsyncEngine:
    """Return an engine, whatever is in the database; nothing is opened yet. Raises InvalidInput for a wrong URL.

    `autocommit`: each statement is a transaction of its own, without BEGIN, COMMIT and ROLLBACK on the way.
    """
    parsed = parse_url(url)
    options: dict[str, Any] = {"hide_parameters": True, "max_overflow": 0}  # a traceback shows no values of rows
    if autocommit:
        options |= {"skip_autocommit_rollback": True}
    if parsed.get_backend_name() == "sqlite":
        if autocommit:
            options |= {"async_creator": in_loop.opener(str(parsed.database))}
        engine = create_async_engine(parsed, pool_size=8, connect_args={"timeout": 30}, **options)
        event.listen(engine.sync_engine, "connect", partial(_prepare_sqlite, "NORMAL" if autocommit else "FULL"))
        return engine
    if autocommit:
        options |= {"isolation_level": "AUTOCOMMIT"}
    return create_async_engine(
        parsed,
        pool_size=5,
        pool_timeout=10,
        pool_pre_ping=True,  # after a restart of the server only the pool that has noticed it would be made anew
        connect_args=_postgresql_options(parsed),
        **options,
    )


def connect_in_thread(url: str) -> Engine:
    """Return an engine with one connection for a thread that writes whole transactions; nothing is opened yet.

    On SQLite such a transaction is four times cheaper than one that an event loop waits for at each step.
    """
    parsed = parse_url(url)
    options: dict[str, Any] = {"hide_parameters": True, "pool_size": 1, "max_overflow": 0, "pool_pre_ping": True}
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(
            parsed.set(drivername="sqlite"),
            poolclass=QueuePool,
            connect_args={"timeout": 30, "check_same_thread": False},
            **options,
        )
        event.listen(engine, "connect", partial(_prepare_sqlite, "FULL"))
        return engine
    return create_engine(parsed, connect_args=_postgresql_options(parsed), **options)


def parse_url(url: str) -> URL:
    """Return the parts of a URL. Raises InvalidInput, which never repeats the URL: there is a password in it."""
    next_step = "Write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %XX (@ is %40)."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput("The database URL cannot be read", next_step=next_step) from None
    if parsed.drivername not in {"sqlite+aiosqlite", "postgresql+psycopg"}:
        raise InvalidInput("The database URL is not one of PostgreSQL", next_step=next_step)
    if parsed.get_backend_name() == "postgresql":
        if "@" in f"{parsed.host}{parsed.database}":  # a password with an @ that was not escaped: part of it is here
            raise InvalidInput("The database URL has more than one @", next_step=next_step)
        if not parsed.database:
            raise InvalidInput("The database URL names no database", next_step=next_step)
    return parsed


def address_of(url: URL) -> str:
    """Say which database it is, without user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "local socket"
    return f"{host}:{url.port or 5432}/{url.database}"


def _postgresql_options(url: URL) -> dict[str, Any]:
    """Notice within some 30 seconds that the server is gone; what the URL itself says comes first."""
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
        "application_name": "snapkeep",
    }
    given = url.query.get("options", "")
    zone = {"options": f"{given if isinstance(given, str) else ' '.join(given)} -c timezone=UTC".strip()}
    return {name: value for name, value in options.items() if name not in url.query} | zone


def _prepare_sqlite(synchronous: str, connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    for pragma in (f"synchronous={synchronous}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _use_write_ahead_log(engine: AsyncEngine) -> None:
    """Readers and the writer do not wait for each other. The file keeps this, so it is set once, on a file of ours.

    SQLite does not wait for the lock that this needs, so another process that opens the file now is waited for here.
    """
    until = time.monotonic() + CONNECT_SECONDS
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        while (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar() != "wal":
            try:
                await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except OperationalError as error:
                if not is_outage(error) or time.monotonic() >= until:
                    raise
                await asyncio.sleep(0.05)


# -- the state of the schema -------------------------------------------------------------------------------------------
class State(StrEnum):
    """How the schema of a database relates to this program."""

    EMPTY = "empty"
    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"
    FOREIGN = "foreign"


MIGRATED = frozenset({State.EMPTY, State.OLDER})
"""States from which there is a way to the newest revision."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What was found in a database."""

    state: State
    revision: str | None = None


def head_revision() -> str:
    """Return the revision of this program."""
    return _revisions()[0]


async def read_schema(engine: AsyncEngine) -> Schema:
    """Look, and change nothing."""
    async with engine.connect() as connection:
        return await connection.run_sync(schema_of)


def schema_of(connection: Connection) -> Schema:
    """Say what is in the database."""
    tables = set(inspect(connection).get_table_names())
    revisions: list[str] = []
    if "alembic_version" in tables:
        revisions = list(connection.execute(text("SELECT version_num FROM alembic_version")).scalars())
    if not revisions and not tables - {"alembic_version"}:
        return Schema(State.EMPTY)
    if len(revisions) != 1 or not tables >= SINCE_EVER:
        return Schema(State.FOREIGN)
    revision = revisions[0]
    if revision not in _revisions():
        return Schema(State.NEWER, revision)
    return Schema(State.CURRENT if revision == head_revision() else State.OLDER, revision)


def require_ours(schema: Schema, address: str) -> None:
    """Raise Conflict for a schema of a newer program, InvalidInput for one that is no catalog."""
    if schema.state is State.FOREIGN:
        raise InvalidInput(
            f"The database {address} holds other things, and no catalog of Snapkeep",
            next_step="Give an empty database, or the one of your catalog.",
        )
    if schema.state is State.NEWER:
        raise Conflict(
            f"The database {address} was written by a newer Snapkeep: its revision is {schema.revision}, "
            f"this program knows {head_revision()}",
            next_step="Use that version of Snapkeep again, or restore a backup from before with "
            "`snapkeep database restore`.",
        )


def _require_current(schema: Schema, url: URL) -> None:
    require_ours(schema, address_of(url))
    if schema.state is State.OLDER:
        raise Conflict(
            f"The database {address_of(url)} was written by an older Snapkeep: its revision is {schema.revision}, "
            f"this program needs {head_revision()}",
            next_step="Run `snapkeep database upgrade`: it makes a backup first.",
        )


@cache
def _revisions() -> tuple[str, ...]:
    """All revisions that this program knows, the newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


# -- migrations --------------------------------------------------------------------------------------------------------
async def migrate_database(engine: AsyncEngine, change: Set[State] = MIGRATED) -> Schema:
    """Bring an empty or older schema to the newest revision, all or nothing; return the schema found afterwards."""
    if engine.dialect.name == "postgresql":
        async with engine.begin() as connection:
            await connection.run_sync(lock_postgresql)
            return await connection.run_sync(_migrate_if, change)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        return await connection.run_sync(migrate_sqlite, change)


def lock_postgresql(connection: Connection) -> None:
    """Let no other process migrate or fill this database until the transaction ends. Raises InvalidInput."""
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    encoding = connection.scalar(text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise InvalidInput(
            f"The database {address_of(connection.engine.url)} has the encoding {encoding}, in which not every name "
            "can be written",
            next_step="Create one with ENCODING 'UTF8' TEMPLATE template0.",
        )


def migrate_sqlite(connection: Connection, change: Set[State] = MIGRATED) -> Schema:
    """Do so in a transaction that holds schema changes, too: Python's driver alone would commit them one by one.

    The connection must be in autocommit. Foreign keys are off meanwhile: where a migration makes a table anew, dropping
    the old one would delete what refers to it. They are checked before the end.
    """
    connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
    try:
        schema = _migrate_if(connection, change)
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
            raise InvalidInput(
                f"{len(broken)} rows of the catalog refer to rows that are not there, first in {broken[0][0]}",
                next_step="Nothing was changed. Restore the catalog from its backup.",
            )
        connection.exec_driver_sql("COMMIT")
    except BaseException:
        connection.invalidate()  # it is closed, and what was begun is gone
        raise
    connection.exec_driver_sql("PRAGMA foreign_keys=ON")
    return schema


def _migrate_if(connection: Connection, change: Set[State]) -> Schema:
    if schema_of(connection).state in change:  # looked at again: another process may have been quicker
        migrate(connection)
    return schema_of(connection)


def migrate(connection: Connection, revision: str = "head") -> None:
    """Upgrade to a revision, in the transaction of the connection."""
    config = _config()
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, revision)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


# -- outages -----------------------------------------------------------------------------------------------------------
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


# -- time --------------------------------------------------------------------------------------------------------------
class _DatabaseClock(FunctionElement[datetime]):
    """The time of the database, which all processes share."""

    type = UtcDateTime()
    inherit_cache = True


def database_clock(shift: float = 0.0) -> ColumnElement[datetime]:
    """Return an expression for the time (aware, UTC) by the clock of the database, `shift` seconds from now."""
    return _DatabaseClock(literal(shift, Float))


@compiles(_DatabaseClock)
def _clock(element: _DatabaseClock, compiler: Any, **options: Any) -> str:
    return f"(clock_timestamp() + make_interval(secs => {compiler.process(element.clauses, **options)}))"


@compiles(_DatabaseClock, "sqlite")
def _sqlite_clock(element: _DatabaseClock, compiler: Any, **options: Any) -> str:
    shift = f"({compiler.process(element.clauses, **options)} || ' seconds')"
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {shift})"  # as SQLAlchemy stores times: they compare as text
