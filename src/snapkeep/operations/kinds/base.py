"""What a kind of operation promises to the runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from snapkeep.model.errors import SnapkeepError, Unsupported
from snapkeep.model.work import Ticket
from snapkeep.operations.run import Run

RoleT = TypeVar("RoleT")


class Handler(ABC):
    """Begin, come to an end, undo; each is safe to run again."""

    kind: ClassVar[str]
    finishing: ClassVar[str]
    """What people read while `finish` waits."""
    cancellable: ClassVar[bool] = False
    """Whether `undo` can take back what was begun; otherwise only a queued operation can be cancelled."""
    undone_on_failure: ClassVar[bool] = False
    """Whether `undo` is also run after a failure, when it is not known how far the system came."""
    pausable: ClassVar[bool] = False
    """Whether it can be paused after it has begun: work of ours, that goes on behind what is stored."""
    exclusive: ClassVar[bool] = False
    """Whether it must not run beside another exclusive operation on the same asset."""
    patient: ClassVar[bool] = True
    """Whether a system that is out of reach at the beginning is waited for, as long as an outage may last."""

    def turn_key(self, request: Mapping[str, Any]) -> str | None:
        """Return what only one operation has at a time (at most 36 characters), None when many may run at once."""
        return str(request["asset_id"]) if self.exclusive else None

    @abstractmethod
    async def start(self, run: Run) -> Ticket:
        """Have the effect begin; return the ticket."""

    @abstractmethod
    async def finish(self, run: Run, ticket: Ticket) -> dict[str, Any]:
        """Wait for the end; record it in the catalog; return the result for people and programs (JSON)."""

    async def undo(self, run: Run, ticket: Ticket | None) -> None:  # noqa: B027 - optional on purpose
        """Leave the system as if this had not been. `ticket` is None when `start` did not return.

        A kind that cannot be cancelled, and is not undone on failure, needs none.
        """


async def tidy(run: Run, snapshot_id: str, label: str, *, strict: bool = False) -> list[str]:
    """Take back every export of a snapshot of ours. Return what could not be; `strict`: raise that instead."""
    left = []
    for record in await run.catalog.exports.find(snapshot_row=snapshot_id):
        try:
            await run.part(f"{label} from {record.export.host.name}", lambda by: run.operations.deport(record, by))  # noqa: B023
        except SnapkeepError as error:
            if strict:
                raise
            left.append(f"the export to {record.export.host.name} stays: {error.message}")
    return left


def export_label(run: Run) -> str:
    """Return how the part is called that exports a snapshot to this host."""
    return f"export to {run.host.address}"


class Mover(Handler):
    """A kind that moves data. Its work is done by this host in `finish`, and by parts that can be found again."""

    async def start(self, run: Run) -> Ticket:
        """Nothing begins here."""
        return Ticket({})


def played(role: RoleT | None, what: str) -> RoleT:
    """Return the role, or raise Unsupported: the plug-in does not play it."""
    if role is None:
        raise Unsupported(f"The plug-in of this system does not offer {what}")
    return role
