"""Opening the database: one code path for SQLite and PostgreSQL, and clear words about the state that it is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import QueuePool

from snapkeep.catalog import in_loop
from snapkeep.catalog.database_url import CONNECT_SECONDS, address_of, parse_url, postgresql_options
from snapkeep.catalog.outages import explained, is_outage
from snapkeep.model.errors import (
    Conflict,
    InvalidInput,
)

MIGRATIONS = Path(__file__).parent / "migrations"
SINCE_EVER = {"systems", "assets", "snapshots", "operations"}
"""Tables that every revision of the catalog has: by them it is known as ours."""

ADVISORY_LOCK = 0x736E61706B656570
"""The number under which PostgreSQL lets one process at a time migrate or fill a database."""


# -- opening -----------------------------------------------------------------------------------------------------------
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
        connect_args=postgresql_options(parsed),
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
    return create_engine(parsed, connect_args=postgresql_options(parsed), **options)


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
