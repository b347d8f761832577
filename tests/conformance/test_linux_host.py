"""The plug-in linux-host passes the conformance suite on a real btrfs file system, with the host's own programs."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.linux_host_ssh_target import Machine, SshLinuxHostTarget, machine
from tests.conformance.linux_host_target import LinuxHostTarget

from snapkeep.conformance.suite import *  # noqa: F403


@pytest.fixture(scope="session")
def reached_by_ssh() -> Iterator[Machine]:
    with machine() as made:
        yield made


@pytest.fixture(params=["local", "ssh"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LinuxHostTarget]:
    """A file system of its own for each test."""
    by_ssh = request.param == "ssh"
    made = (
        SshLinuxHostTarget(tmp_path, request.getfixturevalue("reached_by_ssh")) if by_ssh else LinuxHostTarget(tmp_path)
    )
    with made:
        yield made
