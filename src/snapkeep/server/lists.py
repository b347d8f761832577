"""What all lists have in common: pages, orders and sparse fields."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query
from fastapi.responses import Response
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, TypeAdapter

from snapkeep.catalog.paging import Listed, Orders, Paging
from snapkeep.model.access import LABEL_FORM
from snapkeep.model.errors import InvalidInput
from snapkeep.server.schemas import Out


def _text(value: object) -> object:
    if isinstance(value, str) and not _MOMENT.match(value):  # a number would be taken for seconds since 1970
        raise ValueError("a time is written as in RFC 3339")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError as error:  # the first or last day of all
        raise ValueError("this time has no counterpart in UTC") from error


def _label(value: str) -> str:
    if not LABEL_FORM.fullmatch(value):
        raise ValueError("a label is KEY=VALUE")
    return value


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d")

Moment = Annotated[AwareDatetime, BeforeValidator(_text), AfterValidator(_to_utc)]
Since = Annotated[Moment | None, Query(description="Only from this time on.")]
Until = Annotated[Moment | None, Query(description="Only before this time.")]
Part = Annotated[
    str, Query(max_length=255, description="Only those whose name holds this; A to Z and a to z are the same.")
]
Name = Annotated[str | None, Query(max_length=1024)]
Labels = Annotated[
    list[Annotated[str, AfterValidator(_label)]] | None,
    Query(
        max_length=10,
        description="Only those with this label, KEY=VALUE, of its own or of its system; of several, with all.",
    ),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which page of a list, and what of its entries."""

    paging: Paging
    _entries: TypeAdapter[list[Any]]
    _fields: set[str] | None

    def answer(self, entries: Sequence[Out], page: Listed[Any]) -> Response:
        """Return the page as JSON. Written from the models at once: on a long page, that is half of the time."""
        include: Any = {"__all__": self._fields} if self._fields else None
        data = self._entries.dump_json(list(entries), include=include)
        following = msgspec.json.encode(page.next)
        return Response(b'{"data":' + data + b',"next":' + following + b"}", media_type="application/json")


def wanted(out: type[Out], orders: Orders[Any], limit: int = 1000) -> Any:
    """Return what takes page, order and fields of a list of `out` from a request."""
    words = [word for name in orders.names for word in (name, f"-{name}")]
    names = list(out.model_fields)
    one = "|".join(names)
    entries = TypeAdapter(list[out])  # type: ignore[valid-type]

    async def taken(
        limit: int = Query(default=limit, ge=1, le=1000, description="Most entries of one page."),
        after: str = Query(default="", max_length=8000, description="Cursor: `next` of the page before."),
        sort: str = Query(
            default=orders.default,
            description="Order; with `-` before it, from the end.",
            json_schema_extra={"enum": words},
        ),
        fields: str = Query(
            default="",
            description="Only these fields, separated by commas; none: all.",
            json_schema_extra={"pattern": f"^(({one})(,({one}))*)?$"},
        ),
    ) -> Wanted:
        if sort not in words:
            raise InvalidInput(f"This list has no order {sort!r:.80}", next_step=f"Sort by one of {', '.join(words)}.")
        chosen = set(fields.split(",")) if fields else None
        if unknown := sorted((chosen or set()) - set(names)):
            raise InvalidInput(f"There is no field {unknown[0]!r:.80}", next_step=f"Choose of {', '.join(names)}.")
        return Wanted(Paging(sort, after, limit), entries, chosen)

    return Depends(taken)
