"""What the tests of NFS share: one server."""

from collections.abc import Iterator

import pytest
from tests.support.ganesha import NfsServer


@pytest.fixture(scope="session")
def nfs_server() -> Iterator[NfsServer]:
    with NfsServer() as server:
        yield server


@pytest.fixture
def nfs(nfs_server: NfsServer) -> NfsServer:
    """A server that exports nothing."""
    nfs_server.clear()
    return nfs_server
