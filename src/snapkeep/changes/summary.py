"""The summary of a change list: what people look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from snapkeep.model.changes import Change, ChangeOperation, ObjectType

TOP = 10
_MOST_DIRECTORIES = 10_000
_WITH_CONTENT = frozenset({ObjectType.FILE, ObjectType.HARD_LINK})
"""Only these have bytes that a backup would read; the size of a directory is its file system's own business."""


class Summary:
    """Counts and bytes by operation and type, and the top-level directories with the most changes.

    Memory is bounded: beyond 10,000 top-level directories the rarest are dropped, so their counts may be low.
    """

    def __init__(self) -> None:
        self.entries = 0
        self._operations: Counter[str] = Counter()
        self._operation_bytes: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._type_bytes: Counter[str] = Counter()
        self._directories: Counter[bytes] = Counter()
        self._directory_bytes: Counter[bytes] = Counter()

    def add(self, changes: Iterable[Change]) -> None:
        """Count these changes."""
        for change in changes:
            self.entries += 1
            self._operations[change.operation] += 1
            self._types[change.type] += 1
            head, slash, _ = change.path.partition(b"/")
            directory = head if slash else b"."
            self._directories[directory] += 1
            if change.operation is not ChangeOperation.DELETE and change.type in _WITH_CONTENT:
                self._operation_bytes[change.operation] += change.size
                self._type_bytes[change.type] += change.size
                self._directory_bytes[directory] += change.size
        if len(self._directories) > _MOST_DIRECTORIES:
            self._directories = Counter(dict(self._directories.most_common(_MOST_DIRECTORIES // 2)))
            self._directory_bytes = Counter({path: self._directory_bytes[path] for path in self._directories})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form; names of directories as text, undecodable bytes escaped."""
        return {
            "entries": self.entries,
            "operations": {
                name: {"entries": count, "bytes": self._operation_bytes[name]}
                for name, count in sorted(self._operations.items())
            },
            "types": dict(sorted(self._types.items())),
            "type_bytes": {name: self._type_bytes[name] for name in sorted(self._types)},
            "top_directories": [
                {
                    "path": path.decode("utf-8", "backslashreplace"),
                    "entries": count,
                    "bytes": self._directory_bytes[path],
                }
                for path, count in self._directories.most_common(TOP)
            ],
        }
