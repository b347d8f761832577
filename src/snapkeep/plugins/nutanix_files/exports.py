"""Export and deport through the partner server.

The partner server holds one access entry for (address of a backup host, share): it opens all snapshots of that
share. So several exports may stand on one entry, and it is taken away with the last of them. PUT is a delta: ADD
merges, REMOVE takes away; each PUT must present the entity's ETag, since several exports may change it at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Conflict, NotFound, Unavailable, Unsupported
from snapkeep.model.exports import AccessMode, BackupHost, Export, Location, Protocol
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done, Pending, Ticket
from snapkeep.plugin.guards import require_address, require_same_asset
from snapkeep.plugins.nutanix_files.assumptions import SNAPSHOT_DIRECTORY
from snapkeep.plugins.nutanix_files.client import Entity, NutanixClient, odata_string
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings
from snapkeep.plugins.nutanix_files.tasks import POLL_SECONDS, absent, asked, finished

PUT_TRIES = 12
"""How often a PUT is tried against concurrent changes of the same partner server."""
PUT_PAUSE = 0.05
"""Seconds between the first tries; it grows, and varies by half, so that competitors do not meet again."""

REFRESH_AT = 0.5
"""Part of the expiry after which an export is to be renewed."""

_ACCESS = {AccessMode.READ_ONLY: "READ_ONLY", AccessMode.READ_WRITE: "READ_WRITE"}
_ADDRESS_BITS = {"ipv4": 32, "ipv6": 128, "fqdn": None}


class Exports:
    """Plays the role `ExportDeport`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings
        self._turn = asyncio.Lock()

    async def start_export(
        self,
        asset: Asset,
        snapshot: Snapshot,
        host: BackupHost,
        mode: AccessMode,
        others: Sequence[Export],
        request_id: str,
    ) -> Ticket:
        """Add the host for the share; an entry that is there already gets a new expiry."""
        asset.require(Capability.EXPORT)
        require_same_asset(asset, snapshot)
        require_address(host)
        shared = [other for other in others if other.asset_id == asset.id and other.host.address == host.address]
        widened = any(other.mode is AccessMode.READ_WRITE for other in shared)
        mode_on_system = AccessMode.READ_WRITE if widened else mode
        await self._client.entity(
            await self._client.snapshot_path(asset.id, snapshot.id), doing=f"Exporting snapshot {snapshot.name!r}"
        )
        task = await self._put(
            _entry(asset.id, host.address, mode_on_system, "ADD"),
            doing=f"Exporting {asset.name!r} to {host.name}",
            request_id=request_id,
        )
        return Ticket(
            {
                "task": task,
                "share": asset.id,
                "share_name": asset.name,
                "protocol": asset.attributes.get("protocol", ""),
                "snapshot": snapshot.id,
                "snapshot_name": snapshot.name,
                "host": host.name,
                "address": host.address,
                "mode": mode,
                "started": datetime.now(UTC).isoformat(),
            }
        )

    async def poll_export(self, ticket: Ticket) -> Pending | Export:
        """Return the export once the task succeeded and the partner server shows the entry."""
        doing = f"Exporting {ticket['share_name']!r} to {ticket['host']}"
        outcome = await finished(self._client, ticket["task"], doing)
        if isinstance(outcome, Pending):
            return outcome
        if not await self._shown(ticket):
            raise Unavailable(
                f"{doing}: the partner server no longer shows the access that it confirmed",
                next_step="Something else changes the same partner server; give Snapkeep one of its own.",
            )
        started = datetime.fromisoformat(ticket["started"])
        expiry = timedelta(seconds=self._settings.export_expiry_seconds)
        return Export(
            snapshot_id=ticket["snapshot"],
            asset_id=ticket["share"],
            host=BackupHost(name=ticket["host"], address=ticket["address"]),
            mode=AccessMode(ticket["mode"]),
            locations=await self._locations(ticket),
            expires_at=started + expiry,
            refresh_at=started + expiry * REFRESH_AT,
        )

    async def start_deport(self, export: Export, others: Sequence[Export], request_id: str) -> Ticket:
        """Remove the entry, unless another export still stands on it; an entry that is gone is success.

        Where only read-only exports stay behind a read-write one, the entry becomes read-only again.
        """
        ticket = {"share": export.asset_id, "address": export.host.address, "mode": export.mode, **asked()}
        staying = [o for o in others if o.asset_id == export.asset_id and o.host.address == export.host.address]
        if staying and (export.mode is AccessMode.READ_ONLY or any(o.mode is AccessMode.READ_WRITE for o in staying)):
            return Ticket({**ticket, "kept": "true"})
        found = Ticket({**ticket, "again": str(uuid.uuid5(uuid.UUID(request_id), "again"))})
        if not await self._shown(found):
            return Ticket({**ticket, "kept": "true"}) if staying else found
        operation = "ADD" if staying else "REMOVE"
        entry = _entry(
            export.asset_id, export.host.address, AccessMode.READ_ONLY if staying else export.mode, operation
        )
        try:
            task = await self._put(entry, doing=f"Deporting from {export.host.name}", request_id=request_id)
        except NotFound:  # the share went away, and the access with it
            return found
        return Ticket({**ticket, "task": task} | ({"kept": "true"} if staying else {}))

    async def poll_deport(self, ticket: Ticket) -> Pending | Done:
        """Return `Done` once the partner server no longer shows the entry; without a task of ours, when that lasts."""
        doing = f"Deporting from {ticket['address']}"
        if "task" in ticket.data:
            outcome = await finished(self._client, ticket["task"], doing)
            if isinstance(outcome, Pending):
                return outcome
        if "kept" in ticket.data:
            return Done()
        if not await self._shown(ticket):
            return Done() if "task" in ticket.data else absent(ticket) or Done()
        if "again" not in ticket.data:
            raise Unavailable(f"{doing}: the partner server still shows the access that it took away")
        entry = _entry(ticket["share"], ticket["address"], AccessMode(ticket["mode"]), "REMOVE")
        try:
            await self._put(entry, doing=doing, request_id=ticket["again"])
        except NotFound:
            if absent(ticket) is None and not await self._has_share(ticket["share"]):
                return Done()
        return Pending(after=POLL_SECONDS)

    async def open_exports(self) -> AsyncIterator[Export]:
        """Yield the entries of our partner server that open one share to one address.

        An entry for all shares, or for a network, is none that we make; one for a share that is gone opens nothing.
        """
        there: dict[str, bool] = {}
        try:
            partner = await self._partner()
        except (NotFound, Unsupported):  # no partner server that could give access
            return
        for share, kind, address, entry in _entries(partner.data):
            if address.get("prefixLength", _ADDRESS_BITS[kind]) != _ADDRESS_BITS[kind]:
                continue
            if share not in there:
                there[share] = await self._has_share(share)
            if there[share]:
                value = str(address["value"])
                writable = entry.get("accessType") == _ACCESS[AccessMode.READ_WRITE]
                yield Export(
                    snapshot_id="",
                    asset_id=share,
                    host=BackupHost(name=value, address=value),
                    mode=AccessMode.READ_WRITE if writable else AccessMode.READ_ONLY,
                )

    async def _shown(self, ticket: Ticket) -> bool:
        """Say whether the partner server shows the entry; where there is none that could give access, it does not."""
        try:
            partner = await self._partner()
        except (NotFound, Unsupported):
            return False
        return _has_entry(partner.data, ticket["share"], ticket["address"])

    async def _has_share(self, share_id: str) -> bool:
        try:
            await self._client.entity(await self._client.share_path(share_id), doing="Looking for the share")
        except NotFound:
            return False
        return True

    async def _put(self, entry: Mapping[str, Any], *, doing: str, request_id: str) -> str:
        """PUT a delta with the current ETag; when somebody was quicker (412), read again and repeat.

        Ours go one after another, so that they do not use up each other's tries.
        """
        async with self._turn:
            return await self._put_in_turn(entry, doing=doing, request_id=request_id)

    async def _put_in_turn(self, entry: Mapping[str, Any], *, doing: str, request_id: str) -> str:
        for attempt in range(PUT_TRIES):
            partner = await self._partner()
            body: dict[str, Any] = {
                key: partner.data[key] for key in ("name", "vendorName", "partnerType") if key in partner.data
            }
            body["$objectType"] = "files.v4.config.PartnerServer"
            body["backupServerConfig"] = {
                "expiryInSecs": self._settings.export_expiry_seconds,
                "backupClientAccessConfigs": [entry],
                "$objectType": "files.v4.config.BackupServerConfig",
            }
            try:
                return await self._client.start(
                    "PUT",
                    f"{await self._client.base()}/partner-servers/{partner.data['extId']}",
                    doing=doing,
                    request_id=str(uuid.uuid5(uuid.UUID(request_id), f"put-{attempt}-{partner.etag}")),
                    json=body,
                    etag=partner.etag,
                )
            except Conflict as error:
                if error.details.get("status") != 412:
                    raise
            await asyncio.sleep(random.uniform(0.5, 1.5) * PUT_PAUSE * (attempt + 1))
        raise Unavailable(
            f"{doing}: the partner server was changed by somebody else {PUT_TRIES} times in a row",
            next_step="Try again; give Snapkeep a partner server of its own.",
        )

    async def _partner(self) -> Entity:
        """Read the configured partner server. Raises NotFound, or Unsupported when it is of another type."""
        name = self._settings.partner_server
        base = f"{await self._client.base()}/partner-servers"
        doing = f"Reading partner server {name!r}"
        async for _, page in self._client.pages(base, doing=doing, where=f"name eq {odata_string(name)}"):
            for item in page:
                if item.get("name") == name:
                    require_backup_type(item)
                    return await self._client.entity(f"{base}/{item['extId']}", doing=doing)
        raise NotFound(
            f"The file server has no partner server {name!r}",
            next_step=f"Register a partner server {name!r} of type BACKUP on the file server, or set "
            "partner_server to the name of the one that exists (see the guide 'Prepare a Nutanix file server').",
        )

    async def _locations(self, ticket: Ticket) -> tuple[Location, ...]:
        share, inside = ticket["share_name"], f"{SNAPSHOT_DIRECTORY}/{ticket['snapshot_name']}"
        writable = ticket["mode"] == AccessMode.READ_WRITE
        if self._settings.local_exports is not None:
            root = self._settings.local_exports / ticket["address"] / share
            live = str(root / "live") if writable else None
            return (Location(protocol=Protocol.LOCAL, path=str(root / inside), live=live),)
        live = "" if writable else None
        host = self._settings.file_server_fqdn or str((await self._client.file_server())["name"])
        if ticket["protocol"] == "SMB":
            return (Location(protocol=Protocol.SMB, source=f"//{host}/{share}", path=inside, live=live),)
        options = {} if writable else {"ro": ""}
        return (Location(protocol=Protocol.NFS, source=f"{host}:/{share}", path=inside, options=options, live=live),)


