from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.backup.support import Judge, request

from snapkeep.backup.nodes import read_node
from snapkeep.backup.readers import ProcessReaders
from snapkeep.backup.reading import MOST_NAMES, Reader, Task
from snapkeep.backup.request import Progress
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Unavailable
from snapkeep.repository.blobs import SealedBlob
from snapkeep.repository.repository import Repository


def test_big_directory(repository: Repository, share: Path, tmp_path: Path) -> None:
    """It is read in parts, with directories among the names, and again with a parent."""
    for number in range(2 * MOST_NAMES + 10):
        if number % 1000:
            (share / f"file-{number}").write_text(str(number))
        else:
            (share / f"file-{number}").mkdir()
    judge = Judge(repository, tmp_path / "judge")
    seen: list[Progress] = []
    first = full_backup(repository, request(share, "s0"), readers=3, progress=seen.append)
    assert first.tree_id == judge.walk(share)
    assert seen[-1].files == first.files_new == 2 * MOST_NAMES + 1
    (share / "file-5000x").write_text("new")
    (share / "file-4999").write_text("changed")
    second = full_backup(repository, request(share, "s1"), parent=first.snapshot_id, readers=3)
    assert second.tree_id == judge.walk(share)
    assert (second.files_new, second.files_changed, second.files_unmodified) == (1, 1, 2 * MOST_NAMES)
    assert second.bytes_read == len("newchanged")


def test_empty_share(repository: Repository, share: Path, tmp_path: Path) -> None:
    assert full_backup(repository, request(share, "s0")).tree_id == Judge(repository, tmp_path / "judge").walk(share)


def test_a_reader_that_dies_is_an_error(repository: Repository, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (share / "file").write_text("content")
    real = ProcessReaders.submit

    def killed(self: ProcessReaders, tasks: list[Task]) -> None:
        for child in self._children.values():
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        real(self, tasks)

    monkeypatch.setattr(ProcessReaders, "submit", killed)
    with pytest.raises(Unavailable, match="exit code -9"):
        full_backup(repository, request(share, "s0"))


def test_error_of_a_reader_arrives(repository: Repository, share: Path) -> None:
    (share / "file").write_bytes(b"x")

    def full_disk(blob: SealedBlob) -> bool:
        raise Unavailable("disk full")

    repository.add = full_disk  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="disk full"):
        full_backup(repository, request(share, "s0"))


def test_stop_at_the_last_moment_leaves_no_recovery_point(repository: Repository, share: Path) -> None:
    """All is written by then; meanwhile another worker may have taken over."""
    (share / "file").write_text("content")

    def stop() -> None:
        if repository.statistics.packs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        full_backup(repository, request(share, "s0"), readers=1, stop=stop)
    assert repository.snapshots() == []


@pytest.mark.parametrize("grows", [True, False])
def test_file_that_changes_while_it_is_read(
    repository: Repository, share: Path, monkeypatch: pytest.MonkeyPatch, grows: bool
) -> None:
    big = share / "big"
    big.write_bytes(bytes(3_000_000))
    real = os.readv

    def changing(file: int, buffers: list[memoryview]) -> int:
        with big.open("r+b") as writer:
            writer.seek(0, os.SEEK_END if grows else os.SEEK_SET)
            writer.write(b"more")
        os.utime(big, ns=(0, big.stat().st_mtime_ns + 1))
        return real(file, buffers)

    monkeypatch.setattr(os, "readv", changing)
    top = os.open(share, os.O_RDONLY)
    reader = Reader(top, key=repository.key, polynomial=repository.polynomial, device_id=1, emit=repository.add)
    done = reader.read(Task(1, b"", [b"big", b"absent"]))
    os.close(top)
    assert done.problems == [(b"big", "it changed while it was read")]
    assert (read_node(done.nodes[0][1]).size > 3_000_000) is grows


def test_source_that_goes_away_becomes_no_recovery_point(repository: Repository, share: Path) -> None:
    (share / "file").write_text("content")

    def go_away(_: Progress) -> None:
        shutil.rmtree(share, ignore_errors=True)

    with pytest.raises(Unavailable, match="went away"):
        full_backup(repository, request(share, "s0"), readers=1, progress=go_away)
    assert repository.snapshots() == []


def test_symbolic_link_in_the_way_is_not_followed(repository: Repository, share: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (share / "link").symlink_to(tmp_path / "outside")
    top = os.open(share, os.O_RDONLY)
    reader = Reader(top, key=repository.key, polynomial=repository.polynomial, device_id=1, emit=repository.add)
    for path in (b"link", b"..", b"link/..", b"../outside"):
        done = reader.read(Task(1, path, [b"secret"]))
        assert done.failed and not done.nodes
    os.close(top)


@pytest.mark.parametrize("incremental", [False, True])
def test_a_big_file_can_be_stopped_and_tells_how_far_it_is(
    repository: Repository, share: Path, incremental: bool
) -> None:
    first = full_backup(repository, request(share, "s0"), readers=1) if incremental else None
    with (share / "big").open("wb") as file:
        file.truncate(1 << 40)  # a hole: hours of reading
    seen: list[Progress] = []

    def stop() -> None:
        if any(item.bytes_read > 16 << 20 for item in seen[-1:]):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        if first is None:
            full_backup(repository, request(share, "s1"), readers=1, progress=seen.append, stop=stop)
        else:
            changes = [Change(ChangeOperation.ADD, ObjectType.FILE, b"big")]
            parent = first.snapshot_id
            incremental_backup(
                repository,
                request(share, "s1"),
                parent=parent,
                base="s0",
                changes=changes,
                readers=1,
                progress=seen.append,
                stop=stop,
            )
    assert all(item.files == 0 for item in seen)
