"""Files of a repository that somebody has altered, cut or removed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.repository.support import files, fill, overwrite, reopen, save
from tests.support.restic import run_restic

from snapkeep.model.errors import Damaged, NotFound
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.repository.unpacked import load_unpacked

DATA = BlobType.DATA


@pytest.fixture
def blobs(repository: Repository) -> dict[bytes, bytes]:
    blobs = fill(repository, 200)
    save(repository, blobs)
    return blobs


@pytest.fixture
def data_pack(repository: Repository, path: Path, blobs: dict[bytes, bytes]) -> Path:
    (place,) = repository.locations(DATA, next(iter(blobs)))
    return path / FileKind.DATA / place.pack.hex()[:2] / place.pack.hex()


@pytest.mark.parametrize("how", ["flip", "cut", "empty", "gone"])
def test_damage_of_a_pack(repository: Repository, blobs: dict[bytes, bytes], data_pack: Path, how: str) -> None:
    content = data_pack.read_bytes()
    last, *_ = reversed(blobs)
    offset = repository.locations(DATA, last)[0].offset
    match how:
        case "flip":
            overwrite(data_pack, content[: offset + 20] + bytes([content[offset + 20] ^ 1]) + content[offset + 21 :])
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


def test_damage_is_healed_by_another_pack(
    repository: Repository, blobs: dict[bytes, bytes], data_pack: Path, tmp_path: Path
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


def test_damage_of_an_index_file(repository: Repository, path: Path, blobs: dict[bytes, bytes]) -> None:
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


def test_damage_of_a_segment(repository: Repository, blobs: dict[bytes, bytes], tmp_path: Path) -> None:
    """The side file of the index is damaged where it is not looked at when it is opened."""
    repository.close()
    for file in (tmp_path / "cache").rglob("*.segment"):
        content = file.read_bytes()
        overwrite(file, content[:300] + bytes(byte ^ 0x55 for byte in content[300:-4000]) + content[-4000:])
    opened = reopen(repository, tmp_path / "cache")
    for name, plain in blobs.items():
        assert opened.load(DATA, name) == plain
    opened.close()


@pytest.mark.parametrize("kind", [FileKind.CONFIG, FileKind.KEY, FileKind.SNAPSHOT, FileKind.INDEX])
@pytest.mark.usefixtures("blobs")
def test_damage_of_other_files(repository: Repository, path: Path, kind: FileKind) -> None:
    (file,) = files(path, kind) or [path / kind]
    sound = file.read_bytes()
    other = bytes([sound[0] ^ 1]) + sound[1:]
    for bad in (b"", sound[:-1], sound[:40], other, sound + b"x", b"{}"):
        overwrite(file, bad)
        with pytest.raises(Damaged):
            key = None if kind is FileKind.KEY else repository.key
            Repository.open(LocalBackend(path), "secret", key=key).snapshots()


def test_damage_of_documents(repository: Repository, path: Path) -> None:
    backend = LocalBackend(path)
    for plain in (b"", b"\x03{}", b"\x02{}", b"\x02"):
        sealed = repository.key.seal(plain)
        name = hashlib.sha256(sealed).hexdigest()
        backend.save(FileKind.SNAPSHOT, name, sealed)
        with pytest.raises(Damaged):
            load_unpacked(backend, repository.key, FileKind.SNAPSHOT, name)
            SnapshotFile.from_json(load_unpacked(backend, repository.key, FileKind.SNAPSHOT, name))
