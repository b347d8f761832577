"""Who may do what, where: pure. Nothing is allowed that no grant allows.

A **grant** gives a **role**, which is a set of **actions**, within a **scope**. Somebody may do an action on a subject
when one of his grants has the action and a scope that holds the subject; a token can narrow that further, never widen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from snapkeep.model.errors import InvalidInput


class Action(StrEnum):
    """What can be allowed. The part before the dot says on what."""

    PLUGIN_READ = "plugin.read"
    SYSTEM_READ = "system.read"
    SYSTEM_ADD = "system.add"
    SYSTEM_CHANGE = "system.change"
    """Its settings, secrets, queue and labels."""
    SYSTEM_REMOVE = "system.remove"
    SYSTEM_CHECK = "system.check"
    SYSTEM_DISCOVER = "system.discover"
    SYSTEM_RECONCILE = "system.reconcile"
    ASSET_READ = "asset.read"
    ASSET_LABEL = "asset.label"
    SNAPSHOT_READ = "snapshot.read"
    SNAPSHOT_CREATE = "snapshot.create"
    SNAPSHOT_DELETE = "snapshot.delete"
    SNAPSHOT_RESTORE = "snapshot.restore"
    SNAPSHOT_CLONE = "snapshot.clone"
    EXPORT_READ = "export.read"
    EXPORT_OPEN = "export.open"
    EXPORT_CLOSE = "export.close"
    """Deport."""
    CHANGE_LIST_READ = "change-list.read"
    """Names of files are in there."""
    CHANGE_LIST_CREATE = "change-list.create"
    SIGNAL_READ = "signal.read"
    """What was thought of change lists; no names of files are in there."""
    SIGNAL_ACKNOWLEDGE = "signal.acknowledge"
    """Say that suspicious changes are harmless."""
    BACKUP_READ = "backup.read"
    BACKUP_CREATE = "backup.create"
    BACKUP_FORGET = "backup.forget"
    BACKUP_CONTENT = "backup.content"
    """Names and contents of the files in it."""
    BACKUP_RESTORE = "backup.restore"
    """To a directory of a backup host."""
    BACKUP_PUT_BACK = "backup.put-back"
    """Over what the asset holds."""
    PROTECTION_READ = "protection.read"
    """Holds and locks."""
    HOLD_PLACE = "hold.place"
    HOLD_RELEASE = "hold.release"
    LOCK_PLACE = "lock.place"
    """Also: move its end on."""
    LOCK_SHORTEN = "lock.shorten"
    """Of governance; a compliance lock is shortened by nobody."""
    REPOSITORY_READ = "repository.read"
    REPOSITORY_USE = "repository.use"
    """Back up into it."""
    REPOSITORY_ADD = "repository.add"
    REPOSITORY_REMOVE = "repository.remove"
    REPOSITORY_CHECK = "repository.check"
    POLICY_READ = "policy.read"
    """Also their plans, and what is covered."""
    POLICY_CHANGE = "policy.change"
    """Apply, enable, disable and remove."""
    POLICY_PRUNE = "policy.prune"
    """Delete what a plan says."""
    OPERATION_READ = "operation.read"
    OPERATION_CONTROL = "operation.control"
    """Cancel, pause and resume; to retry one needs the action itself."""
    WORKER_READ = "worker.read"
    PROGRAM_RUN = "program.run"
    """Name programs of a worker's own, in requests and policies; only for everything, never for a part."""
    METRICS_READ = "metrics.read"
    AUDIT_READ = "audit.read"
    IDENTITY_READ = "identity.read"
    IDENTITY_MANAGE = "identity.manage"
    """Users, service accounts, roles and grants; nobody changes his own."""
    APPROVAL_DECIDE = "approval.decide"
    """About what others ask for, as a user; only for everything, never for a part."""
    FOUR_EYES_CHANGE = "four-eyes.change"
    """What needs the approval of others, and of how many."""
    COOLING_CHANGE = "cooling.change"
    """How many deletions begin at once."""
    KEY_ROTATE = "key.rotate"
    NOTIFICATION_READ = "notification.read"
    """Channels, and what was told over them."""
    NOTIFICATION_MANAGE = "notification.manage"
    """Add, change, try and remove channels."""
    REPORT_READ = "report.read"
    """What is covered, what there is and what was done, in one document; within a scope, what lies in it."""
    REPORT_SCHEDULE = "report.schedule"
    """Have reports sent: they show everything, wherever the channel leads."""


