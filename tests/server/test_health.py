"""Health: true answers, quickly, to anybody, and nothing more than that."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import httpx2
import pytest
from tests.support.installation import Installation, installed, until
from tests.support.postgres import Postgres

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.server.health import WAIT_SECONDS, Health, Shared


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("health")) as installation:
        yield installation


def get(installation: Installation, what: str) -> httpx2.Response:
    return httpx2.get(f"{installation.rest.url}/health/{what}", verify=installation.trust)


def test_health_needs_no_token_and_says_no_more_than_it_must(own: Installation) -> None:
    assert get(own, "live").json() == {"status": "ok"}
    ready = until(lambda: (answer := get(own, "ready")).status_code == 200 and answer)
    assert ready.json() == {"status": "ok", "checks": {"database": "ok", "engine": "ok", "worker": "ok"}}
    assert httpx2.get(f"{own.rest.url}/health", verify=own.trust).status_code in {401, 404}
    assert "/health/ready" not in own.rest.request("GET", "/openapi.json")["paths"]


@contextmanager
def hidden_table(catalog: Path, table: str) -> Iterator[None]:
    """Take a table away from the server, as damage would."""
    with closing(sqlite3.connect(catalog, timeout=30, isolation_level=None)) as connection:
        connection.execute(f"ALTER TABLE {table} RENAME TO hidden")
        try:
            yield
        finally:
            connection.execute(f"ALTER TABLE hidden RENAME TO {table}")


@pytest.mark.parametrize(("table", "check"), [("systems", "database"), ("workers", "worker")])
def test_a_check_that_fails_is_named_without_detail(own: Installation, table: str, check: str) -> None:
    with hidden_table(own.server.data_dir / "catalog.sqlite", table):
        answer = get(own, "ready")
        assert answer.status_code == 503
        assert answer.json()["status"] == "failed"
        failed = {name for name, word in answer.json()["checks"].items() if word == "failed"}
        assert failed == {check}
        assert get(own, "live").status_code == 200
    until(lambda: get(own, "ready").status_code == 200)
    log = own.server.log.read_text()
    assert f"no such table: {table}" in log  # why: for those who may read the log
    assert "ready again" in log


def test_a_heartbeat_of_somebody_else_is_not_ours(own: Installation) -> None:
    until(lambda: get(own, "ready").status_code == 200)
    with closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite", timeout=30)) as catalog:
        [(mine,)] = catalog.execute("SELECT incarnation FROM workers WHERE name = 'serve'")
        for incarnation, status in (("another", 503), (mine, 200)):
            with catalog:
                catalog.execute("UPDATE workers SET incarnation = ? WHERE name = 'serve'", [incarnation])
            assert get(own, "ready").status_code == status


@asynccontextmanager
async def health_of(url: str) -> AsyncIterator[tuple[Catalog, Health]]:
    async def runs() -> bool:
        return True

    async with open_catalog(url, b"k" * 32) as catalog:
        await catalog.workers.register("w", "1", queues=["default"], host="h", place="p", pid=1, version="v")
        yield catalog, Health(catalog, engine_runs=runs, worker=lambda: ("w", "1"), takeover_seconds=0.5)


async def test_a_stale_heartbeat_fails_in_both_databases(database_url: str) -> None:
    async with health_of(database_url) as (catalog, health):
        assert await health.checks() == {"database": True, "engine": True, "worker": True}
        await asyncio.sleep(0.6)
        assert await health.checks() == {"database": True, "engine": True, "worker": False}
        await catalog.workers.beat("w", "1")
        assert (await health.checks())["worker"]
        await catalog.workers.leave("w", "1")
        assert not (await health.checks())["worker"]


def freeze(postgres: Postgres, database: str) -> list[int]:
    """Stop the connections of a database, and the server from making others; return the processes, the parent last."""
    with closing(postgres.connect()) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        pids = [pid for (pid,) in connection.execute(query, [database])]
    parent = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
    for pid in (*pids, parent):
        os.kill(pid, signal.SIGSTOP)
    return [*pids, parent]


async def test_a_database_that_hangs_or_is_gone_is_told_in_time(postgres: Postgres) -> None:
    url = postgres.create_database()
    async with health_of(url) as (catalog, health):
        assert (await health.checks())["database"]
        frozen = freeze(postgres, url.rpartition("/")[2])
        try:
            began = time.monotonic()
            asked = await asyncio.gather(*(health.checks() for _ in range(50)))
            assert time.monotonic() - began < WAIT_SECONDS + 0.5
            assert all(not answer["database"] and not answer["worker"] and answer["engine"] for answer in asked)
            assert catalog.database.connect().engine.pool.status().count("Checked out connections: 2"), (
                "waiters pile up"
            )
        finally:
            for pid in reversed(frozen):
                os.kill(pid, signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert (await health.checks())["database"]
        postgres.stop()
        try:
            began = time.monotonic()
            assert not (await health.checks())["database"]
            assert time.monotonic() - began < WAIT_SECONDS + 0.5
        finally:
            postgres.start()
        assert (await health.checks())["database"]
    postgres.drop_database(url)


async def test_a_shared_question_is_asked_once_and_its_answer_kept() -> None:
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0.05)
        if asked == 2:
            raise ValueError("no")
        return asked

    shared = Shared(ask, wait=1.0, keep=0.2)
    assert await asyncio.gather(*(shared.answer() for _ in range(5))) == [1] * 5
    assert await shared.answer() == 1
    await asyncio.sleep(0.25)
    with pytest.raises(ValueError, match="no"):
        await shared.answer()
    assert await shared.answer() == 3  # a failure is not kept
    slow = Shared(ask, wait=0.01)
    with pytest.raises(TimeoutError):
        await slow.answer()
    await asyncio.sleep(0.1)
