"""What a plug-in is: its name, settings, declared capabilities and permissions, and how to connect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from snapkeep.model.assets import AssetKind, Capability
from snapkeep.model.errors import InvalidInput
from snapkeep.plugin.grants import Explain, Grant, by_right, plainly
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
    `permissions`: the rights that an account needs on the system, by capability; `allows`: what each of them allows
    there, and `explain`: how an administrator grants them.
    `connect`: opens a system with checked settings; closing it ends its connections.
    """

    name: str
    title: str
    settings: type[SystemSettings]
    capabilities: Mapping[AssetKind, frozenset[Capability]]
    connect: Callable[[Any], AbstractAsyncContextManager[Roles]]
    permissions: Mapping[Capability, tuple[str, ...]] = field(default_factory=dict)
    allows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    explain: Explain = plainly
    proof: Proof = Proof.SIMULATOR

    def all_capabilities(self) -> frozenset[Capability]:
        """Return what at least one kind of asset may have."""
        return frozenset().union(*self.capabilities.values())

    def grant(self, capabilities: Iterable[Capability] | None = None) -> Grant:
        """Return what an account needs for these capabilities, or for all. Raises InvalidInput for an absent one."""
        declared = self.all_capabilities()
        wanted = declared if capabilities is None else frozenset(capabilities)
        if absent := sorted(wanted - declared):
            raise InvalidInput(
                f"{self.name} cannot {', '.join(absent)}: there is nothing to grant",
                next_step=f"Choose from: {', '.join(sorted(declared))}.",
            )
        chosen = tuple(capability for capability in Capability if capability in wanted)
        rights = by_right(self.permissions, chosen, self.allows)
        return Grant(capabilities=chosen, rights=rights, instructions=self.explain(rights, chosen))
