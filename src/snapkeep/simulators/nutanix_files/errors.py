"""The refusals of the simulated system.

The vendor documents the form (``files.v4.error.AppMessage``, ``SchemaValidationError``) but neither the codes nor
most of the statuses: both are assumed, in one table.
"""

from typing import NamedTuple


class Row(NamedTuple):
    """One kind of error: HTTP status, vendor code, group, text."""

    status: int
    code: str
    group: str
    text: str


TABLE: dict[str, Row] = {
    "unauthenticated": Row(401, "FILES-10401", "AUTHENTICATION", "Authentication is required."),
    "not_permitted": Row(403, "FILES-10403", "AUTHORIZATION", "The permission {permission} is needed."),
    "no_route": Row(404, "FILES-10404", "NOT_FOUND", "No such resource: {path}."),
    "no_method": Row(405, "FILES-10405", "NOT_FOUND", "{method} is not supported for {path}."),
    "precondition": Row(412, "FILES-10412", "PRECONDITION", "The ETag of {what} is missing or stale."),
    "too_large": Row(413, "FILES-10413", "INVALID_INPUT", "The body is too large."),
    "request_id_missing": Row(400, "FILES-10414", "INVALID_INPUT", "The header NTNX-Request-Id is needed."),
    "internal": Row(500, "FILES-10500", "INTERNAL", "Internal error."),
    "file_server_not_found": Row(404, "FILES-20404", "NOT_FOUND", "File server {id} was not found."),
    "share_not_found": Row(404, "FILES-30404", "NOT_FOUND", "Mount target {id} was not found."),
    "share_exists": Row(409, "FILES-30409", "CONFLICT", "A mount target named {name} exists."),
    "share_busy": Row(409, "FILES-30410", "BUSY", "Mount target {name} is in use: {why}."),
    "share_invalid": Row(400, "FILES-30400", "INVALID_INPUT", "The mount target is not valid: {why}."),
    "snapshot_not_found": Row(404, "FILES-40404", "NOT_FOUND", "Snapshot {id} was not found."),
    "snapshot_exists": Row(409, "FILES-40409", "CONFLICT", "A snapshot named {name} exists."),
    "snapshot_busy": Row(409, "FILES-40410", "BUSY", "Snapshot {name} is in use: {why}."),
    "snapshot_nested": Row(
        400, "FILES-40401", "NOT_SUPPORTED", "Snapshots of the nested mount target {name} are not supported."
    ),
    "snapshot_paused": Row(400, "FILES-40402", "NOT_SUPPORTED", "Snapshots of mount target {name} are paused."),
    "snapshot_offline": Row(400, "FILES-40403", "NOT_SUPPORTED", "Mount target {name} is not online."),
    "snapshot_limit": Row(422, "FILES-40422", "LIMIT", "Mount target {name} has its {limit} snapshots."),
    "change_not_found": Row(404, "FILES-50404", "NOT_FOUND", "Changed content {id} was not found."),
    "change_base": Row(400, "FILES-50400", "INVALID_INPUT", "The base snapshot is not older than the snapshot."),
    "change_other_share": Row(400, "FILES-50401", "INVALID_INPUT", "Snapshot {id} belongs to another mount target."),
    "change_token": Row(400, "FILES-50402", "INVALID_INPUT", "The page token is not valid for this content."),
    "change_failed": Row(500, "FILES-50500", "INTERNAL", "The changed content could not be computed: {why}."),
    "partner_not_found": Row(404, "FILES-60404", "NOT_FOUND", "Partner server {id} was not found."),
    "partner_exists": Row(409, "FILES-60409", "CONFLICT", "A partner server named {name} exists."),
    "schedule_not_found": Row(404, "FILES-70404", "NOT_FOUND", "Snapshot schedule {id} was not found."),
    "replication_not_found": Row(404, "FILES-80404", "NOT_FOUND", "Replication object {id} was not found."),
    "task_not_found": Row(404, "PRISM-10404", "NOT_FOUND", "Task {id} was not found."),
    "task_failed": Row(500, "FILES-90500", "INTERNAL", "The operation failed."),
}


class ApiError(Exception):
    """One refusal by its kind in :data:`TABLE`. Raised before anything was changed."""

    def __init__(self, kind: str, **values: object) -> None:
        self.kind = kind
        self.row = TABLE[kind]
        self.values = {name: str(value) for name, value in values.items()}
        super().__init__(self.row.text.format(**self.values))


class Invalid(NamedTuple):
    """One complaint about the form of a request."""

    location: str
    attribute: str
    message: str


class SchemaError(Exception):
    """The request does not fit the documented schema: 400 with a ``SchemaValidationError``."""

    def __init__(self, *complaints: Invalid) -> None:
        super().__init__("; ".join(complaint.message for complaint in complaints))
        self.complaints = complaints
