"""Bringing back what a recovery point holds, into a directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from snapkeep.backup.request import Report, Stop, never_stop, no_report
from snapkeep.repository.repository import Repository


def restore(
    repository: Repository,
    snapshot_id: str,
    target: Path,
    *,
    paths: Sequence[bytes] = (),
    overwrite: bool = False,
    owners: bool | None = None,
    readers: int = 8,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> None:
    """Restore a recovery point, or some of its paths, into a directory."""
    raise NotImplementedError
