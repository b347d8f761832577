"""Who asks for an operation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, and under which id: who asks again under the same id gets the same operation."""

    name: str
    operation_id: str | None = None
