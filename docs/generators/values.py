"""The types and defaults of values, from their JSON Schema."""

from __future__ import annotations

import re
from typing import Any

Json = dict[str, Any]


def kind(schema: Json) -> str:
    """Return the type of a value as text, with links to bodies."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        if match := re.fullmatch(r"Page_([A-Za-z]+)_", name):
            return f"page of [{match[1]}](#{match[1].lower()})"
        return "page of entries" if name.startswith("Page_") else f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = [kind(item) for item in schema["anyOf"] if item.get("type") != "null"]
        nullable = any(item.get("type") == "null" for item in schema["anyOf"])
        return " or ".join(kinds) + (" or null" if nullable else "")
    if schema.get("type") == "array":
        return f"list of {kind(schema['items'])}"
    if schema.get("format") == "date-time":
        return "time (RFC 3339)"
    return str(schema.get("type", "any"))


def default(item: Json) -> str:
    """Return the default of a parameter or field as text; empty when it must be given."""
    if item.get("required") is True:
        return "needed"
    value = item.get("schema", item).get("default")
    return "" if value in (None, "") else f"`{str(value).lower() if isinstance(value, bool) else value}`"
