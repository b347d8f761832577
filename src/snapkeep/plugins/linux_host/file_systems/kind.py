"""The role of a file system: what differs between btrfs, ZFS and LVM thin, and nothing else.

Whoever calls it has checked capabilities, confirmation and that asset and snapshot belong together, makes the tickets
and begins a step again that was interrupted (`host.persistent`): what a step has done it finds done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from snapkeep.model.assets import Asset
from snapkeep.model.errors import Unsupported
from snapkeep.model.exports import AccessMode
from snapkeep.model.snapshots import Snapshot

Data = Mapping[str, str]
"""What a ticket keeps of a step, besides the asset's id (`asset`)."""


class Group(NamedTuple):
    """What is discovered at once: a btrfs file system, a pool, a volume group."""

    key: str
    """Stays the same; groups are told in its order."""
    assets: Sequence[Asset]
    snapshots: Sequence[Snapshot]


class Link(NamedTuple):
    """A snapshot that is open on this machine: a link to where it is read."""

    path: bytes
    asset_id: str
    snapshot_id: str
    """Empty: not known any more."""
    address: str
    mode: AccessMode
    live: bytes | None


class Readable(NamedTuple):
    """Which snapshot is read at a path. Ids are empty where they are not known any more."""

    asset_id: str
    snapshot_id: str


class Program(NamedTuple):
    """A program that changes nothing when it is run with these arguments."""

    package: str
    """Which has it, as Debian calls it."""
    arguments: tuple[str, ...]
    as_root: bool = False


class Kind(Protocol):
    """One kind of file system on the host."""

    @property
    def name(self) -> str:
        """Its name in settings."""

    @property
    def title(self) -> str:
        """Its name for people."""

    @property
    def program(self) -> Program:
        """The program by which it is known whether what it needs is there."""

    @property
    def shows(self) -> bool:
        """Whether a snapshot can be read only after `show`."""

    def owns(self, asset_id: str) -> bool:
        """Say whether an asset of that id is of this kind."""

    # -- discovery -------------------------------------------------------------------------------------------------
    async def is_present(self) -> bool:
        """Say whether the host has such file systems, as any user can see it."""

    async def mounted(self) -> Sequence[bytes]:
        """Return where its file systems are: what the setting `only` may name."""

    async def groups(self) -> list[Group]:
        """Return all that there is."""

    async def exists(self, asset: Asset, snapshot: Snapshot | None) -> bool:
        """Say whether it is still there. Raises Unavailable where that cannot be seen now."""

    # -- snapshots -------------------------------------------------------------------------------------------------
    def require_name(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what cannot be the name of a snapshot; asks nobody."""

    async def create(self, asset: Asset, name: str, request_id: str, *, owned: bool) -> Data:
        """Take a snapshot, marked with the request. `owned`: the name alone says that it is ours.

        Raises Conflict when another one has the name, LimitExceeded, NotFound (asset).
        """

    async def created(self, ticket: Data) -> Snapshot | None:
        """Return the snapshot as it is shown."""

    async def delete(self, asset: Asset, snapshot: Snapshot) -> Data:
        """Delete a snapshot; one that is gone is success. Raises Busy."""

    async def deleted(self, ticket: Data) -> bool:
        """Say whether the system has no such snapshot."""

    async def restore(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Data:
        """Put a writable copy of the snapshot in the asset's place, and keep the old one beside it."""

    async def restored(self, ticket: Data) -> None:
        """Raise VendorError unless the asset is a copy of the snapshot."""

    def require_target(self, asset: Asset, name: str) -> None:
        """Raise InvalidInput for what cannot be the name of a clone; asks nobody."""

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str, request_id: str) -> Data:
        """Make a new asset from a snapshot. Raises Conflict, NotFound."""

    async def cloned(self, ticket: Data) -> Asset:
        """Return the new asset as discovery shows it."""

    # -- where a snapshot can be read ------------------------------------------------------------------------------
    async def path(self, asset: Asset, snapshot: Snapshot) -> bytes:
        """Return the directory on the host in which a snapshot can be read, once it is shown. Raises NotFound."""

    async def show(self, asset_id: str, snapshot_id: str) -> None:
        """Let it be readable there; what is shown already stays so. Raises NotFound, Unsupported."""

    async def hide(self, asset_id: str, snapshot_id: str) -> None:
        """Undo `show`. Raises Busy when somebody still reads it."""

    def fsid(self, snapshot: Snapshot) -> str:
        """Return a UUID under which an NFS server exports it, the same each time."""

    async def link(self, asset: Asset, snapshot: Snapshot, address: str, mode: AccessMode) -> bytes:
        """Return where the link of an export on this machine is to be."""

    async def links(self) -> list[Link]:
        """Return the links that there are."""

    async def index(self) -> Callable[[bytes], Readable | None]:
        """Return what tells which snapshot of this kind is read at a path of the host."""


class Kinds:
    """The kinds of file systems on one host."""

    def __init__(self, every: Sequence[Kind], *, asked_for: bool) -> None:
        """`asked_for`: the settings name them, so that none is passed over."""
        self.every = tuple(every)
        self._asked_for = asked_for

    async def present(self) -> list[Kind]:
        """Return those that were asked for, or else those that the host has."""
        return [kind for kind in self.every if self._asked_for or await kind.is_present()]

    def of(self, asset_id: str) -> Kind:
        """Return the kind of an asset. Raises Unsupported when the settings leave it out."""
        for kind in self.every:
            if kind.owns(asset_id):
                return kind
        raise Unsupported(
            f"The file system of {asset_id!r:.200} is of a kind that the settings of this system leave out",
            next_step="Add it to `file_systems`, or leave that setting away.",
        )
