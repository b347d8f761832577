"""Every route and every body of REST, from its OpenAPI description."""

from __future__ import annotations

from typing import Any

from generators.markdown import page, sentence, table
from generators.values import Json, default, kind
from snapkeep.server.access import ANYBODY, ANYONE_KNOWN
from snapkeep.server.app import create_app
from snapkeep.server.openapi import PERMISSION

NEEDS = {ANYBODY: "no token", ANYONE_KNOWN: "a valid token"}
"""What routes declare that need no action."""


def rest_page() -> str:
    """Every route, and every body."""
    api = open_api()
    tags: dict[str, list[str]] = {}
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][0], []).append(route(method.upper(), path, operation))
    parts = [f"## {tag.capitalize()}\n\n" + "\n\n".join(routes) for tag, routes in tags.items()]
    schemas = {
        name: schema
        for name, schema in api["components"]["schemas"].items()
        if not name.startswith("Page_") and not name.endswith("Fields")
    }
    bodies = "\n\n".join(body(name, schema) for name, schema in sorted(schemas.items()))
    return page(
        "REST API",
        "The server listens on `https://127.0.0.1:8420` unless told otherwise. Each request carries "
        "`Authorization: Bearer TOKEN`; the token is in the file `token` of the data directory.",
        api["info"]["description"].split("\n\n", 1)[1],
        'A list answers `{"data": [...], "next": ...}`. Give `next` as `after` to read the page behind it; '
        "on the last page it is null. The machine-readable description is at `/v1/openapi.json`.",
        "```console\n"
        '$ curl -H "Authorization: Bearer $(cat ~/.local/share/snapkeep/token)" \\\n'
        ">   --cacert ~/.local/share/snapkeep/tls/ca.pem https://127.0.0.1:8420/v1/systems\n"
        "```",
        "Any request may be answered with an [error](errors.md) as [Problem](#problem), for example 401 without a "
        "valid token and 422 when the request itself is wrong.",
        *parts,
        "## Bodies",
        bodies,
    )


def open_api() -> Json:
    """Return the OpenAPI description of the server; nothing is started."""

    def never() -> Any:
        raise RuntimeError("the documentation opens no catalog")

    return create_app("0" * 43, never).openapi()


def route(method: str, path: str, operation: Json) -> str:
    """One route."""
    parts = [f"### `{method} {path}`", operation.get("description", "")]
    parameters = [
        [f"`{item['name']}`", item["in"], kind(item["schema"]), default(item), item.get("description", "")]
        for item in operation.get("parameters", ())
    ]
    if parameters:
        parts.append(table(("Parameter", "In", "Type", "Default", "Meaning"), parameters))
    if "requestBody" in operation:
        parts.append(f"Body: {kind(operation['requestBody']['content']['application/json']['schema'])}")
    parts.append("Answer: " + "; ".join(answers(operation)))
    if needed := operation.get(PERMISSION):
        parts.append(f"Needs: {' or '.join(NEEDS.get(each, f'`{each}`') for each in needed)}")
    return "\n\n".join(part for part in parts if part)


def answers(operation: Json) -> list[str]:
    """Return the good answers of a route as text."""
    found = []
    for status, answer in operation["responses"].items():
        if status >= "4":  # an error, of the same form for all routes; the page says so once
            continue
        content = answer.get("content", {})
        described = content.get("application/json", {}).get("schema")
        kinds = [kind(described)] if described else []
        kinds += [f"`{media}`" for media in content if media != "application/json" or not described]
        found.append(f"{status}, {' or '.join(kinds)}" if kinds else f"{status}, no body")
    return found


def body(name: str, schema: Json) -> str:
    """One body: an enumeration or an object."""
    heading = f"### {name}\n\n{sentence(schema.get('description'))}"
    if "enum" in schema:
        return f"{heading}\n\nOne of {', '.join(f'`{value}`' for value in schema['enum'])}."
    asked = name.endswith(("In", "Change"))
    rows = [
        [
            f"`{field}`",
            kind(item),
            *((["needed" if field in schema.get("required", ()) else default(item)]) if asked else []),
            item.get("description", ""),
        ]
        for field, item in schema.get("properties", {}).items()
    ]
    return f"{heading}\n\n{table(('Field', 'Type', *(['Default'] if asked else []), 'Meaning'), rows)}"
