from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.repository import Repository

PASSWORD = "secret"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture
def repository(path: Path, tmp_path: Path) -> Iterator[Repository]:
    made = Repository.create(LocalBackend(path), PASSWORD, tmp_path / "cache")
    yield made
    made.close()
