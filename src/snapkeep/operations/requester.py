"""Who asks for an operation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, and under which id: who asks again under the same id gets the same operation."""

    name: str
    operation_id: str | None = None
    digest: bytes | None = None
    """Of what is asked under this id: another question under it is refused."""
    dry_run: bool = False
    """Everything is checked, nothing is begun: `Planned` is raised in place of that."""
    is_operation: bool = False
    """An operation asks, for a part of itself."""
    kind: str = ""
    """What he is who asks, as audit lines say it: user, service or local; empty: nobody by himself."""


class Planned(Exception):
    """What would be done, was it no dry run."""

    def __init__(self, would: str, affected: list[str]) -> None:
        super().__init__(would)
        self.would = would
        self.affected = affected
