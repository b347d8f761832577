"""Pure: vendor JSON to our nouns. Unknown words become UNKNOWN, never a crash."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete, VendorError
from snapkeep.model.snapshots import Snapshot, SnapshotKind, is_owned_name
from snapkeep.plugins.nutanix_files.assumptions import PathForm, decode_name, is_diff_capable, relative_path

SHARE_CAPABILITIES = frozenset(
    {
        Capability.CREATE,
        Capability.DELETE,
        Capability.RESTORE,
        Capability.CLONE,
        Capability.EXPORT,
        Capability.DIFF_FILES,
    }
)
_WHILE_PAUSED = frozenset({Capability.CREATE, Capability.DIFF_FILES})

SNAPSHOT_KINDS: Mapping[str, SnapshotKind] = {
    "USER_SNAPSHOT": SnapshotKind.USER,
    "SSR_SNAPSHOT": SnapshotKind.SCHEDULE,
    "REPLICATION_SNAPSHOT": SnapshotKind.REPLICATION,
}
OPERATIONS: Mapping[str, ChangeOperation] = {
    "ADD": ChangeOperation.ADD,
    "MODIFY": ChangeOperation.MODIFY,
    "META_MODIFY": ChangeOperation.METADATA,
    "DELETE": ChangeOperation.DELETE,
    "RENAME": ChangeOperation.RENAME,
}
OBJECT_TYPES: Mapping[str, ObjectType] = {
    "FILE": ObjectType.FILE,
    "DIRECTORY": ObjectType.DIRECTORY,
    "LINK": ObjectType.SYMLINK,
    "HARD_LINK": ObjectType.HARD_LINK,
    "FIFO": ObjectType.FIFO,
    "SOCKET": ObjectType.SOCKET,
    "BLOCK": ObjectType.BLOCK_DEVICE,
    "CHARACTER": ObjectType.CHARACTER_DEVICE,
}


def file_server_asset(data: Mapping[str, Any]) -> Asset:
    """Map a FileServer."""
    return Asset(id=_required(data, "extId"), kind=AssetKind.FILE_SERVER, name=str(data.get("name") or data["extId"]))


def share_asset(data: Mapping[str, Any], file_server_id: str) -> Asset:
    """Map a MountTarget; a nested or offline one is marked with what it lacks, and why."""
    parent = data.get("parentMountTargetExtId")
    refusals = _refusals(data)
    attributes = {
        ours: str(data[theirs])
        for ours, theirs in (
            ("type", "type"),
            ("protocol", "protocol"),
            ("path", "path"),
            ("description", "description"),
            ("state", "state"),
            ("status", "statusType"),
            ("max_size_gib", "maxSizeGB"),
        )
        if data.get(theirs) not in (None, "")
    }
    secondary = data.get("secondaryProtocol")
    if isinstance(secondary, list) and secondary:
        attributes["secondary_protocols"] = ",".join(str(item) for item in secondary)
    if parent:
        attributes["nested"] = "true"
    if data.get("isSnapshotPaused"):
        attributes["snapshots_paused"] = "true"
    return Asset(
        id=_required(data, "extId"),
        kind=AssetKind.SHARE,
        name=str(data.get("name") or data["extId"]),
        parent_id=str(parent) if parent else file_server_id,
        capabilities=SHARE_CAPABILITIES - refusals.keys(),
        refusals=refusals,
        attributes=attributes,
    )


def _refusals(data: Mapping[str, Any]) -> dict[Capability, str]:
    if data.get("parentMountTargetExtId"):
        reason = "it is a nested share: its files are in the snapshots of the share that it lies in"
        return dict.fromkeys(SHARE_CAPABILITIES, reason)
    if data.get("state", "ONLINE") != "ONLINE":
        return dict.fromkeys(SHARE_CAPABILITIES - {Capability.DELETE}, f"the share is {data['state']}, not ONLINE")
    if data.get("isSnapshotPaused"):
        return dict.fromkeys(_WHILE_PAUSED, "snapshots of this share are paused on the file server")
    if not is_diff_capable(data):
        return {Capability.DIFF_FILES: "the share does not offer Changed File Tracking"}
    return {}


def snapshot(data: Mapping[str, Any], share_id: str, prefix: str) -> Snapshot:
    """Map a Snapshot."""
    name = str(data.get("name") or "")
    kind = SNAPSHOT_KINDS.get(str(data.get("type")), SnapshotKind.UNKNOWN)
    return Snapshot(
        id=_required(data, "extId"),
        asset_id=share_id,
        name=name,
        kind=kind,
        owned=kind is not SnapshotKind.SCHEDULE and is_owned_name(prefix, name),
        created_at=parse_time(data.get("createTime")),
        size_bytes=_count(data.get("totalSpaceBytes")),
        reclaimable_bytes=_count(data.get("reclaimableSpaceBytes")),
    )


def change(data: Mapping[str, Any], form: PathForm, share: str, host: str) -> Change:
    """Map a ChangedContent; the root itself has an empty path. Raises Incomplete for a path of another share."""
    path = data.get("path")
    if not isinstance(path, str):
        raise Incomplete(f"The change list has an entry without a path: {dict(data)!r:.200}")
    operation = OPERATIONS.get(str(data.get("operationType")), ChangeOperation.UNKNOWN)
    old = data.get("oldPath") if operation is ChangeOperation.RENAME else None
    if operation is ChangeOperation.RENAME and not isinstance(old, str):
        raise Incomplete(f"The change list has a rename without its old path: {path!r:.200}")
    return Change(
        operation,
        OBJECT_TYPES.get(str(data.get("objectType")), ObjectType.OTHER),
        relative_path(decode_name(path), form, share, host),
        relative_path(decode_name(old), form, share, host) if isinstance(old, str) else None,
        _count(data.get("sizeBytes")) or 0,
        _count(data.get("inodeNumber")),
        to_ns(data.get("creationTime")),
        to_ns(data.get("changeTime")),
        to_ns(data.get("accessTime")),
    )


def parse_time(value: object) -> datetime | None:
    """Parse an RFC 3339 time; None when absent or malformed. Fractions beyond microseconds are cut."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
        zone = parsed.tzinfo
        if zone is UTC:  # what a system says; the rest is for the others
            return parsed
        return parsed.astimezone(UTC) if zone else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_ns(value: object) -> int | None:
    """Parse an RFC 3339 time to nanoseconds since 1970 (of microsecond precision); None outside of 64 bits."""
    parsed = parse_time(value)
    if parsed is None:
        return None
    age = parsed - _EPOCH
    found = (age.days * 86_400 + age.seconds) * 1_000_000_000 + age.microseconds * 1000
    return found if -(2**63) <= found < 2**63 else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 else None


def _required(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise VendorError(f"The system listed something without {key}: {dict(data)!r:.200}")
    return value
