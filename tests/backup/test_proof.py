"""One recovery point is verified and drilled: what is damaged is found, what is not is not accused."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.backup.mutations import Mutator
from tests.backup.support import request
from tests.backup.test_check import backed_up, cut, damage, packs

from snapkeep.backup.check import SAMPLE, Sample, check_recovery_point
from snapkeep.backup.nodes import tree_text
from snapkeep.backup.proof import Proof, prove
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.request import Progress
from snapkeep.backup.restore import restore
from snapkeep.backup.writer import full_backup
from snapkeep.model.errors import Damaged, LimitExceeded, NotFound
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

SHARE = b"files1/projects"
HOSTILE = (b"not utf-8 \xff\n", b"-rf", b"%2e%2e", b"a\\x00b", b"..x", b"\x01")


def proved(
    repository: Repository,
    point: str,
    target: Path,
    files: int | None = 20,
    most: int = 1 << 30,
    room: int = 1 << 40,
) -> Proof:
    target.mkdir()
    found = prove(repository, point, SHARE, target, files=files, most_bytes=most, room=room, seed=0)
    assert len(found.errors) == found.error_count
    return found


def blob_of(repository: Repository, point: str, path: bytes) -> tuple[Path, int]:
    """Return where the first blob of a file is: its pack, and a byte in the middle of it."""
    node = RecoveryPoint.open(repository, point).node(SHARE + b"/" + path)
    place = repository.locations(BlobType.DATA, bytes.fromhex((node.content or [])[0]))[0]
    name = place.pack.hex()
    return Path(repository.location) / "data" / name[:2] / name, place.offset + place.length // 2


def test_what_is_sound_is_proved(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 11).mutate(200)
    (share / "deep" / "er").mkdir(parents=True)
    for number, name in enumerate(HOSTILE):
        (share / "deep" / "er" / os.fsdecode(name)).write_bytes(b"hostile %d" % number * 1000)
    (share / "locked").write_text("nobody reads it")
    (share / "locked").chmod(0)
    point = backed_up(repository, share)
    verified = {data: check_recovery_point(repository, point, data=data) for data in ("none", "sample", "all")}
    assert all(found.sound and found.recovery_points == 1 for found in verified.values())
    whole = verified["all"]
    assert whole.files_read == whole.files > 20
    assert 0 < verified["sample"].files_read <= SAMPLE
    assert verified["none"].bytes_read == 0 < verified["sample"].bytes_read <= whole.bytes_read
    some = proved(repository, point, tmp_path / "some")
    assert (some.errors, some.files) == ([], 20)
    everything = proved(repository, point, tmp_path / "all", None)
    assert everything.errors == []
    files = [path for path in share.rglob("*") if path.is_file() and not path.is_symlink()]
    assert everything.files == len(files)
    assert everything.size == sum(path.stat().st_size for path in files)


def test_what_is_damaged_is_found_where_it_matters(repository: Repository, share: Path, tmp_path: Path) -> None:
    for number in range(30):
        (share / f"f{number}").write_bytes(os.urandom(3000))
    first = backed_up(repository, share)
    (share / "later").write_bytes(os.urandom(50_000))
    second = backed_up(repository, share, "s1")
    damage(*blob_of(repository, second, b"later"))
    assert check_recovery_point(repository, first, data="all").sound, "what it does not need is not its damage"
    assert proved(repository, first, tmp_path / "a", None).errors == []
    found = check_recovery_point(repository, second, data="all")
    assert found.error_count == 1
    assert found.errors[0].startswith("files1/projects/later: ")
    assert check_recovery_point(repository, second, data="none").sound, "only its content is"
    drilled = proved(repository, second, tmp_path / "b", None)
    assert drilled.error_count == 1
    assert drilled.errors[0].startswith("later: ")
    assert drilled.files == 31
    assert proved(repository, second, tmp_path / "c", 31).error_count == 1
    pack, _ = blob_of(repository, second, b"later")
    cut(pack)
    assert check_recovery_point(repository, first).sound
    assert "which is damaged" in check_recovery_point(repository, second).errors[0]
    pack.unlink()
    assert check_recovery_point(repository, first, data="all").sound
    for data in ("none", "sample", "all"):
        (error,) = check_recovery_point(repository, second, data=data).errors
        assert "which is missing" in error
    assert "which is missing" in proved(repository, second, tmp_path / "d").errors[0]
    assert not list((tmp_path / "d").iterdir()), "nothing is restored of what is known to be wrong"


def test_damaged_trees_are_found_by_every_drill(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 3).mutate(60)
    point = backed_up(repository, share)
    for pack in packs(repository, BlobType.TREE):
        damage(pack)
    assert not check_recovery_point(repository, point).sound
    assert proved(repository, point, tmp_path / "a", 1).error_count


def test_a_recovery_point_that_is_not_there(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        check_recovery_point(repository, "0" * 64)
    with pytest.raises(NotFound):
        proved(repository, "0" * 64, tmp_path / "a")


def test_not_more_bytes_than_allowed(repository: Repository, share: Path, tmp_path: Path) -> None:
    point = backed_up(repository, share)
    assert proved(repository, point, tmp_path / "none").files == 0, "an empty share has nothing that could be lost"
    for number in range(10):
        (share / f"f{number}").write_bytes(bytes([number]) * 1000)
    (share / "big").write_bytes(os.urandom(100_000))
    point = backed_up(repository, share, "s1")
    with pytest.raises(LimitExceeded, match="as small as 999 bytes"):
        proved(repository, point, tmp_path / "a", most=999)
    found = proved(repository, point, tmp_path / "b", most=3500)
    assert (found.files, found.size) == (3, 3000)
    with pytest.raises(LimitExceeded, match="Up to 3,500 bytes are to be restored, and there is room for 3,499"):
        proved(repository, point, tmp_path / "c", most=3500, room=3499)
    with pytest.raises(LimitExceeded, match="Up to 110,000 bytes"):
        proved(repository, point, tmp_path / "d", None, room=109_999)
    assert not list((tmp_path / "d").iterdir())


def test_what_was_restored_is_really_read(
    repository: Repository, share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore that says all is well is not believed."""
    (share / "d").mkdir()
    names = ("changed", "cut", "longer", "gone", "linked", "d/fine")
    for name in names:
        (share / name).write_bytes(os.urandom(5000))
    point = backed_up(repository, share)
    lied = set[Path]()

    def lying(*given: object, **named: object) -> object:
        done = restore(*given, **named)  # type: ignore[arg-type]
        target = Path(str(given[1]))
        for name in names:
            path = target / name
            if not path.exists() or path in lied:
                continue
            lied.add(path)
            if name == "changed":
                damage(path, 4999)
            elif name == "cut":
                os.truncate(path, 4999)
            elif name == "longer":
                os.truncate(path, 5001)
            elif name == "gone":
                path.unlink()
            elif name == "linked":
                path.unlink()
                path.symlink_to(share / name)
        return done

    monkeypatch.setattr("snapkeep.backup.proof.restore", lying)
    for number, files in enumerate((20, None)):
        told = sorted(proved(repository, point, tmp_path / str(number), files).errors)
        assert [text.partition(":")[0] for text in told] == ["changed", "cut", "gone", "linked", "longer"]
        assert "content differs" in told[0]
        assert "4,999 bytes" in told[1]
        assert "was not restored" in told[2]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "../../escape"])
