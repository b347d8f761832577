"""The law: our root tree is the one that restic makes by walking the same directory at the same path."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tests.backup.mutations import Mutator, list_changes, write_map
from tests.backup.support import Judge, assert_equal, request
from tests.support.restic import run_restic

from snapkeep.backup.links import LinkTable
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.repository.repository import Repository

CYCLES = int(os.environ.get("SNAPKEEP_CYCLES", "8"))
SEED = int(os.environ.get("SNAPKEEP_SEED", "0"))


def test_random_cycles(repository: Repository, share: Path, tmp_path: Path) -> None:
    judge = Judge(repository, tmp_path / "judge")
    mutator = Mutator(share, SEED)
    mutator.mutate(300)
    write_map(share, tmp_path / "map.0")
    with LinkTable(tmp_path / "links.sqlite") as links:
        done = full_backup(repository, request(share, "s0"), links=links, readers=2)
        assert done.tree_id == judge.walk(share)
        for cycle in range(1, CYCLES + 1):
            mutator.mutate(mutator.random.choice([1, 3, 30, 60]))
            write_map(share, tmp_path / f"map.{cycle}")
            told = as_told(mutator, tmp_path / f"map.{cycle - 1}", tmp_path / f"map.{cycle}")
            lost = mutator.random.random() < 0.2  # the table: it is made again
            done = incremental_backup(
                repository,
                request(share, f"s{cycle}"),
                parent=done.snapshot_id,
                base=f"s{cycle - 1}",
                changes=told,
                links=None if lost else links,
            )
            assert done.unreadable_count == 0
            assert done.tree_id == judge.walk(share), f"cycle {cycle}, SNAPKEEP_SEED={SEED}"
    again = full_backup(repository, request(share, "again"), parent=done.snapshot_id)
    assert (again.tree_id, again.files_new, again.files_changed) == (done.tree_id, 0, 0)
    assert "no errors were found" in run_restic(repository.location, "check", "--read-data")
    run_restic(repository.location, "restore", done.snapshot_id, "--target", tmp_path / "restored")
    assert_equal(share, tmp_path / "restored" / "files1" / "projects")


def as_told(mutator: Mutator, base: Path, new: Path) -> Iterator[Change]:
    """Return the changes as some system or other tells them: in any order, with words too many, with other words.

    A renamed file is not read when its size, modify time and inode are as before. So a system must tell when it was
    written, too, though nothing of these shows it; one that compares attributes, as the simulator does, cannot.
    """
    chance = mutator.random
    told = list(list_changes(base, new, list_renamed_children=chance.random() < 0.3))
    vague = chance.random() < 0.3
    for change in list(told):
        if change.operation is ChangeOperation.RENAME and change.inode in mutator.backdated:
            told.append(change._replace(operation=ChangeOperation.MODIFY, old_path=None))
        if chance.random() < 0.1:  # over-reported
            told.append(Change(chance.choice(list(ChangeOperation)), ObjectType.FILE, change.path + b".tmp", b"gone"))
            told.append(Change(ChangeOperation.METADATA, change.type, change.path))
        if vague and change.operation is ChangeOperation.RENAME and chance.random() < 0.3:
            told.remove(change)
            told.append(Change(ChangeOperation.DELETE, change.type, change.old_path or b"", inode=change.inode))
            told.append(change._replace(operation=ChangeOperation.ADD, old_path=None))
        elif vague and change.operation in {ChangeOperation.MODIFY, ChangeOperation.METADATA}:
            told.remove(change)
            told.append(change._replace(operation=ChangeOperation.UNKNOWN, type=ObjectType.OTHER))
    chance.shuffle(told)
    yield from told
