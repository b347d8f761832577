"""What `btrfs send` says, told as changes, is what really changed: on a real file system, over random mutations."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.changes.worlds import Fact, Mutator, Recording, Truth, facts
from tests.linux_host.worker import Worker
from tests.support.btrfs import mounted_btrfs, subvolume

from snapkeep.changes.trees import join
from snapkeep.model.changes import Change, ChangeOperation, ObjectType

CYCLES = int(os.environ.get("SNAPKEEP_CYCLES", "12"))
SEED = int(os.environ.get("SNAPKEEP_SEED", "0"))
LOOK_AGAIN = {ChangeOperation.METADATA.value, ChangeOperation.MODIFY.value}
"""What may be listed of a file with several names besides the truth: somebody looks once more at what is there."""


@pytest.fixture
def file_system(tmp_path: Path) -> Iterator[Path]:
    with mounted_btrfs(tmp_path / "btrfs") as mount:
        yield mount


@pytest.mark.parametrize("seed", range(SEED, SEED + CYCLES))
async def test_random_mutations(file_system: Path, seed: int) -> None:
    live = subvolume(file_system / "live")
    mutator = Careful(live, seed)
    mutator.mutate(60)
    async with Worker(file_system) as worker:
        base = await worker.create("live")
        for _ in range(4):
            mutator.mutate(30)
            new = await worker.create("live")
            told = await worker.diff("live", base, new)
            judge(told, Side(worker.path("live", base)), Side(worker.path("live", new)), seed)
            base = new


async def test_a_subvolume_that_was_received_once(file_system: Path) -> None:
    """Its snapshots are sent under the UUID that it was received under, which is the same for all."""
    live = subvolume(file_system / "live")
    mark_received(live)
    async with Worker(file_system) as worker:
        base = await worker.create("live")
        (live / "a").touch()
        new = await worker.create("live")
        told = await worker.diff("live", base, new)
    assert [change[:3] for change in told] == [(ChangeOperation.ADD, ObjectType.FILE, b"a")]


def mark_received(path: Path) -> None:
    """Do what btrfs-receive does at its end (BTRFS_IOC_SET_RECEIVED_SUBVOL, linux/btrfs.h), but stay writable."""
    found = os.open(path, os.O_RDONLY)
    fcntl.ioctl(found, 0xC0C89425, bytes(range(16)) + struct.pack("<Q", 1) + bytes(176))
    os.close(found)


class Careful(Mutator):
    """Leaves our snapshots where they are: to others than root they are out of reach."""

    def _all(self, *, folders: bool) -> list[bytes]:
        return [path for path in super()._all(folders=folders) if b".snapkeep" not in path.split(b"/")]


class Side(Recording):
    """A snapshot, which stays: its files can still be read."""

    def __init__(self, top: Path) -> None:
        super().__init__(top)
        self._path = os.fsencode(top)

    def content(self, path: bytes) -> bytes:
        """Return what is in a file, or where a link leads."""
        place = Path(os.fsdecode(join(self._path, path)))
        return os.fsencode(place.readlink()) if place.is_symlink() else place.read_bytes()


def judge(told: list[Change], before: Side, after: Side, seed: int) -> None:
    truth = {_as_btrfs_tells(fact, before, after) for fact in Truth(before, after).facts() if fact[2] != b".snapkeep"}
    found = facts(told)
    there = {path: node.inode for _, path, node in after.objects()}
    missing = truth - found - {_under(fact, name) for fact in found for name in _other_names(fact, there)}
    assert missing == set(), f"not told; SNAPKEEP_SEED={seed}"
    assert {fact for fact in found - truth if not _may_be_more(fact, there)} == set(), (
        f"told, and not so; SNAPKEEP_SEED={seed}"
    )


def _as_btrfs_tells(fact: Fact, before: Side, after: Side) -> Fact:
    """Another time of modification alone is no other content, which only btrfs knows."""
    node = after.node(fact[2])
    if fact[0] != ChangeOperation.MODIFY.value or node is None:
        return fact
    old = next(path for _, path, found in before.objects() if found.inode == node.inode)
    same = before.content(old) == after.content(fact[2])
    return (ChangeOperation.METADATA.value, *fact[1:]) if same else fact


def _other_names(fact: Fact, there: dict[bytes, int]) -> list[bytes]:
    """A file with several names may be listed as changed under any of them."""
    if fact[0] not in LOOK_AGAIN or fact[1] != ObjectType.HARD_LINK.value:
        return []
    return [path for path, inode in there.items() if inode == there[fact[2]]]


def _under(fact: Fact, name: bytes) -> Fact:
    return (fact[0], fact[1], name, fact[3])


def _may_be_more(fact: Fact, there: dict[bytes, int]) -> bool:
    return fact[0] in LOOK_AGAIN and fact[1] == ObjectType.HARD_LINK.value and fact[2] in there
