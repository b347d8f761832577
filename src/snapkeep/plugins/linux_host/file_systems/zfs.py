"""ZFS file systems, by zfs(8) of OpenZFS 2.1 or later.

An asset is a dataset of type filesystem that is mounted; its id is the GUID of the pool's root dataset and the path
below that, since its own GUID is another one after a restore. A snapshot is marked by the property
`snapkeep:request`, which is set in the moment in which it is taken.

A restore makes a clone and exchanges the names: `zfs rollback` would destroy what is newer. The clone is promoted, so
that the old dataset, and those of restores before it, depend on the new one and can be destroyed; snapshots that are
newer stay with the old one, whose property `snapkeep:before` says whose they are. A dataset that was a clone of another
one before its restore is one afterwards: nothing is promoted over what is not its own.

`zfs diff` is not used: it leaves out, without a word, a file whose recorded parent does not have it any more, as after
`ln a b; rm b` (openzfs `module/zfs/zfs_znode.c`, zfs_obj_to_pobj, and `lib/libzfs/libzfs_diff.c`,
write_inuse_diffs_one, which passes over ENOENT).
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from urllib.parse import unquote
from uuid import NAMESPACE_URL, uuid5

from snapkeep.model.assets import Asset
from snapkeep.model.errors import Busy, Conflict, InvalidInput, NotFound, Unavailable, Unsupported, VendorError
from snapkeep.model.exports import AccessMode
from snapkeep.model.snapshots import Snapshot, SnapshotKind, is_owned_name
from snapkeep.plugin.commands import Output
from snapkeep.plugins.linux_host.errors import failure, number
from snapkeep.plugins.linux_host.file_systems.kind import Data, Group, Link, Program, Readable
from snapkeep.plugins.linux_host.file_systems.links import Links
from snapkeep.plugins.linux_host.file_systems.zfs_items import (
    BEFORE,
    CLONE,
    LIST,
    REQUEST,
    Item,
    Pools,
    columns_of,
    read_items,
)
from snapkeep.plugins.linux_host.host import Host, has_mounts
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

_SNAPSHOTS = "/.zfs/snapshot/"
_OF_THE_KEY = {"encryption", "keyformat", "keylocation", "pbkdf2iters"}
"""A clone has the key of what it is cloned from."""
MOST_NAME = 255
"""Longest name of a dataset or snapshot (ZFS_MAX_DATASET_NAME_LEN without its NUL)."""
_COMPONENT = re.compile(r"[A-Za-z0-9_.: -]+")
"""What zfs allows (openzfs `module/zcommon/zfs_namecheck.c`, valid_char)."""
_DEPENDENTS = re.compile(r"use '-[rR]' to destroy the following datasets:\n(.*)", re.DOTALL)
_SCHEDULES = ("autosnap_", "zfs-auto-snap_", "syncoid_")
"""How sanoid, zfs-auto-snapshot and syncoid name theirs."""


class ZfsKind:
    """Plays `Kind`. zfs ends when a thing is done, so that a ticket is a note of what was done."""

    name = "zfs"
    title = "ZFS"
    program = Program("zfsutils-linux", ("zfs", "list", "-Hp", "-o", "name", "-d", "0"), as_root=True)
    shows = False

    def __init__(self, host: Host, settings: LinuxHostSettings) -> None:
        self._host = host
        self._prefix = settings.snapshot_prefix
        self._only = tuple(map(str, settings.only))
        self._links = Links(host, os.fsencode(settings.export_directory), self.name)

    def owns(self, asset_id: str) -> bool:
        """Say whether an id is that of a dataset."""
        return asset_id.startswith("zfs:")

    # -- discovery -------------------------------------------------------------------------------------------------
    async def is_present(self) -> bool:
        """Say whether a dataset is mounted anywhere."""
        return await has_mounts(self._host, "zfs")

    async def mounted(self) -> Sequence[bytes]:
        """Return where datasets are mounted."""
        return [os.fsencode(target) for target in (await self._mounts()).values()]

    async def groups(self) -> list[Group]:
        """Return a group for each pool."""
        pools = await self._pools()
        found = []
        for root in pools.roots.values():
            assets = {
                item.name: pools.asset(item)
                for item in pools.datasets.values()
                if item.name.partition("/")[0] == root.name and self._is_wanted(pools, item)
            }
            for name in list(assets):  # what holds them is shown, too
                while name := name.rpartition("/")[0]:
                    assets.setdefault(name, pools.asset(pools.datasets[name]))
            snapshots = [
                self._snapshot(pools.id(of), item) for item in pools.snapshots if (of := pools.asset_of(item)) in assets
            ]
            if assets:
                found.append(Group(pools.id(root.name), list(assets.values()), snapshots))
        return found

    def _is_wanted(self, pools: Pools, item: Item) -> bool:
        if not self._only:
            return True
        path = pools.mounts.get(item.name)
        return path is not None and any(path == top or path.startswith(top.rstrip("/") + "/") for top in self._only)

    async def exists(self, asset: Asset, snapshot: Snapshot | None) -> bool:
        """Look for it in all pools. Raises Unavailable where its pool is not: it may be there."""
        pools = await self._pools()
        if asset.id.partition("/")[0].removeprefix("zfs:") not in pools.roots:
            raise _not_imported(asset.name)
        if snapshot is not None:
            return any(
                item.guid == snapshot.id and pools.id(pools.asset_of(item)) == asset.id for item in pools.snapshots
            )
        return any(pools.id(name) == asset.id for name in pools.datasets)

    # -- snapshots -------------------------------------------------------------------------------------------------
    def require_name(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what zfs does not take as a name."""
        if not _COMPONENT.fullmatch(name) or name in {".", ".."} or len(f"{asset.name}@{name}") > MOST_NAME:
            raise InvalidInput(
                f"{name!r:.120} is not a name that can be given here",
                next_step="Use letters, digits, spaces and '-_.:'; with its dataset at most 255 characters.",
            )

    async def create(self, asset: Asset, name: str, request_id: str, *, owned: bool) -> Data:
        """Take the snapshot, with the request as a property of it."""
        item = await self._dataset(asset.id)
        full = f"{item.name}@{name}"
        there = await self._named(item.name, name)
        if there is not None and not owned and there.request != request_id:
            raise Conflict(f"{asset.name!r} has a snapshot {name!r} already")
        if there is None:
            done = await self._host.run("zfs", "snapshot", "-o", f"{REQUEST}={request_id}", full)
            self._host.require(done, f"Creating snapshot {name!r} of {asset.name!r}")
        return {"name": name, "full": full}

    async def created(self, ticket: Data) -> Snapshot | None:
        """Return the snapshot, as zfs lists it."""
        found = await self._items("-t", "snapshot", ticket["full"])
        return self._snapshot(ticket["asset"], found[0]) if found else None

    async def delete(self, asset: Asset, snapshot: Snapshot) -> Data:
        """Destroy it, and nothing that depends on it."""
        try:
            item = await self._found(asset, snapshot)
        except NotFound:
            return {"full": "", "snapshot": snapshot.id}
        done = await self._host.run("zfs", "destroy", item.name)
        if done.code and await self._is_there(item.name, snapshot.id):
            raise self._why_not(done, f"Deleting snapshot {snapshot.name!r} of {asset.name!r}")
        return {"full": item.name, "snapshot": snapshot.id}

    def _why_not(self, done: Output, doing: str) -> Exception:
        error = failure(done, doing, root=self._host.is_root)
        if isinstance(error, Busy) and (found := _DEPENDENTS.search(done.err.decode("utf-8", "replace"))):
            error.details["dependents"] = found[1].split("\n")[:-1] or [found[1]]
            error.next_step = "Destroy what was cloned from it (`zfs destroy`), or let it go with `zfs promote`."
        return error

    async def deleted(self, ticket: Data) -> bool:
        """Say whether zfs has no such snapshot."""
        return not ticket["full"] or not await self._is_there(ticket["full"], ticket["snapshot"])

    async def restore(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Data:
        """Exchange the dataset for a clone of the snapshot. Each step is found done when it is run again."""
        doing = f"Restoring {asset.name!r} to snapshot {snapshot.name!r}"
        name, mark = asset.name, request_id.partition("-")[0]
        new, old = f"{name}.restoring-{mark}", f"{name}.before-{mark}"
        there = {item.name: item for item in await self._items("-t", "filesystem", "-d", "1", name.rpartition("/")[0])}
        if old not in there:
            source = await self._found(asset, snapshot)
            await self._require_no_children(name)
            if new not in there:
                options = [f"-o{key}={value}" for key, value in (await self._properties(name)).items()]
                await self._host.do(doing, "zfs", "clone", "-o", f"{CLONE}={request_id}", *options, source.name, new)
            try:
                await self._host.do(doing, "zfs", "rename", name, old)
            except Busy:
                await self._host.run("zfs", "destroy", new)  # else the snapshot could not be deleted
                raise
        if old not in there or name not in there:
            await self._host.do(doing, "zfs", "rename", new, name)
        await self._host.do(doing, "zfs", "set", f"{BEFORE}={name}", old)
        while (origin := (await self._dataset(asset.id)).origin) and await self._is_kept_for(origin, name):
            await self._host.do(doing, "zfs", "promote", name)
        return {"name": name, "old": old, "request": request_id}

    async def _require_no_children(self, dataset: str) -> None:
        """Raise Conflict when others lie in a dataset, made since it was discovered: they would go with it."""
        inside = [item.name for item in await self._items("-t", "filesystem,volume", "-d", "1", dataset)]
        if others := [name for name in inside if name != dataset]:
            raise Conflict(
                f"Other datasets lie in {dataset!r}, which would go with the old one: {', '.join(others)}",
                next_step="Rename them to another place (`zfs rename`), or clone the snapshot instead.",
            )

    async def _is_kept_for(self, snapshot: str, dataset: str) -> bool:
        """Say whether a snapshot is of what a restore has exchanged for a dataset."""
        found = await self._items("-t", "filesystem", snapshot.partition("@")[0])
        return any(item.kept_for == dataset for item in found)

    async def _properties(self, dataset: str) -> dict[str, str]:
        """Return what was set for a dataset itself, which its clone does not inherit. Raises Unsupported."""
        given = ("zfs", "get", "-Hp", "-s", "local,received", "-o", "property,value", "all", dataset)
        lines = columns_of(await self._host.do(f"Reading the properties of {dataset!r}", *given), 2)
        found = {key: value for key, value in lines if key not in {CLONE, BEFORE, *_OF_THE_KEY}}
        if "mountpoint" in found:
            raise Unsupported(
                f"The mountpoint of {dataset!r} is its own, so that two would want it",
                next_step="Clone the snapshot instead, and exchange the datasets by hand.",
            )
        return found

    async def restored(self, ticket: Data) -> None:
        """Raise VendorError unless the dataset is the clone that was made for the request."""
        if (await self._dataset(ticket["asset"])).clone != ticket["request"]:
            raise VendorError(
                f"{ticket['name']} was exchanged by somebody else meanwhile",
                next_step=f"What it was before is {ticket['old']}.",
            )

    def require_target(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what is no name of a dataset in the same pool."""
        parts = name.split("/")
        valid = len(name) <= MOST_NAME and all(_COMPONENT.fullmatch(part) for part in parts)
        if not valid or {".", ".."} & set(parts) or len(parts) < 2 or parts[0] != asset.name.partition("/")[0]:
            raise InvalidInput(
                f"{name!r:.120} is not a name for a new dataset",
                next_step=f"Give the whole name of a dataset in the same pool, such as {asset.name}-before.",
            )

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str, request_id: str) -> Data:
        """Clone the snapshot, with the request as a property of that."""
        source = await self._found(asset, snapshot)
        there = await self._items("-t", "filesystem,volume", name)
        if there and there[0].clone != request_id:
            raise Conflict(f"There is a dataset {name!r} already")
        if not there:
            done = await self._host.run("zfs", "clone", "-o", f"{CLONE}={request_id}", source.name, name)
            self._host.require(done, f"Cloning {asset.name!r} to {name!r}")
        return {"name": name}

    async def cloned(self, ticket: Data) -> Asset:
        """Return the new dataset."""
        pools = await self._pools()
        if ticket["name"] not in pools.datasets:
            raise VendorError(f"zfs reported success, but there is no dataset {ticket['name']!r}")
        return pools.asset(pools.datasets[ticket["name"]])

    # -- where a snapshot can be read ------------------------------------------------------------------------------
    async def path(self, asset: Asset, snapshot: Snapshot) -> bytes:
        """Return a path in `.zfs/snapshot`, which is there whether or not it is shown."""
        item = await self._found(asset, snapshot)
        top = (await self._mounts()).get(item.dataset)
        if top is None:
            raise Unavailable(
                f"{item.dataset!r} is not mounted", next_step=f"Mount it on the host: `zfs mount {item.dataset}`."
            )
        return os.fsencode(top.rstrip("/") + _SNAPSHOTS + item.own)

    async def show(self, asset_id: str, snapshot_id: str) -> None:
        """Do nothing: the kernel mounts a snapshot when somebody looks at it."""

    async def hide(self, asset_id: str, snapshot_id: str) -> None:
        """Do nothing: the kernel unmounts it after some minutes."""

    def fsid(self, snapshot: Snapshot) -> str:
        """Return a UUID made of the snapshot's GUID."""
        return str(uuid5(NAMESPACE_URL, f"zfs:{snapshot.id}"))

    async def link(self, asset: Asset, snapshot: Snapshot, address: str, mode: AccessMode) -> bytes:
        """Return a path in the directory of exports."""
        return self._links.path(asset.id, snapshot.id, address, mode)

    async def links(self) -> list[Link]:
        """Return those of datasets that there are."""
        found = await self._links.every()
        if not found:
            return []
        pools = await self._pools()
        tops = {pools.id(name): pools.mounts.get(name) for name in pools.datasets}
        return [
            link._replace(live=os.fsencode(top) if (top := tops[link.asset_id]) else None)
            for link in found
            if link.asset_id in tops
        ]

    async def index(self) -> Callable[[bytes], Readable | None]:
        """Know the snapshots of all datasets that are mounted."""
        pools = await self._pools()
        known = {
            os.fsencode(top.rstrip("/") + _SNAPSHOTS + item.own): Readable(pools.id(pools.asset_of(item)), item.guid)
            for item in pools.snapshots
            if (top := pools.mounts.get(item.dataset)) is not None
        }
        tops = {os.fsencode(top.rstrip("/") + _SNAPSHOTS): name for name, top in pools.mounts.items()}

        def readable(path: bytes) -> Readable | None:
            name = tops.get(path.rpartition(b"/")[0] + b"/")
            return known.get(path) or (Readable(pools.id(name), "") if name else None)

        return readable

    # -- what zfs says ---------------------------------------------------------------------------------------------
    async def _pools(self) -> Pools:
        return Pools(await self._items("-t", "filesystem,snapshot"), await self._mounts())

    async def _items(self, *arguments: str) -> list[Item]:
        """Return what `zfs list` shows; nothing where what was asked for is not there."""
        done = await self._host.run(*LIST, *arguments)
        if done.code and number(done) == errno.ENOENT:
            return []
        return read_items(done.succeeded())

    async def _mounts(self) -> dict[str, str]:
        """Return where datasets are mounted, whatever their property `mountpoint` says (it may be legacy)."""
        done = await self._host.see("findmnt", "-J", "-l", "-t", "zfs", "-o", "SOURCE,TARGET")
        if done.code == 1 and not done.out and not done.err:
            return {}
        try:
            listed = json.loads(done.succeeded())["filesystems"]
            found: dict[str, str] = {}
            for item in listed:
                source = str(item["source"])
                if not {"@", "["} & set(source):  # a snapshot that the kernel has mounted; a directory in a dataset
                    found.setdefault(source, str(item["target"]))
        except (ValueError, KeyError, TypeError) as error:
            raise VendorError("findmnt answers in a form that is not known", vendor_message=str(error)) from error
        return found

    async def _dataset(self, asset_id: str) -> Item:
        """Return an asset's dataset. Raises NotFound, and Unavailable when its pool is not there."""
        guid, _, inside = asset_id.removeprefix("zfs:").partition("/")
        roots = await self._items("-t", "filesystem", "-d", "0")
        root = next((item.name for item in roots if item.guid == guid), None)
        if root is None:
            raise _not_imported(asset_id)
        name = f"{root}/{unquote(inside)}" if inside else root
        found = await self._items("-t", "filesystem", name)
        if not found:
            raise NotFound(f"There is no dataset {name!r} any more", next_step="Run `snapkeep discover`.")
        return found[0]

    async def _named(self, dataset: str, name: str) -> Item | None:
        """Return the snapshot of that name of a dataset, or of one that it was exchanged for."""
        if found := await self._items("-t", "snapshot", f"{dataset}@{name}"):
            return found[0]
        above = dataset.rpartition("/")[0]
        beside = await self._items("-t", "filesystem", "-d", "1", above) if above else []
        for item in beside:
            if item.kept_for == dataset and (found := await self._items("-t", "snapshot", f"{item.name}@{name}")):
                return found[0]
        return None

    async def _found(self, asset: Asset, snapshot: Snapshot) -> Item:
        """Return a snapshot. Raises NotFound."""
        item = await self._named((await self._dataset(asset.id)).name, snapshot.name)
        if item is None or item.guid != snapshot.id:
            raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
        return item

    async def _is_there(self, full: str, guid: str) -> bool:
        return any(item.guid == guid for item in await self._items("-t", "snapshot", full))

    def _snapshot(self, asset_id: str, item: Item) -> Snapshot:
        scheduled = item.own.startswith(_SCHEDULES)
        return Snapshot(
            id=item.guid,
            asset_id=asset_id,
            name=item.own,
            kind=SnapshotKind.SCHEDULE if scheduled else SnapshotKind.USER,
            owned=bool(item.request) and is_owned_name(self._prefix, item.own),
            created_at=datetime.fromtimestamp(item.created, UTC),
        )


def _not_imported(name: str) -> Unavailable:
    return Unavailable(  # NotFound would say that its snapshots are gone
        f"The pool of {name!r} is not imported",
        next_step="Import it on the host (`zpool import`); or, if it is gone for good, remove the system.",
    )
