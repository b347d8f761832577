"""Names for people: `system`, `system/asset`, `system/asset@snapshot`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from snapkeep.model.errors import InvalidInput

LONGEST_NAME = 300
"""Characters of a name or id in a path; no server takes paths of any length."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed name. The system has no '/', the snapshot no '@'; the asset may have both."""

    system: str
    asset: str
    snapshot: str


def parse(text: str) -> Reference:
    """Parse any of the three forms. Raises InvalidInput."""
    system, slash, rest = text.partition("/")
    asset, at, snapshot = rest.rpartition("@") if "@" in rest else (rest, "", "")
    if not system or (slash and not asset) or (at and not snapshot):
        raise InvalidInput(
            f"{text!r} is not a name of something", next_step="Write system, system/asset or system/asset@snapshot."
        )
    return Reference(system, asset, snapshot)


def parse_asset(text: str) -> Reference:
    """Parse `system/asset`; an '@' belongs to the asset's name."""
    system, _, asset = text.partition("/")
    if not system or not asset:
        raise InvalidInput(f"{text!r} does not name an asset", next_step="Write system/asset.")
    return Reference(system, asset, "")


def parse_snapshot(text: str) -> Reference:
    """Parse `system/asset@snapshot`."""
    reference = parse(text)
    if not reference.snapshot:
        raise InvalidInput(f"{text!r} does not name a snapshot", next_step="Write system/asset@snapshot.")
    return reference


def part(name: str) -> str:
    """Return a name as one part of a path. Raises InvalidInput for what cannot be one, and would be another path."""
    if not name or name in {".", ".."} or "/" in name or len(name) > LONGEST_NAME:
        raise InvalidInput(f"{name!r:.80} is no name")
    return quote(name, safe="")
