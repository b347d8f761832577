"""Backup, restore and upgrade of the catalog. A backup is always one SQLite file, whatever database it is made of."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    MetaData,
    NullPool,
    Table,
    Text,
    cast,
    column,
    create_engine,
    func,
    insert,
    inspect,
    select,
    table,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.types import NullType

from snapkeep.catalog.database import (
    Schema,
    State,
    connect_database,
    head_revision,
    lock_postgresql,
    migrate,
    migrate_database,
    migrate_sqlite,
    read_schema,
    require_ours,
    schema_of,
)
from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.database_url import address_of, parse_url
from snapkeep.catalog.outages import explained, explained_sqlite
from snapkeep.catalog.tables import UtcDateTime, operations
from snapkeep.model.errors import Busy, Conflict, InvalidInput, LimitExceeded, NotFound, SnapkeepError

Progress = Callable[[int, int], None]
"""Is told what is done and what there is in all: pages or rows."""

ROWS_AT_ONCE = 200  # a row of change_blocks has some 100 KB
PAGES_AT_ONCE = 1_000
NOT_RESTORED = {"workers"}  # rows of processes that ran at the time of the backup
LEFT_OVER = ("-wal", "-shm", "-journal")


@dataclass(frozen=True, slots=True)
class Copied:
    """What a backup holds, or what was restored from one."""

    revision: str
    size_bytes: int
    rows: dict[str, int]


def _ignore(_done: int, _total: int) -> None:
    """Nobody looks on."""


# -- backup ------------------------------------------------------------------------------------------------------------
async def back_up(url: str, file: Path, *, force: bool = False, progress: Progress = _ignore) -> Copied:
    """Write the catalog to a file as it is at one moment, while others go on writing to it.

    Raises Conflict when the file exists; with `force` an older backup is replaced.
    """
    parsed = parse_url(url)
    _require_free(file, force=force)
    if parsed.get_backend_name() == "sqlite":
        with open_file(Path(str(parsed.database)), "catalog") as source:
            schema = _schema_to_copy(source, address_of(parsed))
            with _written(file, force=force) as part:
                _copy_pages(source, part, progress)
                return _finished(part, schema)
    engine = connect_database(url)
    try:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            schema = await connection.run_sync(_schema_to_copy, address_of(parsed))
            with _written(file, force=force) as part:
                await connection.run_sync(_copy_to_file, part, str(schema.revision), progress)
                return _finished(part, schema)
    except SQLAlchemyError as error:
        raise await explained(error, parsed) from error
    finally:
        await engine.dispose()


def _schema_to_copy(connection: Connection, address: str) -> Schema:
    schema = schema_of(connection)
    require_ours(schema, address)
    if schema.state is State.EMPTY:
        raise NotFound(
            f"The database {address} is empty: there is nothing to back up",
            next_step="Give the --data-dir or the database URL of your installation.",
        )
    return schema


def _require_free(file: Path, *, force: bool) -> None:
    """Refuse to write over what is no older backup, such as the catalog itself."""
    if not file.exists() and not file.is_symlink():
        return
    if not force:
        raise Conflict(f"{file} exists already", next_step="Choose another name, or replace this backup with --force.")
    with open_file(file, "backup") as connection:
        if schema_of(connection).state is State.FOREIGN or _pragma(connection, "journal_mode") == ["wal"]:
            raise InvalidInput(
                f"{file} is no backup, and is not written over", next_step="Choose another name for the backup."
            )


def _copy_pages(source: Connection, part: Path, progress: Progress) -> None:
    """Copy a SQLite file as it is; the open transaction of `source` keeps the picture still, and blocks no writer."""

    def copied(_status: int, remaining: int, total: int) -> None:
        progress(total - remaining, total)

    origin: Any = source.connection.dbapi_connection
    target = sqlite3.connect(part)
    try:
        origin.backup(target, pages=PAGES_AT_ONCE, progress=copied)
        target.execute("PRAGMA journal_mode=DELETE")  # one file, which needs no second one beside it
    finally:
        target.close()


def _copy_to_file(source: Connection, part: Path, revision: str, progress: Progress) -> None:
    """Write all rows into a new SQLite file of the same revision."""
    with _open_part(part) as target:
        migrate(target, revision)
        target.exec_driver_sql("BEGIN")
        copy_rows(source, target, _layout(target), progress)
        target.exec_driver_sql("COMMIT")


def _finished(part: Path, schema: Schema) -> Copied:
    with open_file(part, "backup") as connection:
        _require_intact(connection, "The backup")
        return Copied(str(schema.revision), part.stat().st_size, count_rows(connection))


# -- restore -----------------------------------------------------------------------------------------------------------
async def restore(file: Path, url: str, *, progress: Progress = _ignore) -> Copied:
    """Fill an empty database from a backup, all or nothing; one of an older revision is upgraded on the way.

    Raises Conflict when the database is not empty or the backup is of a newer Snapkeep.
    """
    parsed = parse_url(url)
    with open_file(file, "backup") as source:
        schema = schema_of(source)
        if schema.state in {State.EMPTY, State.FOREIGN}:
            raise _no_backup(file, "there is no catalog in it")
        if schema.state is State.NEWER:
            raise Conflict(
                f"{file} was written by a newer Snapkeep: its revision is {schema.revision}, this program knows "
                f"{head_revision()}",
                next_step="Restore it with that version of Snapkeep.",
            )
        _require_intact(source, str(file))
        if parsed.get_backend_name() == "sqlite":
            return _restore_sqlite(source, Path(str(parsed.database)), progress)
        engine = connect_database(url)
        try:
            async with engine.begin() as target:
                await target.run_sync(lock_postgresql)
                return await target.run_sync(_restore_postgresql, source, address_of(parsed), progress)
        except SQLAlchemyError as error:
            raise await explained(error, parsed) from error
        finally:
            await engine.dispose()


def _restore_sqlite(source: Connection, path: Path, progress: Progress) -> Copied:
    left_over = [Path(f"{path}{name}") for name in LEFT_OVER]
    if path.exists():
        with open_file(path, "catalog") as found:
            if schema_of(found).state is not State.EMPTY:
                raise _not_empty(str(path))
        for rest in (path, *left_over):
            rest.unlink(missing_ok=True)
    for rest in left_over:
        if rest.exists():  # SQLite would mix it into the new file
            raise Conflict(f"{rest} is left over from another catalog", next_step="Move it away first.")
    with _written(path, force=False) as part:
        _copy_pages(source, part, progress)
        with _open_part(part) as target:
            migrate_sqlite(target)
            for name in NOT_RESTORED & set(_layout(target).tables):
                target.execute(table(name).delete())
            _end_what_must_not_be_repeated(target)
            rows = count_rows(target)
        return Copied(head_revision(), part.stat().st_size, rows)


def _restore_postgresql(target: Connection, source: Connection, address: str, progress: Progress) -> Copied:
    engine_state = text("SELECT 1 FROM information_schema.schemata WHERE schema_name = 'dbos'")
    if schema_of(target).state is not State.EMPTY or target.scalar(engine_state):
        raise _not_empty(address)
    migrate(target, str(schema_of(source).revision))
    copy_rows(source, target, _layout(source), progress, leave_out=NOT_RESTORED)
    migrate(target)
    _end_what_must_not_be_repeated(target)
    return Copied(head_revision(), _postgresql_size(target), count_rows(target))


def _end_what_must_not_be_repeated(target: Connection) -> None:
    """Fail open operations that take data away: since the backup they may have been done, or thought better of."""
    error = SnapkeepError(
        "It had not ended when the backup of the catalog was made; it may have been done since",
        next_step="Look at the system, and ask again if it is still wanted: `snapkeep operation retry`.",
    )
    target.execute(
        update(operations)
        .where(operations.c.ended_at.is_(None), operations.c.kind.in_(("restore", "clone", "delete")))
        .values(state="failed", phase="failed", turn=None, error=error.to_dict(), ended_at=database_clock())
    )


def _not_empty(address: str) -> Conflict:
    return Conflict(
        f"The database {address} is not empty",
        next_step="Restore into a new data directory or an empty database; what is in this one is left alone.",
    )


# -- upgrade and state -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Described:
    """A database as it is."""

    kind: str
    address: str
    schema: Schema
    size_bytes: int
    rows: dict[str, int]


async def describe(url: str) -> Described:
    """Look at a database in whatever state it is; a SQLite file that is not there is an empty one."""
    parsed = parse_url(url)
    address = address_of(parsed)
    if parsed.get_backend_name() == "sqlite":
        return _describe_sqlite(Path(address))
    engine = connect_database(url)
    try:
        async with engine.connect() as found:
            schema = await found.run_sync(schema_of)
            rows = await found.run_sync(_rows_of_ours, schema)
            return Described("postgresql", address, schema, await found.run_sync(_postgresql_size), rows)
    except SQLAlchemyError as error:
        raise await explained(error, parsed) from error
    finally:
        await engine.dispose()


def _describe_sqlite(path: Path) -> Described:
    if not path.exists():
        return Described("sqlite", str(path), Schema(State.EMPTY), 0, {})
    with open_file(path, "catalog") as connection:
        size = sum(file.stat().st_size for file in (path, Path(f"{path}-wal")) if file.exists())
        schema = schema_of(connection)
        return Described("sqlite", str(path), schema, size, _rows_of_ours(connection, schema))


def _rows_of_ours(connection: Connection, schema: Schema) -> dict[str, int]:
    return {} if schema.state is State.FOREIGN else count_rows(connection)


async def upgrade(
    url: str, backup: Callable[[str], Path] | None, *, living_seconds: float, progress: Progress = _ignore
) -> Path | None:
    """Bring an older database to the revision of this program; return the backup that was made before.

    `backup` says where to, given the revision. Raises Busy when workers give signs of life, by the clock of the
    database: an older one would go on in a way that no longer fits. Whether a server runs the caller must know.
    """
    parsed = parse_url(url)
    engine = connect_database(url)
    try:
        schema = await read_schema(engine)
        require_ours(schema, address_of(parsed))
        if schema.state is not State.OLDER:
            return None
        if parsed.get_backend_name() == "postgresql":
            async with engine.connect() as connection:
                await connection.run_sync(_require_no_workers, living_seconds)
        file = backup(str(schema.revision)) if backup else None
        if file:
            await back_up(url, file, progress=progress)
        await migrate_database(engine, {State.OLDER})
        return file
    except SQLAlchemyError as error:
        raise await explained(error, parsed) from error
    finally:
        await engine.dispose()


def _require_no_workers(connection: Connection, living_seconds: float) -> None:
    if not inspect(connection).has_table("workers"):  # the first revision has none
        return
    living = text(
        "SELECT name FROM workers WHERE left_at IS NULL "
        "AND heartbeat_at > clock_timestamp() - make_interval(secs => :seconds) ORDER BY name"
    )
    if names := list(connection.execute(living, {"seconds": living_seconds}).scalars()):
        raise Busy(
            f"Workers run on this database: {', '.join(names)}",
            next_step="Stop servers and workers first; a dead one counts as running until its heartbeat is "
            f"{living_seconds:.0f} seconds old.",
            dependents=names,
        )


def _postgresql_size(connection: Connection) -> int:
    return connection.scalar(text("SELECT pg_database_size(current_database())")) or 0


# -- files -------------------------------------------------------------------------------------------------------------
@contextmanager
def open_file(path: Path, what: str) -> Iterator[Connection]:
    """Open a SQLite file to read from it: one moment of it, as long as this lasts. It is never changed."""
    if not path.exists():
        raise NotFound(f"There is no {what} {path}", next_step="Check the path, and --data-dir.")
    if not path.is_file():
        raise _no_backup(path, "it is not a file")
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(address, uri=True, isolation_level=None, timeout=30),
        poolclass=NullPool,
    )
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")  # the moment is now
            yield connection
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        damaged = error.orig.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}
        if damaged and what == "backup":
            raise _no_backup(path, str(error.orig)) from error
        raise explained_sqlite(error.orig, str(path)) from error


@contextmanager
def _open_part(path: Path) -> Iterator[Connection]:
    """Open a file that nobody else knows yet: no journal on disk, transactions as they are said."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=MEMORY")
        connection.exec_driver_sql("PRAGMA synchronous=OFF")
        yield connection


