"""What all tests may use."""

from collections.abc import Iterator

import pytest
from tests.support.installation import Installation, installed


@pytest.fixture(scope="session")
def running_installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation")) as installation:
        yield installation


@pytest.fixture
def installation(running_installation: Installation) -> Installation:
    """Simulator and server, shared by the session and put back to the beginning; `files1` is discovered."""
    running_installation.reset()
    return running_installation
