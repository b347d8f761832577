"""Incremental backups of a btrfs subvolume, by its own diff: the tree is the one that restic finds by walking."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.backup.mutations import Mutator
from tests.backup.support import Judge, assert_equal, request
from tests.linux_host.worker import Worker
from tests.support.btrfs import mounted_btrfs, subvolume
from tests.support.restic import run_restic

from snapkeep.backup.links import LinkTable
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.backup.request import BackupRequest
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.repository import Repository

CYCLES = int(os.environ.get("SNAPKEEP_CYCLES", "6"))
SEED = int(os.environ.get("SNAPKEEP_SEED", "0"))
PLACEHOLDER = Change(ChangeOperation.METADATA, ObjectType.DIRECTORY, b".snapkeep")
"""What a snapshot shows in place of a subvolume: the kernel makes up its times whenever it looks at it anew."""


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with closing(Repository.create(LocalBackend(tmp_path / "repository"), "secret")) as made:
        yield made


@contextmanager
def shown(snapshot: Path, share: Path) -> Iterator[Path]:
    """Show a snapshot where a recovery point has it, so that the directories above are the same, too."""
    subprocess.run(["mount", "--bind", snapshot, share], check=True)
    try:
        yield share
    finally:
        subprocess.run(["umount", share], check=True)


def separate(top: Path) -> None:
    """Leave no file with several names, and no FIFO or device: of these restic notes the device, which differs."""
    for directory, _, names in os.walk(os.fsencode(top)):
        for name in names:
            path = directory + b"/" + name
            found = os.lstat(path)
            if not stat.S_ISREG(found.st_mode) and not (stat.S_ISLNK(found.st_mode) and found.st_nlink == 1):
                os.unlink(path)  # noqa: PTH108
            elif found.st_nlink > 1:
                subprocess.run([b"cp", b"-a", b"--", path, path + b"~"], check=True)
                os.rename(path + b"~", path)  # noqa: PTH104


def ours(into: Repository, recovery_point: str) -> str | None:
    """The tree beside the placeholder: above, its made-up times make another one each time."""
    return RecoveryPoint.open(into, recovery_point).node(b"files1/projects/work").subtree


def walked(judge: Judge, share: Path) -> str:
    judge.walk(share)
    latest = json.loads(run_restic(judge.path, "snapshots", "--json", "--latest", "1"))[-1]["id"]
    tree = json.loads(run_restic(judge.path, "cat", "tree", f"{latest}:files1/projects"))
    return next(str(node["subtree"]) for node in tree["nodes"] if node["name"] == "work")


@pytest.mark.parametrize("hard_links", [False, True])
async def test_cycles(repository: Repository, tmp_path: Path, hard_links: bool) -> None:
    share = tmp_path / "files1" / "projects"
    share.mkdir(parents=True)
    judge = Judge(repository, tmp_path / "judge")
    with mounted_btrfs(tmp_path / "btrfs") as mount, LinkTable(tmp_path / "links.sqlite") as links:
        live = subvolume(mount / "live")
        (live / "work").mkdir()
        mutator = Mutator(live / "work", SEED, big=False)  # not where the snapshots are
        device: int | None = None

        def asked(name: str) -> BackupRequest:
            nonlocal device
            found = request(share, name)
            device = device or found.device_id
            return replace(found, device_id=device)

        async with Worker(mount) as worker:
            mutator.mutate(200)
            if not hard_links:
                separate(live)
            base = await worker.create("live")
            with shown(worker.path("live", base), share):
                done = full_backup(repository, asked(base.id), links=links, readers=2)
                if not hard_links:
                    assert ours(repository, done.snapshot_id) == walked(judge, share)
            for cycle in range(CYCLES):
                mutator.mutate(mutator.random.choice([1, 10, 40]))
                if not hard_links:
                    separate(live)
                new = await worker.create("live")
                changes = [*await worker.diff("live", base, new), PLACEHOLDER]
                with shown(worker.path("live", new), share):
                    done = incremental_backup(
                        repository,
                        asked(new.id),
                        parent=done.snapshot_id,
                        base=base.id,
                        changes=changes,
                        links=links,
                    )
                    if hard_links:
                        target = tmp_path / f"restored-{cycle}"
                        run_restic(repository.location, "restore", done.snapshot_id, "--target", target)
                        assert_equal(share, target / "files1" / "projects", besides=PLACEHOLDER.path)
                    else:
                        assert ours(repository, done.snapshot_id) == walked(judge, share), f"{cycle=}, seed {SEED}"
                base = new
    assert "no errors were found" in run_restic(repository.location, "check", "--read-data")
