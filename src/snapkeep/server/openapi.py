"""The OpenAPI description: names that stay, the errors of each route, and what the framework cannot know."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from snapkeep.server.access import ANYBODY

Json = dict[str, Any]

PERMISSION = "x-permission"
"""Which action an operation needs; of several, one must be allowed."""
PROBLEM = "application/problem+json"

_ALWAYS = {
    400: "The request cannot be read",
    408: "The request came too slowly",
    413: "The body is too big",
    414: "The address is too long",
    422: "The request itself is wrong",
    429: "There are too many requests; `Retry-After` says how long to wait",
    431: "The head is too big",
    500: "A defect of Snapkeep, or damaged data",
    502: "The system behind it failed",
    503: "The database or the system cannot be reached",
    504: "The system behind it took too long",
}
_KNOWN = {401: "The request has no valid token", 403: "The caller may not do this"}
_NAMED = {404: "There is no such thing, or the caller may not know of it"}
_CHANGES = {
    409: "It is in use, or the name is taken, or somebody else was quicker",
    412: "Somebody changed it since it was read",
    423: "It is kept by a hold or a lock",
}


def name_of(route: APIRoute) -> str:
    """Return the `operationId`: the name of the function, which stays."""
    return route.name


def describe(app: FastAPI) -> Json:
    """Return the description; it is made once."""
    if app.openapi_schema is None:
        made = FastAPI.openapi(app)
        for operation, method in _operations(made):
            operation["summary"] = operation["description"].partition(". ")[0].partition("\n")[0].rstrip(".")
            operation["responses"] = _good(operation) | _bad(operation, method)
            _loosen(operation, made["components"]["schemas"])
        schemas = made["components"]["schemas"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        made["servers"] = [{"url": "/", "description": "This server"}]
    return app.openapi_schema or {}


def _operations(description: Json) -> Iterator[tuple[Json, str]]:
    for methods in description["paths"].values():
        for method, operation in methods.items():
            yield operation, method


def _good(operation: Json) -> Json:
    return {status: answer for status, answer in operation["responses"].items() if status.startswith(("2", "3"))}


def _bad(operation: Json, method: str) -> Json:
    """Return the errors with which a route may answer, in one form."""
    errors = dict(_ALWAYS)
    known = operation.get(PERMISSION) != [ANYBODY]
    errors |= _KNOWN if known else {401: "Name or password is wrong"}
    errors |= _NAMED
    if method != "get":
        errors |= _CHANGES
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {str(status): {"description": errors[status], "content": content} for status in sorted(errors)}


def _loosen(operation: Json, schemas: Json) -> None:
    """With `fields`, the entries of a list have fewer fields: none of them is sure to be there."""
    if not any(parameter["name"] == "fields" for parameter in operation.get("parameters", ())):
        return
    page = operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    entry = schemas[page]["properties"]["data"]["items"]["$ref"].rpartition("/")[2]
    sparse = f"{entry.removesuffix('Out')}Fields"
    if sparse not in schemas:
        schemas[sparse] = copy.deepcopy(schemas[entry])
        schemas[sparse].pop("required", None)
        schemas[sparse] |= {
            "title": sparse,
            "description": f"{entry}, or with `fields` only these of it.",
        }
    schemas[page]["properties"]["data"]["items"]["$ref"] = f"#/components/schemas/{sparse}"
