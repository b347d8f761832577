"""Backends: where the files of a repository lie. The role that each of them plays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Protocol


class FileKind(StrEnum):
    """A kind of file; its value is the name of its directory (or of the file itself, for CONFIG)."""

    CONFIG = "config"
    KEY = "keys"
    SNAPSHOT = "snapshots"
    INDEX = "index"
    DATA = "data"
    LOCK = "locks"


NAME = re.compile(r"[0-9a-f]{64}")
"""What a file's name looks like, CONFIG's apart; everything else that lies about is not ours."""


class Backend(Protocol):
    """Stores small to middling files by kind and name. Thread-safe; names are lower-case hex (CONFIG has name "")."""

    location: str
    """Where this is, for people; without secrets."""

    def create(self) -> None:
        """Make the layout. Raises Conflict when there is a repository already."""

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        """Store a file. It appears whole or not at all, and is durable on return; to do it twice is harmless."""

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a file, or the part of it that is there. Raises NotFound or Unavailable."""

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Yield names and sizes, in any order, as they come."""

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file. One that is not there is success."""

    def close(self) -> None:
        """Let go of connections. Afterwards nothing else may be called."""
