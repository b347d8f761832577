"""Migrations: from nothing, from every earlier revision with rows in it, at the same moment, and half way.

A new revision is covered without a change here: rows are made from the columns that a revision has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, MetaData, String, create_engine, event, insert, inspect, select, text

from snapkeep.catalog.database import MIGRATIONS, connect_database, migrate, migrate_database, open_database
from snapkeep.catalog.tables import metadata

SCRIPTS = ScriptDirectory(str(MIGRATIONS))
REVISIONS = [script.revision for script in reversed(list(SCRIPTS.walk_revisions()))]
"""From the first to the newest."""
OPEN_AT_A_SIGN = """
import asyncio, sys
from snapkeep.catalog.database import open_database
async def main():
    await (await open_database(sys.argv[1])).dispose()
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main())
"""
Rows = dict[str, list[dict[str, Any]]]


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """The database as it is, without the product's own opening."""
    engine = create_engine(database_url.replace("+aiosqlite", ""))
    yield engine
    engine.dispose()


async def upgrade(url: str) -> None:
    """Bring a database to the newest revision, as the product does."""
    engine = connect_database(url)
    try:
        await migrate_database(engine)
    finally:
        await engine.dispose()


def differences(connection: Connection) -> list[Any]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


def tables_of(engine: Engine) -> MetaData:
    """Return the tables as they are at present."""
    found = MetaData()
    found.reflect(engine)
    found.remove(found.tables["alembic_version"])
    return found


def value(column: Column[Any], number: int) -> Any:
    """Return something for a column of row `number`: for a reference, the key of row `number` of the other table."""
    for reference in column.foreign_keys:
        return value(reference.column, number)
    kind = column.type.python_type
    if kind is str:
        return f"{number} äß {column.table.name}.{column.name}"[: getattr(column.type, "length", None)]
    if kind is datetime:
        return datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC) + timedelta(days=number)
    samples = {bool: number % 2 == 0, int: number, float: number / 8, bytes: bytes([0, 255, number])}
    return samples.get(kind, {"number": number, "none": None, "text": "äß\n"})


def fill(engine: Engine) -> None:
    """Put three rows into every table."""
    with engine.begin() as connection:
        for table in tables_of(engine).sorted_tables:
            rows = [{column.name: value(column, number) for column in table.c} for number in range(3)]
            connection.execute(insert(table), rows)


def rows_of(engine: Engine, tables: MetaData) -> Rows:
    """Return all rows, with the columns of `tables`."""
    with engine.connect() as connection:
        return {
            table.name: [dict(row) for row in connection.execute(select(table).order_by(*table.primary_key)).mappings()]
            for table in tables.sorted_tables
        }


@contextmanager
def dying_at_table(number: int, death: type[BaseException]) -> Iterator[None]:
    """Let the work on any database break off before it makes its table `number` of the product."""
    made = 0

    def die(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        nonlocal made
        made += statement.strip().startswith("CREATE TABLE") and "alembic_version" not in statement
        if made == number:
            raise death

    event.listen(Engine, "before_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", die)


def test_the_revisions_are_one_line() -> None:
    assert len(SCRIPTS.get_heads()) == 1
    assert len(SCRIPTS.get_bases()) == 1
    assert [script.is_merge_point for script in SCRIPTS.walk_revisions()] == [False] * len(REVISIONS)


async def test_an_empty_database_gets_exactly_the_tables(database_url: str, engine: Engine) -> None:
    for _ in range(2):  # opening again changes nothing
        await (await open_database(database_url)).dispose()
        with engine.connect() as connection:
            assert differences(connection) == []
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == REVISIONS[-1:]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_rows_of_every_revision_are_kept(database_url: str, engine: Engine, revision: str) -> None:
    with engine.begin() as connection:
        migrate(connection, revision)
    fill(engine)
    tables = tables_of(engine)
    before = rows_of(engine, tables)
    assert all(len(rows) == 3 for rows in before.values())
    await upgrade(database_url)
    assert rows_of(engine, tables) == before
    with engine.connect() as connection:
        assert differences(connection) == []
        if engine.dialect.name == "sqlite":
            assert connection.execute(text("PRAGMA foreign_key_check")).all() == []


async def test_text_sorts_by_code_points_whatever_the_server_prefers(database_url: str, engine: Engine) -> None:
    await upgrade(database_url)
    types = [column.type for table in tables_of(engine).tables.values() for column in table.c]
    collations = {kind.collation for kind in types if isinstance(kind, String)}
    assert collations == ({None} if engine.dialect.name == "sqlite" else {"C"})


@pytest.mark.parametrize(("number", "death"), [(1, RuntimeError), (4, RuntimeError), (4, KeyboardInterrupt)])
async def test_a_migration_that_died_half_way_left_nothing(
    database_url: str, engine: Engine, number: int, death: type[BaseException]
) -> None:
    with dying_at_table(number, death), pytest.raises(death):
        await open_database(database_url)
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    await upgrade(database_url)
    with engine.connect() as connection:
        assert differences(connection) == []


def test_several_processes_may_open_an_empty_database_at_the_same_moment(database_url: str) -> None:
    command = [sys.executable, "-c", OPEN_AT_A_SIGN, database_url]
    pipe = subprocess.PIPE
    children = [subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) for _ in range(4)]
    try:
        for child in children:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin
            child.stdin.write("\n")
            child.stdin.flush()
        ended = [(child.communicate(timeout=60)[1], child.returncode) for child in children]
        assert ended == [("", 0)] * len(children)
    finally:
        for child in children:
            child.kill()
            child.communicate()
