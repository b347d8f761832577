"""Create, delete, restore and clone: what is the same for every kind of file system."""

from __future__ import annotations

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import VendorError
from snapkeep.model.snapshots import Snapshot, is_owned_name
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_confirmation, require_same_asset
from snapkeep.plugins.linux_host.file_systems.kind import Data, Kinds
from snapkeep.plugins.linux_host.host import persistent
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

LINGER_SECONDS = 1.0


class Snapshots:
    """Plays the roles `Create`, `Delete`, `Restore` and `Clone`."""

    def __init__(self, kinds: Kinds, settings: LinuxHostSettings) -> None:
        self._kinds = kinds
        self._prefix = settings.snapshot_prefix

    # -- create --------------------------------------------------------------------------------------------------
    @persistent
    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        """Take the snapshot, marked with the request; asked again, it is found by that mark."""
        asset.require(Capability.CREATE)
        kind = self._kinds.of(asset.id)
        kind.require_name(asset, name)
        owned = is_owned_name(self._prefix, name)
        return _ticket(asset, await kind.create(asset, name, request_id, owned=owned))

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        """Return the snapshot, as the host shows it."""
        found = await self._kinds.of(ticket["asset"]).created(ticket.data)
        if found is None:
            raise VendorError(
                f"The host reported success, but there is no snapshot {ticket['name']!r}",
                next_step="See the kernel's log on the host, then try again.",
            )
        return found

    # -- delete --------------------------------------------------------------------------------------------------
    @persistent
    async def start_delete(self, asset: Asset, snapshot: Snapshot, request_id: str) -> Ticket:
        """Delete it. What is not there, or is another one of its name, is success."""
        asset.require(Capability.DELETE)
        require_same_asset(asset, snapshot)
        return _ticket(asset, await self._kinds.of(asset.id).delete(asset, snapshot))

    async def poll_delete(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` when the host has no such snapshot there."""
        gone = await self._kinds.of(ticket["asset"]).deleted(ticket.data)
        return Done() if gone else Pending(after=LINGER_SECONDS)

    # -- restore -------------------------------------------------------------------------------------------------
    @persistent
    async def start_restore(self, asset: Asset, snapshot: Snapshot, confirmation: str, request_id: str) -> Ticket:
        """Put a writable copy of the snapshot in the asset's place, and keep the old one beside it."""
        asset.require(Capability.RESTORE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        return _ticket(asset, await self._kinds.of(asset.id).restore(asset, snapshot, request_id))

    async def poll_restore(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the asset is a copy of the snapshot."""
        await self._kinds.of(ticket["asset"]).restored(ticket.data)
        return Done()

    # -- clone ---------------------------------------------------------------------------------------------------
    @persistent
    async def start_clone(
        self, asset: Asset, snapshot: Snapshot, name: str, confirmation: str, request_id: str
    ) -> Ticket:
        """Make a new asset from the snapshot; `name` is written as names of assets are."""
        asset.require(Capability.CLONE)
        require_same_asset(asset, snapshot)
        require_confirmation(asset, confirmation)
        kind = self._kinds.of(asset.id)
        kind.require_target(asset, name)
        return _ticket(asset, await kind.clone(asset, snapshot, name, request_id))

    async def poll_clone(self, ticket: Ticket) -> Pending | Asset:
        """Return the new asset as discovery shows it."""
        return await self._kinds.of(ticket["asset"]).cloned(ticket.data)


def _ticket(asset: Asset, data: Data) -> Ticket:
    return Ticket({"asset": asset.id, **data})
