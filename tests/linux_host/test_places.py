"""Which subvolume lies in which, and what btrfs refuses: told alike however many there are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux_host.worker import Worker
from tests.support.btrfs import mounted_btrfs, subvolume

from snapkeep.model.errors import Busy
from snapkeep.plugins.linux_host.btrfs import TOP, Subvolume
from snapkeep.plugins.linux_host.places import FileSystem, Layout

PARTS = st.lists(
    st.sampled_from([b"a", b"a0", b"a-", b"b", b".snapkeep", b".snapshots", b"\xff"]), min_size=1, max_size=3
)


@given(st.sets(PARTS.map(b"/".join), max_size=12))
def test_what_lies_in_a_subvolume_is_told(paths: set[bytes]) -> None:
    numbers = {path: number for number, path in enumerate(sorted(paths), start=300)}

    def parent(path: bytes) -> int:
        above = path.rpartition(b"/")[0]
        return TOP if not above else numbers.get(above) or parent(above)

    top = Subvolume(TOP, 0, 0, "", "", False, False, b"")
    every = [Subvolume(number, parent(path), 0, "", "", False, False, path) for path, number in numbers.items()]
    layout = Layout(FileSystem("uuid", (), (top, *every)))
    for item in (top, *every):
        inside = item.path + b"/" if item.path else b""
        assert sorted(layout.nested(item)) == sorted(
            other.path[len(inside) :]
            for other in every
            if other.path.startswith(inside) and not {b".snapkeep", b".snapshots"} & set(other.path.split(b"/"))
        )
        above = layout.parent(item)
        assert (above.id if above else None) == (item.parent if item.parent not in {0, TOP} else None)


async def test_what_a_file_system_mounts_by_default_is_not_deleted(tmp_path: Path) -> None:
    with mounted_btrfs(tmp_path / "btrfs") as mount:
        subvolume(mount / "live")
        async with Worker(mount) as worker:
            asset, made = await worker.asset("live"), await worker.create("live")
            subprocess.run(["btrfs", "subvolume", "set-default", worker.path("live", made)], check=True)
            assert worker.roles.delete is not None
            with pytest.raises(Busy) as caught:
                await worker.roles.delete.start_delete(asset, made, "request")
            assert "set-default" in caught.value.next_step
            subprocess.run(["btrfs", "subvolume", "set-default", "5", mount], check=True)
            await worker.roles.delete.start_delete(asset, made, "request")
            assert not worker.path("live", made).exists()
