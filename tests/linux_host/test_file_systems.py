"""Which file systems of a host are served, and what ZFS and LVM have in common: their programs are played."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.linux_host.played import person, played
from tests.support.host_programs import Programs, lvm, zfs
from tests.support.host_programs.state import edited

from snapkeep.model.errors import (
    Busy,
    Conflict,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
    Unsupported,
)
from snapkeep.model.work import Outcome
from snapkeep.plugin.commands import Command, Output
from snapkeep.plugins.linux_host.errors import failure


async def test_what_the_host_has_is_found_without_being_asked_for(host: Programs) -> None:
    async with person(host) as who:
        names = {asset.name async for batch in who.roles.discover.discover() for asset in batch.assets}
        checked = await who.check()
    assert {"tank/data", "vg0/data"} <= names
    assert {finding.outcome for finding in checked.values()} == {Outcome.OK}
    assert {"zfs", "lvs"} <= checked.keys()
    assert "btrfs" not in checked, "it has none"


async def test_a_missing_program_is_named_for_what_the_host_has(host: Programs) -> None:
    (host.file.parents[1] / "bin" / "zfs").unlink()
    async with person(host) as who:
        assert (await who.check())["zfs"].outcome is Outcome.FAILED
        with pytest.raises(Unsupported):
            await who.asset("tank/data")
    with edited(host.file) as state:
        state["datasets"].clear()
    async with person(host) as who:
        assert "zfs" not in await who.check()
    async with person(host, file_systems=["zfs"]) as who:
        assert (await who.check())["zfs"].outcome is Outcome.FAILED, "it was asked for"


async def test_a_kind_that_is_left_out_does_nothing(host: Programs) -> None:
    async with person(host) as who:
        asset = await who.asset("vg0/data")
    async with person(host, file_systems=["zfs"]) as who:
        await who.asset("tank/data")
        with pytest.raises(Unsupported):
            await who.create(asset)


async def test_only_some_are_looked_at(host: Programs) -> None:
    pool = str(zfs.place(host.state(), "tank/data"))
    with edited(host.file) as state:
        zfs.create(state, "tank/other")
        lvm.pool(state, "vg1")
    async with person(host, only=[pool, "/dev/vg1"]) as who:
        names = {asset.name async for batch in who.roles.discover.discover() for asset in batch.assets}
        assert (await who.check())["file systems"].outcome is Outcome.OK
    assert names == {"localhost", "tank", "tank/data"}, "the pool is shown as what the dataset lies in"


async def test_a_pool_that_is_not_there_is_unavailable(host: Programs) -> None:
    async with person(host, file_systems=["zfs", "lvm"]) as who:
        dataset, volume = await who.asset("tank/data"), await who.asset("vg0/data")
        with edited(host.file) as state:
            state["datasets"].clear()
            state["volumes"].clear()
        for asset in (dataset, volume):
            with pytest.raises(Unavailable):
                await who.roles.discover.exists(asset)
            with pytest.raises(Unavailable):
                await who.create(asset)


# -- restores that were interrupted ----------------------------------------------------------------------------------
async def restored(directory: Path, kind: str, changes: int | None) -> tuple[int, dict[str, Any]]:
    """Restore for the second time, on a host that dies after so many changes; return how many were left to it.

    Once the host is back, the same restore is begun again. All that LVM or ZFS has in the end is returned.
    """
    with pytest.MonkeyPatch.context() as patch, played(directory, patch) as host:
        patch.setattr("snapkeep.plugins.linux_host.host.PAUSE_SECONDS", 0)
        patch.setattr("tests.linux_host.person.new_id", lambda: "the same each time")
        with edited(host.file) as state:
            zfs.create(state, "tank/prod")
            zfs.take(state, "tank/prod@P1", {})
            zfs.zfs(state, ["clone", "tank/prod@P1", "tank/test"])
            zfs.zfs(state, ["set", "quota=1000000", "tank/test"])
        name = {"zfs": "tank/test", "lvm": "vg0/data"}[kind]
        async with person(host, file_systems=[kind]) as who:
            asset = await who.asset(name)
            first, second = await who.create(asset, "NB1"), await who.create(asset, "NB2")
            await who.restore(asset, first, "1234-5")
            host.left = changes
            if changes is not None:
                with suppress(Unavailable):
                    await who.restore(asset, second, "5678-9")
            left, host.left = host.left or 0, None
            await who.restore(asset, second, "5678-9")
            assert (await who.snapshots(asset)).keys() == {"NB1", "NB2"}
        state = host.state()
    found = {"zfs": state["datasets"], "lvm": state["volumes"]}[kind]
    return left, {name: {**item, "creation": 0, "time": 0} for name, item in found.items()}


@pytest.mark.parametrize("kind", ["zfs", "lvm"])
async def test_a_restore_that_was_interrupted_anywhere_comes_to_the_same(tmp_path: Path, kind: str) -> None:
    _, wanted = await restored(tmp_path / "whole", kind, None)
    for changes in range(1, 20):
        left, found = await restored(tmp_path / str(changes), kind, changes)
        assert found == wanted, f"after {changes} changes"
        if left:
            assert changes > 3, "it was interrupted at each change"
            return
    raise AssertionError("it never came to its end")


# -- what went wrong -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "complaint", "error"),
    [
        (1, "cannot open 'tank/a b: c': dataset does not exist", NotFound),
        (1, "could not find any snapshots to destroy; check snapshot names.", NotFound),
        (1, "cannot create snapshot 'tank/a@x': dataset already exists", Conflict),
        (1, "cannot create snapshot 'tank/a@x': out of space", LimitExceeded),
        (1, "cannot create snapshot 'tank/a@x': pool is read-only", Unsupported),
        (1, "cannot create snapshot 'tank/a@x': permission denied", PermissionDenied),
        (1, "cannot unmount '/tank/a': pool or dataset is busy", Busy),
        (
            1,
            "cannot destroy 'a@x': snapshot has dependent clones\nuse '-R' to destroy the following datasets:\na/b",
            Busy,
        ),
        (1, "cannot destroy snapshot a@x: it's being held. Run 'zfs holds -r a@x' to see holders.", Busy),
        (1, "cannot open 'tank': pool I/O is currently suspended", Unavailable),
        (5, '  Failed to find logical volume "vg0/no"', NotFound),
        (5, '  Volume group "novg" not found\n  Cannot process volume group novg', NotFound),
        (5, '  Existing logical volume "no" not found in volume group "vg0"', NotFound),
        (5, "  Snapshot origin LV data not found in Volume group vg0.", NotFound),
        (5, '  Logical Volume "data-NB1" already exists in volume group "vg0"', Conflict),
        (5, "  Logical volume vg0/data contains a filesystem in use.", Busy),
        (5, "  Logical volume vg0/data in use.", Busy),
        (5, "  Volume group vg0 is read-only.\n  Cannot process volume group vg0", Unsupported),
        (5, "  Cannot create new thin volume, free space in thin pool vg0/pool reached threshold.", LimitExceeded),
        (32, "umount: /run/snapkeep/x: target is busy.", Busy),
    ],
)
def test_the_words_of_the_real_programs_are_understood(code: int, complaint: str, error: type[SnapkeepError]) -> None:
    done = Output(Command.of("zfs"), "host", code, b"", f"  WARNING: of something else.\n{complaint}\n".encode())
    found = failure(done, "Doing it", root=True)
    assert type(found) is error
    assert found.vendor_message is not None
    assert complaint.strip() in found.vendor_message
