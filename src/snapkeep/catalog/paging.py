"""Lists by the page: a few orders, each made whole by something unique, and a cursor that goes with the order.

Keyset paging: the cursor holds the values of the last row, so a page costs the same wherever it is, and rows that come
or go between two pages shift nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, bindparam, func, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from snapkeep.catalog.tables import UtcDateTime
from snapkeep.model.errors import InvalidInput

T = TypeVar("T")
_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Listed(list[T]):
    """Rows of one page; `next` is the cursor of the page behind it, None on the last one."""

    next: str | None = None


@dataclass(frozen=True, slots=True)
class Sort(Generic[T]):
    """One order: columns, the last ones unique together, and the same values of a record."""

    columns: tuple[ColumnElement[Any], ...]
    of: Callable[[T], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Paging:
    """Which page is wanted. `sort`: name of an order, with `-` before it from the end; empty: the usual one."""

    sort: str = ""
    after: str = ""
    limit: int = 1000


FIRST = Paging()
ALL = Paging(limit=2**31)


class Orders(Generic[T]):
    """The orders in which a list can be read, by name."""

    def __init__(self, default: str, **sorts: Sort[T]) -> None:
        self.default = default
        self.names = tuple(sorts)
        self._sorts: Mapping[str, Sort[T]] = sorts

    async def read(
        self, connection: AsyncConnection, query: Select[Any], record: Callable[[Any], T], paging: Paging
    ) -> Listed[T]:
        """Return the page of a query as records. Raises InvalidInput for a cursor that is none of this order's."""
        name, sort, backwards = self._find(paging)
        columns = sort.columns
        query = query.order_by(*(column.desc() if backwards else column for column in columns))
        if paging.after:
            kinds = [datetime if isinstance(column.type, UtcDateTime) else str for column in columns]
            last = _decode(paging.after, name, kinds)
            values = zip(last, columns, strict=True)
            given = tuple_(*(bindparam(None, value, type_=column.type) for value, column in values))
            query = query.where(tuple_(*columns) < given if backwards else tuple_(*columns) > given)
        rows = await connection.execute(query.limit(paging.limit + 1))  # the one behind tells whether there is more
        return _cut([record(row) for row in rows], name, sort, paging.limit)

    def cut(self, records: Iterable[T], paging: Paging) -> Listed[T]:
        """Return the page of records that are all at hand; their sort values are texts. Raises InvalidInput."""
        name, sort, backwards = self._find(paging)
        found = sorted(records, key=sort.of, reverse=backwards)
        if paging.after and found:
            last = tuple(_decode(paging.after, name, [str] * len(sort.of(found[0]))))
            found = [item for item in found if (sort.of(item) < last if backwards else sort.of(item) > last)]
        return _cut(found, name, sort, paging.limit)

    def _find(self, paging: Paging) -> tuple[str, Sort[T], bool]:
        name = paging.sort or self.default
        sort = self._sorts.get(name.removeprefix("-"))
        if sort is None:
            raise InvalidInput(
                f"This list has no order {name!r:.80}",
                next_step=f"Sort by {', '.join(self.names)}, or by one of them from the end, as -{self.names[0]}.",
            )
        return name, sort, name.startswith("-")


def _cut(found: Sequence[T], name: str, sort: Sort[T], limit: int) -> Listed[T]:
    page = Listed(found[:limit])
    if len(found) > limit:
        page.next = _encode(name, sort.of(page[-1]))
    return page


def _encode(name: str, values: Sequence[Any]) -> str:
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([name, *plain], separators=(",", ":")).encode()).decode().rstrip("=")


def _decode(cursor: str, name: str, kinds: Sequence[type]) -> list[Any]:
    """Return the values in a cursor. Raises InvalidInput: a page behind something else would silently be wrong."""
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        begin, *values = found
        if begin != name:
            raise ValueError("of another order")
        return [_value(value, kind) for value, kind in zip(values, kinds, strict=True)]
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
        raise InvalidInput(
            f"There is no page behind {cursor!r:.80}", next_step="List again from the beginning, with the same sort."
        ) from error


def _value(value: Any, kind: type) -> Any:
    if not isinstance(value, str):
        raise TypeError("no text")
    if kind is not datetime:
        return value
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without zone")
    return moment.astimezone(UTC)


def holds_text(column: ColumnElement[str], part: str) -> ColumnElement[bool]:
    """Return the condition that a text holds another; A to Z and a to z are the same, on every database."""
    return func.lower(column).contains(part.translate(_LOWER), autoescape=True)
