"""The PostgreSQL that tests run on: it survives a kill, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from tests.support.installation import until
from tests.support.postgres import Postgres, require_binaries, running_postgres

ENDS_WITHOUT_CLEANING_UP = """
import os
from tests.support.postgres import running_postgres
with running_postgres() as postgres:
    print(postgres.directory, postgres._child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("fsync", [False, True])
def test_what_was_committed_survives_a_kill(fsync: bool) -> None:
    with running_postgres(fsync=fsync) as postgres:
        port = postgres.port
        for number in range(3):
            with postgres.connect() as connection:
                assert connection.execute("SHOW fsync").fetchone() == ("on" if fsync else "off",)
                connection.execute("CREATE TABLE IF NOT EXISTS kept (number integer)")
                connection.execute("INSERT INTO kept VALUES (%s)", [number])
                postgres.kill()
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
            postgres.start()
            assert postgres.port == port
        with postgres.connect() as connection:
            assert connection.execute("SELECT number FROM kept ORDER BY 1").fetchall() == [(0,), (1,), (2,)]
        segment = (postgres.directory / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1]
        assert segment in shared_memory()
        postgres.kill()
        assert not postgres.running
    assert not postgres.directory.exists()
    assert segment not in shared_memory()


def test_a_database_is_new_and_empty_and_goes_with_its_connections(postgres: Postgres) -> None:
    first, second = postgres.create_database(), postgres.create_database()
    with postgres.connect(first.rpartition("/")[2]) as connection:
        connection.execute("CREATE TABLE mine ()")
        with postgres.connect(second.rpartition("/")[2]) as other:
            assert other.execute("SELECT to_regclass('mine')").fetchone() == (None,)
        postgres.drop_database(first)
        postgres.drop_database(second)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_it_ends_with_the_process_that_started_it() -> None:
    require_binaries()
    command = [sys.executable, "-c", ENDS_WITHOUT_CLEANING_UP]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": "."})
    directory, pid = done.stdout.split()
    try:
        until(lambda: not Path(directory, "data", "postmaster.pid").exists())
        until(lambda: not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
    finally:
        subprocess.run(["rm", "-rf", directory], check=True)


def shared_memory() -> set[str]:
    """Return the ids of the segments of shared memory on this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}