@contextmanager
def _written(file: Path, *, force: bool) -> Iterator[Path]:
    """Give a new file to write to, for the owner alone; afterwards it is on disk, whole, under its own name.

    When something goes wrong nothing is left of it.
    """
    part = file.with_name(f"{file.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield part
        _sync(part)
        if not force and file.exists():
            raise Conflict(f"{file} was made by somebody else meanwhile", next_step="Choose another name.")
        part.replace(file)
        _sync(file.parent)
    except (OSError, sqlite3.Error) as error:
        _cannot_write(file, error)
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.Error):
            raise
        _cannot_write(file, error.orig)
    finally:
        for name in ("", *LEFT_OVER):
            Path(f"{part}{name}").unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_write(file: Path, error: OSError | sqlite3.Error) -> NoReturn:
    if isinstance(error, OSError):
        full, reason = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}, error.strerror
    else:
        full, reason = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL, str(error)
    if full:
        raise LimitExceeded(
            f"There is no room for {file}: {reason}", next_step="Make room, or choose another place. Nothing was left."
        ) from error
    raise InvalidInput(
        f"{file} cannot be written: {reason}",
        next_step="Choose a file in a directory that this user may write to, and check its disk.",
    ) from error


def _no_backup(path: Path, reason: str) -> InvalidInput:
    return InvalidInput(
        f"{path} is no backup of a catalog, or is damaged: {reason}",
        next_step="Give a whole file that `snapkeep database backup` wrote.",
    )


