"""zfs(8), as far as the plug-in uses it.

Words: openzfs `lib/libzfs/libzfs_util.c` (libzfs_error_description, zfs_standard_error_fmt), `libzfs_dataset.c`
(zfs_destroy_snaps_nvl, zfs_clone, zfs_rename, zfs_promote) and `cmd/zfs/zfs_main.c` (destroy_check_dependent), at
be7657e3f278. What a dataset holds is in the directory where it is mounted, its snapshots in `.zfs/snapshot` there.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from tests.support.host_programs.state import State, copy, fail, number, options

NATIVE = {"name", "guid", "type", "creation", "mountpoint", "origin", "keystatus", "snapdir"}


def zfs(state: State, arguments: list[str]) -> str:
    command, *rest = arguments
    return COMMANDS[command](state, rest)


def create(state: State, name: str, *, mounted: bool = True, **properties: str) -> dict[str, Any]:
    """Make a dataset, as `zfs create` would."""
    found = {
        "type": "filesystem", "guid": number(state), "creation": int(time.time()), "properties": properties,
        "origin": None, "mounted": mounted,
    }  # fmt: skip
    state["datasets"][name] = found
    if mounted:
        place(state, name).mkdir(parents=True, exist_ok=True)
    return found


def place(state: State, name: str) -> Path:
    """Return where a dataset is mounted: its property, or that of what it lies in and its name."""
    if own := state["datasets"].get(name, {}).get("properties", {}).get("mountpoint"):
        return Path(own)
    above, _, last = name.rpartition("/")
    return place(state, above) / last if above else Path(state["directory"]) / "pools" / name


def contents(state: State, snapshot: str) -> Path:
    """Return where a snapshot's content is."""
    dataset, _, name = snapshot.partition("@")
    return place(state, dataset) / ".zfs" / "snapshot" / name


def _items(state: State) -> list[tuple[str, dict[str, Any]]]:
    order = {name: item["creation"] for name, item in state["datasets"].items()}
    return sorted(
        state["datasets"].items(), key=lambda item: (item[0].partition("@")[0], "@" in item[0], order[item[0]])
    )


def _property(state: State, name: str, key: str) -> str:
    item = state["datasets"][name]
    if key == "mountpoint" and item["type"] == "filesystem":
        return str(place(state, name))
    native: dict[str, str] = {
        "name": name, "guid": str(item["guid"]), "type": item["type"], "creation": str(item["creation"]),
        "origin": item["origin"] or "-",
    }  # fmt: skip
    if key in native:
        return native[key]
    where = name
    while True:  # a property of users is inherited, from the dataset by a snapshot, too
        if value := state["datasets"].get(where, {}).get("properties", {}).get(key):
            return str(value)
        if not where or (key in NATIVE and where != name):
            return "hidden" if key == "snapdir" and "@" not in name else "-"
        where = where.partition("@")[0] if "@" in where else where.rpartition("/")[0]


def _require(state: State, name: str) -> dict[str, Any]:
    if name not in state["datasets"]:
        fail(1, f"cannot open '{name}': dataset does not exist")
    return dict(state["datasets"][name])


def _list(state: State, arguments: list[str]) -> str:
    given, names = options(arguments, "Hpr", "otd")
    kinds = given.get("t", ["filesystem,volume"])[0].split(",")
    depth = int(given["d"][0]) if "d" in given else None
    for name in names:
        _require(state, name)

    def wanted(name: str) -> bool:
        if depth is None:
            return not names or name in names
        if not names:
            return name.count("/") <= depth
        return any(
            name == top or (name.startswith(top + "/") and name[len(top) :].count("/") <= depth) for top in names
        )

    return "".join(
        "\t".join(_property(state, name, key) for key in given["o"][0].split(",")) + "\n"
        for name, item in _items(state)
        if item["type"] in kinds and wanted(name)
    )


def _get(state: State, arguments: list[str]) -> str:
    given, (_, name) = options(arguments, "Hp", "so")
    assert given == {"H": [], "p": [], "s": ["local,received"], "o": ["property,value"]}
    return "".join(f"{key}\t{value}\n" for key, value in _require(state, name)["properties"].items())


def _set(state: State, arguments: list[str]) -> str:
    (given, name) = arguments
    _require(state, name)
    key, _, value = given.partition("=")
    state["datasets"][name]["properties"][key] = value
    return ""


def _snapshot(state: State, arguments: list[str]) -> str:
    given, (full,) = options(arguments, "", "o")
    dataset = full.partition("@")[0]
    cannot = f"cannot create snapshot '{full}'"
    if dataset not in state["datasets"]:
        fail(1, f"cannot open '{dataset}': dataset does not exist")
    if dataset.partition("/")[0] in state["read_only"]:
        fail(1, f"{cannot}: pool is read-only")
    if full in state["datasets"]:
        fail(1, f"{cannot}: dataset already exists")
    limit = state["datasets"][dataset]["properties"].get("snapshot_limit")
    if limit and sum(name.startswith(dataset + "@") for name in state["datasets"]) >= int(limit):
        fail(1, f"{cannot}: out of space")
    take(state, full, dict(item.split("=", 1) for item in given.get("o", [])))
    return ""


