"""What `lvs` shows: volumes and snapshots, the names that LVM takes, and how ours are written in them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import LimitExceeded, NotFound, VendorError
from snapkeep.model.snapshots import Snapshot
from snapkeep.plugins.linux_host.mapping import DATASET_CAPABILITIES, HOST

FIELDS = (
    "vg_name,vg_uuid,lv_name,lv_uuid,lv_attr,pool_lv,origin,lv_time,lv_tags,data_percent,metadata_percent,lv_dm_path"
)
LIST = (
    *("lvs", "--reportformat", "json"),
    *("--config", 'report/time_format="%s"', "-o", FIELDS),
)
ASSET, REQUEST = "snapkeep.asset=", "snapkeep.request="
"""How our tags begin: the volume that a snapshot is of, and the request that made a snapshot or volume."""
FULL_PERCENT = 95.0
"""A pool that is fuller takes no more snapshots: when it is full, all volumes in it fail."""


class Volume(NamedTuple):
    """A line of `lvs`."""

    group: str
    group_uuid: str
    name: str
    uuid: str
    attributes: str
    """As lvs(8) explains them, a letter for each."""
    pool: str
    origin: str
    time: int
    tags: frozenset[str]
    full: float
    """Percent that is used, of data or of metadata, whichever is more."""
    path: str

    @property
    def full_name(self) -> str:
        """The name with that of the group."""
        return f"{self.group}/{self.name}"

    @property
    def is_thin(self) -> bool:
        """Whether it is a volume in a thin pool."""
        return bool(self.pool) and self.attributes[6:7] == "t"

    @property
    def is_open(self) -> bool:
        """Whether something has it open: a mount, a virtual machine."""
        return self.attributes[5:6] == "o"

    @property
    def is_read_only(self) -> bool:
        """Whether it cannot be written to."""
        return self.attributes[1:2] == "r"

    @property
    def is_snapshot(self) -> bool:
        """Whether it is a snapshot, of ours or of others."""
        skipped = self.attributes[9:10] == "k"
        return self.is_thin and bool(self.tag(ASSET) or (self.origin and (skipped or self.is_read_only)))

    @property
    def asset(self) -> str:
        """The name of the volume that a snapshot is of."""
        return self.tag(ASSET) or self.origin

    @property
    def own(self) -> str:
        """The name of a snapshot, as it was given."""
        prefix = f"{self.tag(ASSET)}-"
        return decoded(self.name.removeprefix(prefix)) if prefix != "-" else self.name

    def tag(self, prefix: str) -> str:
        """Return what follows the prefix in a tag; empty: there is none."""
        return next((tag.removeprefix(prefix) for tag in self.tags if tag.startswith(prefix)), "")


def is_asset(volume: Volume) -> bool:
    """Say whether people see it as a volume: no pool, and no snapshot."""
    return not volume.is_snapshot and volume.attributes[:1] not in {"t", "e", "s", "S"}


def asset_of(volume: Volume) -> Asset:
    """Return a volume as people see it."""
    refusals: dict[Capability, str] = {}
    if not volume.is_thin:
        refusals = dict.fromkeys(DATASET_CAPABILITIES, "it is no thin volume (lvmthin(7))")
    elif volume.is_open:
        refusals[Capability.RESTORE] = "something has it open, such as a mount: close it, or clone the snapshot"
    return Asset(
        id=asset_id_of(volume, volume.name),
        kind=AssetKind.VOLUME,
        name=volume.full_name,
        parent_id=HOST,
        capabilities=DATASET_CAPABILITIES - refusals.keys(),
        refusals={**refusals, Capability.DIFF_FILES: "LVM knows blocks, not files: compare by reading both"},
        attributes={"uuid": volume.uuid, "device": volume.path, **({"pool": volume.pool} if volume.pool else {})},
    )


def asset_id_of(volume: Volume, name: str) -> str:
    """Return the id of an asset of this name in the group of a volume."""
    return f"lvm:{volume.group_uuid}/{name}"


def find(volumes: Sequence[Volume], asset: Asset) -> Volume:
    """Return the volume that is an asset. Raises NotFound."""
    for volume in volumes:
        if asset_id_of(volume, volume.name) == asset.id and not volume.is_snapshot:
            return volume
    raise NotFound(f"There is no volume {asset.name!r} any more", next_step="Run `snapkeep discover`.")


def snapshot_of(volumes: Sequence[Volume], asset: Asset, snapshot: Snapshot) -> Volume:
    """Return the volume that is a snapshot of an asset. Raises NotFound."""
    for volume in volumes:
        if volume.uuid == snapshot.id and volume.is_snapshot and asset_id_of(volume, volume.asset) == asset.id:
            return volume
    raise NotFound(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")


def require_room(volumes: Sequence[Volume], volume: Volume) -> None:
    """Raise LimitExceeded when the pool of a volume is almost full."""
    for pool in volumes:
        if pool.name == volume.pool and pool.full > FULL_PERCENT:
            raise LimitExceeded(
                f"The pool {pool.full_name} is almost full; when it is, all volumes in it fail",
                next_step=f"Make it bigger (`lvextend {pool.full_name}`), or delete snapshots.",
                vendor_message=f"{pool.full:g} % are used",
            )


def read_volumes(text: bytes) -> list[Volume]:
    """Return what `LIST` has printed. Raises VendorError for what is no such list."""
    try:
        return [_volume(item) for report in json.loads(text)["report"] for item in report["lv"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise VendorError("lvs answers in a form that is not known", vendor_message=str(error)) from error


def _volume(item: Mapping[str, Any]) -> Volume:
    return Volume(
        group=item["vg_name"],
        group_uuid=item["vg_uuid"],
        name=item["lv_name"],
        uuid=item["lv_uuid"],
        attributes=item["lv_attr"],
        pool=item["pool_lv"],
        origin=item["origin"],
        time=int(item["lv_time"]),
        tags=frozenset(filter(None, item["lv_tags"].split(","))),
        full=max(float(item[field] or 0) for field in ("data_percent", "metadata_percent")),
        path=item["lv_dm_path"],
    )


def encoded(name: str) -> str:
    """Return a name in letters that LVM takes, without `_`, which begins names that it keeps for itself."""
    return re.sub(rb"[^A-Za-z0-9.-]", lambda found: b"+%02X" % found[0][0], name.encode("utf-8", "replace")).decode()


def decoded(text: str) -> str:
    """Return the name that was written so."""
    found = re.sub(rb"\+([0-9A-F]{2})", lambda found: bytes([int(found[1], 16)]), text.encode())
    return found.decode("utf-8", "backslashreplace")
