"""What the simulated system knows, in its own words; :mod:`.wire` turns it into the vendor's JSON."""

from typing import Any, Literal

import msgspec

MountTargetType = Literal["HOMES", "GENERAL", "DISTRIBUTED", "STANDARD"]
Protocol = Literal["SMB", "NFS", "NONE", "INCOMPATIBLE"]
SnapshotType = Literal["SSR_SNAPSHOT", "USER_SNAPSHOT", "REPLICATION_SNAPSHOT"]
AccessType = Literal["READ_WRITE", "READ_ONLY"]


class FileServer(msgspec.Struct, kw_only=True):
    """A file server; its VMs are named ``<name>-vm1`` and so on in the domain of ``fqdn``."""

    id: str
    name: str
    fqdn: str
    vms: int = 3
    version: int = 1


class Share(msgspec.Struct, kw_only=True):
    """A mount target. A nested one has ``parent`` and lies in ``folder`` of the parent's live directory."""

    id: str
    file_server: str
    name: str
    type: MountTargetType = "STANDARD"
    protocol: Protocol = "NFS"
    secondary: list[Protocol] = []
    parent: str | None = None
    folder: str | None = None
    paused: bool = False
    state: Literal["ONLINE", "OFFLINE"] = "ONLINE"
    status_type: Literal["AVAILABLE", "UNAVAILABLE"] = "AVAILABLE"
    other: dict[str, Any] = {}
    """Documented fields without a meaning for the simulator, as they were sent."""
    synthetic: bool = False
    """Metadata only: no directory behind it."""
    last_sequence: int = 0
    version: int = 1


class Snapshot(msgspec.Struct, kw_only=True):
    """A snapshot; ``sequence`` orders those of one share. Its directory is named by its id."""

    id: str
    share: str
    name: str
    type: SnapshotType = "USER_SNAPSHOT"
    created: float
    sequence: int
    bytes: int = 0
    gone_at: float | None = None
    """Deleted, but still answering until then."""


class AccessEntry(msgspec.Struct, kw_only=True):
    """A client address that may read (all shares, or one) until a time of the real clock."""

    client: str
    kind: Literal["ipv4", "ipv6", "fqdn"]
    prefix_length: int | None = None
    access_type: AccessType
    share: str | None = None
    expires: float

    @property
    def key(self) -> tuple[str, str | None]:
        """Entries with the same key are the same entry."""
        return self.client.lower(), self.share


class Partner(msgspec.Struct, kw_only=True):
    """A partner server."""

    id: str
    file_server: str
    name: str
    vendor_name: str
    partner_type: Literal["NOTIFICATION", "BACKUP", "MIGRATION"]
    description: str | None = None
    vendor_properties: dict[str, Any] | None = None
    expiry_in_secs: int
    has_config: bool = False
    entries: list[AccessEntry] = []
    version: int = 1


class Schedule(msgspec.Struct, kw_only=True):
    """A snapshot schedule. It is kept, not carried out: a test makes foreign snapshots by the control API."""

    id: str
    file_server: str
    type: Literal["HOURLY", "DAILY", "WEEKLY", "MONTHLY"]
    schedule: dict[str, Any]
    max_retention_count: int
    version: int = 1


class Replication(msgspec.Struct, kw_only=True):
    """A SmartDR policy or job in the vendor's own JSON, as the control API or the configuration gave it."""

    id: str
    kind: Literal["policy", "job"]
    body: dict[str, Any]


class SyntheticDiff(msgspec.Struct, kw_only=True):
    """Two snapshots whose changed contents are made up from the index."""

    id: str
    base: str
    new: str
    entries: int


class StoredAnswer(msgspec.Struct, kw_only=True):
    """The first answer to a request id."""

    key: str
    time: float
    status: int
    headers: dict[str, str]
    body: str
