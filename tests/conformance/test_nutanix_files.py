"""The plug-in nutanix-files passes the conformance suite on its simulator."""

from collections.abc import Iterator

import pytest
from tests.conformance.nutanix_files_target import NutanixFilesTarget, defaults

from snapkeep.conformance.suite import *  # noqa: F403
from snapkeep.simulators.kit.process import SimulatorProcess


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    with SimulatorProcess(tmp_path_factory.mktemp("nutanix-files")) as running:
        yield running


@pytest.fixture(scope="session")
def settings(simulator: SimulatorProcess) -> dict[str, object]:
    """The simulator's own settings as it starts, to which each test goes back."""
    return defaults(simulator)


@pytest.fixture
def target(simulator: SimulatorProcess, settings: dict[str, object]) -> Iterator[NutanixFilesTarget]:
    """A file server of its own for each test, on the one simulator."""
    with NutanixFilesTarget(simulator, settings) as made:
        yield made
