"""Queries on channels: where people are told of events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from snapkeep.catalog.fencing import Database
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.paging import ALL, Listed, Orders, Paging, Sort
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import channels, deliveries
from snapkeep.model.errors import Conflict, NotFound
from snapkeep.model.notifications import ChannelKind, DeliveryState, Event, Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRecord:
    """A channel, without its secrets."""

    id: str
    name: str
    kind: ChannelKind
    settings: dict[str, Any]
    events: tuple[str, ...]
    """Empty: all."""
    systems: tuple[str, ...]
    """Empty: all."""
    per_minute: int
    enabled: bool
    reason: str
    created_at: datetime
    succeeded_at: datetime | None
    failed_at: datetime | None
    failure: str | None
    waiting: int
    given_up: int


def _count(state: DeliveryState) -> Any:
    own = (deliveries.c.channel_id == channels.c.id) & (deliveries.c.state == state.value)
    return select(func.count()).select_from(deliveries).where(own).scalar_subquery()


_QUERY = select(
    *(column for column in channels.c if column.name != "secrets"),
    _count(DeliveryState.WAITING).label("waiting"),
    _count(DeliveryState.GIVEN_UP).label("given_up"),
)


class Channels:
    """The channels."""

    def __init__(self, database: Database, box: SecretBox, outbox: Outbox) -> None:
        self._database = database
        self._box = box
        self._outbox = outbox

    async def add(
        self,
        channel_id: str,
        *,
        name: str,
        kind: ChannelKind,
        settings: Mapping[str, Any],
        secrets: Mapping[str, Any],
        now: datetime,
        **chosen: Any,
    ) -> ChannelRecord:
        """Store a channel, its secrets sealed. Raises Conflict when the name is taken."""
        values = {
            "id": channel_id,
            "name": name,
            "kind": kind.value,
            "settings": dict(settings),
            "secrets": self._box.seal(channel_id, secrets),
            "reason": "",
            "created_at": now,
            **chosen,
        }
        try:
            async with self._database.begin() as connection:
                await connection.execute(insert(channels).values(values))
        except IntegrityError as error:
            raise Conflict(
                f"There is a channel {name!r} already",
                next_step=f"Choose another name, or change it with `snapkeep notification set {name}`.",
            ) from error
        return await self.get(name)

    async def find(self, paging: Paging = ALL) -> Listed[ChannelRecord]:
        """Return the channels, by `CHANNEL_ORDERS`."""
        async with self._database.connect() as connection:
            return await CHANNEL_ORDERS.read(connection, _QUERY, _record, paging)

    async def get(self, name_or_id: str) -> ChannelRecord:
        """Return one channel. Raises NotFound."""
        named = (channels.c.name == name_or_id) | (channels.c.id == name_or_id)
        async with self._database.connect() as connection:
            row = (await connection.execute(_QUERY.where(named))).first()
        if row is None:
            raise NotFound(f"There is no channel {name_or_id!r:.80}", next_step="See `snapkeep notification list`.")
        return _record(row)

    async def secrets(self, channel_id: str) -> dict[str, Any]:
        """Return the secrets, for sending only. Raises NotFound."""
        query = select(channels.c.secrets).where(channels.c.id == channel_id)
        async with self._database.connect() as connection:
            sealed = await connection.scalar(query)
        if sealed is None:
            raise NotFound("The channel was removed", next_step="See `snapkeep notification list`.")
        return self._box.open(channel_id, sealed)

    async def change(
        self, record: ChannelRecord, *, by: str, secrets: Mapping[str, Any], **values: Any
    ) -> ChannelRecord:
        """Store other values and secrets; the other channels are told."""
        sealed = self._box.seal(record.id, secrets)
        change = "turned off" if record.enabled and not values.get("enabled", record.enabled) else "changed"
        async with self._database.begin() as connection:
            one = channels.c.id == record.id
            await connection.execute(update(channels).where(one).values(secrets=sealed, reason="", **values))
            await self._outbox.put(connection, _changed(record, change, by), except_for=record.id)
        self._outbox.wake()
        return await self.get(record.id)

    async def remove(self, record: ChannelRecord, *, by: str) -> None:
        """Forget a channel, and what waits for it; the others are told. Raises Conflict while reports go over it."""
        try:
            async with self._database.begin() as connection:
                await connection.execute(delete(channels).where(channels.c.id == record.id))
                await self._outbox.put(connection, _changed(record, "removed", by))
        except IntegrityError as error:
            raise Conflict(
                f"Reports are sent over the channel {record.name!r}",
                next_step="Remove them first: see `snapkeep report schedule list`.",
            ) from error
        self._outbox.wake()

    # -- how it goes -------------------------------------------------------------------------------------------------
    async def succeeded(self, channel_id: str, now: datetime) -> None:
        """Note when something was taken last."""
        await self._note(channel_id, succeeded_at=now)

    async def failed(self, channel_id: str, now: datetime, failure: str) -> None:
        """Note when something was not taken last, and why."""
        await self._note(channel_id, failed_at=now, failure=failure)

    async def turn_off(self, record: ChannelRecord, reason: str) -> None:
        """Turn a channel off that the other side does not want any more; the others are told."""
        async with self._database.begin() as connection:
            one = (channels.c.id == record.id) & channels.c.enabled
            changed = await connection.execute(update(channels).where(one).values(enabled=False, reason=reason))
            if changed.rowcount:
                await self._outbox.put(connection, _changed(record, "turned off", "", reason))
        self._outbox.wake()

    async def _note(self, channel_id: str, **values: Any) -> None:
        async with self._database.single() as connection:
            await connection.execute(update(channels).where(channels.c.id == channel_id).values(values))


CHANNEL_ORDERS = Orders[ChannelRecord](
    "name",
    name=Sort((channels.c.name,), lambda item: (item.name,)),
    created_at=Sort((channels.c.created_at, channels.c.id), lambda item: (item.created_at, item.id)),
)


def _changed(record: ChannelRecord, change: str, by: str, reason: str = "") -> Notice:
    why = f": {reason}" if reason else f" by {by}"
    return Notice(
        event=Event.CHANNEL_CHANGED,
        message=f"The notification channel {record.name} was {change}{why}",
        next_step=f"See whether that was meant: `snapkeep notification show {record.name}`.",
        subject=record.name,
        actor=by,
        details={"change": change},
    )


def _record(row: Any) -> ChannelRecord:
    values = row._asdict() | {"kind": ChannelKind(row.kind)}
    return ChannelRecord(**values | {"events": tuple(row.events), "systems": tuple(row.systems)})
