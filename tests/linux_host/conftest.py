"""A host for every test that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.linux_host.played import played
from tests.support.host_programs import Programs


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    with played(tmp_path, monkeypatch) as programs:
        yield programs
