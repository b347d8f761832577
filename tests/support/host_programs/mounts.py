"""mount, umount, findmnt, lsblk and blkid of util-linux, of what is played: no other file system is on this host.

What is mounted is copied, so that no right of root is needed. Words: util-linux `libmount/src/context_mount.c`
(mnt_context_get_mount_excode) and `context_umount.c`, 2.38.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.host_programs import lvm, zfs
from tests.support.host_programs.state import State, copy, fail, options


def _mounted(state: State) -> list[dict[str, str]]:
    datasets = [
        {"source": name, "target": str(zfs.place(state, name)), "fstype": "zfs", "options": "rw", "fsroot": "/"}
        for name, item in state["datasets"].items()
        if item["type"] == "filesystem" and item["mounted"]
    ]
    return [*datasets, *state["mounts"]]


def _findmnt(state: State, arguments: list[str]) -> str:
    if arguments == ["--version"]:
        return "findmnt from util-linux 2.38.1\n"
    given, _ = options(arguments, "Jlnb", "to", ("--mountpoint",))
    columns = given["o"][0].lower().split(",")
    kinds = given.get("t", [""])[0].split(",")
    found = [
        mount
        for mount in _mounted(state)
        if (mount["target"] in given["--mountpoint"] if "--mountpoint" in given else mount["fstype"] in kinds)
    ]
    if not found:
        fail(1)
    if "J" in given:
        rows = [{column: mount.get(column) for column in columns} for mount in found]
        return json.dumps({"filesystems": rows}, indent=3) + "\n"
    return "".join(" ".join(mount[column] for column in columns) + "\n" for mount in found)


def _device(state: State, device: str) -> dict[str, Any] | None:
    return next((item for item in state["volumes"].values() if lvm.path(item) == device and item["active"]), None)


def _mount(state: State, arguments: list[str]) -> str:
    given, (device, place) = options(arguments, "", "o")
    volume = _device(state, device)
    if volume is None:
        fail(32, f"mount: {place}: special device {device} does not exist.")
    if any(mount["target"] == place for mount in state["mounts"]):
        fail(32, f"mount: {place}: {device} already mounted on {place}.")
    wanted = set(given["o"][0].split(","))
    foreign = {"ext4": {"nouuid"}, "xfs": {"noload"}}.get(volume["fs"], set())
    needed = {"norecovery", "nouuid"} if volume["fs"] == "xfs" else set()
    if wanted & foreign or not wanted >= needed or volume.get("broken"):
        fail(32, f"mount: {place}: wrong fs type, bad option, bad superblock on {device}, missing codepage or helper "
                 "program, or other error.")  # fmt: skip
    Path(place).rmdir()
    copy(lvm.contents(state, volume), Path(place))
    state["mounts"].append({"source": device, "target": place, "fstype": volume["fs"], "options": given["o"][0]})
    return ""


def _umount(state: State, arguments: list[str]) -> str:
    _, (place,) = options(arguments)
    found = next((mount for mount in state["mounts"] if mount["target"] == place), None)
    if found is None:
        fail(32, f"umount: {place}: not mounted.")
    if found.get("busy"):
        fail(32, f"umount: {place}: target is busy.")
    unmount(state, found)
    return ""


def unmount(state: State, mount: dict[str, str]) -> None:
    """Take a mount away, and what is seen there."""
    state["mounts"].remove(mount)
    shutil.rmtree(mount["target"])
    Path(mount["target"]).mkdir()


def _lsblk(state: State, arguments: list[str]) -> str:
    devices = [{"name": "vda", "type": "disk"}]
    devices += [{"name": lvm.path(item)[12:], "type": "lvm"} for item in state["volumes"].values() if item["active"]]
    return json.dumps({"blockdevices": devices}, indent=3) + "\n"


def _blkid(state: State, arguments: list[str]) -> str:
    given, (device,) = options(arguments, "", "os")
    assert given == {"o": ["value"], "s": ["TYPE"]}
    volume = _device(state, device)
    if volume is None or not volume["fs"]:
        fail(2)
    return f"{volume['fs']}\n"


PLAYED = {"findmnt": _findmnt, "mount": _mount, "umount": _umount, "lsblk": _lsblk, "blkid": _blkid}
