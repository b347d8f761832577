"""What people are told of, over which kinds of channels: pure.

An **event** is something that somebody wants to know of. It becomes a **delivery** for each **channel** that wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

LONGEST = 1024
"""Characters of a text in an event; the rest of a longer one is left out."""


class Event(StrEnum):
    """What a channel can be told of. Names stay; new ones may come."""

    OPERATION_FAILED = "operation.failed"
    BACKUP_PARTIAL = "backup.partial"
    APPROVAL_ASKED = "approval.asked"
    APPROVAL_DECIDED = "approval.decided"
    DELETION_COOLING = "deletion.cooling"
    LOGIN_BRAKED = "login.braked"
    ACCESS_REFUSED = "access.refused"
    AUDIT_DAMAGED = "audit.damaged"
    PROTECTION_CHANGED = "protection.changed"
    CHANNEL_CHANGED = "channel.changed"
    CHANGE_SUSPICIOUS = "change.suspicious"
    PROTECTION_MISSED = "protection.missed"
    PROTECTION_RECOVERED = "protection.recovered"
    POLICY_CHANGED = "policy.changed"
    RETENTION_REFUSED = "retention.refused"


MEANINGS: Mapping[Event, tuple[str, str]] = {
    Event.OPERATION_FAILED: ("An operation has failed, whatever it was to do.", "operation, kind, code"),
    Event.BACKUP_PARTIAL: ("A backup lacks files that could not be read.", "operation, backup"),
    Event.APPROVAL_ASKED: (
        "Somebody asks for what needs the approval of others.",
        "approval, action, needed, expires_at",
    ),
    Event.APPROVAL_DECIDED: ("What needs approval was approved or refused.", "approval, action, state, requester"),
    Event.DELETION_COOLING: ("More is deleted within an hour than begins at once; told once an hour.", "limit"),
    Event.LOGIN_BRAKED: ("So many logins have failed that further ones must wait.", "address, failures"),
    Event.ACCESS_REFUSED: (
        "Somebody was refused so often that his tries are only counted; told once an hour.",
        "source",
    ),
    Event.AUDIT_DAMAGED: ("Somebody else wrote to the audit log: nothing can be changed; told once an hour.", ""),
    Event.PROTECTION_CHANGED: (
        "Four-eyes or the cooling time was changed, or turned off.",
        "enabled; needed, hours and actions, or limit and hours",
    ),
    Event.CHANNEL_CHANGED: ("A channel was changed, turned off or removed; told over the others.", "change"),
    Event.CHANGE_SUSPICIOUS: (
        "What changed on an asset is unusual, as after an attack; its last clean recovery point is held.",
        "operation, asset, reasons, held",
    ),
    Event.PROTECTION_MISSED: (
        "The last good recovery point of an asset is older than its policies promise; told once.",
        "policies, rpo, last_good, last_good_at",
    ),
    Event.PROTECTION_RECOVERED: (
        "An asset of which that was told is protected again as promised.",
        "policies, rpo, last_good, last_good_at",
    ),
    Event.POLICY_CHANGED: ("A policy was added, changed, enabled, disabled or removed.", "change"),
    Event.RETENTION_REFUSED: (
        "Retention would delete more than `delete_at_most`, and waits for a person; told once a day for each policy.",
        "assets, points, most",
    ),
}
"""What each event means, and what is in its details."""


class OwnEvent(StrEnum):
    """What every channel is told of, chosen or not."""

    TEST = "notification.test"
    """Somebody tries whether the channel works."""
    SUMMARY = "notification.summary"
    """More happened than one channel is told of one by one. Details: `count`, `events`, `systems`, `first_at`,
    `last_at`."""
    REPORT = "notification.report"
    """A report that was asked for on this channel alone; it is attached. Details: `report`, `schedule`, `from`, `to`,
    `left_out`."""


class ChannelKind(StrEnum):
    """How a channel reaches people."""

    WEBHOOK = "webhook"
    EMAIL = "email"


class DeliveryState(StrEnum):
    """Where a delivery is in its life."""

    WAITING = "waiting"
    """It is to be sent, or to be sent again."""
    SENT = "sent"
    """The other side has taken it."""
    SUMMARISED = "summarised"
    """There were too many: another delivery tells how many."""
    GIVEN_UP = "given-up"
    """The other side refused it for good, or did not take it in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An event, as it is told. No secret is in it."""

    event: Event | OwnEvent
    message: str
    """One sentence."""
    next_step: str = ""
    system: str | None = None
    """Name of the system that it is about; None: of none."""
    subject: str = ""
    """What it is about, as people call it."""
    actor: str = ""
    """Who has done it, or asked for it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-safe and small."""

    def data(self, server: str) -> dict[str, Any]:
        """Return what is told, as JSON; every text is one line that can be shown anywhere."""
        data = {
            "message": self.message,
            "next_step": self.next_step,
            "system": self.system,
            "subject": self.subject,
            "actor": self.actor,
            "server": server,
            "details": dict(self.details),
        }
        return {name: _plain(value) for name, value in data.items()}


def payload(event: str, at: datetime, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a webhook gets: the form of the Standard Webhooks specification."""
    return {"type": event, "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"), "data": dict(data)}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {one_line(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def one_line(text: str) -> str:
    """Return a text without anything that breaks lines or is no character."""
    shown = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii") for char in shown
    )
