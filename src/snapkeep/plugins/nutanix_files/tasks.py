"""Prism tasks: the receipts of all asynchronous work."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from snapkeep.model.errors import VendorError
from snapkeep.model.work import Pending
from snapkeep.plugins.nutanix_files.assumptions import SETTLE
from snapkeep.plugins.nutanix_files.client import NutanixClient
from snapkeep.plugins.nutanix_files.errors import error_from_task
from snapkeep.plugins.nutanix_files.mapping import parse_time

POLL_SECONDS = 1.0
"""How often a running task is asked; the first polls come sooner."""

_ENDED_BADLY = frozenset({"FAILED", "CANCELED"})


async def finished(client: NutanixClient, task_id: str, doing: str) -> Pending | dict[str, Any]:
    """Return the task once it SUCCEEDED. Raises its error when it FAILED or was CANCELED.

    A status that we do not know counts as running: the engine's deadline bounds it.
    """
    task = await client.task(task_id)
    status = str(task.get("status"))
    if status == "SUCCEEDED":
        return task
    if status in _ENDED_BADLY:
        raise error_from_task(task, doing)
    percentage = task.get("progressPercentage")
    progress = percentage / 100 if isinstance(percentage, int | float) else None
    return Pending(after=_poll_interval(task), progress=progress)


def not_there(task: dict[str, Any], doing: str) -> Pending:
    """Judge a task that succeeded although what it made answers 404: wait a little, then it is the vendor's lie."""
    ended = parse_time(task.get("completedTime"))
    if ended is not None and datetime.now(UTC) - ended < SETTLE:
        return Pending(after=POLL_SECONDS)
    raise VendorError(
        f"{doing}: the system reports success, but what it should have made does not exist",
        vendor_message=str(task.get("operationDescription") or task.get("operation") or ""),
        next_step="Look at the task on Prism Central, then try again.",
        task=str(task.get("extId", "")),
    )


def _poll_interval(task: dict[str, Any]) -> float:
    """Return a tenth of the task's age, from 0.05 s to POLL_SECONDS: quick for quick tasks, easy on slow ones."""
    begun = parse_time(task.get("createdTime"))
    age = (datetime.now(UTC) - begun).total_seconds() if begun else POLL_SECONDS * 10
    return min(max(age / 10, 0.05), POLL_SECONDS)
