"""This machine as a backup host: where it mounts exports, and what it keeps to be quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from snapkeep.model.exports import BackupHost
from snapkeep.operations.references import References
from snapkeep.repository.keyring import KeyRing


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A worker as the systems see it."""

    name: str = "serve"
    address: str = "127.0.0.1"
    """Under which systems know this machine: exports are opened to it."""
    directory: Path
    readers: int = 16
    """Files that a backup reads at once."""
    programs: Path | None = None
    """Directory of the programs that operations may run here; None: they run none."""
    references: References = field(default_factory=References, repr=False, compare=False)
    """How this machine gets secrets that are elsewhere."""
    keys: KeyRing = field(default_factory=KeyRing, repr=False, compare=False)
    """Of the repositories that this process has opened."""

    @property
    def backup_host(self) -> BackupHost:
        """The host of exports."""
        return BackupHost(name=self.name, address=self.address)

    @property
    def mounts(self) -> Path:
        """Directory of mount points; every one of them is ours. Another worker on this machine has its own."""
        return self.directory / "mounts" / self.name

    @property
    def restores(self) -> Path:
        """Directory of a mark for each restore that has found its target empty, and has begun to fill it."""
        return self.directory / "restores"

    @property
    def cache(self) -> Path:
        """Directory of what can be made again: parts of indexes, tables of hard links."""
        return self.directory / "cache"
