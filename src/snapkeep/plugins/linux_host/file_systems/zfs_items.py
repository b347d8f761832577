"""What `zfs list` shows: pools, datasets and snapshots. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import VendorError
from snapkeep.plugins.linux_host.mapping import DATASET_CAPABILITIES, HOST

REQUEST = "snapkeep:request"
CLONE = "snapkeep:clone"
"""Of a dataset: the request that made it. Another one than that of snapshots, which inherit from their dataset."""
BEFORE = "snapkeep:before"
COLUMNS = ("name", "guid", "type", "creation", "mountpoint", "origin", "keystatus", "snapdir", REQUEST, CLONE, BEFORE)
LIST = ("zfs", "list", "-Hp", "-o", ",".join(COLUMNS))
_NONE = "-"


class Item(NamedTuple):
    """A line of `zfs list`. What is not there is an empty text."""

    name: str
    guid: str
    type: str
    created: int
    mountpoint: str
    origin: str
    key: str
    snapdir: str
    request: str
    clone: str
    before: str

    @property
    def dataset(self) -> str:
        """The dataset, of a snapshot the one that it is of."""
        return self.name.partition("@")[0]

    @property
    def own(self) -> str:
        """The name of a snapshot, without its dataset."""
        return self.name.partition("@")[2]

    @property
    def kept_for(self) -> str:
        """The dataset for which a restore has exchanged it, or the one that it is of; empty: none.

        What lies in such a dataset has the property, too, by inheritance.
        """
        beside = self.dataset.startswith(f"{self.before}.before-") and "/" not in self.dataset[len(self.before) :]
        return self.before if beside else ""


class Pools:
    """All that `zfs list` shows, with what is mounted."""

    def __init__(self, items: Sequence[Item], mounts: Mapping[str, str]) -> None:
        self.mounts = mounts
        self.roots = {item.guid: item for item in items if item.type == "filesystem" and "/" not in item.name}
        self.datasets = {item.name: item for item in items if item.type == "filesystem"}
        self.snapshots = [item for item in items if item.type == "snapshot"]
        self._guids = {item.name: item.guid for item in self.roots.values()}
        self._parents = {name.rpartition("/")[0] for name in self.datasets}

    def id(self, dataset: str) -> str:
        """Return the id of an asset."""
        root, _, inside = dataset.partition("/")
        return f"zfs:{self._guids.get(root, '')}" + (f"/{quote(inside)}" if inside else "")

    def asset_of(self, snapshot: Item) -> str:
        """Return the dataset whose snapshot it is: its own, or the one that was exchanged for that by a restore."""
        return snapshot.kept_for if snapshot.kept_for in self.datasets else snapshot.dataset

    def asset(self, item: Item) -> Asset:
        """Return a dataset."""
        above = item.name.rpartition("/")[0]
        refusals: dict[Capability, str] = {}
        if item.name not in self.mounts:
            locked = item.key == "unavailable"
            reason = "its key is not loaded" if locked else "it is not mounted on the host"
            refusals = dict.fromkeys(DATASET_CAPABILITIES, reason)
        elif item.snapdir == "disabled":
            refusals[Capability.EXPORT] = "its property snapdir is disabled, so that its snapshots cannot be read"
        if Capability.RESTORE not in refusals and (reason := self._not_exchangeable(item, above)):
            refusals[Capability.RESTORE] = f"{reason}: clone it instead"
        attributes = {"guid": item.guid}
        if path := self.mounts.get(item.name):
            attributes["mounted"] = path
        return Asset(
            id=self.id(item.name),
            kind=AssetKind.VOLUME,
            name=item.name,
            parent_id=self.id(above) if above else HOST,
            capabilities=DATASET_CAPABILITIES - refusals.keys(),
            refusals={**refusals, Capability.DIFF_FILES: "zfs diff leaves out some files: compare by reading both"},
            attributes=attributes,
        )

    def _not_exchangeable(self, item: Item, above: str) -> str:
        if not above:
            return "it is the root of its pool, which cannot be renamed"
        if item.name in self._parents:
            return "other datasets lie in it, which would go with the old one"
        inherited = self.datasets[above].mountpoint.rstrip("/") + "/" + item.name.rpartition("/")[2]
        if item.mountpoint != inherited:
            return "its mountpoint does not come from its name, so that two would want it"
        return ""


def read_items(text: bytes) -> list[Item]:
    """Return what `LIST` has printed. Raises VendorError for what was cut, or is no such list."""
    return [_item(columns) for columns in columns_of(text, len(COLUMNS))]


def columns_of(text: bytes, count: int) -> Iterator[list[str]]:
    """Give the columns of each line. Raises VendorError for what was cut, or has another number of them."""
    if text and not text.endswith(b"\n"):
        raise VendorError("zfs ended in the middle of a line", vendor_message=repr(text[-200:]))
    for line in text.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        found = line.split("\t")
        if len(found) != count:
            raise VendorError("zfs lists in a form that is not known", vendor_message=repr(line[:200]))
        yield ["" if item == _NONE else item for item in found]


def _item(columns: Sequence[str]) -> Item:
    name, guid, kind, created, *rest = columns
    try:
        return Item(name, guid, kind, int(created), *rest)
    except ValueError as error:
        raise VendorError("zfs lists in a form that is not known", vendor_message=repr(created[:200])) from error
