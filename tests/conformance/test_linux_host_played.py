"""The plug-in linux-host passes the conformance suite for ZFS and LVM with programs that are played, not real ones."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.linux_host_played_target import LvmTarget, PlayedTarget, ZfsTarget

from snapkeep.conformance.suite import *  # noqa: F403


@pytest.fixture(params=[ZfsTarget, LvmTarget], ids=["zfs", "lvm"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PlayedTarget]:
    """A host of its own for each test."""
    with request.param(tmp_path) as made:
        yield made
