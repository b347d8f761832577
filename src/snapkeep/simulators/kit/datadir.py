"""A data directory belongs to one running simulator at a time."""

import fcntl
import os
from pathlib import Path


class DirectoryInUseError(Exception):
    """Another simulator runs on this directory."""


class DirectoryLock:
    """Held while the process lives; the kernel lets go of it even after a kill."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise DirectoryInUseError(f"another simulator uses the data directory {directory}") from error

    def release(self) -> None:
        """Let others use the directory."""
        os.close(self._descriptor)
