"""Snapshots: point-in-time images on the system itself, and the names that mark ours."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

DEFAULT_PREFIX = "NB"
"""Owner mark of the snapshots that we make; a setting of each system."""


class SnapshotKind(StrEnum):
    """Who or what made a snapshot."""

    USER = "user"
    """Made on request: by a person, or by a backup program such as this one."""
    SCHEDULE = "schedule"
    """Made by the system's own schedule."""
    REPLICATION = "replication"
    """Made by the system for its own replication."""
    UNKNOWN = "unknown"


class Consistency(StrEnum):
    """What can be expected of the data in a snapshot."""

    CRASH = "crash"
    """What a sudden loss of power would have left: programs recover from it, if they can."""
    APPLICATION = "application"
    """What was quiesced for it was held from before it was taken until after."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A point-in-time image of an asset. `created_at` is aware; sizes are bytes, None when unknown."""

    id: str
    asset_id: str
    name: str
    kind: SnapshotKind = SnapshotKind.UNKNOWN
    owned: bool = False
    created_at: datetime | None = None
    size_bytes: int | None = None
    reclaimable_bytes: int | None = None


def new_snapshot_name(prefix: str, now: datetime) -> str:
    """Return `prefix` and 21 digits: microseconds since 1970 (16 digits) and 5 random ones.

    Unique without asking anybody, and in the order of time when sorted as text.
    """
    micros = int(now.timestamp() * 1_000_000)
    return f"{prefix}{micros:016d}{secrets.randbelow(100_000):05d}"


def is_owned_name(prefix: str, name: str) -> bool:
    """Say whether `name` carries our mark: the prefix and digits only. The number of digits is not fixed."""
    return re.fullmatch(re.escape(prefix) + r"[0-9]+", name) is not None
