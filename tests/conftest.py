"""What all tests may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, installed
from tests.support.postgres import Postgres, running_postgres

from snapkeep.catalog.database_url import sqlite_url


@pytest.fixture(autouse=True)
def same_umask() -> Iterator[None]:
    """A command that runs in this process makes its files for the owner alone; those of the next test are its own."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def running_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as installation:
        yield installation


@pytest.fixture
def installation(running_installation: Installation) -> Installation:
    """Simulator and server, shared by the session and put back to the beginning; `files1` is discovered."""
    running_installation.reset()
    return running_installation


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL shared by the session; a test that kills or stops it must start it again."""
    with running_postgres() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A new and empty database, once of each kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path / "catalog.sqlite")
        return
    cluster: Postgres = request.getfixturevalue("postgres")
    url = cluster.create_database()
    yield url
    cluster.drop_database(url)
