"""Open connections to systems, shared by the operations of this process."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from snapkeep.catalog.records import SystemRecord
from snapkeep.catalog.systems import Systems
from snapkeep.plugin.plugin import Plugin
from snapkeep.plugin.registry import get_plugin
from snapkeep.plugin.roles import Roles


@dataclass(frozen=True, slots=True)
class _Open:
    revision: int
    roles: Roles
    context: AbstractAsyncContextManager[Roles]


class Connections:
    """One connection for each system; opened when first needed, closed with the process or the system."""

    def __init__(self, systems: Systems) -> None:
        self._systems = systems
        self._open: dict[str, _Open] = {}
        self._retired: list[_Open] = []
        self._locks: dict[str, asyncio.Lock] = {}

    def plugin(self, system: SystemRecord) -> Plugin:
        """Return the plug-in of a system."""
        return get_plugin(system.plugin)

    async def roles(self, system: SystemRecord) -> Roles:
        """Return the roles of a connected system."""
        async with self._locks.setdefault(system.id, asyncio.Lock()):
            found = self._open.get(system.id)
            if found is not None and found.revision < system.revision:  # it was changed, perhaps in another process
                self.retire(system.id)
                found = None
            if found is None:
                settings = self.plugin(system).settings.parse(await self._systems.all_settings(system))
                context = self.plugin(system).connect(settings)
                found = _Open(system.revision, await context.__aenter__(), context)
                self._open[system.id] = found
            return found.roles

    def retire(self, system_id: str) -> None:
        """Use a new connection from now on; operations under way end on the old one, closed with the process."""
        if found := self._open.pop(system_id, None):
            self._retired.append(found)

    async def close_all(self) -> None:
        """Close every connection."""
        while self._retired or self._open:
            found = self._retired.pop() if self._retired else self._open.popitem()[1]
            await found.context.__aexit__(None, None, None)
