"""The roles: one small contract for each capability.

Duties common to all of them:

* `start_*` may be called again with the same `request_id`, or after a crash before its ticket was recorded: it
  finds what it made and does not make it twice. A ticket is small, JSON-safe and can be polled by another process.
* `poll_*` returns `Pending` or the result; it is safe to call at any time, also after the result.
* A plug-in never waits for long work and never retries it: the engine owns waiting, deadlines and cancel.
* Before any network call, an asset without the capability is refused (`Asset.require`).
* Errors are those of `snapkeep.model.errors`, with the system's own reason kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from snapkeep.model.assets import Asset
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import ChangeBatch, DiscoveryBatch, Done, Finding, Pending, Ticket


class Check(Protocol):
    """Say what is missing before anything is tried."""

    def check(self) -> AsyncIterator[Finding]:
        """Yield one finding for each thing looked at; changes nothing. Stops at what makes the rest senseless."""


class Discover(Protocol):
    """List assets and snapshots."""

    def discover(self, cursor: str | None = None) -> AsyncIterator[DiscoveryBatch]:
        """Yield everything, in batches, resuming after `cursor`; the last batch, and only it, is complete.

        Memory does not grow with the number of assets. An asset that vanishes meanwhile is left out.
        """

    async def exists(self, asset: Asset, snapshot: Snapshot | None = None) -> bool:
        """Say whether the system still has the asset, or this snapshot of it.

        Asked for what a complete discovery did not see, before it is held to be gone: lists shift while they are read.
        """


class Create(Protocol):
    """Take a snapshot."""

    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        """Begin. Raises Conflict (name taken by something not ours), LimitExceeded, Busy, NotFound (asset)."""

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        """Return the snapshot once it exists and can be read back."""


class Delete(Protocol):
    """Delete a snapshot, with proof."""

    async def start_delete(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Ticket:
        """Begin. A snapshot that is already gone is success. Raises Busy (dependents), Locked (until)."""

    async def poll_delete(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` only when the system itself says that there is no such snapshot."""


class Restore(Protocol):
    """Turn an asset back to one of its snapshots, in place."""

    async def start_restore(self, asset: Asset, snapshot: Snapshot, confirmation: str, request_id: str) -> Ticket:
        """Begin. `confirmation` must be the asset's name, typed by whoever answers for the loss of newer data."""

    async def poll_restore(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the asset has the snapshot's content."""


class Clone(Protocol):
    """Make a new, independent asset from a snapshot."""

    async def start_clone(
        self, asset: Asset, snapshot: Snapshot, name: str, confirmation: str, request_id: str
    ) -> Ticket:
        """Begin. `confirmation` must be the source asset's name. Raises Conflict when `name` is taken."""

    async def poll_clone(self, ticket: Ticket) -> Pending | Asset:
        """Return the new asset."""


class ExportDeport(Protocol):
    """Make a snapshot readable on a backup host, and undo it.

    `others` are the exports of the same system that are in force besides this one: systems on which one grant
    serves several exports need them, so that the end of one does not end another.
    """

    async def start_export(
        self,
        asset: Asset,
        snapshot: Snapshot,
        host: BackupHost,
        mode: AccessMode,
        others: Sequence[Export],
        request_id: str,
    ) -> Ticket:
        """Begin. Exporting what is exported already is harmless and renews its expiry."""

    async def poll_export(self, ticket: Ticket) -> Pending | Export:
        """Return the export once the system confirms that the host has access."""

    async def start_deport(self, export: Export, others: Sequence[Export], request_id: str) -> Ticket:
        """Begin to take the access away. What is not exported (any more) is success."""

    async def poll_deport(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the system confirms that the access is gone, or still needed by another export."""

    def open_exports(self) -> AsyncIterator[Export]:
        """Yield what the system itself says is open to backup hosts by us, one export for each access.

        `snapshot_id` is empty where one access opens all snapshots of an asset. Each can be given to `start_deport`.
        What others opened, and what cannot be told from that, is left out.
        """


class DiffFiles(Protocol):
    """Say which files and directories differ between two snapshots of one asset."""

    async def start_diff(self, asset: Asset, base: Snapshot | None, new: Snapshot, request_id: str) -> Ticket:
        """Begin; without `base`, every object of `new` is an ADD.

        Raises InvalidInput (base of another asset, or not older), BaseMissing, NotFound (`new` is gone).
        """

    def read_diff(self, ticket: Ticket, cursor: str | None = None) -> AsyncIterator[ChangeBatch | Pending]:
        """Yield batches, resuming after `cursor`. A `Pending` ends the iteration: call again later, same cursor.

        Verifies on every page that it belongs to these snapshots of this asset; raises Incomplete otherwise. A list
        that the system has forgotten, but would compute again, is Incomplete with `details["forgotten"]`.
        """


class Quiesce(Protocol):
    """Hold an asset at a consistent point while snapshots are taken, wherever these are taken."""

    def quiesced(self, asset: Asset, seconds: float, request_id: str) -> AbstractAsyncContextManager[Quiesced]:
        """Hold it inside the context, and for `seconds` at the longest.

        The host itself lets it go: when the context ends, when nobody is left who could end it (the process was killed,
        the connection is lost), and when the time is over. Raises what is wrong with the request before any network
        call, and Busy (somebody else holds it), Timeout (it did not come to that point in the time), NotFound: then
        nothing is held any more.
        """


class Quiesced(Protocol):
    """An asset that is held."""

    async def release(self) -> str | None:
        """Let it go. Return why it was not held until now, or not let go well; None: it was, and it is.

        Asked again, the answer is the same. Raises nothing of our own errors.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The roles that a connected system plays; None where it does not."""

    check: Check
    discover: Discover
    create: Create | None = None
    delete: Delete | None = None
    restore: Restore | None = None
    clone: Clone | None = None
    export: ExportDeport | None = None
    diff_files: DiffFiles | None = None
    quiesce: Quiesce | None = None
