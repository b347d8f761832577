"""ZFS and LVM, whose programs are played: what the conformance suite does not ask of every kind of system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux_host.person import NAME, Person
from tests.linux_host.person import person as connected
from tests.support.host_programs import Programs, lvm, zfs
from tests.support.host_programs.state import State, edited

from snapkeep.model.assets import Capability
from snapkeep.model.errors import (
    Busy,
    Conflict,
    InvalidInput,
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
from snapkeep.plugins.linux_host.file_systems import lvm_volumes


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Programs]:
    with played(tmp_path, monkeypatch) as programs:
        yield programs


@contextmanager
def played(directory: Path, patch: pytest.MonkeyPatch) -> Iterator[Programs]:
    """A host with a pool and a volume group."""
    (directory / "bin").mkdir(parents=True)
    patch.setenv("PATH", f"{directory / 'bin'}:{os.environ['PATH']}")
    programs = Programs(directory / "host", directory / "bin")
    with edited(programs.file) as state:
        zfs.create(state, "tank")
        zfs.create(state, "tank/data")
        lvm.pool(state, "vg0")
        lvm.create(state, "vg0", "data")
    yield programs
    programs.close()


def person(host: Programs, **settings: Any) -> AbstractAsyncContextManager[Person]:
    return connected(export_directory=str(host.file.parent / "exports"), **settings)


# -- which kinds ---------------------------------------------------------------------------------------------------
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


# -- ZFS -------------------------------------------------------------------------------------------------------------
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


async def test_a_mark_on_a_clone_makes_no_snapshot_ours(host: Programs) -> None:
    """A snapshot inherits the properties of its dataset."""
    async with person(host, file_systems=["zfs"]) as who:
        asset = await who.asset("tank/data")
        clone = await who.clone(asset, await who.create(asset), "tank/copy")
        with edited(host.file) as state:
            zfs.take(state, "tank/copy@NB5", {})
        assert [item.owned for item in (await who.snapshots(clone)).values()] == [False]


# -- LVM -------------------------------------------------------------------------------------------------------------
def volume(state: State, name: str = "data") -> dict[str, Any]:
    found = lvm.find(state, f"vg0/{name}")
    assert found is not None
    return found


@pytest.mark.parametrize("full", [95.01, 99.5])
async def test_a_pool_that_is_almost_full_takes_no_snapshot(host: Programs, full: float) -> None:
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            volume(state, "pool")["full"] = f"{full:.2f}"
        for work in (
            who.create(asset, "NB2"),
            who.clone(asset, snapshot, "vg0/copy"),
            who.restore(asset, snapshot, "1-"),
        ):
            with pytest.raises(LimitExceeded, match=r"vg0/pool") as caught:
                await work
            assert "lvextend" in caught.value.next_step
    assert len(host.state()["volumes"]) == 3


async def test_a_volume_in_use_is_not_exchanged(host: Programs) -> None:
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            volume(state)["open"] = True
        assert "open" in (await who.asset("vg0/data")).refusals[Capability.RESTORE]
        with pytest.raises(Busy):
            await who.restore(asset, snapshot, "1234-5")
    assert lvm.find(host.state(), "vg0/data.before-1234") is None


async def test_a_restore_of_lvm_loses_nothing(host: Programs) -> None:
    with edited(host.file) as state:
        volume(state)["tags"] = ["daily", "owner=ann"]
    live = lvm.contents(host.state(), volume(host.state()))
    (live / "file").write_text("old")
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        old = await who.create(asset, "NB1")
        (live / "file").write_text("new")
        newer = await who.create(asset, "before the upgrade")
        await who.restore(asset, old, "1234-5")
        assert await who.snapshots(asset) == {"NB1": old, "before the upgrade": newer}
        assert await who.snapshots(await who.asset("vg0/data.before-1234")) == {}
    state = host.state()
    assert (volume(state)["active"], volume(state, "data.before-1234")["active"]) == (True, False)
    assert {"daily", "owner=ann"} <= set(volume(state)["tags"])
    assert (lvm.contents(state, volume(state)) / "file").read_text() == "old"
    assert (lvm.contents(state, volume(state, "data.before-1234")) / "file").read_text() == "new"


@pytest.mark.parametrize(
    ("kind", "options"),
    [("ext4", {"noload"}), ("xfs", {"norecovery", "nouuid"}), ("vfat", set()), ("", None), ("btrfs", None)],
)
async def test_a_snapshot_is_mounted_without_a_write(host: Programs, kind: str, options: set[str] | None) -> None:
    with edited(host.file) as state:
        volume(state)["fs"] = kind
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        snapshot = await who.create(asset)
        if options is None:
            with pytest.raises(Unsupported):
                await who.export(asset, snapshot)
            assert not host.state()["volumes"][snapshot.id]["active"]
            assert who.roles.export is not None
            assert [item async for item in who.roles.export.open_exports()] == [], "no link is left"
            return
        export = await who.export(asset, snapshot)
        state = host.state()
        (mount,) = state["mounts"]
        assert set(mount["options"].split(",")) == {"ro", "nodev", "nosuid", "noexec", *options}
        assert state["volumes"][snapshot.id]["active"]
        assert Path(mount["target"]).parent.stat().st_mode & 0o777 == 0o700
        await who.deport(export)
    state = host.state()
    assert (state["mounts"], state["volumes"][snapshot.id]["active"]) == ([], False)


@pytest.mark.parametrize("nfs", ["none", "exportfs"])
async def test_a_snapshot_that_cannot_be_mounted_is_not_left_active(host: Programs, tmp_path: Path, nfs: str) -> None:
    (tmp_path / "bin" / "exportfs").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "exportfs").chmod(0o755)
    async with person(host, file_systems=["lvm"], nfs=nfs) as who:
        asset = await who.asset("vg0/data")
        snapshot = await who.create(asset)
        with edited(host.file) as state:
            state["volumes"][snapshot.id]["broken"] = True
        with pytest.raises(SnapkeepError, match="Mounting vg0/data"):
            await who.export(asset, snapshot)
        assert who.roles.export is not None
        assert [item async for item in who.roles.export.open_exports()] == []
    assert not host.state()["volumes"][snapshot.id]["active"]


async def test_a_mount_that_a_crash_left_is_taken_away(host: Programs) -> None:
    """The link was removed, and then the worker died: the deport is begun again."""
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        export = await who.export(asset, await who.create(asset))
        Path(export.locations[0].path).unlink()
        await who.deport(export)
    assert host.state()["mounts"] == []


async def test_a_mount_that_somebody_reads_is_busy(host: Programs) -> None:
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        snapshot = await who.create(asset)
        export = await who.export(asset, snapshot)
        with edited(host.file) as state:
            state["mounts"][0]["busy"] = True
        for work in (who.deport(export), who.delete(asset, snapshot)):
            with pytest.raises(Busy):
                await work
        with edited(host.file) as state:
            state["mounts"][0]["busy"] = False
        await who.deport(export)
        await who.delete(asset, snapshot)
    assert snapshot.id not in host.state()["volumes"]


async def test_snapshots_of_others_are_told_from_volumes(host: Programs) -> None:
    with edited(host.file) as state:
        origin = volume(state)["uuid"]
        lvm.create(state, "vg0", "theirs", origin=origin, skip=True, active=False)
        lvm.create(state, "vg0", "read-only", origin=origin, read_only=True)
        lvm.create(state, "vg0", "grown-up", origin=origin)
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        assert (await who.snapshots(asset)).keys() == {"theirs", "read-only"}
        assert Capability.CREATE in (await who.asset("vg0/grown-up")).capabilities
        with pytest.raises(Conflict):
            await who.create(asset, "theirs")


@given(st.text(min_size=1, max_size=30))
def test_any_name_is_written_so_that_it_is_read_back(name: str) -> None:
    text = lvm_volumes.encoded(name)
    assert lvm_volumes.decoded(text) == name.encode("utf-8", "replace").decode()
    assert all(letter.isascii() and (letter.isalnum() or letter in "+.-") for letter in text)


@pytest.mark.parametrize(
    "name", ["vg0/a_tdata", "vg0/snapshot1", "vg0/-a", "vg0/a b", "vg1/a", "a", "vg0/", "vg0/" + "a" * 124]
)
async def test_a_name_that_lvm_does_not_take_is_refused(host: Programs, name: str) -> None:
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        with pytest.raises(InvalidInput):
            await who.clone(asset, await who.create(asset), name)


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


# -- what was recorded -----------------------------------------------------------------------------------------------
RECORDED = """  {
      "report": [
          {
              "lv": [
                  {"vg_name":"vg0", "vg_uuid":"Q7e039-aEqd-0jMW-FqyW-sq18-1Aqr-qKliae", "lv_name":"data", \
"lv_uuid":"DRhX4X-cTfz-Hnl4-PftY-N83X-36dV-ycAfPA", "lv_attr":"Vwi-XXtz--", "pool_lv":"pool", "origin":"", \
"lv_time":"1795863425", "lv_tags":"", "data_percent":"", "metadata_percent":"", "lv_dm_path":"/dev/mapper/vg0-data"},
                  {"vg_name":"vg0", "vg_uuid":"Q7e039-aEqd-0jMW-FqyW-sq18-1Aqr-qKliae", "lv_name":"data-NB1", \
"lv_uuid":"ERhX4X-cTfz-Hnl4-PftY-N83X-36dV-ycAfPA", "lv_attr":"Vri-XXtz-k", "pool_lv":"pool", "origin":"data", \
"lv_time":"1795863426", "lv_tags":"snapkeep.asset=data,snapkeep.request=a-b", "data_percent":"", \
"metadata_percent":"", "lv_dm_path":"/dev/mapper/vg0-data--NB1"},
                  {"vg_name":"vg0", "vg_uuid":"Q7e039-aEqd-0jMW-FqyW-sq18-1Aqr-qKliae", "lv_name":"pool", \
"lv_uuid":"FRhX4X-cTfz-Hnl4-PftY-N83X-36dV-ycAfPA", "lv_attr":"twi-XXtz--", "pool_lv":"", "origin":"", \
"lv_time":"1795863424", "lv_tags":"", "data_percent":"", "metadata_percent":"", "lv_dm_path":"/dev/mapper/vg0-pool"}
              ]
          }
      ]
  }
