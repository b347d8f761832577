"""The JSON of the REST API, in and out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from snapkeep.catalog.records import (
    AssetRecord,
    ChangeListRecord,
    ExportRecord,
    OperationRecord,
    SnapshotRecord,
    SystemRecord,
    WorkerRecord,
)
from snapkeep.model.exports import AccessMode
from snapkeep.model.work import Finding
from snapkeep.operations.asking import QUIESCE_SECONDS
from snapkeep.operations.programs import MOST_SECONDS, NO_PROGRAMS, Programs
from snapkeep.operations.programs import NAME as PROGRAM_NAME
from snapkeep.operations.programs import SECONDS as PROGRAM_SECONDS
from snapkeep.plugin.plugin import Plugin

T = TypeVar("T")


class In(BaseModel):
    """What is asked for; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _as_written(cls, value: Any, info: ValidationInfo) -> Any:
        """Take no text for a number, and neither for true or false: the description says that there is none."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind in {bool, bool | None} and not isinstance(value, bool | None):
            raise ValueError("true or false is expected")
        if kind in {int, int | None, float, float | None} and isinstance(value, bool | str):
            raise ValueError("a number is expected")
        return value


class Out(BaseModel):
    """What is answered."""

    model_config = ConfigDict(frozen=True)


class Page(Out, Generic[T]):
    """Some entries; `next` is the cursor of the page behind it, null on the last one."""

    data: list[T]
    next: str | None = None


# -- requests ----------------------------------------------------------------------------------------------------------
SystemName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]


QuiesceIds = Annotated[
    list[str],
    Field(max_length=16, description="Assets of any system that are held at a consistent point for it, in this order."),
]
ProgramName = Annotated[str, Field(pattern=PROGRAM_NAME, description="Name of a file, no path.")]
QuiesceSeconds = Annotated[int, Field(ge=1, le=600, description="How long they are held at the longest, in seconds.")]


class ProgramsIn(In):
    """Programs of the worker that takes the snapshot: files in the directory with which it was started."""

    before: ProgramName | None = Field(default=None, description="Runs before; when it fails, no snapshot is taken.")
    after: ProgramName | None = Field(
        default=None, description="Runs afterwards, also when no snapshot could be taken, or the program before failed."
    )
    seconds: int = Field(
        default=PROGRAM_SECONDS, ge=1, le=MOST_SECONDS, description="How long each may take; then it is ended."
    )

    @staticmethod
    def named(body: ProgramsIn | None) -> Programs:
        """Return them as an operation takes them."""
        return Programs(**body.model_dump()) if body is not None else NO_PROGRAMS


class SystemIn(In):
    """A system to be added."""

    name: SystemName = Field(description="Lower-case letters, digits, '-' and '.', at most 63 characters.")
    plugin: str = Field(description="Name of the plug-in.")
    settings: dict[str, Any] = Field(description="Settings and secrets, as the plug-in's schema says.")
    queue: SystemName = Field(default="default", description="Queue of its operations: workers that serve it run them.")


class SystemChange(In):
    """Settings to be changed; null takes a setting away. What is not named stays, secrets included."""

    settings: dict[str, Any] = Field(default={})
    queue: SystemName | None = Field(default=None, description="Another queue for its operations.")


class ReconcileIn(In):
    """A comparison of the catalog with a system."""

    apply: bool = Field(default=False, description="Mend what is found; otherwise nothing is changed.")


class LabelsIn(In):
    """All the labels that a system or an asset shall have."""

    labels: dict[str, str]


class SnapshotIn(In):
    """A snapshot to be taken."""

    name: str | None = Field(
        default=None, min_length=1, max_length=255, description="Default: a unique name that carries our mark."
    )
    quiesce: QuiesceIds = []
    quiesce_seconds: QuiesceSeconds = QUIESCE_SECONDS
    programs: ProgramsIn | None = Field(default=None, description="Needs the permission program.run, for everything.")


class RestoreIn(In):
    """A restore in place."""

    confirmation: str = Field(description="Name of the asset whose newer data will be lost.")


class CloneIn(In):
    """A clone."""

    name: str = Field(min_length=1, max_length=255, description="Name of the new asset.")
    confirmation: str = Field(description="Name of the asset that is cloned.")


class HostIn(In):
    """A backup host."""

    name: str = Field(min_length=1, max_length=253, description="How people call it.")
    address: str = Field(min_length=1, max_length=253, description="Its IPv4, IPv6 address or host name.")


class ExportIn(In):
    """An export to a backup host."""

    host: HostIn
    mode: AccessMode = AccessMode.READ_ONLY


class ChangeListIn(In):
    """A diff between two snapshots of one asset."""

    base_id: str | None = Field(default=None, description="Older snapshot; null: everything in the new one.")
    new_id: str = Field(description="Newer snapshot.")
    source: Literal["system", "walk"] = Field(
        default="system", description="Who says what changed: the system, or a walk of both by a backup host."
    )
    verify: Literal["none", "sample", "full"] = Field(
        default="none", description="How much of both snapshots the list is held against; its verdict is in the result."
    )


class WouldOut(Out):
    """What a dry run has found: nothing stands against it, and nothing was done."""

    would: str
    affected: list[str] = Field(description="What it would be done to.")


class LabelsOut(Out):
    """The labels of a system or an asset."""

    labels: dict[str, str]


class Problem(Out):
    """An error: `application/problem+json` (RFC 9457)."""

    type: str = Field(description="`urn:snapkeep:error:` and the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable; see the reference of errors.")
    message: str
    next_step: str = Field(description="What to do about it.")
    vendor_code: str | None = Field(description="The system's own code.")
    vendor_message: str | None = Field(description="The system's own reason.")
    details: dict[str, Any]
    request_id: str | None = Field(description="Names this request in the log; also the header `X-Request-Id`.")


# -- answers -----------------------------------------------------------------------------------------------------------
class PluginOut(Out):
    """A plug-in: its declaration, and the JSON Schema of its settings."""

    name: str
    title: str
    capabilities: dict[str, list[str]]
    permissions: dict[str, list[str]]
    proof: str
    settings_schema: dict[str, Any]
    secret_fields: list[str]

    @classmethod
    def of(cls, plugin: Plugin) -> PluginOut:
        """Map the declaration."""
        return cls(
            name=plugin.name,
            title=plugin.title,
            capabilities={kind.value: sorted(found) for kind, found in plugin.capabilities.items()},
            permissions={key.value: list(rights) for key, rights in plugin.permissions.items()},
            proof=plugin.proof.value,
            settings_schema=plugin.settings.model_json_schema(),
            secret_fields=sorted(plugin.settings.secret_fields()),
        )


class SystemOut(Out):
    """A system, without its secrets."""

    id: str
    name: str
    plugin: str
    settings: dict[str, Any]
    queue: str
    created_at: datetime
    discovered_at: datetime | None
    labels: dict[str, str]

    @classmethod
    def of(cls, record: SystemRecord, labels: dict[str, str]) -> SystemOut:
        """Map the record."""
        return cls(
            id=record.id,
            name=record.name,
            plugin=record.plugin,
            settings=record.settings,
            queue=record.queue,
            created_at=record.created_at,
            discovered_at=record.discovered_at,
            labels=labels,
        )


class FindingOut(Out):
    """One line of a check."""

    check: str
    outcome: str
    message: str
    next_step: str

    @classmethod
    def of(cls, finding: Finding) -> FindingOut:
        """Map the finding."""
        return cls(
            check=finding.check,
            outcome=finding.outcome.value,
            message=finding.message,
            next_step=finding.next_step,
        )


class AssetOut(Out):
    """An asset; `reference` is its name for people: `system/asset`."""

    id: str
    reference: str
    system: str
    name: str
    kind: str
    parent: str | None
    capabilities: list[str]
    refusals: dict[str, str]
    attributes: dict[str, str]
    snapshots: int
    vendor_id: str
    gone_at: datetime | None
    labels: dict[str, str]

    @classmethod
    def of(cls, record: AssetRecord, labels: dict[str, str]) -> AssetOut:
        """Map the record."""
        asset = record.asset
        return cls(
            id=record.id,
            reference=record.reference,
            system=record.system_name,
            name=asset.name,
            kind=asset.kind.value,
            parent=record.parent_name,
            capabilities=sorted(asset.capabilities),
            refusals={key.value: reason for key, reason in asset.refusals.items()},
            attributes=dict(asset.attributes),
            snapshots=record.snapshots or 0,
            vendor_id=asset.id,
            gone_at=record.gone_at,
            labels=labels,
        )


class SnapshotOut(Out):
    """A snapshot; `reference` is its name for people: `system/asset@snapshot`. Sizes are bytes."""

    id: str
    reference: str
    system: str
    asset: str
    asset_id: str
    name: str
    kind: str
    owned: bool
    created_at: datetime | None
    size_bytes: int | None
    reclaimable_bytes: int | None
    consistency: str | None = Field(description="`crash` or `application`; null where it is not known.")
    quiesced: list[str] = Field(description="Assets that were to be held for it: `system/asset`.")
    consistency_reason: str | None = Field(description="Why it is only crash-consistent although some were to be held.")
    vendor_id: str
    gone_at: datetime | None

    @classmethod
    def of(cls, record: SnapshotRecord) -> SnapshotOut:
        """Map the record."""
        snapshot = record.snapshot
        return cls(
            id=record.id,
            reference=record.reference,
            system=record.system_name,
            asset=record.asset_name,
            asset_id=record.asset_id,
            name=snapshot.name,
            kind=snapshot.kind.value,
            owned=snapshot.owned,
            created_at=snapshot.created_at,
            size_bytes=snapshot.size_bytes,
            reclaimable_bytes=snapshot.reclaimable_bytes,
            consistency=record.consistency,
            quiesced=list(record.quiesced),
            consistency_reason=record.consistency_reason,
            vendor_id=snapshot.id,
            gone_at=record.gone_at,
        )


class LocationOut(Out):
    """A way to reach an export."""

    protocol: str
    source: str
    path: str
    options: dict[str, str]


class ExportOut(Out):
    """An export of a snapshot to a backup host."""

    id: str
    snapshot: str
    snapshot_id: str
    host: str
    address: str
    mode: str
    state: str
    locations: list[LocationOut]
    created_at: datetime
    expires_at: datetime | None
    refresh_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, record: ExportRecord) -> ExportOut:
        """Map the record."""
        export = record.export
        return cls(
            id=record.id,
            snapshot=record.reference,
            snapshot_id=record.snapshot_id,
            host=export.host.name,
            address=export.host.address,
            mode=export.mode.value,
            state=record.state.value,
            locations=[
                LocationOut(
                    protocol=item.protocol.value, source=item.source, path=item.path, options=dict(item.options)
                )
                for item in export.locations
            ],
            created_at=record.created_at,
            expires_at=export.expires_at,
            refresh_at=export.refresh_at,
            ended_at=record.ended_at,
        )


class OperationOut(Out):
    """An operation. `progress` is 0 to 1, null when unknown; `items` counts what was handled so far.

    `items_per_second` is their rate since the begin; `attempt` counts the steps begun: two where all goes well.
    `not_before`: when it begins, of a deletion that is one of many and cools.
    """

    id: str
    kind: str
    system: str
    target: str
    requester: str
    state: str
    phase: str
    progress: float | None
    items: int | None
    items_per_second: float | None
    cancel_requested: bool
    pause_requested: bool
    queue: str
    worker: str | None
    attempt: int
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    not_before: datetime | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, record: OperationRecord, phase: str | None = None) -> OperationOut:
        """Map the record; `phase`: better words than those recorded."""
        return cls(
            id=record.id,
            kind=record.kind,
            system=record.system_name,
            target=record.target,
            requester=record.requester,
            state=record.state.value,
            phase=phase or record.phase,
            progress=record.progress,
            items=record.items,
            items_per_second=_rate(record),
            cancel_requested=record.cancel_requested,
            pause_requested=record.pause_requested,
            queue=record.queue,
            worker=record.worker,
            attempt=record.attempt,
            result=record.result,
            error=record.error,
            not_before=record.not_before,
            created_at=record.created_at,
            started_at=record.started_at,
            ended_at=record.ended_at,
        )


def _rate(record: OperationRecord) -> float | None:
    if not record.items or record.started_at is None:
        return None
    seconds = ((record.ended_at or datetime.now(UTC)) - record.started_at).total_seconds()
    return round(record.items / seconds, 1) if seconds > 0 else None


class WorkerOut(Out):
    """A process that runs operations."""

    name: str
    state: str
    queues: list[str]
    host: str
    pid: int
    version: str
    heartbeat_age_seconds: float
    started_at: datetime
    left_at: datetime | None

    @classmethod
    def of(cls, record: WorkerRecord, takeover_seconds: float) -> WorkerOut:
        """Map the record."""
        return cls(
            name=record.name,
            state=record.state(takeover_seconds).value,
            queues=list(record.queues),
            host=record.host,
            pid=record.pid,
            version=record.version,
            heartbeat_age_seconds=round(record.heartbeat_age, 1),
            started_at=record.started_at,
            left_at=record.left_at,
        )


class ChangeListOut(Out):
    """The head of a change list."""

    id: str
    asset: str
    base: str | None
    new: str
    source: str
    state: str
    entries: int
    summary: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None

    @classmethod
    def of(cls, record: ChangeListRecord) -> ChangeListOut:
        """Map the record."""
        return cls(
            id=record.id,
            asset=record.asset,
            base=record.base_name,
            new=record.new_name,
            source=record.source,
            state=record.state.value,
            entries=record.entries,
            summary=record.summary,
            created_at=record.created_at,
            completed_at=record.completed_at,
        )
