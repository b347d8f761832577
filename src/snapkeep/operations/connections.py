"""Open connections to systems, shared by the operations of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

from snapkeep.catalog.systems import Systems
from snapkeep.operations.clock import Clock
from snapkeep.operations.references import References
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.registry import get_plugin
from snapkeep.plugin.roles import Roles

TRUSTED_SECONDS = 1.0
"""How long a connection is used before the catalog is asked whether another process has changed the system."""


@dataclass(slots=True)
class _Open:
    revision: int
    roles: Roles
    context: AbstractAsyncContextManager[Roles]
    trusted_until: float
    secrets: dict[str, Any] = field(repr=False)
    """What its references led to when it was opened."""


class Connections:
    """One connection for each system; opened when first needed, closed with the process or the system."""

    def __init__(self, systems: Systems, clock: Clock, references: References) -> None:
        self._systems = systems
        self._clock = clock
        self._references = references
        self._open: dict[str, _Open] = {}
        self._retired: list[_Open] = []
        self._locks: dict[str, asyncio.Lock] = {}

    async def roles(self, system_id: str) -> Roles:
        """Return the roles of a connected system."""
        async with self._locks.setdefault(system_id, asyncio.Lock()):
            found = self._open.get(system_id)
            if found is not None and self._clock.monotonic() < found.trusted_until:
                return found.roles
            system = await self._systems.get(system_id)
            trusted_until = self._clock.monotonic() + TRUSTED_SECONDS
            if found is not None and found.revision == system.revision:
                found.trusted_until = trusted_until
                return found.roles
            self.retire(system_id)
            plugin = get_plugin(system.plugin)
            stored = await self._systems.all_settings(system)
            referring = _referring(plugin, stored)
            secrets = await self._references.resolve(referring)
            context = plugin.connect(plugin.settings.parse({**stored, **secrets}))
            roles = await context.__aenter__()
            opened = _Open(system.revision, roles, context, trusted_until, secrets)
            self._open[system_id] = opened
            return opened.roles

    async def renew(self, system_id: str) -> bool:
        """Look whether references lead to other secrets than before; then use a new connection, and say so.

        Raises what resolving them raises.
        """
        async with self._locks.setdefault(system_id, asyncio.Lock()):
            found = self._open.get(system_id)
            if found is None or not found.secrets:
                return False
            system = await self._systems.get(system_id)
            stored = await self._systems.all_settings(system)
            if await self._references.resolve(_referring(get_plugin(system.plugin), stored)) == found.secrets:
                return False
            self.retire(system_id)
            return True

    def retire(self, system_id: str) -> None:
        """Use a new connection from now on; operations under way end on the old one, closed with the process."""
        if found := self._open.pop(system_id, None):
            self._retired.append(found)

    async def close_all(self) -> None:
        """Close every connection."""
        while self._retired or self._open:
            found = self._retired.pop() if self._retired else self._open.popitem()[1]
            await found.context.__aexit__(None, None, None)


def _referring(plugin: Plugin, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the secrets that are references; other settings may be mappings of their own."""
    secret = plugin.settings.secret_fields()
    return {name: value for name, value in stored.items() if name in secret and isinstance(value, dict)}
