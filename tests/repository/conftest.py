from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "repository"


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Key]:
    """A repository that is copied: to derive the keys of each from a password would take most of the time."""
    path = tmp_path_factory.mktemp("empty") / "repository"
    repository = Repository.create(LocalBackend(path), "secret")
    repository.close()
    return path, repository.key


@pytest.fixture
def repository(empty: tuple[Path, Key], path: Path, tmp_path: Path) -> Iterator[Repository]:
    """An empty repository below `path`; its password is `secret`."""
    shutil.copytree(empty[0], path)
    opened = Repository.open(LocalBackend(path), "", tmp_path / "cache", key=empty[1])
    yield opened
    opened.close()