def take(state: State, full: str, properties: dict[str, str]) -> None:
    """Make a snapshot."""
    dataset = full.partition("@")[0]
    top = place(state, dataset)
    inside = [str(place(state, name)) for name in state["datasets"] if name.startswith(dataset + "/")]
    if state["datasets"][dataset]["mounted"]:
        target = contents(state, full)
        target.parent.mkdir(parents=True, exist_ok=True)
        copy(top, target, str(top / ".zfs"), *inside)
        (target / ".zfs").rmdir()
    state["datasets"][full] = {
        "type": "snapshot", "guid": number(state), "creation": int(time.time()), "properties": properties,
        "origin": None, "holds": [],
    }  # fmt: skip


def _destroy(state: State, arguments: list[str]) -> str:
    (full,) = arguments
    if "@" not in full:
        _require(state, full)
        inside = [name for name in state["datasets"] if name.startswith((full + "/", full + "@"))]
        if inside:
            fail(1, f"cannot destroy '{full}': filesystem has children", "use '-r' to destroy the following datasets:",
                 *inside)  # fmt: skip
        shutil.rmtree(place(state, full))
        del state["datasets"][full]
        return ""
    if full.partition("@")[0] not in state["datasets"]:
        fail(1, f"cannot open '{full.partition('@')[0]}': dataset does not exist")
    if full not in state["datasets"]:
        fail(1, "could not find any snapshots to destroy; check snapshot names.")
    clones = [name for name, item in state["datasets"].items() if item["origin"] == full]
    if clones:
        fail(
            1,
            f"cannot destroy '{full}': snapshot has dependent clones",
            "use '-R' to destroy the following datasets:",
            *clones,
        )
    if state["datasets"][full]["holds"]:
        fail(1, f"cannot destroy snapshot {full}: it's being held. Run 'zfs holds -r {full}' to see holders.")
    shutil.rmtree(contents(state, full))
    del state["datasets"][full]
    return ""


def _clone(state: State, arguments: list[str]) -> str:
    given, (source, name) = options(arguments, "", "o")
    _require(state, source)
    if name in state["datasets"]:
        fail(1, f"cannot create '{name}': dataset already exists")
    if name.rpartition("/")[0] not in state["datasets"]:
        fail(1, f"cannot create '{name}': parent does not exist")
    made = create(state, name, mounted=False, **dict(item.split("=", 1) for item in given.get("o", [])))
    made.update(origin=source, mounted=True)
    copy(contents(state, source), place(state, name))
    return ""


def _rename(state: State, arguments: list[str]) -> str:
    name, new = arguments
    _require(state, name)
    if new in state["datasets"]:
        fail(1, f"cannot rename '{name}': dataset already exists")
    if state["datasets"][name].get("busy"):
        fail(1, f"cannot unmount '{place(state, name)}': pool or dataset is busy")
    before = place(state, name)
    for old in [item for item in state["datasets"] if item == name or item.startswith((name + "/", name + "@"))]:
        state["datasets"][new + old[len(name) :]] = state["datasets"].pop(old)
    for item in state["datasets"].values():
        if (item["origin"] or "").startswith(name + "@"):
            item["origin"] = new + item["origin"][len(name) :]
    if before != place(state, new):
        before.rename(place(state, new))
    return ""


def _promote(state: State, arguments: list[str]) -> str:
    (name,) = arguments
    origin = _require(state, name)["origin"]
    if not origin:
        fail(1, f"cannot promote '{name}': not a cloned filesystem")
    of = origin.partition("@")[0]
    last = state["datasets"][origin]["guid"]
    moving = [
        item for item in state["datasets"] if item.startswith(of + "@") and state["datasets"][item]["guid"] <= last
    ]
    for old in moving:
        new = f"{name}@{old.partition('@')[2]}"
        contents(state, new).parent.mkdir(parents=True, exist_ok=True)
        contents(state, old).rename(contents(state, new))
        state["datasets"][new] = state["datasets"].pop(old)
        for item in state["datasets"].values():
            if item["origin"] == old:
                item["origin"] = new
    state["datasets"][name]["origin"] = state["datasets"][of]["origin"]
    state["datasets"][of]["origin"] = f"{name}@{origin.partition('@')[2]}"
    return ""


COMMANDS = {
    "list": _list, "get": _get, "set": _set, "snapshot": _snapshot, "destroy": _destroy, "clone": _clone,
    "rename": _rename, "promote": _promote,
}  # fmt: skip
PLAYED = {"zfs": zfs}
