"""The summary of a change list: what people look at first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from snapkeep.model.changes import Change, ChangeOperation, ObjectType

TOP = 10
TOP_EXTENSIONS = 30
_MOST_DIRECTORIES = 10_000
_MOST_EXTENSIONS = 10_000
_LONGEST_EXTENSION = 24
_FILE, _HARD_LINK = ObjectType.FILE, ObjectType.HARD_LINK
"""Only these have bytes that a backup would read; the size of a directory is its file system's own business."""
_ADD, _MODIFY, _RENAME = ChangeOperation.ADD, ChangeOperation.MODIFY, ChangeOperation.RENAME
"""After these there is a file whose name tells what is in it now."""
_DELETE = ChangeOperation.DELETE


def extension(path: bytes) -> bytes:
    """Return what follows the last dot of a name, in lower case, at most 24 bytes; empty: there is none.

    A dot at the beginning hides a file, and one at the end has nothing behind it: neither begins an extension.
    """
    stem, dot, end = path[path.rfind(b"/") + 1 :].rpartition(b".")
    return end[:_LONGEST_EXTENSION].lower() if dot and stem.strip(b".") else b""


class Summary:
    """Counts and bytes by operation, type and extension, and the top-level directories with the most changes.

    Memory is bounded: beyond 10,000 top-level directories or extensions the rarest are dropped, so their counts may be
    low; of more extensions than that, it is told that there are at least so many.
    """

    def __init__(self) -> None:
        self.entries = 0
        self._operations: Counter[str] = Counter()
        self._operation_bytes: Counter[str] = Counter()
        self._types: Counter[str] = Counter()
        self._type_bytes: Counter[str] = Counter()
        self._directories: Counter[bytes] = Counter()
        self._directory_bytes: Counter[bytes] = Counter()
        self._extensions: Counter[bytes] = Counter()
        self._most_extensions = 0
        self._extension_renames = 0

    def add(self, changes: Iterable[Change]) -> None:
        """Count these changes."""
        for change in changes:
            self.entries += 1
            operation, kind, path = change.operation, change.type, change.path
            self._operations[operation] += 1
            self._types[kind] += 1
            head, slash, _ = path.partition(b"/")
            directory = head if slash else b"."
            self._directories[directory] += 1
            if operation is _DELETE or (kind is not _FILE and kind is not _HARD_LINK):
                continue  # compared by identity: an enumeration's hash takes longer than all of this
            self._operation_bytes[operation] += change.size
            self._type_bytes[kind] += change.size
            self._directory_bytes[directory] += change.size
            if operation is _MODIFY or operation is _ADD or operation is _RENAME:
                now = extension(path)
                self._extensions[now] += 1
                if change.old_path is not None and extension(change.old_path) != now:
                    self._extension_renames += 1
        self._bound()

    def _bound(self) -> None:
        if len(self._directories) > _MOST_DIRECTORIES:
            self._directories = Counter(dict(self._directories.most_common(_MOST_DIRECTORIES // 2)))
            self._directory_bytes = Counter({path: self._directory_bytes[path] for path in self._directories})
        self._most_extensions = max(self._most_extensions, len(self._extensions))
        if len(self._extensions) > _MOST_EXTENSIONS:
            self._extensions = Counter(dict(self._extensions.most_common(_MOST_EXTENSIONS // 2)))

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form; names as text, undecodable bytes escaped.

        `top_extensions`: of files that were added, modified or renamed, as they are called now; `extension_renames`:
        files that had another extension before. Lists of earlier versions have none of these.
        """
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
            "top_extensions": [
                {"extension": found.decode("utf-8", "backslashreplace"), "entries": count}
                for found, count in self._extensions.most_common(TOP_EXTENSIONS)
            ],
            "distinct_extensions": self._most_extensions,
            "extension_renames": self._extension_renames,
        }
