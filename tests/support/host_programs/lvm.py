"""lvs, lvcreate, lvremove, lvrename and lvchange, as far as the plug-in uses them on thin volumes.

The form of lvs and the complaints were recorded from lvm2 2.03.16 (Debian 12). What the plug-in does with the real ones
is in `tests/linux_host/in_guest.py`. Those about open volumes and full pools are in lvm2 `lib/activate/activate.c`
(lv_check_not_in_use) and `lib/metadata/lv_manip.c` (lv_create_single), at d804677c7565.
"""

from __future__ import annotations

import json
import shutil
import string
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.support.host_programs.state import State, copy, fail, number, options

_LETTERS = string.ascii_letters + string.digits


def create(state: State, group: str, name: str, **others: Any) -> dict[str, Any]:
    """Make a volume: thin, active, writable, unless `others` say so."""
    uuid = _uuid(state)
    state["volumes"][uuid] = found = {
        "group": group, "name": name, "uuid": uuid, "pool": "pool", "origin": "", "tags": [], "time": int(time.time()),
        "read_only": False, "skip": False, "active": True, "open": False, "type": "thin", "full": "", "fs": "ext4",
        **others,
    }  # fmt: skip
    contents(state, found).mkdir(parents=True, exist_ok=True)
    return found


def pool(state: State, group: str, full: float = 12.5) -> dict[str, Any]:
    """Make the thin pool of a group."""
    return create(state, group, "pool", pool="", type="thin-pool", full=f"{full:.2f}")


def contents(state: State, volume: dict[str, Any]) -> Path:
    """Return the directory that stands for the file system on a volume."""
    return Path(state["directory"]) / "volumes" / str(volume["uuid"])


def path(volume: dict[str, Any]) -> str:
    """Return the device."""
    return "/dev/mapper/" + "-".join(volume[key].replace("-", "--") for key in ("group", "name"))


def is_mounted(state: State, volume: dict[str, Any]) -> bool:
    return any(mount["source"] == path(volume) for mount in state["mounts"])


def find(state: State, full: str) -> dict[str, Any] | None:
    """Return a volume by the names of group and volume."""
    return next((volume for volume in state["volumes"].values() if f"{volume['group']}/{volume['name']}" == full), None)


def _uuid(state: State) -> str:
    left, letters = number(state) * 7919, ""
    for _ in range(32):
        left, rest = divmod(left * 31 + 17, len(_LETTERS))
        letters += _LETTERS[rest]
        left = left or number(state)
    edges = (0, 6, 10, 14, 18, 22, 26, 32)
    return "-".join(letters[start:end] for start, end in pairwise(edges))


def _attributes(state: State, volume: dict[str, Any]) -> str:
    kind = {"thin": "V", "thin-pool": "t"}.get(volume["type"], "-")
    thin = volume["type"] != "linear"
    opened = volume["open"] or is_mounted(state, volume)
    return "".join(
        [
            kind,
            "r" if volume["read_only"] else "w",
            "i-",
            "a" if volume["active"] else "-",
            "o" if opened else "-",
            "tz" if thin else "--",
            "-",
            "k" if volume["skip"] else "-",
        ]
    )


def _row(state: State, volume: dict[str, Any]) -> dict[str, str]:
    return {
        "vg_name": volume["group"],
        "vg_uuid": f"VolGrp-{volume['group']}-0000-0000-0000-0000-000000",
        "lv_name": volume["name"],
        "lv_uuid": volume["uuid"],
        "lv_attr": _attributes(state, volume),
        "pool_lv": volume["pool"],
        "origin": state["volumes"].get(volume["origin"], {}).get("name", ""),
        "lv_time": str(volume["time"]),
        "lv_tags": ",".join(sorted(volume["tags"])),
        "data_percent": volume["full"],
        "metadata_percent": volume["full"] and "1.00",
        "lv_dm_path": path(volume),
    }


def _lvs(state: State, arguments: list[str]) -> str:
    given, names = options(arguments, "", "o", ("--reportformat", "--config"))
    assert given["--reportformat"] == ["json"]
    assert not names
    columns = given["o"][0].split(",")
    rows = [_row(state, volume) for volume in state["volumes"].values()]
    rows.sort(key=lambda row: (row["vg_name"], row["lv_name"]))
    lines = [
        " " * 18 + "{" + ", ".join(f'"{column}":{json.dumps(row[column])}' for column in columns) + "}" for row in rows
    ]
    return (
        '  {\n      "report": [\n          {\n              "lv": [\n'
        + ",\n".join(lines)
        + "\n              ]\n          }\n      ]\n  }\n"
    )


