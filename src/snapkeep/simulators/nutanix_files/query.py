"""``$page``, ``$limit``, ``$filter``, ``$orderby`` and ``$select`` of a list."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, TypeVar

from snapkeep.simulators.nutanix_files.errors import Invalid, SchemaError
from snapkeep.simulators.nutanix_files.odata import ODataError, compile_filter, property_of

Json = dict[str, Any]
T = TypeVar("T")

DEFAULT_LIMIT = 50
MAX_LIMIT = 100
ALWAYS = frozenset({"$objectType", "$reserved", "extId"})
"""Assumed: ``$select`` leaves these in."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, and how many objects fit the filter in all."""

    items: list[Json]
    total: int
    number: int
    limit: int


def page_of(objects: Sequence[T], to_json: Callable[[T], Json], query: dict[str, str], fields: Set[str]) -> Page:
    """Apply the query. Without filter and order only the page's objects are turned into JSON.

    Raises :class:`SchemaError` for anything that is not understood.
    """
    number = _number(query, "$page", 0, 0, None)
    limit = _number(query, "$limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    begin, end = number * limit, (number + 1) * limit
    wanted, order, selected = query.get("$filter"), query.get("$orderby"), query.get("$select")
    if not wanted and not order:
        items, total = [to_json(each) for each in objects[begin:end]], len(objects)
    else:
        every = _filtered([to_json(each) for each in objects], wanted, fields)
        _order(every, order, fields)
        items, total = every[begin:end], len(every)
    return Page(_selected(items, selected, fields), total, number, limit)


def _number(query: dict[str, str], name: str, default: int, least: int, most: int | None) -> int:
    text = query.get(name)
    if text is None:
        return default
    try:
        value = int(text)
    except ValueError:
        raise SchemaError(Invalid("query", name, f"{name} must be an integer, not {text!r}")) from None
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"{least} to {most}"
        raise SchemaError(Invalid("query", name, f"{name} must be {limits}, not {value}"))
    return value


def _filtered(every: list[Json], text: str | None, fields: Set[str]) -> list[Json]:
    if not text:
        return every
    try:
        fits = compile_filter(text, fields)
        return [each for each in every if fits(each)]
    except ODataError as error:
        raise SchemaError(Invalid("query", "$filter", f"$filter: {error}")) from None


def _order(every: list[Json], text: str | None, fields: Set[str]) -> None:
    for part in reversed(text.split(",") if text else []):
        words = part.split()
        if not 1 <= len(words) <= 2 or (len(words) == 2 and words[1] not in {"asc", "desc"}):
            raise SchemaError(Invalid("query", "$orderby", f"$orderby: not understood: {part!r}"))
        try:
            value = property_of(words[0], fields)
        except ODataError as error:
            raise SchemaError(Invalid("query", "$orderby", f"$orderby: {error}")) from None
        every.sort(key=lambda each: _sortable(value(each)), reverse=words[-1] == "desc")


def _sortable(value: Any) -> tuple[int, Any]:
    """Absent values first; what has no order of its own by its text."""
    if value is None:
        return 0, 0
    if isinstance(value, bool | int | float):
        return 1, value
    return 2, value if isinstance(value, str) else repr(value)


def _selected(items: list[Json], text: str | None, fields: Set[str]) -> list[Json]:
    names = {name.strip() for name in text.split(",")} if text else set()
    if not names or "*" in names:
        return items
    unknown = names - fields
    if unknown:
        raise SchemaError(Invalid("query", "$select", f"$select: unknown property {sorted(unknown)[0]!r}"))
    keep = names | ALWAYS
    return [{key: value for key, value in item.items() if key in keep} for item in items]
