"""Rows as frozen dataclasses: what queries return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from snapkeep.model.access import IdentityKind
from snapkeep.model.approvals import ApprovalState
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.exports import AccessMode, BackupHost, Export, Location, Protocol
from snapkeep.model.protections import LockMode, ProtectionKind
from snapkeep.model.snapshots import Consistency, Snapshot, SnapshotKind


class OperationState(StrEnum):
    """Where an operation is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """True when nothing will change any more."""
        return self not in {OperationState.QUEUED, OperationState.RUNNING, OperationState.PAUSED}


class ExportState(StrEnum):
    """Where an export is in its life."""

    OPENING = "opening"
    ACTIVE = "active"
    ENDED = "ended"


class ChangeListState(StrEnum):
    """Whether a change list may be trusted."""

    COMPUTING = "computing"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemRecord:
    """A configured system; its secrets stay sealed."""

    id: str
    name: str
    plugin: str
    settings: dict[str, Any]
    queue: str
    revision: int
    created_at: datetime
    discovered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRecord:
    """A user or a service account. `password` is a hash, None where there is none.

    `issuer` and `subject`: as whom an identity provider knows this user, who logs in there and has no password.
    """

    id: str
    name: str
    kind: IdentityKind
    password: str | None
    disabled: bool
    created_at: datetime
    issuer: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """A role that somebody has within a scope."""

    id: str
    role: str
    scope: str
    granted_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class GroupGrant:
    """What an identity provider's group gives: a role within a scope."""

    group: str
    role: str
    scope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderRecord:
    """An identity provider (OpenID Connect), without its secret.

    `allowed_groups`: who may log in, empty: all whom it knows. `ca`: PEM of its authority, None: the machine's own.
    """

    id: str
    name: str
    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    name_claim: str
    groups_claim: str
    allowed_groups: tuple[str, ...]
    grants: tuple[GroupGrant, ...]
    ca: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LoginRecord:
    """A login with a provider that is under way, with what is to be kept secret of it.

    `seconds`: how often the provider may be asked about it, where it has to be asked.
    """

    id: str
    provider_id: str
    secrets: Mapping[str, str]
    seconds: int | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRecord:
    """A named set of actions."""

    name: str
    description: str
    actions: tuple[str, ...]
    built_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token with whose it is; the token itself is nowhere.

    `kind`: api, or session for one that a login gave. `limits`: (role, scope), None where it is not narrowed.
    """

    id: str
    identity_id: str
    identity_name: str
    identity_kind: IdentityKind
    disabled: bool
    name: str
    kind: str
    limits: tuple[tuple[str, str], ...] | None
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetRecord:
    """An asset as last seen."""

    id: str
    system_id: str
    system_name: str
    asset: Asset
    parent_name: str | None
    snapshots: int | None
    """Number of its snapshots; None where they were not counted."""
    gone_at: datetime | None

    @property
    def reference(self) -> str:
        """The name by which people call it: `system/asset`."""
        return f"{self.system_name}/{self.asset.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRecord:
    """A snapshot as last seen."""

    id: str
    system_id: str
    system_name: str
    asset_id: str
    asset_name: str
    snapshot: Snapshot
    consistency: Consistency | None
    """None where it is not known: somebody else made it."""
    quiesced: tuple[str, ...]
    """What was to be held for it, by its names: `system/asset`."""
    consistency_reason: str | None
    """Why it is only crash-consistent although something was to be held."""
    seen_by: str
    gone_at: datetime | None

    @property
    def reference(self) -> str:
        """The name by which people call it: `system/asset@snapshot`."""
        return f"{self.system_name}/{self.asset_name}@{self.snapshot.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """An export, in force or ended. `snapshot` and `asset` of `export` are the system's own ids."""

    id: str
    system_id: str
    snapshot_id: str
    reference: str
    export: Export
    state: ExportState
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRecord:
    """A repository of backups; its password and keys stay sealed."""

    id: str
    name: str
    location: str
    restic_id: str
    """The repository's own id, 64 hexadecimal digits."""
    queue: str
    """Workers that serve it can reach the repository, and mount exports."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRecord:
    """A recovery point in a repository."""

    id: str
    repository_id: str
    repository_name: str
    asset_id: str
    system_name: str
    asset_name: str
    snapshot_id: str
    snapshot_name: str
    snapshot_at: datetime | None
    operation_id: str
    restic_id: str
    """Id of restic's snapshot, 64 hexadecimal digits."""
    tree_id: str
    parent_id: str | None
    """The recovery point on which this one was built."""
    mode: str
    reason: str | None
    """Why everything was walked although there was a parent."""
    partial: bool
    counts: dict[str, Any]
    verification: dict[str, Any] | None
    created_at: datetime

    @property
    def reference(self) -> str:
        """The name of what it was made from: `system/asset@snapshot`."""
        return f"{self.system_name}/{self.asset_name}@{self.snapshot_name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRecord:
    """Where the next incremental backup of an asset into a repository starts."""

    asset_id: str
    repository_id: str
    repository_name: str
    backup_id: str
    snapshot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtectionRecord:
    """A hold or a lock, of a snapshot or of a recovery point."""

    id: str
    snapshot_id: str | None
    backup_id: str | None
    system_name: str
    system_id: str | None
    asset_id: str
    repository_name: str | None
    reference: str
    """The name of what it keeps, or from which that was made: `system/asset@snapshot`."""
    kind: ProtectionKind
    mode: LockMode | None
    """Of a lock."""
    until: datetime | None
    """None: without an end."""
    reason: str
    placed_by: str
    placed_at: datetime
    in_force: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody thinks of what another one asks for."""

    by: str
    at: datetime
    approves: bool
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """A request of one person that others have to approve."""

    id: str
    action: str
    subject: str
    method: str
    path: str
    query: str
    digest: str
    """Of all that is sent: SHA-256, hexadecimal."""
    body: str
    hidden: bool
    """Whether something of the body is not shown: it is secret, or too long."""
    requester: str
    needed: int
    decisions: tuple[Decision, ...]
    state: ApprovalState
    """As it is stored; one that waits may have expired."""
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRecord:
    """One durable piece of work."""

    id: str
    kind: str
    system_id: str
    system_name: str
    asset_id: str | None
    target: str
    request: dict[str, Any]
    digest: bytes | None
    """Of the request that came with a key."""
    requester: str
    state: OperationState
    phase: str
    progress: float | None
    items: int | None
    cursor: str | None
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    cancel_requested: bool
    pause_requested: bool
    queue: str
    worker: str | None
    attempt: int
    generation: int
    exclusive: str | None
    turn: str | None
    not_before: datetime | None = None
    """It begins no sooner."""
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class WorkerState(StrEnum):
    """Whether a worker works."""

    ALIVE = "alive"
    DEAD = "dead"
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A process that runs operations.

    `place`: the machine since its boot, and the namespace of process ids in it. `heartbeat_age`: seconds, by the clock
    of the database.
    """

    name: str
    incarnation: str
    queues: tuple[str, ...]
    host: str
    place: str
    pid: int
    version: str
    started_at: datetime
    heartbeat_at: datetime
    heartbeat_age: float
    left_at: datetime | None
    cleared: bool

    def state(self, takeover_seconds: float) -> WorkerState:
        """Say whether it works; without a heartbeat for `takeover_seconds` it is held to be dead."""
        if self.left_at is not None:
            return WorkerState.LEFT
        # Its age is negative when the clock was set back: a sign from the future says nothing about now.
        return WorkerState.DEAD if abs(self.heartbeat_age) > takeover_seconds else WorkerState.ALIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeListRecord:
    """The head of a change list; its entries are in blocks."""

    id: str
    asset_id: str
    base_id: str | None
    new_id: str
    base_name: str | None
    new_name: str
    asset: str
    source: str
    state: ChangeListState
    cursor: str | None
    entries: int
    summary: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None


