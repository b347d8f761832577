from __future__ import annotations

import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.repository.support import fill, reopen, save
from tests.support.restic import run_restic

from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    Damaged,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)
from snapkeep.repository import writing
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType, seal_blob
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.repository.unpacked import load_unpacked, save_unpacked

DATA, TREE = BlobType.DATA, BlobType.TREE


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs and index files of few blobs."""
    monkeypatch.setattr(writing, "PACK_SIZE", 20_000)
    monkeypatch.setattr(writing, "INDEX_BLOBS", 100)


def files(path: Path, kind: FileKind) -> list[Path]:
    return [file for file in (path / kind).rglob("*") if file.is_file()]


def overwrite(file: Path, content: bytes) -> None:
    file.chmod(0o600)
    file.write_bytes(content)


def test_a_blob_is_there_at_once_and_after_the_end(repository: Repository, tmp_path: Path) -> None:
    blob = seal_blob(repository.key, DATA, b"content")
    assert not repository.has(DATA, blob.id)
    assert repository.add(blob)
    assert not repository.add(blob)
    assert repository.has(DATA, blob.id)
    assert not repository.has(TREE, blob.id)
    assert repository.load(DATA, blob.id) == b"content"
    repository.flush()
    repository.flush()
    assert not repository.add(blob)
    assert repository.load(DATA, blob.id) == b"content"
    assert (repository.statistics.blobs_new, repository.statistics.blobs_known) == (1, 2)
    for cache in (None, tmp_path / "cache", tmp_path / "cache"):
        other = reopen(repository, cache)
        assert not other.add(blob)
        assert other.load(DATA, blob.id) == b"content"
        other.close()


def test_the_same_content_may_be_data_and_a_tree(repository: Repository) -> None:
    for turn in range(2):
        assert repository.add_plain(DATA, b"{}") == repository.add_plain(TREE, b"{}")
        assert (repository.load(DATA, repository.add_plain(TREE, b"{}"))) == b"{}", turn
        repository.flush()
    assert repository.statistics.packs == 2


@pytest.mark.usefixtures("small_packs")
def test_packs_and_index_files_are_written_on_the_way(repository: Repository, path: Path) -> None:
    blobs = fill(repository, 3000)
    assert len(files(path, FileKind.INDEX)) > 3
    for name, plain in random.sample(sorted(blobs.items()), 300):  # in packs that grow, are uploaded, are indexed
        assert repository.load(DATA, name) == plain
    save(repository, blobs)
    assert sum(len(pending) for pending in repository._writer._pending) == 0
    assert repository.statistics.packs == len(files(path, FileKind.DATA)) > 50
    written = sum(file.stat().st_size for kind in (FileKind.DATA, FileKind.INDEX) for file in files(path, kind))
    assert repository.statistics.bytes_written == written
    run_restic(path, "check", "--read-data")


@pytest.mark.usefixtures("small_packs")
def test_many_are_loaded_each_once_whatever_is_asked(repository: Repository) -> None:
    blobs = fill(repository, 2000)
    found = list(repository.load_many(DATA, [*blobs, *list(blobs)[:50]]))
    assert len(found) == len(blobs)
    assert dict(found) == blobs
    repository.flush()
    some = dict(random.sample(sorted(blobs.items()), 700))
    assert dict(repository.load_many(DATA, iter(some))) == some
    assert list(repository.load_many(DATA, [])) == []
    first, *_ = repository.load_many(DATA, some)  # and who stops early is no trouble
    assert first[0] in some
    with pytest.raises(Damaged, match="ff" * 32):
        list(repository.load_many(DATA, [*some, b"\xff" * 32]))


@pytest.mark.usefixtures("small_packs")
def test_many_threads_add_and_load_at_once(repository: Repository, path: Path) -> None:
    def work(number: int) -> dict[bytes, bytes]:
        added = fill(repository, 400, seed=number % 5)  # others add the same
        assert all(repository.load(DATA, name) == plain for name, plain in list(added.items())[::7])
        return added

    with ThreadPoolExecutor(8) as threads:
        blobs = {name: plain for added in threads.map(work, range(8)) for name, plain in added.items()}
    save(repository, blobs)
    assert repository.statistics.blobs_new == len(blobs) + 1
    assert dict(repository.load_many(DATA, blobs)) == blobs
    assert sum(len(repository.pack_entries(name, size)) for name, size in repository.packs()) == len(blobs) + 1
    run_restic(path, "check", "--read-data")


def test_two_writers_at_once(repository: Repository, path: Path, tmp_path: Path) -> None:
    """Each may store what the other does, too: that costs room and breaks nothing."""
    other = reopen(repository, tmp_path / "other")
    with repository.locked(), other.locked():
        first, second = fill(repository, 500, seed=1), fill(other, 500, seed=2)
        shared = fill(repository, 500, seed=3)
        assert fill(other, 500, seed=3) == shared
        save(repository, first | shared)
        save(other, second | shared)
    run_restic(path, "check", "--read-data")
    repository.refresh()
    assert dict(repository.load_many(DATA, second | shared)) == second | shared
    assert len(repository.locations(DATA, next(iter(shared)))) == 2
    other.close()


def test_recovery_points(repository: Repository) -> None:
    assert repository.snapshots() == []
    blobs = fill(repository, 3)
    names = [save(repository, blobs, f"/{number}") for number in range(20)]
    assert [snapshot.id for snapshot in repository.snapshots()] == names
    assert repository.snapshot(names[4]).paths == ("/4",)
    assert repository.snapshot(names[4][:12]).id == names[4]
    digits = [name[0] for name in names]
    with pytest.raises(InvalidInput, match="More than one"):
        repository.snapshot(max(digits, key=digits.count))
    repository.forget(names[4])
    repository.forget(names[4])
    for missing in (names[4], names[4][:20], "", "xyz", "../snapshots/" + names[3], "../" * 20 + "home"):
        with pytest.raises(NotFound):
            repository.snapshot(missing)
    for wrong in ("", "../config", names[3][:20]):
        with pytest.raises(InvalidInput):
            repository.forget(wrong)
    assert len(repository.snapshots()) == 19


def test_unknown_fields_and_times_of_a_recovery_point_are_kept() -> None:
    text = (
        b'{"time":"2024-02-29T10:11:12.1234567+05:30","tree":"00","paths":["/a"],"hostname":"h","tags":["t"],'
        b'"summary":{"files_new":1},"new":{"a":[1]}}'
    )
    snapshot = SnapshotFile.from_json(text, "id")
    assert snapshot.time == datetime(2024, 2, 29, 4, 41, 12, 123456, UTC)
    assert SnapshotFile.from_json(snapshot.to_json()) == snapshot
    changed = SnapshotFile.from_json(replace(snapshot, tags=("u",), original="id").to_json())
    assert (changed.other, changed.tags, changed.original) == ({"new": {"a": [1]}}, ("u",), "id")
    plain = SnapshotFile.from_json(b'{"time":"2024-02-29T10:11:12Z","tree":"00","paths":null}')
    assert plain.to_json() == b'{"time":"2024-02-29T10:11:12Z","tree":"00","paths":[]}'


@pytest.mark.parametrize("text", [b"", b"[]", b"1", b"{}", b'{"time":"never","tree":"00","paths":[]}', b"\xff"])
def test_a_recovery_point_that_cannot_be_read(repository: Repository, text: bytes) -> None:
    name, _ = save_unpacked(LocalBackend(Path(repository.location)), repository.key, FileKind.SNAPSHOT, text)
    with pytest.raises(Damaged, match=name):
        repository.snapshot(name)


def test_making_and_opening(path: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no repository"):
        Repository.open(LocalBackend(path), "secret")
    with pytest.raises(InvalidInput):
        Repository.create(LocalBackend(path), "")
    repository = Repository.create(LocalBackend(path), "secret")
    with pytest.raises(Conflict):
        Repository.create(LocalBackend(path), "secret")
    with pytest.raises(AuthenticationFailed) as raised:
        Repository.open(LocalBackend(path), "wrong secret")
    assert "wrong secret" not in f"{raised.value.to_dict()}"
    with pytest.raises(Damaged):
        Repository.open(LocalBackend(path), "", key=Key.random())

    # What is left of a creation that was killed is no obstacle; a repository that lost its configuration is.
    (path / "config").unlink()
    Repository.create(LocalBackend(path), "new").close()
    assert len(files(path, FileKind.KEY)) == 1
    repository = Repository.open(LocalBackend(path), "new")
    save(repository, fill(repository, 1))
    (path / "config").unlink()
    with pytest.raises(Conflict, match="whose configuration is gone"):
        Repository.create(LocalBackend(path), "new")
    assert len(files(path, FileKind.KEY)) == 1
    repository.close()


def test_nothing_is_left_behind_without_a_cache(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    repository = Repository.create(LocalBackend(path), "secret")
    save(repository, fill(repository, 10))
    repository.close()
    with pytest.raises(AuthenticationFailed):
        Repository.open(LocalBackend(path), "wrong")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert files(path, FileKind.LOCK) == list((path / "tmp").iterdir()) == []


class TestDamage:
    @pytest.fixture
    def blobs(self, repository: Repository) -> dict[bytes, bytes]:
        blobs = fill(repository, 200)
        save(repository, blobs)
        return blobs

    @pytest.fixture
    def data_pack(self, repository: Repository, path: Path, blobs: dict[bytes, bytes]) -> Path:
        (place,) = repository.locations(DATA, next(iter(blobs)))
        return path / FileKind.DATA / place.pack.hex()[:2] / place.pack.hex()

    @pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone"])
    def test_of_a_pack(self, repository: Repository, blobs: dict[bytes, bytes], data_pack: Path, how: str) -> None:
        content = data_pack.read_bytes()
        last, *_ = reversed(blobs)
        offset = repository.locations(DATA, last)[0].offset
        match how:
            case "flip":
                overwrite(
                    data_pack, content[: offset + 20] + bytes([content[offset + 20] ^ 1]) + content[offset + 21 :]
                )
            case "cut":
                overwrite(data_pack, content[: offset + 5])
            case "empty":
                overwrite(data_pack, b"")
            case "gone":
                data_pack.unlink()
        with pytest.raises(Damaged, match=data_pack.name) as raised:
            repository.load(DATA, last)
        assert "repository check" in raised.value.next_step
        with pytest.raises(Damaged, match=data_pack.name):
            list(repository.load_many(DATA, blobs))
        with pytest.raises((Damaged, NotFound), match=data_pack.name):
            repository.verify_pack(data_pack.name)
        if how in ("flip", "cut"):
            first = next(iter(blobs))
            assert repository.load(DATA, first) == blobs[first]

    def test_is_healed_by_another_pack(
        self, repository: Repository, blobs: dict[bytes, bytes], data_pack: Path, tmp_path: Path
    ) -> None:
        indexes = {file: file.read_bytes() for file in files(Path(repository.location), FileKind.INDEX)}
        for file in indexes:
            file.unlink()
        other = reopen(repository, tmp_path / "other")  # it knows of nothing and stores all of it once more
        assert fill(other, 200) == blobs
        other.flush()
        for file, content in indexes.items():
            file.write_bytes(content)
        overwrite(data_pack, bytes(data_pack.stat().st_size))
        repository.refresh()
        assert len(repository.locations(DATA, next(iter(blobs)))) == 2
        assert dict(repository.load_many(DATA, blobs)) == blobs
        assert all(repository.load(DATA, name) == plain for name, plain in blobs.items())
        other.close()

    def test_of_an_index_file(self, repository: Repository, path: Path, blobs: dict[bytes, bytes]) -> None:
        (index,) = files(path, FileKind.INDEX)
        overwrite(index, index.read_bytes()[:-1])
        with pytest.raises(Damaged, match=index.name):
            reopen(repository)
        index.unlink()
        opened = reopen(repository)
        with pytest.raises(Damaged, match="missing") as raised:
            opened.load(DATA, next(iter(blobs)))
        assert "restic repair index" in raised.value.next_step
        opened.close()
        run_restic(path, "repair", "index")
        opened = reopen(repository)
        assert dict(opened.load_many(DATA, blobs)) == blobs
        opened.close()

    def test_of_a_segment(self, repository: Repository, blobs: dict[bytes, bytes], tmp_path: Path) -> None:
        """The side file of the index is damaged where it is not looked at when it is opened."""
        repository.close()
        for file in (tmp_path / "cache").rglob("*.segment"):
            content = file.read_bytes()
            overwrite(file, content[:300] + bytes(byte ^ 0x55 for byte in content[300:-4000]) + content[-4000:])
        opened = reopen(repository, tmp_path / "cache")
        for name, plain in blobs.items():
            assert opened.load(DATA, name) == plain
        opened.close()

    @pytest.mark.parametrize(
        ("kind", "error"),
        [(FileKind.CONFIG, Damaged), (FileKind.KEY, Damaged), (FileKind.SNAPSHOT, Damaged), (FileKind.INDEX, Damaged)],
    )
    @pytest.mark.usefixtures("blobs")
    def test_of_other_files(
        self, repository: Repository, path: Path, kind: FileKind, error: type[SnapkeepError]
    ) -> None:
        (file,) = files(path, kind) or [path / kind]
        sound = file.read_bytes()
        other = bytes([sound[0] ^ 1]) + sound[1:]
        for bad in (b"", sound[:-1], sound[:40], other, sound + b"x", b"{}"):
            overwrite(file, bad)
            with pytest.raises(error):
                key = None if kind is FileKind.KEY else repository.key
                Repository.open(LocalBackend(path), "secret", key=key).snapshots()

    def test_of_documents(self, repository: Repository, path: Path) -> None:
        backend = LocalBackend(path)
        for plain in (b"", b"\x03{}", b"\x02{}", b"\x02"):
            sealed = repository.key.seal(plain)
            name = hashlib.sha256(sealed).hexdigest()
            backend.save(FileKind.SNAPSHOT, name, sealed)
            with pytest.raises(Damaged):
                load_unpacked(backend, repository.key, FileKind.SNAPSHOT, name)
                SnapshotFile.from_json(load_unpacked(backend, repository.key, FileKind.SNAPSHOT, name))


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
