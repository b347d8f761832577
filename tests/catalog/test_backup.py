"""Backup, restore and upgrade of the catalog on real files and a real PostgreSQL; clear words about a database."""

from __future__ import annotations

import hashlib
import resource
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import JSON, Boolean, Column, DateTime, Engine, LargeBinary, create_engine, insert, null, select, text
from sqlalchemy.exc import DBAPIError, TimeoutError
from tests.support.postgres import Postgres

from snapkeep.catalog.backup import back_up, describe, restore, upgrade
from snapkeep.catalog.database import State, connect_database, head_revision, migrate, open_database
from snapkeep.catalog.database_clock import database_clock
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.outages import DATABASE_OUTAGE, is_outage
from snapkeep.catalog.tables import assets, metadata, operations, systems, workers
from snapkeep.model.errors import (
    AuthenticationFailed,
    Busy,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)

NOW = datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC)
ROWS = 450  # more than two batches


@pytest.fixture
def other_url(database_url: str, postgres: Postgres, tmp_path: Path) -> Iterator[str]:
    """An empty database of the other kind."""
    if database_url.startswith("postgresql"):
        yield sqlite_url(tmp_path / "other" / "catalog.sqlite")
        return
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
def postgresql_url(postgres: Postgres) -> Iterator[str]:
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A backup with rows in every table."""
    url = sqlite_url(tmp_path / "origin.sqlite")
    await fill(url)
    await back_up(url, tmp_path / "backup.sqlite")
    return tmp_path / "backup.sqlite"


def plain(url: str) -> Engine:
    return create_engine(url.replace("+aiosqlite", ""))


def value(column: Column[Any], number: int) -> Any:
    for reference in column.foreign_keys:
        return value(reference.column, number)
    if isinstance(column.type, JSON):
        return [{"ä": [number, None, 0.1]}, None, "\ud800", null() if column.nullable else {}][number % 4]
    if column.nullable and number % 3 == 0:
        return None
    if isinstance(column.type, DateTime) or "UtcDateTime" in repr(column.type):
        return NOW
    if isinstance(column.type, Boolean):
        return number % 2 == 0
    if isinstance(column.type, LargeBinary):
        return bytes([0, 255, number % 256])
    if column.type.python_type is str:
        return f"{number}-ä'%s\n{column.name}"[: getattr(column.type, "length", None)]
    return column.type.python_type(number) + 2**40 * (column.type.__class__.__name__ == "BigInteger")


async def fill(url: str, count: int = ROWS) -> None:
    """Put rows into every table of a new catalog."""
    engine = await open_database(url)
    async with engine.begin() as connection:
        for table in metadata.sorted_tables:
            for number in range(count if table.name == "systems" else 9):
                await connection.execute(insert(table), {c.name: value(c, number) for c in table.columns})
    await engine.dispose()


def contents(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {line for line in connection.iterdump() if line.startswith("INSERT")}


def without_workers(rows: set[str]) -> set[str]:
    return {row for row in rows if not row.startswith('INSERT INTO "workers"')}


async def error_of(work: Awaitable[Any]) -> SnapkeepError:
    with pytest.raises(SnapkeepError) as caught:
        await work
    assert caught.value.next_step
    return caught.value


def set_revision(url: str, revision: str) -> None:
    engine = plain(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
    engine.dispose()


def system(number: int) -> dict[str, Any]:
    return {
        "id": f"s{number}", "name": f"n{number}", "plugin": "p", "settings": {}, "secrets": b"", "created_at": NOW,
    }  # fmt: skip


def asset(number: int) -> dict[str, Any]:
    return {
        "id": f"a{number}", "system_id": f"s{number}", "vendor_id": "v", "kind": "share", "name": "a",
        "capabilities": [], "refusals": {}, "attributes": {}, "seen_by": "",
    }  # fmt: skip


# -- backup and restore ------------------------------------------------------------------------------------------------
async def test_every_row_survives_the_way_to_the_other_kind_of_database(
    database_url: str, other_url: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    await fill(database_url)
    seen: list[tuple[int, int]] = []
    made = await back_up(database_url, tmp_path / "one", progress=lambda *step: seen.append(step))
    assert seen[-1][0] == seen[-1][1] > 0
    assert made.rows == {table.name: ROWS if table.name == "systems" else 9 for table in metadata.sorted_tables}
    await restore(tmp_path / "one", other_url)
    await (await open_database(other_url)).dispose()
    await back_up(other_url, tmp_path / "two")
    await restore(tmp_path / "two", sqlite_url(tmp_path / "three"))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert without_workers(one) == two == contents(tmp_path / "three")
    assert len(one) > len(two) > ROWS


async def test_a_backup_is_one_whole_file_for_the_owner_alone(database_url: str, tmp_path: Path) -> None:
    await fill(database_url, 9)
    directory = tmp_path / "backups"
    directory.mkdir()
    await back_up(database_url, directory / "backup")
    assert [path.name for path in directory.iterdir()] == ["backup"]
    assert stat.S_IMODE((directory / "backup").stat().st_mode) == 0o600
    with closing(sqlite3.connect(directory / "backup")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_a_backup_is_of_one_moment_while_others_write(database_url: str, tmp_path: Path) -> None:
    engine = await open_database(database_url)
    writer = plain(database_url)
    written = 0

    def write(*_progress: int) -> None:
        nonlocal written
        if written < 20:  # without the one moment SQLite would begin anew after each of them
            with writer.begin() as connection:
                connection.execute(insert(systems), system(written) | {"secrets": b"x" * 6_000_000 * (written < 2)})
                connection.execute(insert(assets), asset(written))
            written += 1

    for _ in range(3):
        write()
    made = await back_up(database_url, tmp_path / "backup", progress=write)
    assert written > 4
    assert (made.rows["systems"], made.rows["assets"]) == (3, 3)
    writer.dispose()
    await engine.dispose()


async def test_an_older_backup_is_replaced_only_when_asked_and_nothing_else_ever(
    database_url: str, tmp_path: Path
) -> None:
    file, live, note = tmp_path / "backup", tmp_path / "live.sqlite", tmp_path / "note"
    await (await open_database(database_url)).dispose()
    await (await open_database(sqlite_url(live))).dispose()
    note.write_text("mine")
    await back_up(database_url, file)
    before = file.read_bytes()
    assert isinstance(await error_of(back_up(database_url, file)), Conflict)
    assert file.read_bytes() == before
    await fill(other := sqlite_url(tmp_path / "b.sqlite"), 9)
    await back_up(other, file, force=True)
    assert file.read_bytes() != before
    for path in (live, note, tmp_path):
        assert isinstance(await error_of(back_up(database_url, path, force=True)), InvalidInput)
    assert note.read_text() == "mine"


@pytest.mark.parametrize("place", ["missing/backup", "/sys/backup"])
async def test_a_place_that_cannot_be_written_is_said(database_url: str, tmp_path: Path, place: str) -> None:
    await (await open_database(database_url)).dispose()
    assert isinstance(await error_of(back_up(database_url, tmp_path / place)), InvalidInput)


async def test_a_full_disk_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    await fill(database_url, 9)
    directory = tmp_path / "full"
    directory.mkdir()
    code = (
        "import asyncio, sys; from pathlib import Path; from snapkeep.catalog.backup import back_up\n"
        "from snapkeep.model.errors import SnapkeepError\n"
        "try: asyncio.run(back_up(sys.argv[1], Path(sys.argv[2])))\n"
        "except SnapkeepError as error: print(error.code)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ran = subprocess.run(
        [sys.executable, "-c", code, database_url, str(directory / "backup")],
        capture_output=True, text=True, check=True, preexec_fn=limit,
    )  # fmt: skip
    assert ran.stdout.strip() in {LimitExceeded.code, InvalidInput.code}, ran.stderr
    assert list(directory.iterdir()) == []


async def test_an_empty_or_missing_catalog_is_not_backed_up(postgresql_url: str, tmp_path: Path) -> None:
    for url in (sqlite_url(tmp_path / "missing"), postgresql_url):
        assert isinstance(await error_of(back_up(url, tmp_path / "backup")), NotFound)
    assert list(tmp_path.iterdir()) == []


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-8192] + b"\xff" * 4096 + whole[-4096:])


def change(statement: str) -> Callable[[Path], None]:
    def run(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)

    return run


def unindexed(path: Path) -> None:
    """A row that an index does not know: everything can be read, and only the check finds it."""
    index = "name = 'ix_operations_state'"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        row = connection.execute(f"SELECT * FROM sqlite_master WHERE {index}").fetchone()
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(f"DELETE FROM sqlite_master WHERE {index}")
    change("UPDATE operations SET state = 'other'")(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", row)


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (truncated, InvalidInput),
        (overwritten, InvalidInput),
        (unindexed, InvalidInput),
        (lambda path: path.write_text("no database\n" * 1000), InvalidInput),
        (lambda path: path.write_text(""), InvalidInput),
        (replaced, InvalidInput),
        (Path.unlink, NotFound),
        (change("DELETE FROM systems WHERE id = (SELECT system_id FROM assets LIMIT 1)"), InvalidInput),
        (change("DROP TABLE alembic_version"), InvalidInput),
        (change("UPDATE alembic_version SET version_num = '9999'"), Conflict),
    ],
    ids=[
        "truncated",
        "overwritten",
        "unindexed",
        "text",
        "nothing",
        "directory",
        "missing",
        "torn",
        "foreign",
        "newer",
    ],
)
async def test_what_is_no_good_backup_changes_nothing(
    file: Path, database_url: str, spoil: Callable[[Path], Any], expected: type[SnapkeepError]
) -> None:
    spoil(file)
    there = {path.name for path in file.parent.iterdir()}
    error = await error_of(restore(file, database_url))
    assert type(error) is expected
    assert expected is not InvalidInput or "damaged" in str(error)
    assert (await describe(database_url)).schema.state is State.EMPTY
    assert {path.name for path in file.parent.iterdir()} == there


async def test_only_an_empty_database_is_filled(file: Path, database_url: str) -> None:
    await fill(database_url, 9)
    error = await error_of(restore(file, database_url))
    assert (type(error), "not empty" in str(error)) == (Conflict, True)
    assert (await describe(database_url)).rows["systems"] == 9


async def test_the_rest_of_another_catalog_is_not_mixed_in(file: Path, tmp_path: Path) -> None:
    (tmp_path / "new.sqlite-wal").write_bytes(b"old")
    assert isinstance(await error_of(restore(file, sqlite_url(tmp_path / "new.sqlite"))), Conflict)
    assert not (tmp_path / "new.sqlite").exists()


async def test_an_engine_in_the_database_is_the_mark_of_another_catalog(file: Path, postgresql_url: str) -> None:
    engine = plain(postgresql_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA dbos"))
    engine.dispose()
    assert isinstance(await error_of(restore(file, postgresql_url)), Conflict)


async def test_a_restore_that_fails_leaves_the_database_empty(file: Path, postgresql_url: str) -> None:
    change("UPDATE operations SET target = 'a' || char(0) || 'b' WHERE id = (SELECT max(id) FROM operations)")(file)
    await error_of(restore(file, postgresql_url))
    assert (await describe(postgresql_url)).schema.state is State.EMPTY


async def test_a_backup_of_an_older_revision_is_upgraded_on_the_way(database_url: str, tmp_path: Path) -> None:
    old = sqlite_url(tmp_path / "old.sqlite")
    make_older(old)
    made = await back_up(old, tmp_path / "backup")
    assert made.revision == "0001"
    restored = await restore(tmp_path / "backup", database_url)
    assert (restored.revision, restored.rows["systems"]) == (head_revision(), 1)
    await (await open_database(database_url)).dispose()


# -- upgrade -----------------------------------------------------------------------------------------------------------
def make_older(url: str) -> None:
    """Make a catalog of the first revision with a row."""
    engine = plain(url)
    with engine.begin() as connection:
        migrate(connection, "0001")
        row = {"id": "i", "name": "n", "plugin": "p", "settings": {}, "secrets": b"", "created_at": NOW}
        connection.execute(insert(systems), row)
    engine.dispose()


async def test_an_older_database_is_refused_and_then_upgraded_behind_a_backup(
    database_url: str, tmp_path: Path
) -> None:
    make_older(database_url)
    error = await error_of(open_database(database_url))
    assert isinstance(error, Conflict)
    assert "0001" in str(error)
    assert head_revision() in str(error)
    assert "snapkeep database upgrade" in error.next_step
    assert (await describe(database_url)).schema.revision == "0001"

    made = await upgrade(database_url, lambda revision: tmp_path / f"before-{revision}", living_seconds=15)
    assert made == tmp_path / "before-0001"
    assert (await describe(database_url)).rows["systems"] == 1
    await (await open_database(database_url)).dispose()
    with closing(sqlite3.connect(made)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0001",)]
        assert connection.execute("SELECT id, created_at FROM systems").fetchall() == [
            ("i", "2026-11-22 12:30:15.123456")
        ]
    assert await upgrade(database_url, lambda _: pytest.fail("no backup is needed"), living_seconds=15) is None


async def test_an_upgrade_waits_for_living_workers(postgresql_url: str, tmp_path: Path) -> None:
    engine = await open_database(postgresql_url)
    worker = {c.name: value(c, 1) for c in workers.columns} | {"name": "w1", "left_at": None}
    async with engine.begin() as connection:
        await connection.execute(insert(workers).values(worker | {"heartbeat_at": database_clock()}))
    await engine.dispose()
    set_revision(postgresql_url, "0001")
    error = await error_of(upgrade(postgresql_url, lambda _: tmp_path / "backup", living_seconds=15))
    assert (type(error), error.details) == (Busy, {"dependents": ["w1"]})
    assert list(tmp_path.iterdir()) == []
    # Not held up any more once it has left or is dead; that this catalog really has the newest tables fails it later.
    for gone in ("left_at = now()", "left_at = NULL, heartbeat_at = now() - interval '16 seconds'"):
        plain_engine = plain(postgresql_url)
        with plain_engine.begin() as connection_:
            connection_.execute(text(f"UPDATE workers SET {gone}"))
        plain_engine.dispose()
        assert not isinstance(await error_of(upgrade(postgresql_url, None, living_seconds=15)), Busy)
        assert (await describe(postgresql_url)).schema.revision == "0001"


# -- what is said of a database ----------------------------------------------------------------------------------------
async def test_a_newer_database_is_left_alone(database_url: str, tmp_path: Path) -> None:
    await (await open_database(database_url)).dispose()
    set_revision(database_url, "9999")
    for work in (
        open_database(database_url),
        upgrade(database_url, None, living_seconds=15),
        back_up(database_url, tmp_path / "backup"),
    ):
        error = await error_of(work)
        assert (type(error), "newer Snapkeep" in str(error)) == (Conflict, True)
    assert (await describe(database_url)).schema.revision == "9999"


@pytest.mark.parametrize("revision", [None, "0001", "another"])
async def test_what_is_no_catalog_is_left_alone(database_url: str, revision: str | None) -> None:
    engine = plain(database_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE systems (id INTEGER)"))
        if revision:  # another program that uses Alembic
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
            connection.execute(text(f"INSERT INTO alembic_version VALUES ('{revision}')"))
    engine.dispose()
    path = Path(database_url.partition("///")[2])
    before = path.read_bytes() if database_url.startswith("sqlite") else b""
    for work in (open_database(database_url), upgrade(database_url, None, living_seconds=15)):
        assert isinstance(await error_of(work), InvalidInput)
    assert (await describe(database_url)).schema.state is State.FOREIGN
    assert not before or path.read_bytes() == before


async def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database\n" * 1000)
    before = hashlib.sha256((tmp_path / "text").read_bytes()).digest()
    for path in (tmp_path / "text", tmp_path, tmp_path / "missing" / "x"):
        assert isinstance(await error_of(open_database(sqlite_url(path))), InvalidInput)
    assert hashlib.sha256((tmp_path / "text").read_bytes()).digest() == before


async def test_why_a_server_cannot_be_used_is_said_without_the_password(postgresql_url: str) -> None:
    account, _, place = postgresql_url.partition("@")
    password = account.rpartition(":")[2]
    server, _, database = place.partition("/")
    host, _, port = server.partition(":")
    closed = "1"
    for url, expected, sqlstate in (
        (f"{account}x@{place}", AuthenticationFailed, "28P01"),
        (f"{account.removesuffix(':' + password)}@{place}", AuthenticationFailed, None),
        (f"{account}@{server}/nothing", Unavailable, "3D000"),
        (f"{account}@{host}:{closed}/{database}", Unavailable, None),
        (f"{account}@{place}?sslmode=require", AuthenticationFailed, None),
    ):
        error = await error_of(open_database(url))
        assert (type(error), error.vendor_code) == (expected, sqlstate)
        said = str(error.to_dict()) + str(error)
        assert host in said
        assert (closed if closed in url.partition("@")[2].split("/")[0].split(":") else port) in said
        assert password not in said
    for url in (f"{account}@x@{place}", f"{account}@{host}:{password}/{database}", "mysql://u:secret@h/d", "secret"):
        error = await error_of(open_database(url))
        assert isinstance(error, InvalidInput)
        assert password not in str(error.to_dict())
        assert "secret" not in str(error.to_dict())


async def test_a_user_without_rights_is_told_so(postgres: Postgres, postgresql_url: str) -> None:
    name = postgresql_url.rpartition("/")[2]
    with postgres.connect(name) as owner:
        owner.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        owner.execute("CREATE USER poor PASSWORD 'poor'")
    try:
        poor = f"postgresql+psycopg://poor:poor@127.0.0.1:{postgres.port}/{name}"
        error = await error_of(open_database(poor))
        assert (type(error), error.vendor_code) == (PermissionDenied, "42501")
    finally:
        with postgres.connect() as owner:
            owner.execute("DROP USER poor")


async def test_an_encoding_that_has_not_all_names_is_refused(postgres: Postgres) -> None:
    with postgres.connect() as owner:
        owner.execute("CREATE DATABASE latin ENCODING LATIN1 LOCALE 'C' LOCALE_PROVIDER libc TEMPLATE template0")
    url = postgres.url("latin")
    try:
        error = await error_of(open_database(url))
        assert (type(error), "LATIN1" in str(error)) == (InvalidInput, True)
    finally:
        postgres.drop_database(url)


# -- outages and time --------------------------------------------------------------------------------------------------
async def test_a_defect_is_no_outage(database_url: str) -> None:
    engine = await open_database(database_url)
    for statement in ("SELECT nothing FROM systems", "SELECT * FROM nothing", "SELEKT 1"):
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as caught:
                await connection.execute(text(statement))
        assert not is_outage(caught.value)
    await engine.dispose()


async def test_a_locked_or_full_file_is_an_outage(tmp_path: Path) -> None:
    engine = await open_database(sqlite_url(tmp_path / "c.sqlite"))
    with closing(sqlite3.connect(tmp_path / "c.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        async with engine.connect() as connection:
            await connection.execute(text("PRAGMA busy_timeout=1"))
            with pytest.raises(DATABASE_OUTAGE) as caught:
                await connection.execute(insert(systems), system(1))
            assert is_outage(caught.value)
    async with engine.connect() as connection:
        await connection.execute(text("PRAGMA max_page_count=1"))
        with pytest.raises(DATABASE_OUTAGE) as caught:
            await connection.execute(insert(systems), system(1) | {"secrets": b"x" * 100_000})
        assert is_outage(caught.value)
    await engine.dispose()


async def test_a_cut_connection_a_full_pool_and_a_deadlock_are_outages(postgres: Postgres, postgresql_url: str) -> None:
    engine = await open_database(postgresql_url)
    async with engine.connect() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        with postgres.connect() as owner:
            owner.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(DATABASE_OUTAGE) as caught:
            await connection.execute(text("SELECT 1"))
        assert is_outage(caught.value)
    for code in ("40P01", "40001", "53100", "53300", "57P03", "25006"):
        async with engine.connect() as connection:
            with pytest.raises(DATABASE_OUTAGE) as caught:
                await connection.execute(text(f"DO $$BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END$$"))
            assert is_outage(caught.value), code
    await engine.dispose()
    assert is_outage(TimeoutError("the pool is empty"))
    assert not is_outage(ValueError())
    nowhere = connect_database(f"{postgresql_url.rpartition(':')[0]}:1/x")
    with pytest.raises(DATABASE_OUTAGE) as caught:
        await nowhere.connect()
    assert is_outage(caught.value)
    await nowhere.dispose()


async def test_the_clock_of_the_database_is_aware_and_compares(database_url: str) -> None:
    engine = await open_database(database_url)
    before = datetime.now(UTC)
    row = {c.name: value(c, 1) for c in operations.columns} | {"created_at": database_clock()}
    async with engine.begin() as connection:
        now = await connection.scalar(select(database_clock()))
        await connection.execute(insert(operations).values(row))
    async with engine.connect() as connection:
        stored = await connection.scalar(select(operations.c.created_at).where(operations.c.created_at >= before))
        assert (
            await connection.scalar(select(operations.c.id).where(operations.c.created_at > database_clock())) is None
        )
        if engine.dialect.name == "sqlite":  # times compare as text: all are of one length
            assert await connection.scalar(text("SELECT length(created_at) FROM operations")) == 26
    assert now is not None
    assert stored is not None
    assert abs((now - before).total_seconds()) < 5
    assert now.utcoffset() == stored.utcoffset() == before.utcoffset()
    await engine.dispose()
