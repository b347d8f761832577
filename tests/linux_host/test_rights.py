"""What the sudoers file allows: all that is run as root, and no more than its form can hinder."""

from __future__ import annotations

import subprocess
from fnmatch import fnmatchcase

import pytest
from tests.linux_host.person import person
from tests.support.host_programs import Programs
from tests.support.host_programs.state import edited
from tests.support.person import ordinary_user

from snapkeep.model.errors import Busy
from snapkeep.plugins.linux_host.file_systems import lvm
from snapkeep.plugins.linux_host.file_systems.lvm_volumes import LIST
from snapkeep.plugins.linux_host.rights import by_capability, sudoers

FOR_ALL = {"findmnt", "lsblk"}


def is_allowed(*words: str) -> bool:
    """A pattern of sudo stands for text as one of fnmatch does (sudoers(5), Wildcards in command arguments)."""
    return any(fnmatchcase(" ".join(words), rule) for rules in by_capability().values() for rule in rules)


@pytest.mark.parametrize(("kind", "name"), [("zfs", "tank/data"), ("lvm", "vg0/data")])
async def test_all_that_is_run_as_root_is_allowed(host: Programs, kind: str, name: str) -> None:
    async with person(file_systems=[kind], export_directory=str(host.file.parent / "exports")) as who:
        await who.check()
        asset = await who.asset(name)
        snapshot = await who.create(asset)
        await who.deport(await who.export(asset, snapshot))
        if kind == "zfs":
            with edited(host.file) as state:
                state["datasets"][name]["busy"] = True
            with pytest.raises(Busy):
                await who.restore(asset, snapshot, "1234-5")
            with edited(host.file) as state:
                state["datasets"][name]["busy"] = False
        await who.restore(asset, snapshot, "5678-9")
        await who.clone(asset, await who.create(asset, "NB2"), f"{name}-copy")
        await who.delete(asset, await who.create(asset, "NB3"))
    called = [words for words in host.called if words[0] not in FOR_ALL and words[1:] != ["--version"]]
    assert [words for words in called if not is_allowed(*words)] == []
    assert {words[0] for words in called} == {
        "zfs": {"zfs"},
        "lvm": {"lvs", "lvcreate", "lvremove", "lvrename", "lvchange", "blkid", "mount", "umount"},
    }[kind]


def test_every_file_system_is_mounted_with_options_that_are_allowed() -> None:
    for options in lvm._OPTIONS.values():
        assert is_allowed("mount", "-o", ",".join((*lvm._SAFE, *options)), "--", "/dev/mapper/a-b", "/run/snapkeep/c")


@pytest.mark.parametrize(
    "words",
    [
        "zfs destroy -r tank",
        "zfs destroy tank/data",
        "mount -o ro,suid,dev -- /dev/sdb1 /mnt",
        "mount -o ro,remount,rw -- /dev/sdb1 /mnt",
        "lvs --reportformat json --config global/x=1 -o lv_name",
        "lvs --reportformat json -o lv_name vg0",
        "lvchange --activate y --deltag x vg0",
    ],
)
def test_what_is_never_run_is_not_allowed(words: str) -> None:
    assert not is_allowed(*words.split())


def test_sudo_reads_the_line_of_lvs_as_it_is_meant() -> None:
    with ordinary_user(sudoers("USER", ["lvm"]).replace("/usr/sbin/lvs", "/usr/bin/printf")) as user:
        asked = ["sudo", "-l", "-U", user, "--", "/usr/bin/printf"]
        for more, code in ((), 0), (("vg0",), 1):
            done = subprocess.run([*asked, *LIST[1:], *more], check=False, capture_output=True)
            assert done.returncode == code
