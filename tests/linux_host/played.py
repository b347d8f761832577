"""A host with a pool of ZFS and a volume group of LVM, whose programs are played."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.linux_host.person import Person
from tests.linux_host.person import person as connected
from tests.support.host_programs import Programs, lvm, zfs
from tests.support.host_programs.state import edited


@contextmanager
def played(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """A host with a pool and a volume group."""
    (directory / "bin").mkdir(parents=True)
    patch.setenv("PATH", f"{directory / 'bin'}:{os.environ['PATH']}")
    programs = Programs(directory / "host", directory / "bin")
    with edited(programs.file) as state:
        zfs.create(state, "tank")
        zfs.create(state, "tank/data")
        lvm.pool(state, "vg0")
        lvm.create(state, "vg0", "data")
    yield programs
    programs.close()


def person(host: Programs, **settings: Any) -> AbstractAsyncContextManager[Person]:
    return connected(export_directory=str(host.file.parent / "exports"), **settings)
