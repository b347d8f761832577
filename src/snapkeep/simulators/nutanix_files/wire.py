"""The vendor's JSON of each object (``ntnx-files-py-client`` 4.0.1, ``ntnx-prism-py-client`` 4.0.1).

Every object carries ``$objectType``; without it the vendor's SDK fails on the items of a list.
"""

import datetime
import hashlib
from typing import Any

from snapkeep.simulators.kit.tasks import Task
from snapkeep.simulators.nutanix_files.model import (
    AccessEntry,
    FileServer,
    Partner,
    Replication,
    Schedule,
    Share,
    Snapshot,
)

Json = dict[str, Any]
RESERVED: Json = {"$fv": "v4.r0"}

FILE_SERVER_FIELDS = frozenset({"name", "extId", "tenantId", "links"})
MOUNT_TARGET_OTHER = frozenset(
    {
        "description",
        "maxSizeGB",
        "connectedMountTargetPath",
        "isCompressionEnabled",
        "blockedFileExtensions",
        "isPreviousVersionEnabled",
        "smbProperties",
        "nfsProperties",
        "multiProtocolProperties",
        "blockedClients",
        "isLongNameEnabled",
        "wormSpec",
        "workloadType",
    }
)
MOUNT_TARGET_FIELDS = MOUNT_TARGET_OTHER | {
    *("name", "type", "path", "protocol", "secondaryProtocol", "isSnapshotPaused", "parentMountTargetExtId"),
    *("statusType", "state", "extId", "tenantId", "links"),
}
SNAPSHOT_FIELDS = frozenset(
    {"name", "type", "createTime", "totalSpaceBytes", "reclaimableSpaceBytes", "extId", "tenantId", "links"}
)
PARTNER_FIELDS = frozenset(
    {
        *("description", "vendorName", "name", "partnerType", "vendorProperties", "backupServerConfig"),
        *("extId", "tenantId", "links"),
    }
)
SCHEDULE_FIELDS = frozenset({"type", "schedule", "maxRetentionCount", "extId", "tenantId", "links"})
CHANGE_FIELDS = frozenset(
    {"extId", "snapshotExtId", "baseSnapshotExtId", "changedContents", "hasMoreContent", "tenantId", "links"}
)
TASK_FIELDS = frozenset(
    {
        *("extId", "operation", "operationDescription", "createdTime", "startedTime", "completedTime", "status"),
        *("progressPercentage", "entitiesAffected", "isCancelable", "errorMessages", "lastUpdatedTime"),
    }
)


def timestamp(seconds: float) -> str:
    """RFC 3339 with microseconds, in UTC."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def etag(identifier: str, version: int) -> str:
    """Opaque to clients; another one for each version."""
    return hashlib.sha256(f"{identifier}/{version}".encode()).hexdigest()[:24]


def file_server(each: FileServer) -> Json:
    """``files.v4.config.FileServer``."""
    return _typed("files.v4.config.FileServer", {"extId": each.id, "name": each.name})


def mount_target(each: Share, parent: Share | None) -> Json:
    """``files.v4.config.MountTarget``. Assumed: ``path`` of a nested one is ``<parent's name>/<folder>``."""
    body: Json = {
        "extId": each.id,
        "name": each.name,
        "type": each.type,
        "protocol": each.protocol,
        "secondaryProtocol": each.secondary,
        "isSnapshotPaused": each.paused,
        "statusType": each.status_type,
        "state": each.state,
        **each.other,
    }
    if parent is not None:
        body["parentMountTargetExtId"] = parent.id
        body["path"] = f"{parent.name}/{each.folder}"
    return _typed("files.v4.config.MountTarget", body)


def snapshot(each: Snapshot) -> Json:
    """``files.v4.config.Snapshot``. It has no state: the task has it."""
    return _typed(
        "files.v4.config.Snapshot",
        {
            "extId": each.id,
            "name": each.name,
            "type": each.type,
            "createTime": timestamp(each.created),
            "totalSpaceBytes": each.bytes,
            "reclaimableSpaceBytes": each.bytes,
        },
    )


def partner(each: Partner) -> Json:
    """``files.v4.config.PartnerServer``. Assumed: entries are shown with ``operationType`` ADD."""
    body: Json = {
        "extId": each.id,
        "name": each.name,
        "vendorName": each.vendor_name,
        "partnerType": each.partner_type,
    }
    if each.description is not None:
        body["description"] = each.description
    if each.vendor_properties is not None:
        body["vendorProperties"] = each.vendor_properties
    if each.has_config:
        body["backupServerConfig"] = _typed(
            "files.v4.config.BackupServerConfig",
            {
                "expiryInSecs": each.expiry_in_secs,
                "backupClientAccessConfigs": [_access_entry(entry) for entry in each.entries],
            },
        )
    return _typed("files.v4.config.PartnerServer", body)


