"""A true list is trusted, however it was made; one that lacks a change is not."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.changes.worlds import Mutator, Recording, by_the_system

from snapkeep.changes.verification import How, Verdict, verify
from snapkeep.changes.walk import walk_diff
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.simulators.kit.volumes import Volume


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 40), st.data())
def test_true_lists_are_trusted_and_a_lack_is_found(seed: int, before: int, after: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        volume = Volume(Path(directory) / "volume")
        mutator = Mutator(volume.live, seed)
        mutator.mutate(before)
        copies = volume.snapshot("base"), volume.snapshot_path("new")
        base = Recording(volume.live)
        mutator.mutate(after)
        volume.snapshot("new")
        new = Recording(volume.live)

        system = list(by_the_system(volume, "base", "new"))
        for changes in (system, list(walk_diff(base, new, by_inode=True))):
            verdict = verify(changes, base, new, "full", by_inode=True)
            assert verdict.trusted, verdict.examples
            assert verdict.whole
        base.forget_births()
        verdict = verify(walk_diff(base, new, by_inode=True), base, new, "full", by_inode=True)
        assert verdict.trusted, verdict.examples
        verdict = verify(system, *copies, "full")
        assert verdict.trusted, verdict.examples
        assert (verdict.over_reported, verdict.by_inode) == (0, False)
        verdict = verify(walk_diff(*copies), *copies, "sample", seed=seed)
        assert (verdict.missed, verdict.over_reported, verdict.whole) == (0, 0, True)

        needed = [change for change in system if _surely_missed(change)]
        if needed:
            lost = data.draw(st.sampled_from(needed))
            left = [change for change in system if change != lost]
            assert not verify(left, base, new, "full", by_inode=True).trusted


def _surely_missed(change: Change) -> bool:
    """The others may be implied: what is deleted with its directory, the times of a directory, one name of many."""
    if change.operation is ChangeOperation.MODIFY:
        return change.type is ObjectType.FILE
    return change.operation in {ChangeOperation.ADD, ChangeOperation.RENAME}


class Two:
    """Two directories that are as snapshots of one share are: what was not touched is one object."""

    def __init__(self, root: Path) -> None:
        self.live = root / "live"
        for name in ("d/one", "d/two", "e/deep/file", "e/other", "top"):
            path = self.live / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        os.link(self.live / "top", self.live / "e" / "second")
        (self.live / "link").symlink_to("top")
        self.base = Recording(self.live)

    def verdict(self, *changes: Change, how: How = "full", lacking: bytes | None = None) -> Verdict:
        new = Recording(self.live)
        listed = [*changes, *(change for change in walk_diff(self.base, new, by_inode=True) if change.path != lacking)]
        return verify(listed, self.base, new, how, by_inode=True, workers=2)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


def write(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


@pytest.mark.parametrize(
    ("change", "lacking", "example"),
    [
        (lambda live: (live / "d" / "new").write_text("x"), b"d/new", "is new: d/new"),
        (lambda live: (live / "d" / "one").unlink(), b"d/one", "is gone: d/one"),
        (lambda live: write(live / "d" / "one"), b"d/one", "has other content: d/one"),
        (lambda live: (live / "d" / "one").chmod(0o600), b"d/one", "has other attributes: d/one"),
        (lambda live: (live / "d").chmod(0o700), b"d", "has other attributes: d"),
        (lambda live: (live / "d").rename(live / "f"), b"f", "is gone: d"),
        (lambda live: (live / "d" / "one").rename(live / "d" / "two"), b"d/two", "is gone: d/one"),
        (lambda live: write(live / "e" / "second"), b"e/second", "has other content: e/second"),
    ],
)
def test_what_is_missed_is_named(two: Two, change: Callable[[Path], None], lacking: bytes, example: str) -> None:
    change(two.live)
    assert two.verdict().trusted
    verdict = two.verdict(lacking=lacking)
    assert not verdict.trusted
    assert example in verdict.examples
    assert "WRONG" in str(verdict)
    assert verdict.to_dict()["missed"] == verdict.missed >= 1


def test_a_change_of_type_that_is_told_as_something_else_is_missed(two: Two) -> None:
    (two.live / "d" / "one").unlink()
    (two.live / "d" / "one").mkdir()
    told = Change(ChangeOperation.MODIFY, ObjectType.FILE, b"d/one")
    assert "is of another type: d/one" in two.verdict(told, lacking=b"d/one").examples


def test_a_rename_from_nowhere_is_missed(two: Two) -> None:
    (two.live / "new").write_text("x")
    told = Change(ChangeOperation.RENAME, ObjectType.FILE, b"new", b"old/place")
    assert "is renamed from what is not there: new" in two.verdict(told, lacking=b"new").examples


def test_new_content_that_is_told_as_new_attributes_is_missed(tmp_path: Path) -> None:
    told = [Change(ChangeOperation.METADATA, ObjectType.FILE, b"file")]
    paths = tmp_path / "base", tmp_path / "new"
    for mtime, path in enumerate(paths):
        path.mkdir()
        (path / "file").write_text("content")
        os.utime(path / "file", ns=(0, mtime))
    assert verify(told, *paths, "full").trusted, "a time is an attribute, and the content is the same"
    (paths[1] / "file").write_text("c0ntent")
    assert verify(told, *paths, "full").examples == ("has other content: file",)


def test_what_did_not_change_may_be_listed(two: Two) -> None:
    said = [
        Change(ChangeOperation.MODIFY, ObjectType.FILE, b"d/one"),
        Change(ChangeOperation.ADD, ObjectType.FILE, b"e/other"),
        Change(ChangeOperation.UNKNOWN, ObjectType.OTHER, b"e/deep"),
        Change(ChangeOperation.DELETE, ObjectType.FILE, b"d/never"),
        Change(ChangeOperation.METADATA, ObjectType.DIRECTORY, b""),
    ]
    verdict = two.verdict(*said)
    assert "is new: e/deep/file" in verdict.examples  # what is below something new is listed, too
    verdict = two.verdict(*said, Change(ChangeOperation.ADD, ObjectType.FILE, b"e/deep/file"))
    assert verdict.trusted
    assert verdict.over_reported == 4
    assert "harmless" in str(verdict)


def test_one_name_of_many_stands_for_all(two: Two) -> None:
    write(two.live / "top")
    listed = [Change(ChangeOperation.MODIFY, ObjectType.HARD_LINK, b"top")]
    assert verify(listed, two.base, Recording(two.live), "full", by_inode=True).trusted
    listed = [Change(ChangeOperation.METADATA, ObjectType.HARD_LINK, b"top")]
    assert not verify(listed, two.base, Recording(two.live), "full", by_inode=True).trusted
    (two.live / "third").hardlink_to(two.live / "top")
    listed = [
        Change(ChangeOperation.MODIFY, ObjectType.HARD_LINK, b"e/second"),
        Change(ChangeOperation.ADD, ObjectType.HARD_LINK, b"third"),
    ]
    assert verify(listed, two.base, Recording(two.live), "full", by_inode=True).trusted


def test_a_sample_is_a_part_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / "base" / f"{number % 7}" / f"{number}").mkdir(parents=True)
        (tmp_path / "new" / f"{number % 7}" / f"{number}").mkdir(parents=True)
        (tmp_path / "new" / f"{number % 7}" / f"{number}" / "file").touch()

    def sample(seed: int, directories: int = 20) -> Verdict:
        return verify([], tmp_path / "base", tmp_path / "new", "sample", seed=seed, directories=directories)

    verdict = sample(1)
    assert (verdict.directories, verdict.whole, verdict.trusted) == (20, False, False)
    assert sample(1) == verdict
    assert sample(2).examples != verdict.examples
    assert sample(1, 1000).whole
    assert sample(1, 1000).missed > 100


def test_it_can_be_stopped(two: Two) -> None:
    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        verify([], two.live, two.live, "full", stop=stop)
