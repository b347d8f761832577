"""Snapshot files: what a recovery point is, in restic's JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from snapkeep.model.errors import Damaged


@dataclass(frozen=True, kw_only=True)
class SnapshotFile:
    """One recovery point. `id` is the name of its file, and empty until it is saved."""

    time: datetime
    tree: str
    paths: tuple[str, ...]
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    parent: str | None = None
    excludes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    original: str | None = None
    program_version: str = ""
    summary: Mapping[str, Any] | None = None
    other: Mapping[str, Any] = field(default_factory=dict)
    """Fields that this program does not know, kept as they were."""
    id: str = field(default="", compare=False)

    def to_json(self) -> bytes:
        """Return the document, with its fields in restic's order and empty ones left out as restic does."""
        content: dict[str, Any] = {"time": format_time(self.time)}
        if self.parent:
            content["parent"] = self.parent
        content |= {"tree": self.tree, "paths": list(self.paths)}
        optional = {
            "hostname": self.hostname,
            "username": self.username,
            "uid": self.uid,
            "gid": self.gid,
            "excludes": list(self.excludes),
            "tags": list(self.tags),
            "original": self.original,
            "program_version": self.program_version,
            "summary": dict(self.summary) if self.summary else None,
        }
        content |= {name: value for name, value in optional.items() if value}
        return json.dumps(content | dict(self.other), separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, text: bytes, id: str = "") -> SnapshotFile:
        """Raises Damaged."""
        try:
            content: dict[str, Any] = json.loads(text)
            return cls(
                time=parse_time(content.pop("time")),
                tree=_text(content.pop("tree")),
                paths=tuple(map(_text, content.pop("paths") or ())),
                hostname=_text(content.pop("hostname", "")),
                username=_text(content.pop("username", "")),
                uid=int(content.pop("uid", 0)),
                gid=int(content.pop("gid", 0)),
                parent=content.pop("parent", None),
                excludes=tuple(map(_text, content.pop("excludes", None) or ())),
                tags=tuple(map(_text, content.pop("tags", None) or ())),
                original=content.pop("original", None),
                program_version=_text(content.pop("program_version", "")),
                summary=content.pop("summary", None),
                other=content,
                id=id,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Damaged(f"Snapshot {id or 'file'} of the repository cannot be read: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def format_time(time: datetime) -> str:
    """Return a time as Go reads it."""
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z") if time.tzinfo else time.isoformat() + "Z"


def parse_time(text: str) -> datetime:
    """Return a time of Go's: it may have nine digits behind the point, of which we keep six."""
    head, point, tail = text.partition(".")
    if point:
        digits = len(tail) - len(tail.lstrip("0123456789"))
        text = f"{head}.{tail[: min(digits, 6)].ljust(6, '0')}{tail[digits:]}"
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)
