"""What a plug-in is: its name, settings, declared capabilities and permissions, and how to connect."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from snapkeep.model.assets import AssetKind, Capability
from snapkeep.plugin.roles import Roles
from snapkeep.plugin.settings import SystemSettings


class Proof(StrEnum):
    """How a plug-in was proved; each step includes those before it."""

    SIMULATOR = "simulator"
    """The conformance suite passes on our own stateful simulator."""
    VENDOR_SDK = "vendor-sdk"
    """And the vendor's own client accepts that simulator."""
    RECORDED = "recorded-traffic"
    """And recorded traffic of a real system is understood."""
    REAL_SYSTEM = "real-system"
    """And the conformance suite passed on a real system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The declaration of a plug-in: from it come the matrix in the docs, the REST answer and the choice of tests.

    `capabilities`: what an asset of each kind may have; a single asset may have less, never more.
    `permissions`: the rights that an account needs on the system, by capability.
    `connect`: opens a system with checked settings; closing it ends its connections.
    """

    name: str
    title: str
    settings: type[SystemSettings]
    capabilities: Mapping[AssetKind, frozenset[Capability]]
    connect: Callable[[Any], AbstractAsyncContextManager[Roles]]
    permissions: Mapping[Capability, tuple[str, ...]] = field(default_factory=dict)
    proof: Proof = Proof.SIMULATOR

    def all_capabilities(self) -> frozenset[Capability]:
        """Return what at least one kind of asset may have."""
        return frozenset().union(*self.capabilities.values())
