"""SQLite in the loop: single statements beside transactions."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import text

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url


async def test_a_single_statement_waits_for_a_transaction_without_holding_up_the_loop(tmp_path: Path) -> None:
    async with open_catalog(sqlite_url(tmp_path / "catalog.sqlite"), bytes(32)) as catalog:
        database, order = catalog.database, []

        async def write(name: str) -> None:
            async with database.single() as connection:
                await connection.execute(text("INSERT INTO notes VALUES (:name, x'00')"), {"name": name})
            order.append(name)

        async with database.begin() as connection:
            await connection.execute(text("INSERT INTO notes VALUES ('transaction', x'00')"))
            waiting = asyncio.create_task(write("single"))
            await asyncio.sleep(0.1)
            order.append("transaction")
        await asyncio.wait_for(waiting, 5)
        assert order == ["transaction", "single"]


async def test_a_transaction_is_on_the_disk_when_it_ends(tmp_path: Path) -> None:
    async with open_catalog(sqlite_url(tmp_path / "catalog.sqlite"), bytes(32)) as catalog:
        async with catalog.database.begin() as connection:
            assert (await connection.execute(text("PRAGMA synchronous"))).scalar_one() == 2  # FULL
        async with catalog.database.single(durable=True) as connection:
            assert (await connection.execute(text("PRAGMA synchronous"))).scalar_one() == 2
        async with catalog.database.single() as connection:
            assert (await connection.execute(text("PRAGMA synchronous"))).scalar_one() == 1  # NORMAL


async def test_others_have_their_turn_between_statements(tmp_path: Path) -> None:
    async with open_catalog(sqlite_url(tmp_path / "catalog.sqlite"), bytes(32)) as catalog:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async with catalog.database.connect() as connection:
            for _ in range(20):
                await connection.execute(text("SELECT 1"))
        task.cancel()
        assert turns >= 20
