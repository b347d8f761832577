"""The plug-in nutanix-files passes the conformance suite on its simulator."""

from collections.abc import Iterator

import pytest
from tests.conformance.nutanix_files_target import NutanixFilesTarget, Stage

from snapkeep.conformance.suite import *  # noqa: F403
from snapkeep.simulators.kit.process import SimulatorProcess


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with SimulatorProcess(tmp_path_factory.mktemp("nutanix-files")) as simulator:
        made = Stage(simulator)
        yield made
        made.close()


@pytest.fixture
def target(stage: Stage) -> Iterator[NutanixFilesTarget]:
    """A file server of its own for each test, on the one simulator."""
    with NutanixFilesTarget(stage) as made:
        yield made
