"""Exports: a snapshot made readable on a backup host."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class AccessMode(StrEnum):
    """What the backup host may do with the export."""

    READ_ONLY = "read-only"
    READ_WRITE = "read-write"


class Protocol(StrEnum):
    """How an export is reached."""

    LOCAL = "local"
    """A directory on the backup host itself (`path`): nothing to mount."""
    NFS = "nfs"
    SMB = "smb"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupHost:
    """A machine that reads exports. `address`: IPv4, IPv6 or host name, as the system must know it.

    The address is kept in its normal form, so that one host has one address however it was written.
    """

    name: str
    address: str

    def __post_init__(self) -> None:
        """Bring the address to its normal form."""
        try:
            normal = str(ipaddress.ip_address(self.address))
        except ValueError:
            normal = self.address.lower()
        object.__setattr__(self, "address", normal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One way to reach an export: a local `path`, or a `path` below `source` (what the host mounts)."""

    protocol: Protocol
    path: str
    source: str = ""
    live: str | None = None
    """Where a read-write export shows the live asset, as `path` does; "" is `source` itself. None: it does not."""
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A snapshot opened to a backup host.

    It ends by itself at `expires_at` unless exported again by `refresh_at` (both aware; None: it never ends).
    """

    snapshot_id: str
    asset_id: str
    host: BackupHost
    mode: AccessMode = AccessMode.READ_ONLY
    locations: tuple[Location, ...] = ()
    expires_at: datetime | None = None
    refresh_at: datetime | None = None
