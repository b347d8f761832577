"""Scopes as people write them, and as REST has them: an asset by its name here, by its id there."""

from __future__ import annotations

from typing import Any

from snapkeep.cli.references import parse_asset
from snapkeep.model.errors import InvalidInput, NotFound, PermissionDenied

Json = dict[str, Any]
_ASSET = "asset:"


class Scopes:
    """Translates the scopes of one server."""

    def __init__(self, rest: Any) -> None:
        self._rest = rest
        self._names: dict[str, str] = {}

    def read(self, text: str) -> str:
        """Return for REST what somebody wrote: `asset:SYSTEM/ASSET` with its id. Raises NotFound, InvalidInput."""
        value = text.removeprefix(_ASSET)
        if not text.startswith(_ASSET) or "/" not in value:
            return text
        return f"{_ASSET}{self._rest.asset(parse_asset(value))['id']}"

    def shown(self, text: str) -> str:
        """Return for people what REST has; an asset that the reader may not see keeps its id."""
        if not text.startswith(_ASSET):
            return text
        if text not in self._names:
            try:
                reference = self._rest.request("GET", f"/assets/{text.removeprefix(_ASSET)}")["reference"]
                self._names[text] = f"{_ASSET}{reference}"
            except (NotFound, PermissionDenied):
                self._names[text] = text
        return self._names[text]

    def held(self, grants: list[Json]) -> list[str]:
        """Return grants or limits for people, each as ROLE@SCOPE."""
        return [f"{grant['role']}@{self.shown(grant['scope'])}" for grant in grants]


def parse_limit(text: str) -> tuple[str, str]:
    """Split ROLE or ROLE@SCOPE; without a scope it is `all`. Raises InvalidInput.

    Names of roles may have an '@', but no ':'.
    """
    head, colon, value = text.partition(":")
    if not colon:
        return head.removesuffix("@all"), "all"
    role, at, kind = head.rpartition("@")
    if not at or not role:
        raise InvalidInput(
            f"{text!r:.120} has not the form ROLE@SCOPE",
            next_step="Write for instance operator@system:files1, or viewer for viewer@all.",
        )
    return role, f"{kind}:{value}"
