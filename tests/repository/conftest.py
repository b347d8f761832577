from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.s3 import S3Server
from tests.support.sshd import SshServer

from snapkeep.repository import writing
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


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = f"bucket-{os.urandom(6).hex()}"
    s3.make_bucket(name)
    return name


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs and index files of few blobs."""
    monkeypatch.setattr(writing, "PACK_SIZE", 20_000)
    monkeypatch.setattr(writing, "INDEX_BLOBS", 100)
