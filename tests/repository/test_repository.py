from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.repository.support import files, fill, reopen, save
from tests.support.restic import run_restic

from snapkeep.model.errors import AuthenticationFailed, Conflict, Damaged, InvalidInput, NotFound
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType, seal_blob
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.repository.unpacked import save_unpacked

DATA, TREE = BlobType.DATA, BlobType.TREE


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
