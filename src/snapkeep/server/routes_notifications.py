"""Channels over which people are told of events, and what was told."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response, status
from pydantic import SecretStr, TypeAdapter, ValidationError

from snapkeep.catalog.channels import CHANNEL_ORDERS, ChannelRecord
from snapkeep.catalog.deliveries import DELIVERY_ORDERS
from snapkeep.model.access import Action
from snapkeep.model.errors import InvalidInput, NotFound
from snapkeep.model.notifications import ChannelKind, DeliveryState
from snapkeep.model.references import Reference
from snapkeep.notifications import webhook
from snapkeep.server.access import allow
from snapkeep.server.authentication import Caller
from snapkeep.server.conditional import Expected, Known, tag_of
from snapkeep.server.context import Parts
from snapkeep.server.lists import Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_backups import SecretReference
from snapkeep.server.schemas_notifications import (
    ChannelChange,
    ChannelIn,
    ChannelOut,
    DeliveryOut,
    EmailIn,
    NewChannelOut,
    Notification,
    TargetIn,
    TestOut,
    WebhookIn,
)

router = APIRouter(tags=["notifications"])
webhooks = APIRouter()
"""What is sent: described, never served."""

READ = [allow(Action.NOTIFICATION_READ)]
MANAGE = [allow(Action.NOTIFICATION_MANAGE)]

_TARGET: TypeAdapter[WebhookIn | EmailIn] = TypeAdapter(TargetIn)
_PLACE = ("host", "port", "tls", "ca_file")
"""What says to whom the password of an e-mail is sent."""


@router.get("/channels", dependencies=READ, response_model=Page[ChannelOut])
async def list_channels(parts: Parts, page: Annotated[Wanted, wanted(ChannelOut, CHANNEL_ORDERS)]) -> Response:
    """List the channels, with what waits for them and how they went last."""
    found = await parts.catalog.channels.find(page.paging)
    return page.answer([ChannelOut.of(item) for item in found], found)


@router.post("/channels", status_code=status.HTTP_201_CREATED, dependencies=MANAGE, response_model=NewChannelOut)
async def add_channel(body: ChannelIn, parts: Parts, once: Single) -> NewChannelOut | Response:
    """Add a channel. Nothing is sent; `test` says whether it works."""
    made = None
    target = _given(body.target)
    if body.target.kind == "webhook" and "secret" not in target:
        made = target["secret"] = webhook.new_secret()

    async def add() -> NewChannelOut:
        settings, secrets = _parted(body.target.kind, target)
        record = await parts.catalog.channels.add(
            parts.clock.new_id(),
            name=body.name,
            kind=ChannelKind(body.target.kind),
            settings=settings,
            secrets=secrets,
            now=parts.clock.now(),
            events=[event.value for event in body.events],
            systems=body.systems,
            per_minute=body.per_minute,
            enabled=body.enabled,
        )
        return NewChannelOut.with_secret(record, made)

    return await once.answer(add, secret=made is not None)


@router.get("/channels/{name}", dependencies=READ, response_model=ChannelOut)
async def show_channel(name: str, parts: Parts, known: Known) -> Response:
    """Show one channel."""
    record = await parts.catalog.channels.get(name)
    return known.answer(ChannelOut.of(record), _tag(record))


@router.patch("/channels/{name}", dependencies=MANAGE)
async def change_channel(
    name: str, expected: Expected, body: ChannelChange, caller: Caller, parts: Parts
) -> NewChannelOut:
    """Change a channel. The others are told of it."""
    record = await parts.catalog.channels.get(name)
    expected.require(_tag(record))
    stored = await parts.catalog.channels.secrets(record.id)
    target, made = _merged(record, stored, body.target)
    settings, secrets = _parted(record.kind, target)
    changed = {field: getattr(body, field) for field in ("systems", "per_minute", "enabled")}
    changed |= {"events": None if body.events is None else [event.value for event in body.events]}
    values = {field: value for field, value in changed.items() if value is not None}
    changed_record = await parts.catalog.channels.change(
        record, by=caller.name, secrets=secrets, settings=settings, **values
    )
    return NewChannelOut.with_secret(changed_record, made)


@router.delete("/channels/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=MANAGE)
async def remove_channel(name: str, expected: Expected, caller: Caller, parts: Parts) -> None:
    """Remove a channel, and what waits for it. The others are told of it."""
    record = await parts.catalog.channels.get(name)
    expected.require(_tag(record))
    await parts.catalog.channels.remove(record, by=caller.name)


@router.post("/channels/{name}/test", dependencies=MANAGE)
async def test_channel(name: str, caller: Caller, parts: Parts) -> TestOut:
    """Send something over a channel now, once, and say what the other side answers. Also when it is turned off."""
    record = await parts.catalog.channels.get(name)
    sent = await parts.sender.test(record, caller.name)
    if sent is None:
        raise NotFound(f"There is no channel {name!r:.80}", next_step="See `snapkeep notification list`.")
    return TestOut(delivered=sent.state is DeliveryState.SENT, answer=sent.answer, id=sent.id)


@router.get("/deliveries", dependencies=READ, response_model=Page[DeliveryOut])
async def list_deliveries(
    parts: Parts,
    page: Annotated[Wanted, wanted(DeliveryOut, DELIVERY_ORDERS)],
    channel: Annotated[str | None, Query(max_length=63, description="Only those of this channel.")] = None,
    state: Annotated[list[DeliveryState] | None, Query()] = None,
    event: Annotated[str | None, Query(max_length=63, description="Only those of this event.")] = None,
) -> Response:
    """List what was told, what waits, and what was given up, the newest first."""
    found = await parts.catalog.deliveries.find(
        channel=channel, states=tuple(state or ()), event=event, paging=page.paging
    )
    return page.answer([DeliveryOut.of(item) for item in found], found)


@webhooks.post("event")
async def event(
    body: Notification,
    message_id: Annotated[str, Header(alias="webhook-id", description="The same whenever it is sent again.")],
    timestamp: Annotated[
        int, Header(alias="webhook-timestamp", description="When it was sent, in seconds since 1970.")
    ],
    signature: Annotated[
        str,
        Header(alias="webhook-signature", description="`v1,` and HMAC-SHA256 of id, timestamp and body, in base64."),
    ],
) -> None:
    """Sent to a webhook for each event. Answer 2xx within 25 seconds; 410 turns the channel off."""


# -- inside ------------------------------------------------------------------------------------------------------------
def _tag(record: ChannelRecord) -> str:
    """Return the tag of what people change, not of how it went."""
    shown = ChannelOut.of(record).model_copy(
        update={"waiting": 0, "given_up": 0, "succeeded_at": None, "failed_at": None, "failure": None}
    )
    return tag_of(shown)


def _given(target: WebhookIn | EmailIn) -> dict[str, Any]:
    """Return what was given, secrets and references as they are stored. Raises InvalidInput."""
    values: dict[str, Any] = {}
    for name, value in target:
        if isinstance(value, SecretReference):
            values[name] = Reference.parse(value.reference).json
        elif isinstance(value, SecretStr):
            values[name] = value.get_secret_value()
        elif value is not None and name != "kind":
            values["from" if name == "sender" else name] = value
    if isinstance(values.get("url"), str):
        webhook.require_url(values["url"])
    if isinstance(target, WebhookIn) and isinstance(values.get("secret"), str):
        webhook.key_of(values["secret"])
    return values


def _parted(kind: str, target: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return settings and secrets apart; references are no secrets."""
    hidden = ("url", "secret") if kind == ChannelKind.WEBHOOK else ("password",)
    secrets = {name: target[name] for name in hidden if isinstance(target.get(name), str)}
    settings = {name: value for name, value in target.items() if name not in secrets}
    if "url" in secrets:
        settings["address"] = webhook.shown(secrets["url"])
    return settings, secrets


def _merged(record: ChannelRecord, stored: dict[str, Any], change: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
    """Return the target as it is to be, and the secret that was made for it. Raises InvalidInput."""
    before = {name: value for name, value in {**record.settings, **stored}.items() if name != "address"}
    merged = {name: value for name, value in {**before, **change}.items() if value is not None}
    if (
        "password" in before
        and "password" not in change
        and any(before.get(name) != merged.get(name) for name in _PLACE)
    ):
        raise InvalidInput(
            "Who changes where the password is sent gives it again", next_step="Give the password with the change."
        )
    made = None
    if record.kind is ChannelKind.WEBHOOK and merged.get("secret") is None:
        made = merged["secret"] = webhook.new_secret()
    try:
        return _given(_TARGET.validate_python({**merged, "kind": record.kind.value})), made
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, item['loc'][1:])) or 'together'}: {item['msg'].removeprefix('Value error, ')}"
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise InvalidInput(
            "The target of the channel is not valid: " + "; ".join(problems),
            next_step=f"Correct it; `snapkeep notification show {record.name}` shows it as it is.",
            fields=problems,
        ) from None
