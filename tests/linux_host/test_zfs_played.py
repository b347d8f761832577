"""ZFS, whose programs are played: what the conformance suite does not ask of every kind of system."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.linux_host.person import NAME
from tests.linux_host.played import person
from tests.support.host_programs import Programs, zfs
from tests.support.host_programs.state import edited

from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, Conflict, SnapkeepError, Unsupported


async def test_a_restore_of_zfs_loses_nothing(host: Programs) -> None:
    """The old dataset is kept beside, newer snapshots stay, and what was set for the dataset is set for the new one."""
    with edited(host.file) as state:
        state["datasets"]["tank/data"]["properties"] = {"quota": "1000000", "com.example:owner": "ann b"}
    live = zfs.place(host.state(), "tank/data")
    (live / "file").write_text("old")
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        old = await who.create(asset, "NB1")
        (live / "file").write_text("new")
        newer = await who.create(asset, "NB2")
        await who.restore(asset, old, "1234-5")
        assert (live / "file").read_text() == "old"
        assert await who.snapshots(asset) == {"NB1": old, "NB2": newer}
        beside = await who.asset("tank/data.before-1234")
        assert await who.snapshots(beside) == {}
        assert (zfs.place(host.state(), beside.name) / "file").read_text() == "new"
        datasets = host.state()["datasets"]
        found = datasets["tank/data"]["properties"]
        assert (found["quota"], found["com.example:owner"]) == ("1000000", "ann b")
        assert (datasets["tank/data"]["origin"], datasets[beside.name]["origin"]) == (None, "tank/data@NB1")

        with pytest.raises(Busy) as caught:
            await who.delete(asset, old)
        assert caught.value.details["dependents"] == ["tank/data.before-1234"]
        await who.restore(asset, newer, "5678-9")
        assert (live / "file").read_text() == "new"
        assert (await who.snapshots(asset)).keys() == {"NB1", "NB2"}
    datasets = host.state()["datasets"]
    assert datasets["tank/data"]["origin"] is None, "what was kept of it can be destroyed"
    assert datasets["tank/data.before-1234"]["origin"] == "tank/data@NB2"
    assert datasets["tank/data.before-5678"]["origin"] == "tank/data@NB1"


async def test_a_restore_of_zfs_takes_nothing_from_others(host: Programs) -> None:
    """A dataset that is a clone stays one, also when the restore is begun again."""
    with edited(host.file) as state:
        zfs.create(state, "tank/prod")
        zfs.take(state, "tank/prod@P1", {})
        zfs.zfs(state, ["clone", "tank/prod@P1", "tank/test"])
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/test")
        snapshot = await who.create(asset, "NB1")
        for _ in range(3):
            await who.restore(asset, snapshot, "1234-5")
    datasets = host.state()["datasets"]
    assert "tank/prod@P1" in datasets
    origins = {name: datasets[name]["origin"] for name in ("tank/prod", "tank/test", "tank/test.before-1234")}
    assert origins == {"tank/prod": None, "tank/test": "tank/prod@P1", "tank/test.before-1234": "tank/test@NB1"}


async def test_datasets_that_were_made_meanwhile_do_not_go_with_the_old_one(host: Programs) -> None:
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            zfs.create(state, "tank/data/inner")
        with pytest.raises(Conflict, match="tank/data/inner") as caught:
            await who.restore(asset, snapshot, "1234-5")
    assert caught.value.next_step
    assert sorted(host.state()["datasets"]) == ["tank", "tank/data", "tank/data/inner", f"tank/data@{NAME}"]


async def test_what_lies_in_a_kept_dataset_is_its_own(host: Programs) -> None:
    """It inherits the property that says whose the snapshots of the kept one are."""
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        await who.restore(asset, await who.create(asset), "1234-5")
        with edited(host.file) as state:
            zfs.create(state, "tank/data.before-1234/inner")
            zfs.take(state, "tank/data.before-1234/inner@hourly", {})
        assert (await who.snapshots(asset)).keys() == {NAME}
        assert (await who.snapshots(await who.asset("tank/data.before-1234/inner"))).keys() == {"hourly"}


async def test_a_dataset_that_is_busy_is_not_exchanged(host: Programs) -> None:
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            state["datasets"]["tank/data"]["busy"] = True
        with pytest.raises(Busy):
            await who.restore(asset, snapshot, "1234-5")
        with edited(host.file) as state:
            assert sorted(state["datasets"]) == ["tank", "tank/data", f"tank/data@{NAME}"]
            assert state["datasets"]["tank/data"]["properties"] == {}
            state["datasets"]["tank/data"]["busy"] = False
        await who.restore(asset, snapshot, "1234-5")
    assert sorted(host.state()["datasets"]) == ["tank", "tank/data", "tank/data.before-1234", f"tank/data@{NAME}"]


async def test_a_dataset_that_cannot_be_exchanged_says_why(host: Programs) -> None:
    with edited(host.file) as state:
        zfs.create(state, "tank/data/inner")
        zfs.create(state, "tank/placed", mountpoint=str(host.file.parent / "placed"))
        zfs.create(state, "tank/hidden", snapdir="disabled")
        zfs.create(state, "tank/off", mounted=False)
    async with person(host, file_systems=["zfs"]) as who:
        root, outer, placed, inner, hidden, off = [
            (await who.asset(name)).refusals
            for name in ("tank", "tank/data", "tank/placed", "tank/data/inner", "tank/hidden", "tank/off")
        ]
    assert "root of its pool" in root[Capability.RESTORE]
    assert "other datasets" in outer[Capability.RESTORE]
    assert "mountpoint" in placed[Capability.RESTORE]
    assert inner.keys() == {Capability.DIFF_FILES}
    assert "snapdir" in hidden[Capability.EXPORT]
    assert "not mounted" in off[Capability.CREATE]


async def test_a_mountpoint_that_was_set_to_what_it_is_anyway_is_no_inherited_one(host: Programs) -> None:
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            state["datasets"]["tank/data"]["properties"]["mountpoint"] = str(zfs.place(state, "tank/data"))
        with pytest.raises(Unsupported):
            await who.restore(asset, snapshot, "1234-5")
    assert "tank/data" in host.state()["datasets"]


async def test_a_mark_on_a_clone_makes_no_snapshot_ours(host: Programs) -> None:
    """A snapshot inherits the properties of its dataset."""
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        clone = await who.clone(asset, await who.create(asset), "tank/copy")
        with edited(host.file) as state:
            zfs.take(state, "tank/copy@NB5", {})
        assert [item.owned for item in (await who.snapshots(clone)).values()] == [False]


@pytest.mark.parametrize("rows", ["tank/data\t7\n", "tank/data\t7\tfilesystem\tnoon" + "\t-" * 7 + "\n", "tank"])
async def test_what_is_no_list_of_zfs_is_an_error(host: Programs, tmp_path: Path, rows: str) -> None:
    (tmp_path / "rows").write_text(rows)
    (tmp_path / "bin" / "zfs").write_text(f"#!/bin/sh\nexec cat {tmp_path}/rows\n")
    async with person(host, file_systems=["zfs"]) as who:
        with pytest.raises(SnapkeepError) as caught:
            await who.asset("tank/data")
    assert caught.value.code == "vendor_error"
