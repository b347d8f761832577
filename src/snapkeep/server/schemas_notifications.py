"""The JSON of channels and deliveries, and of what a webhook gets."""

from __future__ import annotations

from datetime import datetime
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, SecretStr, Tag, model_validator

from snapkeep.catalog.channels import ChannelRecord
from snapkeep.catalog.deliveries import DeliveryRecord
from snapkeep.model.notifications import DeliveryState, Event
from snapkeep.server.schemas import In, Out, SystemName
from snapkeep.server.schemas_backups import SecretReference


def _absolute(value: str) -> str:
    if not PurePosixPath(value).is_absolute() or "\0" in value:
        raise ValueError("must be an absolute path")
    return value


CaFile = Annotated[
    Annotated[str, Field(max_length=4096), AfterValidator(_absolute)] | None,
    Field(description="PEM file of the server with the authority to trust, instead of the machine's own."),
]
Mailbox = Annotated[str, Field(pattern=r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,252})$")]
Secret = Annotated[SecretStr, Field(min_length=1, max_length=4096)] | SecretReference
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


# -- requests ----------------------------------------------------------------------------------------------------------
class WebhookIn(In):
    """A webhook: each event is sent to an address by POST, signed."""

    kind: Literal["webhook"]
    url: Secret = Field(
        description="https://…, or http:// to this machine. It is kept as a secret, and shown without its path."
    )
    secret: Secret | None = Field(
        default=None,
        description="Signs what is sent: whsec_ and 24 to 64 bytes in base64. Without one, it is made, and shown once.",
    )
    ca_file: CaFile = None


class EmailIn(In):
    """E-mail: each event is sent to some people."""

    kind: Literal["email"]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")] = Field(
        description="Name or address of the SMTP server."
    )
    port: int = Field(default=587, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="starttls: the server must offer it; tls: from the beginning, mostly port 465."
    )
    username: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    password: Secret | None = None
    sender: Mailbox = Field(alias="from", description="Address from which it comes.")
    to: list[Mailbox] = Field(min_length=1, max_length=50, description="Addresses to which it goes.")
    ca_file: CaFile = None

    @model_validator(mode="after")
    def _check_login(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password belong together")
        if self.password is not None and self.tls == "none" and self.host not in LOOPBACK:
            raise ValueError("a password is sent over TLS only")
        return self


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)


TargetIn = Annotated[
    Annotated[WebhookIn, Tag("webhook")] | Annotated[EmailIn, Tag("email")],
    Discriminator(_kind, custom_error_type="kind", custom_error_message="kind is webhook or email"),
]
Events = Annotated[list[Event], Field(max_length=50, description="Of which events it is told; none: of all.")]
Systems = Annotated[
    list[SystemName],
    Field(max_length=1000, description="Of which systems; none: of all. What is about no system is told anyway."),
]
PerMinute = Annotated[
    int, Field(ge=1, le=600, description="So many events within a minute are told one by one, further ones together.")
]


class ChannelIn(In):
    """A channel to be added."""

    name: SystemName = Field(description="Lower-case letters, digits, '-' and '.', at most 63 characters.")
    target: TargetIn
    events: Events = []
    systems: Systems = []
    per_minute: PerMinute = 20
    enabled: bool = Field(default=True, description="While it is not, events are not kept for it.")


class ChannelChange(In):
    """What is to be changed of a channel. What is not named stays."""

    target: dict[str, Any] = Field(
        default={},
        description="Some fields of the target; null takes one away. A null as the secret of a webhook has another one "
        "made. Who changes where an e-mail goes over gives the password again.",
    )
    events: Events | None = None
    systems: Systems | None = None
    per_minute: PerMinute | None = None
    enabled: bool | None = None


# -- answers -----------------------------------------------------------------------------------------------------------
class ChannelOut(Out):
    """A channel, without its secrets."""

    id: str
    name: str
    kind: Literal["webhook", "email"]
    target: dict[str, Any] = Field(description="Where it leads; references to secrets, no secrets.")
    events: list[str] = Field(description="None: all.")
    systems: list[str] = Field(description="None: all.")
    per_minute: int
    enabled: bool
    reason: str = Field(description="Why it was turned off, when nobody did it.")
    waiting: int = Field(description="Events that are to be sent, or to be sent again.")
    given_up: int = Field(description="Events that could not be sent, of those that are kept.")
    created_at: datetime
    succeeded_at: datetime | None = Field(description="When the other side last took something.")
    failed_at: datetime | None = Field(description="When it last did not.")
    failure: str | None = Field(description="Why it did not.")

    @classmethod
    def of(cls, record: ChannelRecord) -> Self:
        """Map the record."""
        return cls.model_validate(_values(record))


class NewChannelOut(ChannelOut):
    """A channel that was added or changed."""

    secret: str | None = Field(
        default=None, description="The secret of a webhook, when it was made just now. It is not shown again."
    )

    @classmethod
    def with_secret(cls, record: ChannelRecord, secret: str | None) -> NewChannelOut:
        """Map the record."""
        return cls.model_validate({**_values(record), "secret": secret})


def _values(record: ChannelRecord) -> dict[str, Any]:
    return {
        "target": record.settings,
        "kind": record.kind.value,
        "events": list(record.events),
        "systems": list(record.systems),
        **{
            name: getattr(record, name)
            for name in ChannelOut.model_fields
            if name not in {"target", "kind", "events", "systems"}
        },
    }


class TestOut(Out):
    """What became of a message that was sent to try a channel."""

    __test__ = False

    delivered: bool
    answer: str = Field(description="What the other side said, or why it said nothing.")
    id: str = Field(description="Of the delivery; a webhook got it as webhook-id.")


class DeliveryOut(Out):
    """An event for a channel, and what became of it."""

    id: str = Field(description="The same whenever it is sent again; a webhook gets it as webhook-id.")
    channel: str
    event: str
    system: str | None
    data: dict[str, Any] = Field(description="What is told.")
    state: DeliveryState
    attempts: int
    answer: str = Field(description="What the other side said last, or why it said nothing.")
    summary_id: str | None = Field(description="The delivery that tells of it together with others.")
    created_at: datetime
    due_at: datetime | None = Field(description="When it is sent, or sent again; null: not any more.")
    ended_at: datetime | None

    @classmethod
    def of(cls, record: DeliveryRecord) -> DeliveryOut:
        """Map the record."""
        return cls(
            id=record.id,
            channel=record.channel_name,
            event=record.event,
            system=record.system,
            data=record.data,
            state=record.state,
            attempts=record.attempts,
            answer=record.answer,
            summary_id=record.summary_id,
            created_at=record.created_at,
            due_at=record.due_at if record.state is DeliveryState.WAITING else None,
            ended_at=record.ended_at,
        )


class NotificationData(Out):
    """What has happened."""

    message: str = Field(description="One sentence.")
    next_step: str = Field(description="What to do about it; may be empty.")
    system: str | None = Field(description="Name of the system that it is about.")
    subject: str = Field(description="What it is about, as people call it; may be empty.")
    actor: str = Field(description="Who has done it, or asked for it; may be empty.")
    server: str = Field(description="Host on which it was noticed.")
    details: dict[str, Any] = Field(description="More, by the type of the event.")


class Notification(Out):
    """What a webhook gets, in the form of the Standard Webhooks specification."""

    type: str = Field(description="Name of the event. New ones may come: take those that you know.")
    timestamp: datetime = Field(description="When it happened.")
    data: NotificationData
