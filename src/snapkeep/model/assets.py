"""Assets: what can be protected, and what each can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from snapkeep.model.errors import Unsupported


class Capability(StrEnum):
    """What a plug-in can do with an asset. Declared as data; nobody guesses."""

    DISCOVER = "discover"
    """List what lies on the system."""
    CREATE = "create"
    """Take a snapshot."""
    DELETE = "delete"
    """Delete a snapshot, with proof that it is gone."""
    RESTORE = "restore"
    """Turn the asset back to a snapshot, in place."""
    CLONE = "clone"
    """Make a new, independent asset from a snapshot."""
    EXPORT = "export"
    """Make a snapshot readable on a backup host, and undo it (deport)."""
    DIFF_FILES = "diff-files"
    """Say which files and directories differ between two snapshots."""
    DIFF_BLOCKS = "diff-blocks"
    """Say which byte ranges differ between two snapshots."""
    LOCK = "lock"
    """Make a snapshot undeletable until a date."""
    REPLICATE = "replicate"
    """Copy a snapshot to another system."""
    QUIESCE = "quiesce"
    """Bring the application to a consistent point for the moment of the snapshot."""


class AssetKind(StrEnum):
    """What an asset is."""

    FILE_SERVER = "file-server"
    SHARE = "share"
    VOLUME = "volume"
    LUN = "lun"
    DISK = "disk"
    HOST = "host"
    FILE_SYSTEM = "file-system"
    DATABASE = "database"
    APPLICATION = "application"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """Something on a system that can be protected.

    `id` and `parent_id` are the system's own; `attributes` are facts that the plug-in wants back with the
    asset or that people want to see (JSON-safe strings). `refusals` says, for a capability that this asset
    lacks although its plug-in has it, why.
    """

    id: str
    kind: AssetKind
    name: str
    parent_id: str | None = None
    capabilities: frozenset[Capability] = frozenset()
    refusals: Mapping[Capability, str] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)

    def require(self, capability: Capability) -> None:
        """Raise `Unsupported` with the reason, unless this asset has `capability`."""
        if capability in self.capabilities:
            return
        reason = self.refusals.get(capability, f"a {self.kind} of this system does not offer it")
        raise Unsupported(f"{self.kind} {self.name!r} does not support {capability}: {reason}")
