"""The real directories behind the shares."""

import asyncio
from pathlib import Path

from snapkeep.simulators.kit import tree
from snapkeep.simulators.kit.volumes import Volume
from snapkeep.simulators.nutanix_files.model import Share, Snapshot
from snapkeep.simulators.nutanix_files.state import State


class Volumes:
    """One volume for each top-level share; a nested share is a directory in its parent's."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._open: dict[str, Volume] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, share: Share) -> asyncio.Lock:
        """Held while a share's volume is copied, so that work on one share is done in turn."""
        return self._locks.setdefault(share.parent or share.id, asyncio.Lock())

    def volume(self, share: Share) -> Volume:
        """The volume of a top-level share, made when it is missing."""
        found = self._open.get(share.id)
        if found is None:
            found = self._open[share.id] = Volume(self._root(share))
        return found

    def live(self, share: Share) -> Path:
        """The directory with the share's files."""
        if share.parent is None:
            return self.volume(share).live
        parent = self._state.share_by_id[share.parent]
        return self.volume(parent).live / (share.folder or "")

    def snapshot_path(self, share: Share, snapshot: Snapshot) -> Path:
        """The directory with the snapshot's files."""
        return self.volume(share).snapshot_path(snapshot.id)

    def link(self, share: Share) -> Path:
        """Where people find the share: ``DIR/shares/<file server>/<share>``."""
        server = self._state.file_servers[share.file_server]
        return self._state.data_dir / "shares" / server.name / share.name

    def provide(self, share: Share) -> None:
        """Make the share's directory and its link, unless they exist."""
        if share.synthetic:
            return
        live = self.live(share)
        live.mkdir(parents=True, exist_ok=True)
        link = self.link(share)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(live)

    def unlink(self, share: Share) -> None:
        """Remove the share's link."""
        self.link(share).unlink(missing_ok=True)

    def destroy(self, share: Share) -> None:
        """Remove a top-level share's volume with all snapshots."""
        volume = self._open.pop(share.id, None)
        if volume is None and not self._root(share).exists():
            return
        volume = volume or Volume(self._root(share))
        for name in volume.snapshots():
            volume.delete(name)
        tree.remove(self._root(share))

    def forget(self) -> None:
        """Let go of all volumes, for a reset."""
        self._open.clear()
        self._locks.clear()

    def sweep(self, expected: dict[str, set[str]]) -> None:
        """After a crash: remove snapshots that nothing knows. ``expected``: snapshot ids by share id."""
        for share in self._state.share_by_id.values():
            if share.synthetic or share.parent is not None:
                continue
            volume = self.volume(share)
            for name in set(volume.snapshots()) - expected.get(share.id, set()):
                volume.delete(name)

    def _root(self, share: Share) -> Path:
        server = self._state.file_servers[share.file_server]
        return self._state.data_dir / "volumes" / server.name / share.id
