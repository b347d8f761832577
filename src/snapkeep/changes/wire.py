"""The JSON form of a change: in REST answers, in NDJSON, and back again."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from snapkeep.model.changes import Change, ChangeOperation, ObjectType


def change_to_dict(change: Change) -> dict[str, Any]:
    """Return the JSON form of REST and NDJSON.

    `path` is text for people and for most programs. Where the bytes are not UTF-8 it has replacement characters,
    and `path_base64` (likewise `old_path_base64`) holds the exact bytes; it is there only then.
    """
    data: dict[str, Any] = {"operation": change.operation, "type": change.type, **_path_fields("path", change.path)}
    if change.old_path is not None:
        data |= _path_fields("old_path", change.old_path)
    data["size"] = change.size
    for name in ("inode", "created_ns", "changed_ns", "accessed_ns"):
        value = getattr(change, name)
        if value is not None:
            data[name] = value
    return data


def change_from_dict(data: Mapping[str, Any]) -> Change:
    """Return the change of a JSON form."""
    return Change(
        ChangeOperation(data["operation"]),
        ObjectType(data["type"]),
        _path(data, "path") or b"",
        _path(data, "old_path"),
        data["size"],
        *(data.get(name) for name in ("inode", "created_ns", "changed_ns", "accessed_ns")),
    )


def _path(data: Mapping[str, Any], name: str) -> bytes | None:
    if (exact := data.get(f"{name}_base64")) is not None:
        return base64.b64decode(exact)
    text = data.get(name)
    return None if text is None else str(text).encode()


def _path_fields(name: str, path: bytes) -> dict[str, str]:
    try:
        return {name: path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            name: path.decode("utf-8", "replace"),
            f"{name}_base64": base64.b64encode(path).decode("ascii"),
        }
