"""What a backup is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from snapkeep.backup.reading import Counts

MOST_PROBLEMS = 1000
"""So many unreadable paths are named in a result; all are counted."""

PARTIAL = "partial"
"""The tag of a recovery point that lacks something."""

_SNAPSHOT = "snapshot="


def snapshot_tag(snapshot: str) -> str:
    """Return the tag that says from which snapshot a recovery point was made."""
    return _SNAPSHOT + snapshot


class Mode(StrEnum):
    """How a recovery point came about."""

    FULL = "full"
    """Everything was walked; with a parent, only the content of what differs from it was read."""
    INCREMENTAL = "incremental"
    """Only what a list of changes names was looked at."""


@dataclass(frozen=True, kw_only=True)
class BackupRequest:
    """What is backed up, and how it is called."""

    source: Path
    """A directory that does not change: a mounted, read-only snapshot."""
    logical_path: str
    """Where the recovery point shows it, the same in each backup of a share: `/files1/projects`."""
    snapshot: str
    """What identifies the snapshot that `source` is; a tag keeps it."""
    host: str
    time: datetime
    tags: tuple[str, ...] = ()
    device_id: int = 1
    """Stands for the device in the nodes of what has several names: a constant of the share."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a backup is."""

    files: int
    directories: int
    bytes_read: int
    path: str
    """Where it is, for people."""


@dataclass
class BackupResult:
    """What a backup wrote."""

    mode: Mode
    snapshot_id: str = ""
    tree_id: str = ""
    parent: str | None = None
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    """In an incremental backup: of those that were looked at; what is linked unseen is not counted."""
    directories_new: int = 0
    directories_changed: int = 0
    directories_unmodified: int = 0
    others: int = 0
    """Symbolic links, FIFOs and devices."""
    sockets: int = 0
    """Met and left out, as restic does."""
    size: int = 0
    """Bytes of the files that were looked at."""
    bytes_read: int = 0
    bytes_added: int = 0
    """To the repository, as they are stored."""
    unreadable: list[tuple[bytes, str]] = field(default_factory=list)
    """The first `MOST_PROBLEMS` paths that could not be read, or not wholly, and why."""
    unreadable_count: int = 0

    @property
    def partial(self) -> bool:
        """Whether the recovery point lacks something."""
        return self.unreadable_count > 0

    def count(self, counts: Counts) -> None:
        """Add what readers counted."""
        for name in counts.__slots__:
            setattr(self, name, getattr(self, name) + getattr(counts, name))

    def problem(self, path: bytes, reason: str) -> None:
        """Note a path that could not be read."""
        self.unreadable_count += 1
        if len(self.unreadable) < MOST_PROBLEMS:
            self.unreadable.append((path, reason))


Report = Callable[[Progress], None]
Stop = Callable[[], None]
"""Called now and then; raises when the work is no longer wanted."""


def no_report(_: Progress) -> None:
    """Tell nobody."""


def never_stop() -> None:
    """Go on."""