def require_backup_type(partner: Mapping[str, Any]) -> None:
    """Raise Unsupported unless the partner server is of the type that opens shares to backup hosts."""
    if partner.get("partnerType") != "BACKUP":
        raise Unsupported(
            f"Partner server {partner.get('name')!r} is of type {partner.get('partnerType')}, not BACKUP",
            next_step="Register a partner server of type BACKUP and set partner_server to its name.",
        )


def _entry(share_id: str, address: str, mode: AccessMode, operation: str) -> dict[str, Any]:
    return {
        "address": _address(address),
        "accessType": _ACCESS[mode],
        "mountTargetExtId": share_id,
        "operationType": operation,
        "$objectType": "files.v4.config.BackupServerAccessControlBlock",
    }


def _address(address: str) -> dict[str, Any]:
    """Return the API's form of an IPv4 or IPv6 address or host name."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return {"fqdn": {"value": address}}
    bits = 32 if parsed.version == 4 else 128
    return {f"ipv{parsed.version}": {"value": address, "prefixLength": bits}}


def _has_entry(partner: Mapping[str, Any], share_id: str, address: str) -> bool:
    kind, value = next(iter(_address(address).items()))
    return any(
        (share, found_kind, str(found.get("value")).lower()) == (share_id, kind, value["value"])
        for share, found_kind, found, _ in _entries(partner)
    )


def _entries(partner: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    """Yield (share, kind of address, address, entry) for what is open to one client of one share."""
    config = partner.get("backupServerConfig")
    entries = config.get("backupClientAccessConfigs") if isinstance(config, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        address = entry.get("address") if isinstance(entry, dict) else None
        for kind, found in address.items() if isinstance(address, dict) else ():
            if (
                kind in _ADDRESS_BITS
                and isinstance(found, dict)
                and found.get("value")
                and entry.get("mountTargetExtId")
            ):
                yield str(entry["mountTargetExtId"]), kind, found, entry
