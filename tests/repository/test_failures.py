"""Disks and backends that fail while a repository is written to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.repository.support import fill, reopen, save
from tests.support.restic import run_restic

from snapkeep.model.errors import LimitExceeded, NotFound, PermissionDenied, Unavailable
from snapkeep.repository import writing
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

DATA = BlobType.DATA


class FailingBackend(LocalBackend):
    """Fails from the n-th file of a kind on."""

    def __init__(self, path: Path, kind: FileKind, after: int) -> None:
        super().__init__(path)
        self._kind = kind
        self._left = after

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        if kind is self._kind:
            self._left -= 1
            if self._left < 0:
                raise Unavailable("gone")
        super().save(kind, name, data)


@pytest.mark.usefixtures("small_packs")
@pytest.mark.parametrize("kind", [FileKind.DATA, FileKind.INDEX, FileKind.SNAPSHOT])
def test_an_error_of_the_backend_comes_out_and_nothing_more_is_written(
    repository: Repository, path: Path, kind: FileKind
) -> None:
    failing = Repository.open(FailingBackend(path, kind, 0 if kind is FileKind.SNAPSHOT else 3), "", key=repository.key)
    with pytest.raises(Unavailable, match="gone"):
        save(failing, fill(failing, 3000))
    if kind is not FileKind.SNAPSHOT:
        for _ in range(2):
            with pytest.raises(Unavailable, match="gone"):
                failing.flush()
            with pytest.raises(Unavailable, match="gone"):
                failing.add_plain(DATA, os.urandom(9))
    failing.close()
    blobs = fill(repository, 3000)
    save(repository, blobs)
    run_restic(path, "check", "--read-data")


def test_when_the_last_index_file_fails_nothing_more_is_written(repository: Repository, path: Path) -> None:
    failing = Repository.open(FailingBackend(path, FileKind.INDEX, 0), "", key=repository.key)
    fill(failing, 10)
    for attempt in (failing.flush, lambda: failing.add_plain(DATA, b"more"), failing.flush):
        with pytest.raises(Unavailable, match="gone"):
            attempt()
    failing.close()


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from snapkeep.model.errors import LimitExceeded
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository
from tests.repository.support import fill, save
key = Key.from_json(sys.stdin.buffer.read())
repository = Repository.open(LocalBackend(Path(sys.argv[1])), "", key=key)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    save(repository, fill(repository, 3000))
except LimitExceeded as error:
    print(error.next_step)
repository.close()
"""


def test_a_full_disk(repository: Repository, path: Path) -> None:
    blobs = fill(repository, 100, seed=5)
    save(repository, blobs)
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, path],
        input=repository.key.to_json(),
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert b"Make room" in done.stdout
    assert list((path / "tmp").iterdir()) == []
    run_restic(path, "check", "--read-data")
    save(repository, fill(repository, 3000))
    run_restic(path, "check", "--read-data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_no_right_to_write(repository: Repository, path: Path) -> None:
    (path / "tmp").chmod(0o500)
    with pytest.raises(PermissionDenied):
        save(repository, fill(repository, 3))
    (path / "tmp").chmod(0o700)


def test_other_errors_of_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalBackend(path)
    backend.create()
    for number, expected in (
        (errno.EIO, Unavailable),
        (errno.ESTALE, Unavailable),
        (errno.ENOSPC, LimitExceeded),
        (errno.EDQUOT, LimitExceeded),
        (errno.EROFS, PermissionDenied),
        (errno.EACCES, PermissionDenied),
    ):

        def fail(*_: object, number: int = number) -> int:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", fail)
            with pytest.raises(expected, match=os.strerror(number)):
                backend.save(FileKind.DATA, "ab" * 32, b"data")
    assert list(backend.list(FileKind.DATA)) == []
    assert list((path / "tmp").iterdir()) == []


def test_uploads_are_bounded(repository: Repository, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who adds quicker than packs can be stored waits: memory does not grow."""
    monkeypatch.setattr(writing, "PACK_SIZE", 10_000)
    go = threading.Event()

    class Slow(LocalBackend):
        def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
            if kind is FileKind.DATA:
                assert go.wait(60)
            super().save(kind, name, data)

    slow = Repository.open(Slow(path), "", key=repository.key)
    plains: Iterator[bytes] = (os.urandom(1000) for _ in range(500))
    worker = threading.Thread(target=lambda: [slow.add_plain(DATA, plain) for plain in plains])
    worker.start()
    worker.join(1)
    assert worker.is_alive()
    assert slow.statistics.blobs_new < 60
    go.set()
    worker.join(60)
    slow.flush()
    assert slow.statistics.blobs_new == 500
    slow.close()


def test_a_cache_that_cannot_be_written_is_named(repository: Repository, tmp_path: Path) -> None:
    save(repository, fill(repository, 3))
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cache of the repository's index"):
        reopen(repository, tmp_path / "file")


def test_a_copy_without_empty_directories(repository: Repository, path: Path, tmp_path: Path) -> None:
    blobs = fill(repository, 3)
    name = save(repository, blobs)
    for directory in (path / FileKind.LOCK, path / "tmp", *(path / FileKind.DATA).iterdir()):
        if not any(directory.iterdir()):
            directory.rmdir()
    other = reopen(repository)
    with other.locked():
        save(other, fill(other, 2000, seed=9))
        assert other.snapshot(name[:20]).id == name
        assert dict(other.load_many(DATA, blobs)) == blobs
    other.close()
    run_restic(path, "check", "--read-data")


def test_a_repository_that_is_not_mounted_is_not_empty(repository: Repository, path: Path) -> None:
    save(repository, fill(repository, 3))
    path.rename(path.with_name("elsewhere"))
    path.mkdir()
    with pytest.raises(NotFound, match="not in the repository"):
        repository.snapshots()
    with pytest.raises(NotFound):
        repository.refresh()
    with pytest.raises(NotFound):
        save(repository, fill(repository, 3, seed=1))
    with pytest.raises(NotFound, match="no repository"):
        reopen(repository)