def test_a_name_that_leads_out_is_damage(repository: Repository, share: Path, tmp_path: Path, name: str) -> None:
    (share / "a").write_text("x")
    point = repository.snapshot(backed_up(repository, share))
    node = RecoveryPoint(repository, point).text(SHARE + b"/a")
    tree = tree_text([bytes(node).replace(b'{"name":"a"', b'{"name":"%s"' % name.encode())])
    for above in (b"projects", b"files1"):
        below = repository.add_plain(BlobType.TREE, tree)
        tree = tree_text([b'{"name":"%s","type":"dir","mode":2147484141,"content":null,"subtree":"%s"}'
                          % (above, below.hex().encode())])  # fmt: skip
    top = repository.add_plain(BlobType.TREE, tree)
    repository.flush()
    made = repository.save_snapshot(replace(point, tree=top.hex()))
    for number, files in enumerate((5, None)):
        found = proved(repository, made, tmp_path / str(number), files)
        assert "impossible name" in found.errors[0]
    assert not (tmp_path / "escape").exists()


def test_it_ends_when_it_is_told_to(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 4).mutate(60)
    point = full_backup(repository, request(share, "s0"), readers=1).snapshot_id

    class Stopped(Exception):
        pass

    restoring: list[Progress] = []

    def stop() -> None:
        if any((tmp_path / "a").iterdir()):
            raise Stopped

    (tmp_path / "a").mkdir()
    with pytest.raises(Stopped):
        prove(
            repository, point, SHARE, tmp_path / "a", files=None, most_bytes=1 << 30, room=1 << 40, seed=0,
            progress=restoring.append, stop=stop,
        )  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(count=st.integers(0, 30), items=st.integers(0, 200), seed=st.integers(0, 2**128))
def test_a_sample_is_of_what_there_is(count: int, items: int, seed: int) -> None:
    sample: Sample[int] = Sample(count, seed)
    again: Sample[int] = Sample(count, seed)
    for item in range(items):
        sample.add(item)
        again.add(item)
    assert sample.chosen == again.chosen, "the same seed chooses the same"
    assert len(set(sample.chosen)) == len(sample.chosen) == min(count, items)
    assert set(sample.chosen) <= set(range(items))


def test_each_has_the_same_chance() -> None:
    counts: Counter[int] = Counter()
    chance = random.Random(7)
    for _ in range(4000):
        sample: Sample[int] = Sample(3, chance.getrandbits(64))
        for item in range(12):
            sample.add(item)
        counts.update(sample.chosen)
    assert min(counts.values()) > 900, "1000 are expected of each; 900 are 3.6 standard deviations away"
    assert max(counts.values()) < 1100


def test_a_snapshot_file_that_is_damaged(repository: Repository, share: Path, tmp_path: Path) -> None:
    point = backed_up(repository, share)
    damage(Path(repository.location) / "snapshots" / point, 40)
    with pytest.raises(Damaged):
        check_recovery_point(repository, point)
    with pytest.raises(Damaged):
        proved(repository, point, tmp_path / "a")
