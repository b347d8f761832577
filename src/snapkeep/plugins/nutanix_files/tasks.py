"""Prism tasks: the receipts of all asynchronous work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from snapkeep.model.errors import VendorError
from snapkeep.model.work import Pending, Ticket
from snapkeep.plugins.nutanix_files.assumptions import ABSENCE, SETTLE
from snapkeep.plugins.nutanix_files.client import Entity, NutanixClient
from snapkeep.plugins.nutanix_files.errors import error_from_task
from snapkeep.plugins.nutanix_files.mapping import parse_time

POLL_SECONDS = 1.0
"""How often a running task is asked; the first polls come sooner."""

_ENDED_BADLY = frozenset({"FAILED", "CANCELED"})


async def finished(client: NutanixClient, task_id: str, doing: str) -> Pending | Entity:
    """Return the task once it SUCCEEDED. Raises its error when it FAILED or was CANCELED.

    A status that we do not know counts as running: the engine's deadline bounds it.
    """
    found = await client.task(task_id)
    task = found.data
    status = str(task.get("status"))
    if status == "SUCCEEDED":
        return found
    if status in _ENDED_BADLY:
        raise error_from_task(task, doing)
    percentage = task.get("progressPercentage")
    progress = percentage / 100 if isinstance(percentage, int | float) else None
    return Pending(after=_poll_interval(found), progress=progress)


def not_there(task: Entity, doing: str) -> Pending:
    """Judge a task that succeeded although what it made answers 404: wait a little, then it is the vendor's lie."""
    ended = parse_time(task.data.get("completedTime"))
    if ended is not None and task.date - ended < SETTLE:
        return Pending(after=POLL_SECONDS)
    raise VendorError(
        f"{doing}: the system reports success, but what it should have made does not exist",
        vendor_message=str(task.data.get("operationDescription") or task.data.get("operation") or ""),
        next_step="Look at the task on Prism Central, then try again.",
        task=str(task.data.get("extId", "")),
    )


def asked() -> dict[str, str]:
    """Return what a ticket notes of the time at which the system was asked."""
    return {"asked": datetime.now(UTC).isoformat()}


def absent(ticket: Ticket) -> Pending | None:
    """Judge a 404 on something that no task of ours took away: None when it proves that it is gone.

    A system that has just begun to serve, or a cache of it, may answer 404 for a moment on what is there.
    """
    began = parse_time(ticket.data.get("asked"))
    lasted = (datetime.now(UTC) - began) / ABSENCE if began is not None else 1.0
    return Pending(after=POLL_SECONDS, progress=max(lasted, 0.0)) if lasted < 1 else None


def affected(task: Entity) -> list[dict[str, Any]]:
    """Return the entities that a task names."""
    entities = task.data.get("entitiesAffected")
    return [item for item in entities if isinstance(item, dict)] if isinstance(entities, list) else []


def _poll_interval(task: Entity) -> float:
    """Return a tenth of the task's age, from 0.05 s to POLL_SECONDS: quick for quick tasks, easy on slow ones.

    Both times are the system's own, so a difference of clocks does not matter.
    """
    begun = parse_time(task.data.get("createdTime"))
    age = (task.date - begun).total_seconds() if begun else POLL_SECONDS * 10
    return min(max(age / 10, 0.05), POLL_SECONDS)
