from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.backup.mutations import Mutator
from tests.backup.support import LOGICAL, request
from tests.support.restic import run_restic

from snapkeep.backup.check import CheckResult, Data, check_repository
from snapkeep.backup.nodes import tree_text
from snapkeep.backup.writer import full_backup
from snapkeep.model.errors import Damaged
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile


def backed_up(repository: Repository, share: Path, snapshot: str = "s0") -> str:
    return full_backup(repository, request(share, snapshot), readers=1).snapshot_id


def checked(repository: Repository, data: Data = "none", *, sound: bool) -> CheckResult:
    found = check_repository(repository, data=data, fraction=0.5)
    told = found.to_dict()
    assert json.loads(json.dumps(told)) == told
    assert found.sound is sound is told["sound"], found.errors
    assert len(found.errors) == found.error_count
    return found


def packs(repository: Repository, type: BlobType) -> list[Path]:
    """Return the packs of a type, the largest first."""
    found = [path for path in (Path(repository.location) / "data").rglob("*") if path.is_file()]
    found.sort(key=lambda path: -path.stat().st_size)
    return [path for path in found if repository.pack_entries(path.name, path.stat().st_size)[0].type == type]


def damage(path: Path, at: int = 5) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - 1)


def test_a_sound_repository(repository: Repository, share: Path) -> None:
    assert checked(repository, sound=True).recovery_points == 0
    mutator = Mutator(share, 5)
    mutator.mutate(200)
    backed_up(repository, share)
    mutator.mutate(50)
    backed_up(repository, share, "s1")
    run_restic(repository.location, "backup", "--compression", "off", str(share))
    (Path(repository.location) / "data" / "00").mkdir(exist_ok=True)
    (Path(repository.location) / "data" / "00" / ("00" * 32)).write_bytes(b"what a crash left")
    for data in ("none", "sample", "all"):
        found = checked(repository, data, sound=True)
        assert found.recovery_points == 3
        assert found.files > 100
        assert found.packs_unindexed == 1
        assert found.packs_unused == 0
        assert found.packs_read == {"none": 0, "sample": (found.packs + 1) // 2, "all": found.packs}[data]


def test_packs_that_nobody_uses(repository: Repository, share: Path) -> None:
    (share / "file").write_text("content")
    repository.forget(backed_up(repository, share))
    found = checked(repository, "all", sound=True)
    assert (found.packs, found.packs_unused) == (2, 2)


@pytest.mark.parametrize(
    ("act", "what"),
    [(Path.unlink, "is missing"), (cut, "bytes, by the index"), (damage, "Pack")],
)
def test_a_bad_data_pack(repository: Repository, share: Path, act: Callable[[Path], None], what: str) -> None:
    (share / "file").write_bytes(b"content" * 1000)
    backed_up(repository, share)
    (share / "other").write_bytes(b"other" * 1000)
    second = packs(repository, BlobType.DATA)
    backed_up(repository, share, "s1")
    act(second[0])
    errors = checked(repository, "all", sound=False).errors
    assert any(what in error and second[0].name in error for error in errors)
    assert any("files1/projects/file: data blob" in error and second[0].name in error for error in errors)
    assert not any("other:" in error for error in errors)
    run_restic(repository.location, "check", "--read-data", fails=True)


@pytest.mark.parametrize("act", [Path.unlink, damage])
def test_a_bad_tree_pack(repository: Repository, share: Path, act: Callable[[Path], None]) -> None:
    (share / "a").mkdir()
    first = backed_up(repository, share)
    bad = packs(repository, BlobType.TREE)
    (share / "a" / "file").write_text("x")
    backed_up(repository, share, "s1")
    act(bad[0])
    errors = checked(repository, sound=False).errors
    assert any(first[:8] in error and bad[0].name in error for error in errors)


def test_a_damaged_recovery_point_does_not_hide_the_others(repository: Repository, share: Path) -> None:
    first = backed_up(repository, share)
    backed_up(repository, share, "s1")
    damage(Path(repository.location) / "snapshots" / first, 40)
    found = checked(repository, sound=False)
    assert (found.error_count, found.recovery_points) == (1, 1)
    assert first in found.errors[0]


def test_a_damaged_index_file(repository: Repository, share: Path, tmp_path: Path) -> None:
    backed_up(repository, share)
    index = next((Path(repository.location) / "index").iterdir())
    damage(index, 40)
    assert index.name in checked(repository, sound=False).errors[0]
    with pytest.raises(Damaged, match=index.name):
        Repository.open(LocalBackend(Path(repository.location)), "", key=repository.key)


def test_a_lost_index_file(repository: Repository, share: Path) -> None:
    (share / "file").write_text("content")
    backed_up(repository, share)
    next((Path(repository.location) / "index").iterdir()).unlink()
    found = checked(repository, sound=False)
    assert "tree blob" in found.errors[0] or "Tree blob" in found.errors[0]
    assert found.packs_unindexed == 2


def crooked() -> Iterator[tuple[str, bytes, str]]:
    yield "no tree", b"{}", "cannot be read"
    yield "no subtree", tree_text([b'{"name":"d","type":"dir"}']), "without a tree"
    yield "no id", tree_text([b'{"name":"d","type":"dir","subtree":"zz"}']), "is no id"
    yield "absent tree", tree_text([b'{"name":"d","type":"dir","subtree":"%s"}' % (b"0" * 64)]), "missing"
    yield "absent data", tree_text([b'{"name":"d","type":"file","content":["%s"]}' % (b"0" * 64)]), "not in the index"


@pytest.mark.parametrize(("text", "what"), [case[1:] for case in crooked()], ids=[case[0] for case in crooked()])
def test_trees_that_are_not_right(repository: Repository, share: Path, text: bytes, what: str) -> None:
    backed_up(repository, share)
    tree = repository.add_plain(BlobType.TREE, text)
    snapshot = SnapshotFile(time=request(share, "x").time, tree=tree.hex(), paths=(LOGICAL,))
    name = repository.save_snapshot(snapshot)
    found = checked(repository, sound=False)
    assert (found.error_count, found.recovery_points) == (1, 2)
    assert found.errors[0].startswith(name[:8])
    assert what in found.errors[0]


def test_many_errors_are_counted_and_some_named(repository: Repository, share: Path) -> None:
    for number in range(300):
        (share / str(number)).write_bytes(random.Random(number).randbytes(100))
    backed_up(repository, share)
    packs(repository, BlobType.DATA)[0].unlink()
    found = check_repository(repository)
    assert (found.error_count, len(found.errors)) == (301, 100)


def test_stop_ends_it(repository: Repository, share: Path) -> None:
    backed_up(repository, share)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        check_repository(repository, stop=stop)
