"""LVM, whose programs are played: what the conformance suite does not ask of every kind of system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux_host.played import person
from tests.support.host_programs import Programs, lvm
from tests.support.host_programs.state import State, edited

from snapkeep.model.assets import Capability
from snapkeep.model.errors import Busy, Conflict, InvalidInput, LimitExceeded, SnapkeepError, Unsupported
from snapkeep.plugins.linux_host.file_systems import lvm_volumes


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
