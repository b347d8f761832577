"""Names for people: `system`, `system/asset`, `system/asset@snapshot`."""

from __future__ import annotations

from dataclasses import dataclass

from snapkeep.model.errors import InvalidInput


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
