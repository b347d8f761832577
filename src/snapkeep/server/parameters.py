"""Query parameters as bytes: paths need not be UTF-8."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from fastapi import Request

from snapkeep.model.errors import InvalidInput


def raw_parameter(request: Request, name: str) -> bytes:
    """Return a query parameter as its bytes. Raises InvalidInput when it is missing."""
    for pair in request.scope["query_string"].split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key) == name.encode():
            return unquote_to_bytes(value.replace(b"+", b" "))
    raise InvalidInput(f"The parameter {name} is missing")
