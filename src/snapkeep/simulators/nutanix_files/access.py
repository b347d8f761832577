"""What partner servers open, as directories: ``DIR/access/<client>/<share>/.snapshot/<snapshot>``.

The tree is recomputed whenever something changed or an entry ends, and only differences are carried out. A share
opened READ_WRITE shows its live files too, as ``live``. Two shares of one name on several file servers: all but the
first one's directories are named ``<share>@<file server>``.
"""

import contextlib
from pathlib import Path
from typing import Any

from snapkeep.simulators.kit import tree
from snapkeep.simulators.nutanix_files.model import AccessEntry, Partner, Share
from snapkeep.simulators.nutanix_files.state import State
from snapkeep.simulators.nutanix_files.volumes import Volumes

Tree = dict[str, Path | None]
"""Path below the access directory -> target of the link, or None for a directory."""


class Access:
    """Keeps the access directory as the partner servers say."""

    def __init__(self, state: State, volumes: Volumes) -> None:
        self._state = state
        self._volumes = volumes
        self._root = state.data_dir / "access"
        self._now: Tree = {}

    def begin(self) -> None:
        """Start from nothing: what an earlier run left is removed."""
        tree.remove(self._root)
        self._root.mkdir(parents=True)
        self._now = {}
        self.update()

    def update(self) -> None:
        """End what is over, and bring the directory up to date."""
        self._expire()
        wanted = self._wanted()
        for path in sorted(self._now.keys() - wanted.keys(), reverse=True):
            self._drop(path)
        for path in sorted(wanted):
            if path not in self._now or self._now[path] != wanted[path]:
                self._make(path, wanted[path])
        self._now = wanted

    def tick(self) -> None:
        """Look at the clock: end what is over."""
        if self._next_end() <= self._state.clock():
            self.update()

    def report(self) -> list[dict[str, Any]]:
        """Who may read what, and until when."""
        return [
            {
                "client": entry.client,
                "partner_server": partner.name,
                "file_server": self._state.file_servers[partner.file_server].name,
                "access_type": entry.access_type,
                "expires": entry.expires,
                "seconds_left": entry.expires - self._state.clock(),
                "shares": [share.name for share in self._shares(partner, entry)] if entry.share else None,
                "directory": str(self._root / entry.client),
            }
            for partner in self._state.partners.values()
            for entry in partner.entries
        ]

    def _next_end(self) -> float:
        ends = [entry.expires for partner in self._state.partners.values() for entry in partner.entries]
        return min(ends, default=float("inf"))

    def _expire(self) -> None:
        clock = self._state.clock()
        for partner in self._state.partners.values():
            left = [entry for entry in partner.entries if entry.expires > clock]
            if len(left) != len(partner.entries):
                with self._state.store.transaction():
                    partner.entries = left
                    partner.version += 1
                    self._state.store.put("partner", partner.id, partner)

    def _wanted(self) -> Tree:
        opened: Tree = {}
        for partner in self._state.partners.values():
            for entry in partner.entries:
                opened.setdefault(entry.client, None)
                for share in self._shares(partner, entry):
                    self._open(opened, f"{entry.client}/{self._name(share)}", share, entry)
        return opened

    def _open(self, opened: Tree, path: str, share: Share, entry: AccessEntry) -> None:
        opened[path] = None
        if share.parent is None:
            hidden = f"{path}/{self._state.settings.snapshot_directory}"
            opened[hidden] = None
            for snapshot in self._state.snapshots[share.id].values():
                if snapshot.gone_at is not None:
                    continue
                opened[f"{hidden}/{snapshot.name}"] = self._volumes.snapshot_path(share, snapshot)
        if entry.access_type == "READ_WRITE":
            opened[f"{path}/live"] = self._volumes.live(share)

    def _shares(self, partner: Partner, entry: AccessEntry) -> list[Share]:
        every = self._state.shares[partner.file_server]
        if entry.share is not None:
            return [every[entry.share]] if entry.share in every and not every[entry.share].synthetic else []
        return [share for share in every.values() if not share.synthetic]

    def _name(self, share: Share) -> str:
        for identifier in self._state.file_servers:
            if identifier == share.file_server:
                break
            if self._state.share_named(identifier, share.name) is not None:
                return f"{share.name}@{self._state.file_servers[share.file_server].name}"
        return share.name

    def _make(self, path: str, target: Path | None) -> None:
        full = self._root / path
        if target is None:
            full.mkdir(parents=True, exist_ok=True)
            return
        full.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            full.symlink_to(target)

    def _drop(self, path: str) -> None:
        full = self._root / path
        if full.is_symlink():
            full.unlink()
        elif full.is_dir():
            with contextlib.suppress(OSError):
                full.rmdir()
