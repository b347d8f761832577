"""What of a change list is looked at: counts and bytes by operation, extensions, and how random content is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from snapkeep.model.changes import ChangeOperation
from snapkeep.signals.entropy import EntropySample


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """Of one change list."""

    at: datetime
    """When the newer snapshot was taken."""
    since: datetime | None = None
    """When the older one was taken; None: not known."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Objects by operation."""
    bytes: Mapping[str, int] = field(default_factory=dict)
    """Of files by operation: their whole sizes, since the list does not say how much of a file has changed."""
    extensions: Mapping[str, int] | None = None
    """Files that were added, modified or renamed, by the most frequent extensions; None: the list does not say."""
    distinct_extensions: int | None = None
    extension_renames: int | None = None
    """Files that were renamed to another extension."""
    entropy: EntropySample | None = None
    acknowledged: bool = False
    """It was suspicious, and somebody has said that it is harmless."""

    @classmethod
    def of(
        cls, summary: Mapping[str, Any], *, at: datetime, since: datetime | None, entropy: EntropySample | None = None
    ) -> Features:
        """Return those of the summary of a change list; those of earlier versions say nothing of extensions."""
        operations: Mapping[str, Any] = summary["operations"]
        top = summary.get("top_extensions")
        return cls(
            at=at,
            since=since,
            counts={name: item["entries"] for name, item in operations.items()},
            bytes={name: item["bytes"] for name, item in operations.items()},
            extensions=None if top is None else {item["extension"]: item["entries"] for item in top},
            distinct_extensions=summary.get("distinct_extensions"),
            extension_renames=summary.get("extension_renames"),
            entropy=entropy,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form; whether it was acknowledged is not a part of it."""
        return {
            "at": self.at.isoformat(),
            "since": self.since.isoformat() if self.since else None,
            "counts": dict(self.counts),
            "bytes": dict(self.bytes),
            "extensions": None if self.extensions is None else dict(self.extensions),
            "distinct_extensions": self.distinct_extensions,
            "extension_renames": self.extension_renames,
            "entropy": None if self.entropy is None else self.entropy._asdict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, acknowledged: bool = False) -> Features:
        """Make them again."""
        since, entropy = data["since"], data["entropy"]
        return cls(
            at=datetime.fromisoformat(data["at"]),
            since=datetime.fromisoformat(since) if since else None,
            counts=data["counts"],
            bytes=data["bytes"],
            extensions=data["extensions"],
            distinct_extensions=data["distinct_extensions"],
            extension_renames=data["extension_renames"],
            entropy=None if entropy is None else EntropySample(**entropy),
            acknowledged=acknowledged,
        )

    @property
    def hours(self) -> float | None:
        """Between the two snapshots; None: not known, or not more than 0."""
        hours = (self.at - self.since).total_seconds() / 3600 if self.since else 0.0
        return hours if hours > 0 else None

    def count(self, operation: ChangeOperation) -> float:
        """Return how many objects this happened to."""
        return self.counts.get(operation.value, 0)

    def size(self, operation: ChangeOperation) -> float:
        """Return the bytes of the files to which this happened."""
        return self.bytes.get(operation.value, 0)
