from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """restic writes times in the zone of the machine, we in UTC."""
    monkeypatch.setenv("TZ", "UTC")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    """An empty repository: to derive its keys takes half a second, so it is made once."""
    path = tmp_path_factory.mktemp("made") / "repository"
    repository = Repository.create(LocalBackend(path), "secret")
    repository.close()
    return path, repository.key


@pytest.fixture
def repository(made: tuple[Path, Key], tmp_path: Path) -> Iterator[Repository]:
    path, key = made
    shutil.copytree(path, tmp_path / "repository")
    opened = Repository.open(LocalBackend(tmp_path / "repository"), "", tmp_path / "cache", key=key)
    yield opened
    opened.close()


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """The source of backups; its path ends as the logical one does."""
    path = tmp_path / "files1" / "projects"
    path.mkdir(parents=True)
    return path
