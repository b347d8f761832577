"""One simulator for a test run, put back to its default content for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("nutanix"), arguments=["--http"]) as simulator:
        yield simulator


@pytest.fixture
def simulator(running: SimulatorProcess) -> SimulatorProcess:
    running.control("POST", "/reset")
    running.control("POST", "/sessions/expire", {"refuse": 0})
    return running


@pytest.fixture
def api(simulator: SimulatorProcess) -> Iterator[Api]:
    client = Api(simulator)
    yield client
    client.close()


@pytest.fixture
def live(simulator: SimulatorProcess) -> Path:
    """The live directory of the share `projects`."""
    return Path(simulator.control("GET", "/file-servers/files1/shares/projects")["live"])
