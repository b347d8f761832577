"""Is a recovery point what the source was, and is a repository sound?"""

from __future__ import annotations

from typing import Any, Literal

from snapkeep.backup.request import BackupRequest, Report, Stop, never_stop, no_report
from snapkeep.repository.repository import Repository


def compare(
    repository: Repository, snapshot_id: str, request: BackupRequest, *, files: int, seed: int, stop: Stop = never_stop
) -> dict[str, Any]:
    """Compare a random sample of a recovery point with its source."""
    raise NotImplementedError


def check_repository(
    repository: Repository,
    *,
    data: Literal["none", "sample", "all"] = "none",
    fraction: float = 0.05,
    seed: int = 0,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> None:
    """Check the structure of a repository, and the data of a sample of its packs or of all."""
    raise NotImplementedError
