"""What is done in the guest, as the only program of its kernel: `python -m tests.linux_host.in_guest DIRECTORY TOOLS`.

The plug-in works there on real thin volumes, with the programs of lvm2 and the kernel's device-mapper. What is seen is
written to `DIRECTORY/seen.json`, and judged outside.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from tests.linux_host.person import Person, person
from tests.nfs.in_guest import load, new_root, run

from snapkeep.model.errors import SnapkeepError

CHECKOUT = Path(__file__).parents[2]
CONFIGURATION = """
devices { filter=["a|ubd|","r|.*|"] use_devicesfile=0 hints="none" }
global { locking_dir="/run/lvm" thin_check_executable="" thin_repair_executable="" thin_dump_executable="" }
global { use_lvmpolld=0 event_activation=0 }
backup { backup=0 archive=0 }
activation { udev_sync=0 udev_rules=0 monitoring=0 }
"""
"""There is no udev, and no daemon that watches pools."""
DEVICE, PLACE = "/dev/mapper/vg0-data", Path("/mnt/data")


def set_up(directory: Path, tools: Path) -> None:
    """Make a volume in a thin pool on the disk."""
    new_root(directory, tools)
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    load(next((tools / "usr/lib/uml/modules").iterdir()), "dm-mod", "dm-thin-pool", "dm-snapshot", "ext4")
    programs = CHECKOUT / ".lvm"
    os.environ["PATH"] = f"{programs}/sbin:{programs}/usr/sbin:{os.environ['PATH']}"
    libraries = {str(path.parent) for path in programs.rglob("*.so*")}
    os.environ.update(LD_LIBRARY_PATH=":".join(libraries), LVM_SYSTEM_DIR="/run", LVM_SUPPRESS_FD_WARNINGS="1")
    Path("/run/lvm.conf").write_text(CONFIGURATION)
    PLACE.mkdir()
    run("pvcreate", "-ff", "-y", "/dev/ubda")
    run("vgcreate", "vg0", "/dev/ubda")
    run("lvcreate", "-y", "--type", "thin-pool", "-L", "100M", "-n", "pool", "vg0")
    run("lvcreate", "-y", "-V", "64M", "--thin", "-n", "data", "vg0/pool")
    run("mkfs.ext4", "-q", DEVICE)
    run("mount", DEVICE, PLACE)


def volumes() -> dict[str, str]:
    """Return what lvs says of each."""
    listed = subprocess.run(
        ["lvs", "--noheadings", "--separator", " ", "-o", "lv_name,lv_attr"], check=True, capture_output=True, text=True
    )
    return dict(line.split() for line in listed.stdout.splitlines())


def shown() -> list[str]:
    """Return the options of what the plug-in has mounted."""
    lines = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return [options for _, place, _, options, *_ in lines if place.startswith("/run/snapkeep/")]


async def outcome(work: Awaitable[Any]) -> str:
    """Return the code of the error that it ends with."""
    try:
        await work
    except SnapkeepError as error:
        return f"{error.code}: {error}"
    return "done"


async def everything(who: Person, seen: dict[str, Any]) -> None:
    """Do with a volume what people do."""
    asset = await who.asset("vg0/data")
    seen["refusals while mounted"] = sorted(asset.refusals)
    (PLACE / "file").write_text("old")
    old = await who.create(asset, "NB1")  # nothing was synchronised: LVM freezes what is mounted
    (PLACE / "file").write_text("new")
    named = await who.create(asset, "before the upgrade")
    seen["snapshots"] = sorted(await who.snapshots(asset))
    export = await who.export(asset, old)
    path = Path(export.locations[0].path)
    seen["read"] = (path / "file").read_text()
    seen["mounted"] = shown()
    seen["restore while mounted"] = await outcome(who.restore(asset, old, "1234-5"))
    await who.deport(export)
    seen["mounted after the deport"] = [shown(), volumes()["data-NB1"]]
    run("umount", PLACE)

    asset = await who.asset("vg0/data")
    seen["refusals"] = sorted(asset.refusals)
    await who.restore(asset, old, "1234-5")
    seen["snapshots after the restore"] = sorted(await who.snapshots(asset))
    seen["active after the restore"] = [name for name in ("data", "data.before-1234") if volumes()[name][4] == "a"]
    run("lvchange", "--activate", "y", "vg0/data.before-1234")
    clone = await who.clone(asset, named, "vg0/copy")
    for name, device in (("restored", DEVICE), ("beside", f"{DEVICE}.before--1234"), ("clone", "/dev/mapper/vg0-copy")):
        run("mount", device, PLACE)
        seen[name] = (PLACE / "file").read_text()
        run("umount", PLACE)
    seen["clone can"] = sorted(clone.capabilities)

    export = await who.export(asset, old)
    await who.delete(asset, old)
    await who.deport(export)
    seen["left"] = [shown(), sorted(await who.snapshots(asset))]
    run("lvchange", "-ay", "-K", "vg0/data-before+20the+20upgrade")
    run("mount", "-o", "ro,noload", "/dev/mapper/vg0-data--before+20the+20upgrade", PLACE)
    seen["delete in use"] = await outcome(who.delete(asset, named))
    run("umount", PLACE)


def main() -> None:
    directory, tools = map(Path, sys.argv[1:])
    seen: dict[str, Any] = {}
    set_up(directory, tools)

    async def work() -> None:
        async with person() as who:
            await everything(who, seen)

    try:
        asyncio.run(work())
    except BaseException:
        seen["failed"] = traceback.format_exc()
    (directory / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