def _require_intact(connection: Connection, what: str) -> None:
    findings = _pragma(connection, "integrity_check")
    if findings != ["ok"]:
        raise InvalidInput(f"{what} is damaged: {findings[0]}", next_step="Use another backup.")
    if broken := _pragma(connection, "foreign_key_check"):
        raise InvalidInput(
            f"{what} is damaged: rows of {broken[0]} refer to rows that are not there", next_step="Use another backup."
        )


def _pragma(connection: Connection, name: str) -> list[Any]:
    return [row[0] for row in connection.exec_driver_sql(f"PRAGMA {name}")]


# -- rows --------------------------------------------------------------------------------------------------------------
def _layout(connection: Connection) -> MetaData:
    """Return the tables of a SQLite file as its own revision made them."""
    found = MetaData()
    found.reflect(connection)
    found.remove(found.tables["alembic_version"])
    return found


def count_rows(connection: Connection) -> dict[str, int]:
    """Return the number of rows of each table."""
    found = MetaData()
    found.reflect(connection)
    return {
        name: connection.scalar(select(func.count()).select_from(found.tables[name])) or 0
        for name in sorted(found.tables)
        if name != "alembic_version"
    }


def copy_rows(
    source: Connection,
    target: Connection,
    layout: MetaData,
    progress: Progress,
    *,
    leave_out: Set[str] = frozenset(),
) -> None:
    """Copy all rows between databases of one revision, in batches: memory does not grow with their number."""
    tables = [item for item in layout.sorted_tables if item.name not in leave_out]
    total = sum(source.scalar(select(func.count()).select_from(item)) or 0 for item in tables)
    done = 0
    for item in tables:
        rows = source.execution_options(yield_per=ROWS_AT_ONCE).execute(_reading(item))
        for batch in rows.mappings().partitions():
            target.execute(_writing(item), [dict(row) for row in batch])
            done += len(batch)
            progress(done, total)


def _reading(item: Table) -> Any:
    """JSON is read as the text that it is: its null and the NULL of SQL stay two things."""
    plain = table(item.name, *(column(found.name, _type(found.type)) for found in item.columns))
    return select(
        *(
            cast(plain.c[found.name], Text).label(found.name) if isinstance(found.type, JSON) else plain.c[found.name]
            for found in item.columns
        )
    )


def _writing(item: Table) -> Any:
    columns = (
        column(found.name, NullType() if isinstance(found.type, JSON) else _type(found.type)) for found in item.columns
    )
    return insert(table(item.name, *columns))


def _type(found: Any) -> Any:
    return UtcDateTime() if isinstance(found, DateTime) else found