def _require(state: State, full: str) -> dict[str, Any]:
    group, _, name = full.partition("/")
    if group not in {volume["group"] for volume in state["volumes"].values()}:
        fail(5, f'  Volume group "{group}" not found', f"  Cannot process volume group {group}")
    if group in state["read_only"]:
        fail(5, f"  Volume group {group} is read-only.", f"  Cannot process volume group {group}")
    found = find(state, full)
    if found is None:
        fail(5, f'  Failed to find logical volume "{group}/{name}"')
    return found


def _lvcreate(state: State, arguments: list[str]) -> str:
    given, (full,) = options(arguments, words=("--permission", "--setactivationskip", "--addtag", "--name"))
    assert "--snapshot" in given
    group, _, of = full.partition("/")
    (name,) = given["--name"]
    if not all(letter in _LETTERS + "+_.-" for letter in name):
        fail(3, f'  Logical volume name "{name}" is invalid.', "  Run `lvcreate --help' for more information.")
    if group in state["read_only"]:
        fail(5, f"  Volume group {group} is read-only.", f"  Cannot process volume group {group}")
    if find(state, f"{group}/{name}"):
        fail(5, f'  Logical Volume "{name}" already exists in volume group "{group}"')
    origin = find(state, full)
    if origin is None:
        fail(5, f"  Snapshot origin LV {of} not found in Volume group {group}.")
    the_pool = find(state, f"{group}/{origin['pool']}")
    if the_pool and float(the_pool["full"]) >= 99:
        fail(
            5,
            f"  Cannot create new thin volume, free space in thin pool {group}/{the_pool['name']} reached threshold.",
        )
    skip = given["--setactivationskip"] == ["y"]
    made = create(
        state, group, name, origin=origin["uuid"], tags=given.get("--addtag", []), fs=origin["fs"],
        read_only=given["--permission"] == ["r"], skip=skip, active=not skip,
    )  # fmt: skip
    contents(state, made).rmdir()
    copy(contents(state, origin), contents(state, made))
    return f'  Logical volume "{name}" created.\n'


def _lvremove(state: State, arguments: list[str]) -> str:
    given, (full,) = options(arguments)
    assert "--yes" in given, "the real one asks"
    volume = _require(state, full)
    if is_mounted(state, volume):
        fail(5, f"  Logical volume {full} contains a filesystem in use.")
    if volume["open"]:
        fail(5, f"  Logical volume {full} in use.")
    shutil.rmtree(contents(state, volume))
    del state["volumes"][volume["uuid"]]
    return f'  Logical volume "{volume["name"]}" successfully removed.\n'


def _lvrename(state: State, arguments: list[str]) -> str:
    group, name, new = arguments
    if group in state["read_only"]:
        fail(5, f"  Volume group {group} is read-only.", f"  Cannot process volume group {group}")
    if find(state, f"{group}/{new}"):
        fail(5, f'  Logical Volume "{new}" already exists in volume group "{group}"')
    volume = find(state, f"{group}/{name}")
    if volume is None:
        fail(5, f'  Existing logical volume "{name}" not found in volume group "{group}"')
    volume["name"] = new
    return f'  Renamed "{name}" to "{new}" in volume group "{group}"\n'


def _lvchange(state: State, arguments: list[str]) -> str:
    given, (full,) = options(arguments, words=("--activate",))
    volume = _require(state, full)
    wanted = given["--activate"] == ["y"]
    if not wanted and is_mounted(state, volume):
        fail(5, f"  Logical volume {full} contains a filesystem in use.")
    if wanted and volume["skip"] and "--ignoreactivationskip" not in given:
        return ""  # passed over, which is no failure
    volume["active"] = wanted
    return ""


PLAYED = {
    "lvs": _lvs, "lvcreate": _lvcreate, "lvremove": _lvremove, "lvrename": _lvrename, "lvchange": _lvchange,
}  # fmt: skip
