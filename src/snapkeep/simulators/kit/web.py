"""The little of HTTP that a simulator needs: a request, an answer and a table of routes.

A simulator's handlers are plain functions from :class:`Request` to :class:`Answer`. Routes are kept as templates,
since faults and permissions are declared by template.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

import msgspec

H = TypeVar("H")

MAX_BODY = 4 * 1024 * 1024
"""Bytes of a request body that are read; a longer one is answered with 413."""


@dataclass(slots=True)
class Request:
    """One request, read completely. Header names are lower case; query keys are percent-decoded."""

    method: str
    path: str
    query_string: str
    headers: dict[str, str]
    body: bytes
    client: str | None
    scheme: str = "https"

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; of a repeated one the last counts."""
        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    def json(self) -> Any:
        """The body as JSON; an empty body is None. Raises ``msgspec.DecodeError``."""
        return msgspec.json.decode(self.body) if self.body.strip() else None


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


def json_answer(status: int, value: Any, headers: dict[str, str] | None = None) -> Answer:
    """``value`` as JSON. Text must be encodable as UTF-8."""
    return Answer(status, msgspec.json.encode(value), headers or {})


@dataclass(frozen=True, slots=True)
class Route(Generic[H]):
    """One row of the table. ``template`` has its parameters in braces."""

    method: str
    template: str
    handler: H
    permission: str | None = None


class Router(Generic[H]):
    """Finds the route of a method and a path. A fixed segment wins over a parameter."""

    def __init__(self) -> None:
        self.routes: list[Route[H]] = []
        self._by_length: dict[int, list[tuple[list[str], Route[H]]]] = {}

    def add(self, method: str, template: str, handler: H, permission: str | None = None) -> None:
        """Add one route."""
        route = Route(method, template, handler, permission)
        segments = template.strip("/").split("/")
        self.routes.append(route)
        self._by_length.setdefault(len(segments), []).append((segments, route))

    def on(self, method: str, template: str, permission: str | None = None) -> Callable[[H], H]:
        """Decorate a handler: the same as :meth:`add`."""

        def decorate(handler: H) -> H:
            self.add(method, template, handler, permission)
            return handler

        return decorate

    def find(self, method: str, path: str) -> tuple[Route[H] | None, dict[str, str], bool]:
        """The route, its parameters, and whether the path exists at all (perhaps for another method)."""
        segments = path.strip("/").split("/")
        known = False
        for pattern, route in self._by_length.get(len(segments), ()):
            parameters = _match(pattern, segments)
            if parameters is None:
                continue
            known = True
            if route.method == method:
                return route, parameters, True
        return None, {}, known


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    parameters: dict[str, str] = {}
    for expected, given in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            if not given:
                return None
            parameters[expected[1:-1]] = given
        elif expected != given:
            return None
    return parameters