_ADDRESS_TYPES = {
    "ipv4": "common.v1.config.IPv4Address",
    "ipv6": "common.v1.config.IPv6Address",
    "fqdn": "common.v1.config.FQDN",
}


def _access_entry(entry: AccessEntry) -> Json:
    inner: Json = {"value": entry.client}
    if entry.prefix_length is not None:
        inner["prefixLength"] = entry.prefix_length
    body: Json = {
        "address": _typed("common.v1.config.IPAddressOrFQDN", {entry.kind: _typed(_ADDRESS_TYPES[entry.kind], inner)}),
        "accessType": entry.access_type,
        "operationType": "ADD",
    }
    if entry.share is not None:
        body["mountTargetExtId"] = entry.share
    return _typed("files.v4.config.BackupServerAccessControlBlock", body)


_SCHEDULE_TYPES = {
    "HOURLY": "files.v4.config.DailySchedule",
    "DAILY": "files.v4.config.DailySchedule",
    "WEEKLY": "files.v4.config.WeeklySchedule",
    "MONTHLY": "files.v4.config.MonthlySchedule",
}


def schedule(each: Schedule) -> Json:
    """``files.v4.config.SnapshotSchedule``."""
    kind = each.schedule.get("$objectType", _SCHEDULE_TYPES[each.type])
    return _typed(
        "files.v4.config.SnapshotSchedule",
        {
            "extId": each.id,
            "type": each.type,
            "schedule": {**each.schedule, "$objectType": kind, "$reserved": RESERVED},
            "maxRetentionCount": each.max_retention_count,
        },
    )


def replication(each: Replication) -> Json:
    """``files.v4.config.ReplicationPolicy`` or ``files.v4.operations.ReplicationJob``."""
    kind = "files.v4.config.ReplicationPolicy" if each.kind == "policy" else "files.v4.operations.ReplicationJob"
    return _typed(kind, {"extId": each.id, **each.body})


def task(each: Task, clock: float, skew: float) -> Json:
    """``prism.v4.config.Task``. Queued in the first quarter of its time, then running."""
    body: Json = {
        "extId": task_id(each.id),
        "operation": each.operation,
        "operationDescription": each.operation,
        "createdTime": timestamp(each.created + skew),
        "isCancelable": False,
        "entitiesAffected": [
            _typed("prism.v4.config.EntityReference", {"extId": entity.id, "rel": entity.rel, "name": entity.name})
            for entity in each.entities
        ],
        "numberOfEntitiesAffected": len(each.entities),
    }
    if each.status != "OPEN":
        body |= {"status": each.status, "progressPercentage": 100}
    else:
        done = (clock - each.created) / max(each.due - each.created, 1e-6)
        body |= {
            "status": "QUEUED" if done < 0.25 else "RUNNING",
            "progressPercentage": max(0, min(99, int(done * 100))),
        }
    if body["status"] != "QUEUED":
        body["startedTime"] = timestamp(each.created + (each.due - each.created) / 4 + skew)
    if each.completed is not None:
        body["completedTime"] = timestamp(each.completed + skew)
    body["lastUpdatedTime"] = timestamp((each.completed or clock) + skew)
    if each.problems:
        body["errorMessages"] = [
            app_message(problem.code, problem.message, "TASK", namespace="prism") for problem in each.problems
        ]
    return _typed("prism.v4.config.Task", body)


def task_id(identifier: str) -> str:
    """The external form of a task's id: ``ZXJnb24=`` is the base 64 of the engine's name."""
    return f"ZXJnb24=:{identifier}"


def task_reference(identifier: str) -> Json:
    """``prism.v4.config.TaskReference``: the answer to asynchronous work."""
    return _typed("prism.v4.config.TaskReference", {"extId": task_id(identifier)})


def app_message(
    code: str,
    message: str,
    group: str,
    *,
    severity: str = "ERROR",
    arguments: dict[str, str] | None = None,
    namespace: str = "files",
) -> Json:
    """``files.v4.error.AppMessage`` (or prism's)."""
    body: Json = {
        "message": message,
        "severity": severity,
        "code": code,
        "locale": "en_US",
        "errorGroup": group,
        "argumentsMap": arguments or {},
    }
    return _typed(f"{namespace}.v4.error.AppMessage", body)


def _typed(kind: str, body: Json) -> Json:
    body["$objectType"] = kind
    body["$reserved"] = RESERVED
    return body
