"""Walking two snapshots finds what the system's own diff finds, and what brute force finds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.changes.worlds import Mutator, Recording, Truth, by_the_system, facts

from snapkeep.changes import trees
from snapkeep.changes.trees import Nodes, Tree, opened
from snapkeep.changes.walk import same_inodes, walk_diff
from snapkeep.changes.walker import WalkProgress
from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete, NotFound, PermissionDenied, Unavailable
from snapkeep.simulators.kit.volumes import Volume


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(0, 40))
def test_system_walk_and_truth_agree(seed: int, before: int, after: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        volume = Volume(Path(directory) / "volume")
        mutator = Mutator(volume.live, seed)
        mutator.mutate(before)
        volume.snapshot("base")
        base = Recording(volume.live)
        mutator.mutate(after)
        volume.snapshot("new")
        new = Recording(volume.live)

        truth = Truth(base, new).facts()
        assert facts(by_the_system(volume, "base", "new")) == truth
        walked = list(walk_diff(base, new, by_inode=True, workers=2))
        assert facts(walked) == truth
        assert list(walk_diff(base, new, by_inode=True, workers=1)) == walked
        assert [(change.path, change.size) for change in walked] == [
            (change.path, change.size) for change in by_the_system(volume, "base", "new")
        ]


def test_without_a_base_everything_is_added(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_text("x")
    (tmp_path / "a").symlink_to("d")
    assert [(change.operation, change.type, change.path) for change in walk_diff(None, tmp_path)] == [
        (ChangeOperation.ADD, ObjectType.SYMLINK, b"a"),
        (ChangeOperation.ADD, ObjectType.DIRECTORY, b"d"),
        (ChangeOperation.ADD, ObjectType.DIRECTORY, b"d/e"),
        (ChangeOperation.ADD, ObjectType.FILE, b"d/f"),
    ]


def test_copies_are_compared_by_their_paths(tmp_path: Path) -> None:
    base, new = tmp_path / "base", tmp_path / "new"
    (base / "d").mkdir(parents=True)
    for name in ("same", "modified", "gone", "d/moved", "type", "mode"):
        (base / name).write_text(name)
    (base / "link").symlink_to("same")
    shutil.copytree(base, new, symlinks=True)
    (new / "modified").write_text("longer than it was")
    (new / "gone").unlink()
    (new / "d" / "moved").rename(new / "moved")
    (new / "type").unlink()
    (new / "type").mkdir()
    (new / "type" / "inside").touch()
    (new / "mode").chmod(0o600)
    (new / "link").unlink()
    (new / "link").symlink_to("gone")
    mtime = (base / "link").lstat().st_mtime_ns
    os.utime(new / "link", ns=(mtime, mtime), follow_symlinks=False)
    for found in (base, new):
        for name in (".", "d"):
            os.utime(found / name, ns=(1, 1))
    with_trees = Tree(base), Tree(new)
    assert not same_inodes(*with_trees)
    for tree in with_trees:
        tree.close()
    assert facts(walk_diff(base, new)) == {
        ("modify", "file", b"modified", None),
        ("delete", "file", b"gone", None),
        ("delete", "file", b"d/moved", None),
        ("add", "file", b"moved", None),
        ("delete", "file", b"type", None),
        ("add", "directory", b"type", None),
        ("add", "file", b"type/inside", None),
        ("metadata", "file", b"mode", None),
        ("modify", "symlink", b"link", None),
    }


def test_snapshots_are_known_by_their_inodes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    before = Recording(tmp_path)
    assert same_inodes(before, before)
    (tmp_path / "d").chmod(0o700)
    assert same_inodes(before, Recording(tmp_path))
    (tmp_path / "d").rename(tmp_path / "e")
    assert same_inodes(before, Recording(tmp_path)), "nothing in common but the top"


def test_what_moved_out_of_a_directory_that_was_replaced_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    before = Recording(tmp_path)
    (tmp_path / "d").rename(tmp_path / "old")
    (tmp_path / "d").mkdir()
    (tmp_path / "old" / "x").rename(tmp_path / "d" / "x")
    (tmp_path / "old").rmdir()
    assert facts(walk_diff(before, Recording(tmp_path), by_inode=True)) == {
        ("delete", "directory", b"d", None),
        ("add", "directory", b"d", None),
        ("rename", "file", b"d/x", b"d/x"),
    }


def test_a_directory_with_many_entries_is_sorted_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, new = tmp_path / "base", tmp_path / "new"
    base.mkdir()
    for number in range(1003):
        (base / f"{number * 7919 % 1003}").touch()
    shutil.copytree(base, new)
    (new / "500").write_text("x")
    (new / "5000").touch()
    os.utime(new, ns=(1, 1))
    plain = list(walk_diff(base, new))
    assert [change.path for change in plain] == [b"500", b"5000"]
    monkeypatch.setattr(trees, "RUN", 50)
    assert list(walk_diff(base, new, scratch=tmp_path)) == plain
    assert len(list(walk_diff(None, new))) == 1004
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "new"]


def test_what_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="absent"):
        list(walk_diff(None, tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="file"):
        list(walk_diff(None, tmp_path / "file"))
    (tmp_path / "d").mkdir()
    walk = walk_diff(None, tmp_path, workers=1)
    monkeypatch.setattr(trees.Tree, "read", vanishing(trees.Tree.read, tmp_path / "d"))
    with pytest.raises(Incomplete, match="vanished"):
        list(walk)


def vanishing(read: Callable[[Tree, bytes], tuple[int, Nodes]], path: Path) -> Callable[[Tree, bytes], object]:
    def reading(tree: Tree, where: bytes) -> object:
        found = read(tree, where)
        if path.exists():
            path.rmdir()
        return found

    return reading


def test_a_directory_without_the_right_to_read_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d").chmod(0)
    try:
        if os.access(tmp_path / "d", os.R_OK):
            pytest.skip("root may read everything")
        with pytest.raises(PermissionDenied, match="/d cannot be read"):
            list(walk_diff(None, tmp_path))
    finally:
        (tmp_path / "d").chmod(0o700)


def test_progress_and_stop(tmp_path: Path) -> None:
    for name in ("base", "new"):
        (tmp_path / name / "d" / "e").mkdir(parents=True)
    seen: list[WalkProgress] = []
    list(walk_diff(tmp_path / "base", tmp_path / "new", progress=seen.append))
    assert seen[-1] == WalkProgress(directories=3, objects=4)

    class EnoughError(Exception):
        pass

    def stop() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        list(walk_diff(tmp_path / "base", tmp_path / "new", stop=stop))


def test_a_file_is_opened_but_no_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    top = tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("inside")
    (top / "link").symlink_to(tmp_path / "secret")
    with opened(top, None) as tree:
        with tree.open(b"file") as file:
            assert file.read() == b"inside"
        with pytest.raises((Unavailable, Incomplete)):
            tree.open(b"link")
