"""The state of the simulated system: in memory for reading, in the store for a restart."""

import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from snapkeep.simulators.kit.store import Store
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.model import (
    FileServer,
    Partner,
    Replication,
    Schedule,
    Share,
    Snapshot,
    SyntheticDiff,
)
from snapkeep.simulators.nutanix_files.settings import Settings, stored

KINDS: dict[type[msgspec.Struct], str] = {
    FileServer: "file_server",
    Share: "share",
    Snapshot: "snapshot",
    Partner: "partner",
    Schedule: "schedule",
    Replication: "replication",
    SyntheticDiff: "synthetic_diff",
}


def new_id() -> str:
    """A new external identifier."""
    return str(uuid.uuid4())


class State:
    """All objects. Change an object, then :meth:`save` it inside a transaction of the store."""

    def __init__(self, store: Store, data_dir: Path) -> None:
        self.store = store
        self.data_dir = data_dir
        self.settings = stored(store.get("meta", "settings", dict[str, Any]) or {})
        self.changed = False
        self._load()

    def _load(self) -> None:
        self.file_servers = {each.id: each for each in self.store.all("file_server", FileServer)}
        self.shares: dict[str, dict[str, Share]] = {key: {} for key in self.file_servers}
        self.share_by_id: dict[str, Share] = {}
        self.snapshots: dict[str, dict[str, Snapshot]] = {}
        self.partners = {each.id: each for each in self.store.all("partner", Partner)}
        self.schedules = {each.id: each for each in self.store.all("schedule", Schedule)}
        self.replications = {each.id: each for each in self.store.all("replication", Replication)}
        self.synthetic = {each.id: each for each in self.store.all("synthetic_diff", SyntheticDiff)}
        for share in self.store.all("share", Share):
            self._index_share(share)
        for snapshot in self.store.all("snapshot", Snapshot):
            self.snapshots[snapshot.share][snapshot.id] = snapshot

    def _index_share(self, share: Share) -> None:
        self.shares[share.file_server][share.id] = share
        self.share_by_id[share.id] = share
        self.snapshots.setdefault(share.id, {})

    # --- time ---------------------------------------------------------------------------------------------------

    def clock(self) -> float:
        """The real time: what durations are measured with."""
        return time.time()

    def now(self) -> float:
        """The time that the simulated system believes it is."""
        return time.time() + self.settings.clock_skew_seconds

    # --- finding ------------------------------------------------------------------------------------------------

    def file_server(self, identifier: str) -> FileServer:
        """By id. Raises 404."""
        found = self.file_servers.get(identifier)
        if found is None:
            raise ApiError("file_server_not_found", id=identifier)
        return found

    def file_server_named(self, name: str) -> FileServer | None:
        """By name, or None."""
        return next((each for each in self.file_servers.values() if each.name == name), None)

    def share(self, file_server: str, identifier: str) -> Share:
        """A share of a file server. Raises 404."""
        self.file_server(file_server)
        found = self.shares[file_server].get(identifier)
        if found is None:
            raise ApiError("share_not_found", id=identifier)
        return found

    def share_named(self, file_server: str, name: str) -> Share | None:
        """By name, or None. Names differ by more than case, as on SMB."""
        wanted = name.casefold()
        shares = self.shares[file_server].values()
        return next((share for share in shares if share.name.casefold() == wanted), None)

    def snapshot(self, share: Share, identifier: str) -> Snapshot:
        """A snapshot of a share. Raises 404."""
        found = self.snapshots[share.id].get(identifier)
        if found is None or (found.gone_at is not None and found.gone_at <= self.clock()):
            raise ApiError("snapshot_not_found", id=identifier)
        return found

    def visible_snapshots(self, share: Share) -> list[Snapshot]:
        """All snapshots of a share that answer, oldest first."""
        clock = self.clock()
        return [each for each in self.snapshots[share.id].values() if each.gone_at is None or each.gone_at > clock]

    def nested_in(self, share: Share) -> list[Share]:
        """The nested shares of a share."""
        return [each for each in self.shares[share.file_server].values() if each.parent == share.id]

    # --- changing -----------------------------------------------------------------------------------------------

    def save(self, *objects: Any) -> None:
        """Write new or changed objects."""
        for each in objects:
            self.store.put(KINDS[type(each)], each.id, each)
            self._index(each)
        self.changed = True

    def save_many(self, objects: Iterable[Any]) -> None:
        """Write many objects at once."""
        by_kind: dict[str, list[tuple[str, Any]]] = {}
        for each in objects:
            by_kind.setdefault(KINDS[type(each)], []).append((each.id, each))
            self._index(each)
        for kind, values in by_kind.items():
            self.store.put_all(kind, values)
        self.changed = True

    def _index(self, each: Any) -> None:
        match each:
            case Share():
                self._index_share(each)
            case Snapshot():
                self.snapshots[each.share][each.id] = each
            case FileServer():
                self.file_servers[each.id] = each
                self.shares.setdefault(each.id, {})
            case Partner():
                self.partners[each.id] = each
            case Schedule():
                self.schedules[each.id] = each
            case Replication():
                self.replications[each.id] = each
            case SyntheticDiff():
                self.synthetic[each.id] = each

    def remove(self, each: Any) -> None:
        """Forget an object; a share takes its snapshots along."""
        self.store.delete(KINDS[type(each)], each.id)
        match each:
            case Share():
                for snapshot in list(self.snapshots[each.id].values()):
                    self.remove(snapshot)
                del self.snapshots[each.id], self.share_by_id[each.id], self.shares[each.file_server][each.id]
            case Snapshot():
                self.snapshots[each.share].pop(each.id, None)
            case Partner():
                del self.partners[each.id]
            case Schedule():
                del self.schedules[each.id]
            case Replication():
                del self.replications[each.id]
        self.changed = True

    def set_settings(self, settings: Settings) -> None:
        """Replace the settings, for this and later runs."""
        self.settings = settings
        self.store.put("meta", "settings", settings)
        self.changed = True

    def clear(self) -> None:
        """Forget everything but the accounts."""
        for kind in (*KINDS.values(), "answer"):
            self.store.clear(kind)
        self.store.delete("meta", "settings")
        self.settings = Settings()
        self._load()
        self.changed = True
