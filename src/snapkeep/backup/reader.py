"""Looking into recovery points: list, find, read."""

from __future__ import annotations

from collections.abc import Iterator

from snapkeep.repository.repository import Repository


class RecoveryPoint:
    """One recovery point, read from its repository as far as is asked for."""

    @classmethod
    def open(cls, repository: Repository, snapshot_id: str) -> RecoveryPoint:
        """Open a recovery point."""
        raise NotImplementedError

    def read(self, path: bytes, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the content of a file."""
        raise NotImplementedError
