from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.backup.mutations import Mutator
from tests.backup.support import request

from snapkeep.backup.comparison import compare
from snapkeep.backup.writer import full_backup
from snapkeep.repository.repository import Repository


def compared(repository: Repository, share: Path, snapshot: str, *, files: int = 100_000, seed: int = 0) -> Any:
    answer = compare(repository, snapshot, request(share, "s0"), files=files, seed=seed)
    assert json.loads(json.dumps(answer)) == answer
    return answer


def backed_up(repository: Repository, share: Path) -> str:
    return full_backup(repository, request(share, "s0"), readers=1).snapshot_id


def test_the_same(repository: Repository, share: Path) -> None:
    Mutator(share, 3).mutate(300)
    snapshot = backed_up(repository, share)
    found = compared(repository, share, snapshot)
    assert (found["differing"], found["examples"], found["unreadable"]) == (0, [], 0)
    assert "is true" in found["verdict"]
    every = [path for path in share.rglob("*") if not path.is_dir() or path.is_symlink()]
    assert found["files"] == sum(1 for path in every if not path.is_socket())
    assert found["directories"] == 1 + sum(1 for path in share.rglob("*") if path.is_dir() and not path.is_symlink())
    assert 0 < found["bytes"] <= 64 << 20
    few = compared(repository, share, snapshot, files=7, seed=5)
    assert few["files"] <= 7
    assert few == compared(repository, share, snapshot, files=7, seed=5)


def chown(path: Path) -> None:
    os.chown(path, 1234, 4321)


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda path: keep_time(path, lambda: path.write_bytes(b"CONTENT" * 100)),
    "size": lambda path: path.write_bytes(b"more"),
    "mtime": lambda path: os.utime(path, ns=(1, 1)),
    "mode": lambda path: path.chmod(0o4711),
    "extended attributes": lambda path: os.setxattr(path, "user.new", b"x"),
    "links": lambda path: keep_time(path.parent, lambda: os.link(path, path.parent.parent / "other")),
    "type is file, in the snapshot dir": to_directory,
    "not in the snapshot": lambda path: path.unlink(),
    "not in the recovery point": lambda path: keep_time(path.parent, (path.parent / "new").touch),
}
if os.geteuid() == 0:
    CHANGES["uid, gid"] = chown


def keep_time(path: Path, act: Callable[[], object]) -> None:
    before = path.stat()
    act()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_found_and_named(repository: Repository, share: Path, what: str) -> None:
    (share / "a").mkdir()
    (share / "a" / "file").write_bytes(b"content" * 100)
    snapshot = backed_up(repository, share)
    CHANGES[what](share / "a" / "file")
    found = compared(repository, share, snapshot)
    assert found["differing"] >= 1
    assert any(what in example for example in found["examples"])
    assert "WRONG" in found["verdict"]


def test_a_big_file_that_changed_in_its_middle(repository: Repository, share: Path) -> None:
    (share / "big").write_bytes(random.Random(1).randbytes(20_000_000))
    snapshot = backed_up(repository, share)

    def damage() -> None:
        with (share / "big").open("r+b") as file:
            file.seek(9_000_000)
            file.write(b"x")

    keep_time(share / "big", damage)
    found = compared(repository, share, snapshot)
    assert found["differing"] == 1
    assert "its content differs within" in found["examples"][0]


def test_the_sample_of_content_is_bounded(repository: Repository, share: Path) -> None:
    with (share / "sparse").open("wb") as file:
        file.truncate(200 << 20)
    (share / "small").write_text("small")
    found = compared(repository, share, backed_up(repository, share))
    assert found["differing"] == 0
    assert 56 << 20 < found["bytes"] < 80 << 20


def test_a_sample_finds_a_stale_directory(repository: Repository, share: Path) -> None:
    for number in range(30):
        (share / str(number)).mkdir()
        for name in range(20):
            (share / str(number) / f"f{name}").write_text(f"{number} {name}")
    snapshot = backed_up(repository, share)
    for name in range(20):
        path = share / "17" / f"f{name}"
        path.write_text(path.read_text() + "!")
    found = [compared(repository, share, snapshot, files=60, seed=seed) for seed in range(5)]
    assert any(one["differing"] for one in found)
    assert all(one["files"] == 60 for one in found)


def test_what_a_partial_recovery_point_lacks(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "kept").write_text("kept")
    asked = request(share, "s0")
    whole = backed_up(repository, share)
    (share / "lost").write_text("lost")
    partial = repository.save_snapshot(
        type(repository.snapshot(whole))(
            time=asked.time, tree=repository.snapshot(whole).tree, paths=(asked.logical_path,), tags=("partial",)
        )
    )
    found = compared(repository, share, partial)
    assert found["lacking"] == 1
    assert not any("lost" in example for example in found["examples"])
    assert "it lacks 1" in found["verdict"]
    assert any(
        "lost: it is not in the recovery point" in example for example in compared(repository, share, whole)["examples"]
    )


def test_symbolic_links_in_the_source_are_not_followed(repository: Repository, share: Path, tmp_path: Path) -> None:
    (share / "a").mkdir()
    (share / "a" / "file").write_text("content")
    snapshot = backed_up(repository, share)
    (share / "a").rename(tmp_path / "elsewhere")
    (share / "a").symlink_to(tmp_path / "elsewhere")
    found = compared(repository, share, snapshot)
    assert any("in the snapshot symlink" in example for example in found["examples"])
    assert found["files"] == 0


def test_a_missing_pack_is_a_difference(repository: Repository, share: Path) -> None:
    (share / "file").write_bytes(b"content" * 100)
    (share / "other").write_bytes(b"other" * 100)
    snapshot = backed_up(repository, share)
    places = {path.stat().st_size: path for path in (Path(repository.location) / "data").rglob("*") if path.is_file()}
    for path in places.values():
        data = bytearray(path.read_bytes())
        if (
            len(repository.pack_entries(path.name, len(data))) == 2
            and repository.pack_entries(path.name, len(data))[0].type == 0
        ):
            data[5] ^= 1
            path.chmod(0o600)
            path.write_bytes(data)
    found = compared(repository, share, snapshot)
    assert found["differing"] == 1
    assert "cannot be read" in found["examples"][0]