"""
"""What lvs of lvm2 2.03.16 printed of a pool that was written by hand, without device-mapper."""


async def test_what_the_real_lvs_prints_is_understood(host: Programs, tmp_path: Path) -> None:
    (tmp_path / "recorded").write_text(RECORDED)
    (tmp_path / "bin" / "lvs").write_text(f"#!/bin/sh\nexec cat {tmp_path}/recorded\n")
    async with person(host, file_systems=["lvm"]) as who:
        asset = await who.asset("vg0/data")
        (snapshot,) = (await who.snapshots(asset)).values()
    assert asset.capabilities >= {Capability.CREATE, Capability.RESTORE}
    assert (snapshot.name, snapshot.owned, snapshot.id) == ("NB1", True, "ERhX4X-cTfz-Hnl4-PftY-N83X-36dV-ycAfPA")
    assert snapshot.created_at is not None
    assert snapshot.created_at.isoformat() == "2026-11-28T10:57:06+00:00"


@pytest.mark.parametrize("rows", ["tank/data\t7\n", "tank/data\t7\tfilesystem\tnoon" + "\t-" * 7 + "\n", "tank"])
async def test_what_is_no_list_of_zfs_is_an_error(host: Programs, tmp_path: Path, rows: str) -> None:
    (tmp_path / "rows").write_text(rows)
    (tmp_path / "bin" / "zfs").write_text(f"#!/bin/sh\nexec cat {tmp_path}/rows\n")
    async with person(host, file_systems=["zfs"]) as who:
        with pytest.raises(SnapkeepError) as caught:
            await who.asset("tank/data")
    assert caught.value.code == "vendor_error"


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