class ScopeKind(StrEnum):
    """By what a scope picks its subjects."""

    ALL = "all"
    SYSTEM = "system"
    ASSET = "asset"
    LABEL = "label"
    REPOSITORY = "repository"


LABEL_FORM = re.compile(r"[a-z0-9]([a-z0-9._/-]{0,61}[a-z0-9])?=[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
"""KEY=VALUE of a label."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which subjects a grant holds for: `all`, or a kind and a value, as in `system:files1`."""

    kind: ScopeKind
    value: str = ""
    """Name of a system or repository, id of an asset, `KEY=VALUE` of a label."""

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind.value

    @classmethod
    def parse(cls, text: str) -> Scope:
        """Read one from text. Raises InvalidInput."""
        kind, _, value = text.partition(":")
        known = kind in set(ScopeKind)
        if not known or (kind == ScopeKind.ALL) != (not value) or len(text) > 300 or not text.isprintable():
            raise InvalidInput(
                f"{text!r:.120} is no scope",
                next_step="Use all, system:NAME, asset:ID, label:KEY=VALUE or repository:NAME.",
            )
        if kind == ScopeKind.LABEL and not LABEL_FORM.fullmatch(value):
            raise InvalidInput(f"{value!r:.120} is no label", next_step="Use label:KEY=VALUE, such as label:env=prod.")
        return cls(ScopeKind(kind), value)

    def holds(self, subject: Subject) -> bool:
        """Say whether a subject lies in it."""
        match self.kind:
            case ScopeKind.ALL:
                return True
            case ScopeKind.SYSTEM:
                return subject.system == self.value
            case ScopeKind.ASSET:
                return subject.asset == self.value
            case ScopeKind.REPOSITORY:
                return subject.repository == self.value
            case ScopeKind.LABEL:
                return self.value in subject.labels


EVERYWHERE = Scope(ScopeKind.ALL)

Visible = tuple[tuple[Scope, ...], ...]
"""Of what somebody may see: all that lies in each scope of one of these."""
ALL_VISIBLE: Visible = ((EVERYWHERE,),)


@dataclass(frozen=True, slots=True)
class Subject:
    """On what something is done. The whole installation has none of these; only the scope `all` holds it."""

    system: str | None = None
    """Its name."""
    asset: str | None = None
    """Its id."""
    repository: str | None = None
    """Its name."""
    labels: frozenset[str] = frozenset()
    """`KEY=VALUE`, of the asset and of its system."""


INSTALLATION = Subject()


@dataclass(frozen=True, slots=True)
class Grant:
    """A role within a scope."""

    role: str
    actions: frozenset[str]
    scope: Scope

    def allows(self, action: Action, subject: Subject) -> bool:
        """Say whether it allows an action on a subject."""
        return action in self.actions and self.scope.holds(subject)


class IdentityKind(StrEnum):
    """What somebody is."""

    USER = "user"
    """A person, who logs in."""
    SERVICE = "service"
    """A program, which has tokens alone."""
    LOCAL = "local"
    """Who can read the token in the data directory."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose identity was proved."""

    name: str
    kind: IdentityKind
    grants: tuple[Grant, ...]
    limits: tuple[Grant, ...] | None = None
    """What a token was narrowed to; None: not at all."""
    token_id: str | None = None
    is_session: bool = False
    """Whether it is a person who has logged in, and no token that anything may hold."""

    def may(self, action: Action, subject: Subject = INSTALLATION) -> bool:
        """Say whether an action on a subject is allowed."""
        granted = any(grant.allows(action, subject) for grant in self.grants)
        return granted and (self.limits is None or any(limit.allows(action, subject) for limit in self.limits))

    @property
    def goes_by_labels(self) -> bool:
        """Whether labels decide about what is allowed."""
        return any(grant.scope.kind is ScopeKind.LABEL for grant in (*self.grants, *(self.limits or ())))

    def visible(self, action: Action) -> Visible:
        """Return where an action is allowed; empty: nowhere."""
        scopes = {grant.scope for grant in self.grants if action in grant.actions}
        if self.limits is None:
            return tuple((scope,) for scope in sorted(scopes, key=str))
        narrowed = {limit.scope for limit in self.limits if action in limit.actions}
        return tuple((scope, other) for scope in sorted(scopes, key=str) for other in sorted(narrowed, key=str))


def _reads(*more: Action) -> frozenset[str]:
    reads = {
        Action.PLUGIN_READ, Action.SYSTEM_READ, Action.ASSET_READ, Action.SNAPSHOT_READ, Action.EXPORT_READ,
        Action.BACKUP_READ, Action.PROTECTION_READ, Action.REPOSITORY_READ, Action.OPERATION_READ, Action.WORKER_READ,
        Action.METRICS_READ, Action.POLICY_READ, Action.SIGNAL_READ, Action.REPORT_READ,
    }  # fmt: skip
    return frozenset(reads | set(more))


_OPERATES = (
    Action.SYSTEM_CHECK, Action.SYSTEM_DISCOVER, Action.SNAPSHOT_CREATE, Action.EXPORT_OPEN, Action.EXPORT_CLOSE,
    Action.CHANGE_LIST_READ, Action.CHANGE_LIST_CREATE, Action.BACKUP_CREATE, Action.REPOSITORY_USE,
    Action.REPOSITORY_CHECK, Action.OPERATION_CONTROL, Action.HOLD_PLACE,
)  # fmt: skip
_RESTORES = (
    Action.SNAPSHOT_CREATE, Action.SNAPSHOT_RESTORE, Action.SNAPSHOT_CLONE, Action.CHANGE_LIST_READ,
    Action.BACKUP_CONTENT, Action.BACKUP_RESTORE, Action.BACKUP_PUT_BACK, Action.OPERATION_CONTROL,
)  # fmt: skip
_OFFICE = (
    Action.AUDIT_READ, Action.IDENTITY_READ, Action.IDENTITY_MANAGE, Action.KEY_ROTATE, Action.HOLD_RELEASE,
    Action.LOCK_SHORTEN, Action.FOUR_EYES_CHANGE, Action.COOLING_CHANGE,
)  # fmt: skip
"""What no administrator may do."""
_PROTECTS = (Action.HOLD_PLACE, Action.LOCK_PLACE, Action.APPROVAL_DECIDE, Action.SIGNAL_ACKNOWLEDGE)
_TELLS = (Action.NOTIFICATION_READ, Action.NOTIFICATION_MANAGE)

ROLES: Mapping[str, tuple[str, frozenset[str]]] = {
    "viewer": ("Sees what there is, but no names of files.", _reads()),
    "operator": ("Takes snapshots, compares, exports and backs up; destroys and restores nothing.", _reads(*_OPERATES)),
    "restorer": ("Reads backups and restores.", _reads(*_RESTORES)),
    "administrator": (
        "Does everything with systems, snapshots and backups; decides nothing about people, and lets go of no hold.",
        frozenset(set(Action) - set(_OFFICE)),
    ),
    "security-officer": (
        "Decides about people, roles, keys, holds and locks; touches no data.",
        _reads(*_OFFICE, *_PROTECTS, *_TELLS),
    ),
    "auditor": ("Sees what there is, who may do what, and what was done.",
                _reads(Action.AUDIT_READ, Action.IDENTITY_READ, Action.NOTIFICATION_READ)),
}  # fmt: skip
"""The roles that are always there: description and actions."""

EVERYTHING = frozenset(Action)
