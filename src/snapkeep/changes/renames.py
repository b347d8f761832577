"""One meaning for the rename of a directory.

Some systems list the renamed directory alone, others also every object below it. Kept is the first form: a `RENAME`
that follows from the rename of a directory above it says nothing new and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable

from snapkeep.model.changes import Change, ChangeOperation, ObjectType


class DirectoryRenames:
    """The directories that a change list renames: new path to old path. Memory: one entry for each of them."""

    def __init__(self) -> None:
        self._old_by_new: dict[bytes, bytes] = {}

    def __bool__(self) -> bool:
        return bool(self._old_by_new)

    def learn(self, changes: Iterable[Change]) -> None:
        """Note the directory renames among `changes`."""
        for change in changes:
            if (
                change.operation is ChangeOperation.RENAME
                and change.type is ObjectType.DIRECTORY
                and change.old_path is not None
            ):
                self._old_by_new[change.path] = change.old_path

    def implied(self, change: Change) -> bool:
        """Say whether `change` only follows from the rename of the nearest renamed directory above it."""
        if change.operation is not ChangeOperation.RENAME or change.old_path is None:
            return False
        return self.old_path(change.path) == change.old_path

    def old_path(self, path: bytes) -> bytes | None:
        """Return where `path` lay in the base by the renames above it; None: nothing above was renamed."""
        end = path.rfind(b"/")
        while end > 0:
            old = self._old_by_new.get(path[:end])
            if old is not None:
                return old + path[end:]
            end = path.rfind(b"/", 0, end)
        return None
