"""Query parameters as bytes: paths need not be UTF-8."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from snapkeep.model.errors import InvalidInput

_names: dict[Any, frozenset[str]] = {}
"""Of the parameters of a route, by its function."""


def _names_of(dependant: Dependant) -> frozenset[str]:
    own = frozenset(field.alias for field in dependant.query_params)
    return own.union(*map(_names_of, dependant.dependencies))


async def require_known(request: Request) -> None:
    """Raise InvalidInput for a query parameter that the route does not have.

    A filter that was mistyped would show, and a `dry_run` that was mistyped would destroy, more than was meant.
    """
    route: APIRoute = request.scope["route"]
    known = _names.get(route.endpoint)
    if known is None:
        known = _names[route.endpoint] = _names_of(route.dependant)
    if unknown := sorted(set(request.query_params) - known):
        raise InvalidInput(
            f"There is no parameter {unknown[0]!r:.120} here",
            next_step=f"This has {', '.join(sorted(known))}." if known else "This has no parameters.",
        )


def raw_parameter(request: Request, name: str) -> bytes:
    """Return a query parameter as its bytes. Raises InvalidInput when it is missing."""
    for pair in request.scope["query_string"].split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key) == name.encode():
            return unquote_to_bytes(value.replace(b"+", b" "))
    raise InvalidInput(f"The parameter {name} is missing")
