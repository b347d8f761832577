"""Checks that every plug-in makes before its first network call."""

from __future__ import annotations

import ipaddress
import re

from snapkeep.model.assets import Asset
from snapkeep.model.errors import InvalidInput
from snapkeep.model.exports import BackupHost
from snapkeep.model.snapshots import Snapshot


def require_confirmation(asset: Asset, confirmation: str) -> None:
    """Raise InvalidInput unless the caller typed the asset's name."""
    if confirmation != asset.name:
        raise InvalidInput(
            f"This changes {asset.kind} {asset.name!r} on the system and was not confirmed",
            next_step=f"Confirm by giving the name of the {asset.kind}: {asset.name}",
        )


def require_same_asset(asset: Asset, *snapshots: Snapshot | None) -> None:
    """Raise InvalidInput when a snapshot belongs to another asset."""
    for snapshot in snapshots:
        if snapshot is not None and snapshot.asset_id != asset.id:
            raise InvalidInput(
                f"Snapshot {snapshot.name!r} is not one of {asset.kind} {asset.name!r}",
                next_step=f"Choose a snapshot of {asset.name!r}.",
            )


def require_older(base: Snapshot | None, new: Snapshot) -> None:
    """Raise InvalidInput unless `base` was taken before `new`."""
    if base is None:
        return
    if base.id == new.id:
        raise InvalidInput(f"Base and new snapshot are the same one: {new.name!r}")
    if base.created_at and new.created_at and base.created_at > new.created_at:
        raise InvalidInput(
            f"The base {base.name!r} is newer than the snapshot {new.name!r}",
            next_step="Give the older snapshot as the base.",
        )


_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"(?!.*(^|\.)[0-9]+$){_LABEL}(\.{_LABEL})*")


def require_address(host: BackupHost) -> None:
    """Raise InvalidInput unless the host's address is an IP address or a host name (RFC 1123, underscores allowed)."""
    try:
        ipaddress.ip_address(host.address)
    except ValueError:
        if len(host.address) <= 253 and _HOST_NAME.fullmatch(host.address):
            return
        raise InvalidInput(
            f"{host.address!r:.120} is neither an IP address nor a host name",
            next_step="Give the address by which the storage system reaches the backup host.",
        ) from None
