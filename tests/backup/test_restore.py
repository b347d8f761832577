from __future__ import annotations

import os
import random
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backup.mutations import Mutator
from tests.backup.support import assert_equal, request
from tests.support.restic import run_restic

from snapkeep.backup.nodes import tree_text
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.restore import restore
from snapkeep.backup.writer import full_backup
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

SHARE = b"files1/projects"


def backed_up(repository: Repository, share: Path) -> RecoveryPoint:
    done = full_backup(repository, request(share, "s0"), readers=1)
    return RecoveryPoint(repository, repository.snapshot(done.snapshot_id))


def test_restored_equals_source(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 7).mutate(300)
    point = backed_up(repository, share)
    done = restore(point, tmp_path / "target", path=SHARE)
    assert done.problems == []
    assert_equal(share, tmp_path / "target")
    assert (tmp_path / "target").stat().st_mtime_ns == share.stat().st_mtime_ns
    again = restore(point, tmp_path / "target", path=SHARE, overwrite=True)
    assert again.problems == []
    assert_equal(share, tmp_path / "target")


def test_one_file_and_one_directory(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "a" / "b").mkdir(parents=True)
    (share / "a" / "b" / "file").write_text("content")
    (share / "sparse").write_bytes(bytes(5_000_000) + b"end")
    os.link(share / "sparse", share / "a" / "linked")
    point = backed_up(repository, share)
    restore(point, tmp_path / "one", path=SHARE + b"/a/b/file")
    assert (tmp_path / "one" / "file").read_text() == "content"
    restore(point, tmp_path / "two", path=SHARE + b"/a")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["b", "linked"]
    restore(point, tmp_path / "all")
    found = (tmp_path / "all" / "files1" / "projects" / "sparse").stat()
    assert (found.st_nlink, found.st_size) == (2, 5_000_003)
    assert found.st_blocks * 512 < 1_000_000
    with pytest.raises(NotFound):
        restore(point, tmp_path / "three", path=b"absent")


def test_target_that_is_not_empty(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "file").write_text("new")
    (share / "directory").mkdir()
    (share / "directory" / "inside").write_text("new")
    point = backed_up(repository, share)
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "file").write_text("old")
    (target / "directory").symlink_to(outside)
    with pytest.raises(Conflict):
        restore(point, target, path=SHARE)
    assert (target / "file").read_text() == "old"
    done = restore(point, target, path=SHARE, overwrite=True)
    assert (target / "file").read_text() == "new"
    assert list(outside.iterdir()) == []
    assert [path for path, _ in done.problems] == [b"directory"]


def test_what_is_in_a_recovery_point(repository: Repository, share: Path) -> None:
    (share / "a").mkdir()
    (share / "a" / "one.txt").write_text("1")
    (share / "two.txt").write_bytes(b"2" * 1_500_000)
    (share / os.fsdecode(b"\xff.bin")).touch()
    point = backed_up(repository, share)
    assert [name for name, _ in point.list(SHARE)] == [b"a", b"two.txt", b"\xff.bin"]
    assert [path for path, _ in point.walk()] == [
        b"files1", SHARE, SHARE + b"/a", SHARE + b"/a/one.txt", SHARE + b"/two.txt", SHARE + b"/\xff.bin",
    ]  # fmt: skip
    assert [path for path, _ in point.find(b"*.txt")] == [SHARE + b"/a/one.txt", SHARE + b"/two.txt"]
    assert b"".join(point.read(point.node(SHARE + b"/two.txt"))) == b"2" * 1_500_000
    with pytest.raises(InvalidInput):
        list(point.read(point.node(SHARE)))
    with pytest.raises(InvalidInput):
        point.list(SHARE + b"/two.txt")
    with pytest.raises(InvalidInput):
        point.node(b"/")


@pytest.mark.parametrize("name", ["..", ".", "a/b", "", "/etc"])
def test_hostile_names_are_refused(repository: Repository, share: Path, tmp_path: Path, name: str) -> None:
    point = backed_up(repository, share)
    node = f'{{"name":"{name}","type":"file","uid":0,"gid":0,"content":[]}}'.encode()
    tree = repository.add_plain(BlobType.TREE, tree_text([node]))
    hostile = RecoveryPoint(repository, replace(point.snapshot, tree=tree.hex()))
    done = restore(hostile, tmp_path / "target")
    assert done.problem_count == 1
    assert "impossible name" in done.problems[0][1]
    assert list((tmp_path / "target").iterdir()) == []


def test_missing_content_is_a_problem_of_its_file(repository: Repository, share: Path, tmp_path: Path) -> None:
    point = backed_up(repository, share)
    time = '"mtime":"2020-01-01T00:00:00Z","ctime":"2020-01-01T00:00:00Z"'
    nodes = [
        f'{{"name":"bad","type":"file","mode":420,{time},"uid":0,"gid":0,"size":1,"content":["{"0" * 64}"]}}'.encode(),
        f'{{"name":"good","type":"fifo","mode":33554852,{time},"uid":0,"gid":0,"content":null}}'.encode(),
    ]
    tree = repository.add_plain(BlobType.TREE, tree_text(nodes))
    broken = RecoveryPoint(repository, replace(point.snapshot, tree=tree.hex()))
    done = restore(broken, tmp_path / "target")
    assert [path for path, _ in done.problems] == [b"bad"]
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["good"]
    assert stat.S_ISFIFO((tmp_path / "target" / "good").stat().st_mode)