def asset_from_row(row: Any) -> Asset:
    """Make the noun again from its row."""
    return Asset(
        id=row.vendor_id,
        kind=AssetKind(row.kind),
        name=row.name,
        parent_id=row.parent_vendor_id,
        capabilities=frozenset(Capability(value) for value in row.capabilities),
        refusals={Capability(key): value for key, value in row.refusals.items()},
        attributes=row.attributes,
    )


def snapshot_from_row(row: Any, asset_vendor_id: str) -> Snapshot:
    """Make the noun again from its row."""
    return Snapshot(
        id=row.vendor_id,
        asset_id=asset_vendor_id,
        name=row.name,
        kind=SnapshotKind(row.kind),
        owned=row.owned,
        created_at=row.created_at,
        size_bytes=row.size_bytes,
        reclaimable_bytes=row.reclaimable_bytes,
    )


def export_from_row(row: Any, snapshot_vendor_id: str, asset_vendor_id: str) -> Export:
    """Make the noun again from its row."""
    return Export(
        snapshot_id=snapshot_vendor_id,
        asset_id=asset_vendor_id,
        host=BackupHost(name=row.host_name, address=row.host_address),
        mode=AccessMode(row.mode),
        locations=tuple(
            Location(
                protocol=Protocol(item["protocol"]),
                path=item["path"],
                source=item["source"],
                live=item.get("live"),  # not in rows of older versions
                options=item["options"],
            )
            for item in row.locations
        ),
        expires_at=row.expires_at,
        refresh_at=row.refresh_at,
    )
