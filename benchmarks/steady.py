"""The plug-in `nutanix-files`, but a snapshot that is being taken is polled every 0.2 s, however old its task is.

So each creation costs the same calls in every run. `installed` makes it known to child processes by an entry point,
as a plug-in of a third party is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from snapkeep.model.assets import Asset
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Pending, Ticket
from snapkeep.plugin.roles import Create, Roles
from snapkeep.plugins.nutanix_files import PLUGIN as NUTANIX_FILES

NAME = "steady-files"
POLL_SECONDS = 0.2
TASK_SECONDS = 0.9
"""Five polls find a task of this length pending, the sixth finds its end."""


class _Steady:
    def __init__(self, create: Create) -> None:
        self._create = create

    async def start_create(self, asset: Asset, name: str, request_id: str) -> Ticket:
        return await self._create.start_create(asset, name, request_id)

    async def poll_create(self, ticket: Ticket) -> Pending | Snapshot:
        answer = await self._create.poll_create(ticket)
        return replace(answer, after=POLL_SECONDS) if isinstance(answer, Pending) else answer


@asynccontextmanager
async def _connect(settings: Any) -> AsyncIterator[Roles]:
    async with NUTANIX_FILES.connect(settings) as roles:
        if roles.create is None:
            raise TypeError("the plug-in takes no snapshots")
        yield replace(roles, create=_Steady(roles.create))


PLUGIN = replace(NUTANIX_FILES, name=NAME, connect=_connect)


def installed(directory: Path) -> str:
    """Write the entry point below `directory`; return a PYTHONPATH with which it is found."""
    information = directory / "steady-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: steady\nVersion: 0\n")
    (information / "entry_points.txt").write_text(f"[snapkeep.plugins]\n{NAME} = benchmarks.steady:PLUGIN\n")
    return f"{Path(__file__).parent.parent}:{directory}"