def test_equals_what_restic_restores(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 11).mutate(250)
    point = backed_up(repository, share)
    run_restic(repository.location, "restore", point.snapshot.id, "--target", tmp_path / "restic")
    for readers in (1, 4):
        assert restore(point, tmp_path / f"ours{readers}", readers=readers).problems == []
        assert_equal(tmp_path / "restic", tmp_path / f"ours{readers}")


def test_what_restic_wrote(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 12, big=False).mutate(150)
    run_restic(repository.location, "backup", "--compression", "off", str(share))
    repository.refresh()
    point = RecoveryPoint(repository, repository.snapshots()[-1])
    assert restore(point, tmp_path / "target", path=os.fsencode(share)).problems == []
    assert_equal(share, tmp_path / "target")


def test_an_interrupted_restore_is_completed(repository: Repository, share: Path, tmp_path: Path) -> None:
    Mutator(share, 13).mutate(300)
    for number in range(900):
        (share / f"more{number}").write_text(str(number))
    point = backed_up(repository, share)
    for times in (3, 7, 30):
        left = times

        def stop() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            restore(point, tmp_path / "target", path=SHARE, overwrite=True, stop=stop)
    assert restore(point, tmp_path / "target", path=SHARE, overwrite=True).problems == []
    assert_equal(share, tmp_path / "target")


def test_nothing_is_replaced_unless_asked(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "file").write_text("new")
    point = backed_up(repository, share)
    (tmp_path / "target").write_text("a file")
    with pytest.raises(InvalidInput):
        restore(point, tmp_path / "target", path=SHARE)


def test_the_first_of_several_names_cannot_be_restored(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "a").write_text("content")
    for name in ("b", "c"):
        os.link(share / "a", share / name)
    point = backed_up(repository, share)
    (tmp_path / "target" / "a" / "occupied").mkdir(parents=True)
    done = restore(point, tmp_path / "target", path=SHARE, overwrite=True)
    assert [path for path, _ in done.problems] == [b"a"]
    assert (tmp_path / "target" / "b").read_text() == "content"
    assert (tmp_path / "target" / "c").samefile(tmp_path / "target" / "b")


def test_a_part_of_a_file(repository: Repository, share: Path) -> None:
    content = random.Random(1).randbytes(5_000_000)
    (share / "file").write_bytes(content)
    point = backed_up(repository, share)
    node = point.node(SHARE + b"/file")
    for offset, length in (
        (0, 10),
        (4_999_990, 100),
        (1_000_000, 3_000_000),
        (5_000_000, 5),
        (2_500_000, None),
        (7, 0),
    ):
        end = None if length is None else offset + length
        assert b"".join(point.read(node, offset, length)) == content[offset:end]


def test_an_acl_that_the_target_hands_down_is_not_kept(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "a").mkdir()
    (share / "a" / "file").write_text("content")
    os.mkfifo(share / "fifo")
    acl = bytes.fromhex("02000000 01000700ffffffff 02000700d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
    point = backed_up(repository, share)
    (tmp_path / "target").mkdir()
    os.setxattr(tmp_path / "target", "system.posix_acl_default", acl)
    assert restore(point, tmp_path / "target", path=SHARE).problems == []
    assert_equal(share, tmp_path / "target")


def test_acls_and_special_bits_come_back(repository: Repository, share: Path, tmp_path: Path) -> None:
    acl = bytes.fromhex("02000000 01000700ffffffff 02000700d2040000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
    (share / "a").mkdir()
    os.setxattr(share / "a", "system.posix_acl_default", acl)
    (share / "a" / "file").write_text("content")
    os.setxattr(share / "a" / "file", "system.posix_acl_access", acl)
    (share / "a" / "program").write_text("content")
    (share / "a" / "program").chmod(0o6755)
    (share / "a").chmod(0o1550)
    point = backed_up(repository, share)
    assert restore(point, tmp_path / "target", path=SHARE).problems == []
    assert_equal(share, tmp_path / "target")


def test_several_restores_share_a_target_and_follow_no_link_in_it(
    repository: Repository, share: Path, tmp_path: Path
) -> None:
    for name in ("a/b/file", "c/file", "d/e/file"):
        (share / name).parent.mkdir(parents=True)
        (share / name).write_text(name)
    point = backed_up(repository, share)
    target, outside = tmp_path / "target", tmp_path / "outside"
    outside.mkdir()
    for path in (b"a/b/file", b"c"):
        restore(point, target, path=SHARE + b"/" + path, into=path, overwrite=True)
    assert (target / "a" / "b" / "file").read_text() == "a/b/file"
    assert (target / "c" / "file").read_text() == "c/file"
    (target / "d").symlink_to(outside)
    with pytest.raises(Unavailable):
        restore(point, target, path=SHARE + b"/d/e", into=b"d/e", overwrite=True)
    assert list(outside.iterdir()) == []
