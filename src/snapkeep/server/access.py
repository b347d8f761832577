"""What a caller may do: each route declares its action, and gets what it is about only when that is allowed.

A route takes its record from a dependency such as `on_snapshot(Action.SNAPSHOT_DELETE)`, which loads it and decides.
Who may not even read it is told that there is no such thing. `actions_of` tells what a route has declared; the
application refuses to start with a route that has declared nothing. What is allowed but needs the approval of others is
held back here, too: so no route can forget it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant

from snapkeep.catalog.operation_lists import REPOSITORY
from snapkeep.catalog.records import (
    AssetRecord,
    BackupRecord,
    ChangeListRecord,
    ExportRecord,
    OperationRecord,
    ProtectionRecord,
    RepositoryRecord,
    SnapshotRecord,
    SystemRecord,
)
from snapkeep.catalog.signals import SignalRecord
from snapkeep.model.access import INSTALLATION, Action, Principal, Subject, Visible
from snapkeep.model.errors import NotFound, PermissionDenied
from snapkeep.model.programs import Programs
from snapkeep.model.protections import ProtectionKind
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Context, Parts
from snapkeep.server.four_eyes import require_approval

T = TypeVar("T")
AnyRecord = (
    SystemRecord
    | AssetRecord
    | SnapshotRecord
    | ExportRecord
    | ChangeListRecord
    | BackupRecord
    | RepositoryRecord
    | OperationRecord
    | ProtectionRecord
    | SignalRecord
)

_READS: dict[type, tuple[Action, str]] = {
    SystemRecord: (Action.SYSTEM_READ, "system list"),
    AssetRecord: (Action.ASSET_READ, "asset list"),
    SnapshotRecord: (Action.SNAPSHOT_READ, "snapshot list"),
    ExportRecord: (Action.EXPORT_READ, "export list"),
    ChangeListRecord: (Action.CHANGE_LIST_READ, "operation list"),
    BackupRecord: (Action.BACKUP_READ, "backup list"),
    RepositoryRecord: (Action.REPOSITORY_READ, "repository list"),
    OperationRecord: (Action.OPERATION_READ, "operation list"),
    ProtectionRecord: (Action.PROTECTION_READ, "hold list"),
    SignalRecord: (Action.SIGNAL_READ, "signal list"),
}
"""What one must be allowed to know that a record is there, and where those are listed."""

BY_KIND = {
    "discover": Action.SYSTEM_DISCOVER,
    "reconcile": Action.SYSTEM_RECONCILE,
    "create": Action.SNAPSHOT_CREATE,
    "delete": Action.SNAPSHOT_DELETE,
    "restore": Action.SNAPSHOT_RESTORE,
    "clone": Action.SNAPSHOT_CLONE,
    "export": Action.EXPORT_OPEN,
    "deport": Action.EXPORT_CLOSE,
    "diff": Action.CHANGE_LIST_CREATE,
    "compare": Action.CHANGE_LIST_CREATE,
    "backup": Action.BACKUP_CREATE,
    "recover": Action.BACKUP_RESTORE,
    "check": Action.REPOSITORY_CHECK,
    "verify": Action.REPOSITORY_CHECK,
    "drill": Action.BACKUP_RESTORE,
}
"""What one must be allowed to ask for an operation, by its kind."""


class Access:
    """What the caller of one request may do."""

    def __init__(self, request: Request, parts: Context, principal: Principal) -> None:
        self.principal = principal
        self._request = request
        self._parts = parts
        self._approved = False

    def require_anywhere(self, action: Action) -> Visible:
        """Return where an action is allowed. Raises PermissionDenied when that is nowhere."""
        self._tried(action, "")
        visible = self.principal.visible(action)
        if not visible:
            raise denied(action, self.principal)
        return visible

    async def require(self, action: Action) -> None:
        """Raise PermissionDenied unless an action is allowed for the whole installation, ApprovalRequired."""
        self._tried(action, "")
        if not self.principal.may(action):
            raise denied(action, self.principal)
        await self._require_approval(action, "")

    async def require_on(self, action: Action, record: AnyRecord) -> None:
        """Raise PermissionDenied unless an action on this is allowed; NotFound for who may not even know it.

        Raises ApprovalRequired where nobody may do it alone.
        """
        reads, _ = _READS[type(record)]
        self._tried(action, name_of(record))
        subject = await self.subject_of(record)
        if not self.principal.may(action, subject):
            if self.principal.may(reads, subject):
                raise denied(action, self.principal)
            self._request.state.hidden = True  # for the audit log: it is there
            raise NotFound(f"There is no {_noun(type(record))} of this id")
        await self._require_approval(action, name_of(record))

    async def _require_approval(self, action: Action, subject: str) -> None:
        """Ask for a second person, once for all that one request needs: it was approved as a whole."""
        if not self._approved:
            request, parts = self._request, self._parts
            self._approved = await require_approval(request, parts, self.principal, action, subject)

    async def quiesced(self, asset_ids: Sequence[str]) -> list[AssetRecord]:
        """Return the assets that are to be held for a snapshot: who may take snapshots of them may hold them."""
        get = self._parts.catalog.inventory.asset
        return [await _found(self, Action.SNAPSHOT_CREATE, AssetRecord, get(found), found) for found in asset_ids]

    async def programs(self, named: Programs) -> Programs:
        """Return programs that a request names, if the caller may have programs run on workers, which serve all."""
        if named.names:
            await self.require(Action.PROGRAM_RUN)
        return named

    async def program(self, name: str | None) -> None:
        """Raise PermissionDenied when a program is named, and the caller may not have programs run on workers."""
        if name is not None:
            await self.require(Action.PROGRAM_RUN)

    async def snapshot(self, snapshot_id: str, action: Action) -> SnapshotRecord:
        """Return a snapshot that a request names, if the action on it is allowed. Raises as `require_on`."""
        getting = self._parts.catalog.inventory.snapshot(snapshot_id)
        return await _found(self, action, SnapshotRecord, getting, snapshot_id)

    async def repository(self, name: str, action: Action) -> RepositoryRecord:
        """Return a repository that a request names, if the action on it is allowed. Raises as `require_on`."""
        return await _found(self, action, RepositoryRecord, self._parts.catalog.repositories.get(name), name)

    async def subject_of(self, record: AnyRecord) -> Subject:
        """Return what decides about a record. Labels are read only for who has a grant that goes by them."""
        system_id: str | None = None
        subject = INSTALLATION
        match record:
            case SystemRecord():
                system_id, subject = record.id, Subject(record.name)
            case AssetRecord():
                system_id, subject = record.system_id, Subject(record.system_name, record.id)
            case SnapshotRecord():
                system_id, subject = record.system_id, Subject(record.system_name, record.asset_id)
            case ExportRecord():
                snapshot = await self._parts.catalog.inventory.snapshot(record.snapshot_id)
                return await self.subject_of(snapshot)
            case ChangeListRecord():
                return await self.subject_of(await self._parts.catalog.inventory.asset(record.asset_id))
            case RepositoryRecord():
                subject = Subject(repository=record.name)
            case BackupRecord():
                subject = Subject(record.system_name, record.asset_id, record.repository_name)
                if self.principal.goes_by_labels:
                    system_id = await self._system_id(record.system_name)
            case OperationRecord():
                of_repository = record.system_name.startswith(REPOSITORY)
                found = (await self._parts.catalog.operations.seen_by([record])).get(record.id)
                system_id, system = found or (None, None)
                repository = record.system_name.removeprefix(REPOSITORY) if of_repository else None
                subject = Subject(system, record.asset_id, repository)
            case ProtectionRecord():
                system_id = record.system_id
                subject = Subject(record.system_name, record.asset_id, record.repository_name)
            case SignalRecord():
                system_id = record.system_id
                subject = Subject(record.system_name, record.asset_id, record.repository_name)
        if not self.principal.goes_by_labels:
            return subject
        ids = [found for found in (system_id, subject.asset) if found is not None]
        labels = (await self._parts.catalog.identities.labels_of(ids)).values()
        pairs = frozenset(f"{key}={value}" for found in labels for key, value in found.items())
        return Subject(subject.system, subject.asset, subject.repository, pairs)

    async def _system_id(self, name: str) -> str | None:
        try:
            return (await self._parts.catalog.systems.get(name)).id
        except NotFound:
            return None

    def _tried(self, action: Action, subject: str) -> None:
        """Leave for the audit log what this request is about: the first thing that it asks for."""
        state = self._request.state
        if not getattr(state, "subject", ""):
            state.action, state.subject = action.value, subject


def get_access(request: Request, parts: Parts, principal: Caller) -> Access:
    """Return what the caller may do."""
    return Access(request, parts, principal)


Allowed = Annotated[Access, Depends(get_access)]


# -- what routes declare -----------------------------------------------------------------------------------------------
ANYBODY = "anybody"
"""Declared by routes that need no token."""
ANYONE_KNOWN = "authenticated"
"""Declared by routes for all whose identity is proved: they are about the caller himself."""


def _declare(dependency: Callable[..., Any], *actions: str) -> Any:
    _DECLARED[dependency] = actions
    return Depends(dependency)


_DECLARED: dict[Any, tuple[str, ...]] = {}


def actions_of(dependant: Dependant) -> set[str]:
    """Return what a route has declared, by its dependencies."""
    found = set(_DECLARED.get(dependant.call, ()))
    return found.union(*map(actions_of, dependant.dependencies))


def for_anybody() -> Any:
    """Declare a route that needs no token."""

    async def nothing() -> None:
        pass

    return _declare(nothing, ANYBODY)


def for_anyone_known() -> Any:
    """Declare a route that everybody may use whose identity is proved."""

    async def known(principal: Caller) -> Principal:
        return principal

    return _declare(known, ANYONE_KNOWN)


def allow(action: Action) -> Any:
    """Declare an action on the whole installation."""

    async def allowed(access: Allowed) -> Access:
        await access.require(action)
        return access

    return _declare(allowed, action)


def listed(action: Action) -> Any:
    """Declare a list: it shows where the action is allowed."""

    async def visible(access: Allowed) -> Visible:
        return access.require_anywhere(action)

    return _declare(visible, action)


def on_system(action: Action) -> Any:
    """Declare an action on the system whose `name` is in the path."""

    async def system(name: str, parts: Parts, access: Allowed) -> SystemRecord:
        return await _found(access, action, SystemRecord, parts.catalog.systems.get(name), name)

    return _declare(system, action)


def on_asset(action: Action, *, counted: bool = False) -> Any:
    """Declare an action on the asset `asset_id`."""

    async def asset(asset_id: str, parts: Parts, access: Allowed) -> AssetRecord:
        getting = parts.catalog.inventory.asset(asset_id, counted=counted)
        return await _found(access, action, AssetRecord, getting, asset_id)

    return _declare(asset, action)


def on_snapshot(action: Action) -> Any:
    """Declare an action on the snapshot `snapshot_id`."""

    async def snapshot(snapshot_id: str, parts: Parts, access: Allowed) -> SnapshotRecord:
        return await _found(access, action, SnapshotRecord, parts.catalog.inventory.snapshot(snapshot_id), snapshot_id)

    return _declare(snapshot, action)


def on_export(action: Action) -> Any:
    """Declare an action on the export `export_id`."""

    async def export(export_id: str, parts: Parts, access: Allowed) -> ExportRecord:
        return await _found(access, action, ExportRecord, parts.catalog.exports.get(export_id), export_id)

    return _declare(export, action)


def on_change_list(action: Action) -> Any:
    """Declare an action on the change list `list_id`."""

    async def change_list(list_id: str, parts: Parts, access: Allowed) -> ChangeListRecord:
        return await _found(access, action, ChangeListRecord, parts.catalog.change_lists.get(list_id), list_id)

    return _declare(change_list, action)


def on_repository(action: Action) -> Any:
    """Declare an action on the repository whose `name` is in the path."""

    async def repository(name: str, parts: Parts, access: Allowed) -> RepositoryRecord:
        return await _found(access, action, RepositoryRecord, parts.catalog.repositories.get(name), name)

    return _declare(repository, action)


def on_backup(*actions: Action) -> Any:
    """Declare an action on the recovery point `backup_id`; of several, the route itself requires one."""

    async def backup(backup_id: str, parts: Parts, access: Allowed) -> BackupRecord:
        first = actions[0] if len(actions) == 1 else Action.BACKUP_READ
        return await _found(
            access,
            first,
            BackupRecord,
            parts.catalog.backups.get(backup_id, access.principal.visible(Action.BACKUP_READ)),
            backup_id,
        )

    return _declare(backup, *actions)


def on_operation(action: Action) -> Any:
    """Declare an action on the operation `operation_id`."""

    async def operation(operation_id: str, parts: Parts, access: Allowed) -> OperationRecord:
        return await _found(
            access,
            action,
            OperationRecord,
            parts.catalog.operations.get(operation_id, access.principal.visible(Action.OPERATION_READ)),
            operation_id,
        )

    return _declare(operation, action)


def on_protection(action: Action, kind: ProtectionKind | None = None) -> Any:
    """Declare an action on the hold or lock `protection_id`."""

    async def protection(protection_id: str, parts: Parts, access: Allowed) -> ProtectionRecord:
        visible = access.principal.visible(Action.PROTECTION_READ)
        getting = parts.catalog.protections.get(protection_id, visible, kind)
        return await _found(access, action, ProtectionRecord, getting, protection_id)

    return _declare(protection, action)


def on_signal(action: Action) -> Any:
    """Declare an action on the signal of the operation `operation_id`."""

    async def signal(operation_id: str, parts: Parts, access: Allowed) -> SignalRecord:
        getting = parts.catalog.signals.get(operation_id, access.principal.visible(Action.SIGNAL_READ))
        return await _found(access, action, SignalRecord, getting, operation_id)

    return _declare(signal, action)


async def _found(access: Access, action: Action, kind: type[T], getting: Awaitable[T], wanted: str) -> T:
    """Return what is there and allowed. What is hidden is answered as what is not there, word by word."""
    visible = access.principal.visible(action) or access.principal.visible(_READS[kind][0])
    if not visible:  # before anything is looked up: it would tell what exists
        if hasattr(getting, "close"):
            getting.close()
        access.require_anywhere(action)
    try:
        record = await getting
        await access.require_on(action, record)  # type: ignore[arg-type]
    except NotFound as error:
        raise NotFound(
            f"There is no {_noun(kind)} {wanted!r:.300}", next_step=f"See `snapkeep {_READS[kind][1]}`."
        ) from error
    return record


def _noun(kind: type) -> str:
    words = {ChangeListRecord: "change list", BackupRecord: "recovery point", ProtectionRecord: "hold or lock"}
    return words.get(kind, kind.__name__.removesuffix("Record").lower())


def denied(action: str, principal: Principal) -> PermissionDenied:
    """Return the error for what somebody may not do."""
    return PermissionDenied(
        f"{principal.name!r} may not do this: {action}",
        needed=action,
        next_step=f"Ask a security officer for a role that has {action} where you need it; `snapkeep whoami` shows "
        "yours.",
    )


def name_of(record: AnyRecord) -> str:
    """Return how people call a record."""
    match record:
        case SystemRecord() | RepositoryRecord():
            return record.name
        case AssetRecord() | SnapshotRecord() | ExportRecord() | BackupRecord():
            return record.reference
        case SignalRecord():
            return f"signal of {record.reference}"
        case ChangeListRecord():
            return f"change list {record.id}"
        case ProtectionRecord():
            return f"{record.kind} of {record.reference}"
        case OperationRecord():
            return f"{record.kind} {record.target}"
