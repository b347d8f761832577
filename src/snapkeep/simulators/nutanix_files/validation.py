"""Takes a body apart: every documented rule that is broken is one complaint of a ``SchemaValidationError``.

Fields that a client has no business to send (``$reserved``, ``$unknownFields``, read-only ones) are ignored.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Any, TypeVar

import msgspec

from snapkeep.simulators.kit.web import Request
from snapkeep.simulators.nutanix_files.errors import Invalid, SchemaError

Json = dict[str, Any]
T = TypeVar("T")
_HOST = re.compile(
    r"^(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*$"
)


def body_of(request: Request) -> Json:
    """The request's JSON object. Raises :class:`SchemaError`."""
    try:
        body = request.json()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SchemaError(Invalid("body", "", f"the body is not JSON: {error}")) from None
    if not isinstance(body, dict):
        raise SchemaError(Invalid("body", "", "the body must be an object"))
    return body


class Checker:
    """Collects complaints about one object; :meth:`done` raises them together."""

    def __init__(self, body: Json, path: str = "") -> None:
        self.body = body
        self._path = path
        self.complaints: list[Invalid] = []

    def text(self, name: str, *, most: int, least: int = 0, required: bool = False) -> str | None:
        """A string of a length."""
        value = self._get(name, str, required=required)
        if value is not None and not least <= len(value) <= most:
            self.complain(name, f"{name} must have {least} to {most} characters, it has {len(value)}")
            return None
        return value

    def file_name(self, name: str, *, most: int, required: bool = True) -> str | None:
        """A string that can be the name of a directory (assumed: others are refused)."""
        value = self.text(name, most=most, least=1, required=required)
        if value is not None and (value in {".", ".."} or "/" in value or "\0" in value):
            self.complain(name, f"{name} must not be {value!r}")
            return None
        if value is not None and len(value.encode("utf-8", "surrogatepass")) > 255:
            self.complain(name, f"{name} is too long in UTF-8")
            return None
        return value

    def word(self, name: str, words: Collection[str], *, required: bool = False) -> str | None:
        """A member of an enumeration."""
        value = self._get(name, str, required=required)
        if value is not None and value not in words:
            self.complain(name, f"{name} must be one of {', '.join(sorted(words))}, not {value!r}")
            return None
        return value

    def number(self, name: str, *, least: int, most: int | None = None, required: bool = False) -> int | None:
        """An integer within limits."""
        value = self._get(name, int, required=required)
        if value is not None and (value < least or (most is not None and value > most)):
            self.complain(name, f"{name} is out of range: {value}")
            return None
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean."""
        return self._get(name, bool)

    def object(self, name: str, *, required: bool = False) -> Json | None:
        """An object."""
        return self._get(name, dict, required=required)

    def objects(self, name: str) -> list[Json]:
        """A list of objects; absent: an empty one."""
        value = self._get(name, list) or []
        if not all(isinstance(each, dict) for each in value):
            self.complain(name, f"{name} must be a list of objects")
            return []
        return value

    def complain(self, name: str, message: str) -> None:
        """Add a complaint."""
        self.complaints.append(Invalid("body", f"{self._path}{name}", message))

    def done(self) -> None:
        """Raise :class:`SchemaError` if there was any complaint."""
        if self.complaints:
            raise SchemaError(*self.complaints)

    def _get(self, name: str, kind: type[T], *, required: bool = False) -> T | None:
        value = self.body.get(name)
        if value is None:
            if required:
                self.complain(name, f"{name} is required")
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            self.complain(name, f"{name} must be of type {kind.__name__}")
            return None
        return value


def address_of(value: Json) -> tuple[str, str, int | None] | None:
    """(kind, value, prefix length) of an ``IPAddressOrFQDN``; None when it is not valid."""
    for kind in ("ipv4", "ipv6", "fqdn"):
        inner = value.get(kind)
        if not isinstance(inner, dict) or not isinstance(inner.get("value"), str):
            continue
        text = inner["value"]
        prefix = inner.get("prefixLength")
        if not _is_address(kind, text) or not (prefix is None or isinstance(prefix, int)):
            return None
        return kind, text, prefix if kind != "fqdn" else None
    return None


def _is_address(kind: str, text: str) -> bool:
    if kind == "fqdn":
        return bool(_HOST.match(text))
    try:
        return ipaddress.ip_address(text).version == (4 if kind == "ipv4" else 6) and "%" not in text
    except ValueError:
        return False
