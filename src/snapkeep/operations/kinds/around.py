"""Programs around a snapshot: one before it is asked for, and one after, whatever became of it.

The operation's cursor says how far it came, since a process may die at any moment: nothing, then `BEGUN` before the
first program begins, then `ASKED` before the system is asked. Why it fails is noted before the program after runs. From
`BEGUN` on the program after is run at least once: by who comes to the end, or by who is started next. It may run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, NoReturn

import structlog

from snapkeep.catalog.fencing import Superseded
from snapkeep.catalog.outages import is_outage
from snapkeep.model.errors import AuthenticationFailed, SnapkeepError
from snapkeep.model.programs import Programs
from snapkeep.operations.programs import find_program, run_program
from snapkeep.operations.run import Cancelled, Run

BEGUN = "begun"
"""Noted before the program before begins: from then on the one after is due."""
ASKED = "asked"
"""Noted before the system is asked, while all is held: from then on the snapshot may exist."""

log = structlog.get_logger(__name__)


class SnapshotOutcome(StrEnum):
    """What a program after is told."""

    TAKEN = "taken"
    FAILED = "failed"


def programs_of(run: Run) -> Programs | None:
    """Return the programs that a request names."""
    return Programs(**run.request["programs"]) if run.request.get("programs") else None


async def surrounded(run: Run, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """Run the program before, the work, and the program after; return the work's result, and `after_failed`.

    That is the error of the program after as JSON, None when it did its work. The work notes `ASKED`; it is safe to
    run again. Raises what the program before raises (then there is no work), and what the work raises: with the error
    of the program after in its details, `after_failed`. At a cancel the program after is left to `let_go`.
    """
    programs = programs_of(run)
    if programs is None:
        return await work()
    known = await run.catalog.operations.get(run.operation.id)
    run.unasked = known.cursor != ASKED
    if known.error is not None:
        await _fail(run, programs, SnapkeepError.from_dict(known.error))
    await run.look_for_signals()
    if run.unasked:
        if known.cursor == BEGUN and (failed := await _after(run, programs, SnapshotOutcome.FAILED)) is not None:
            raise failed
        for name in programs.names:  # nothing is begun that cannot be ended
            await asyncio.to_thread(find_program, run.host.programs, name, run.host.name)
        await run.catalog.operations.update(run.operation.id, cursor=BEGUN)
    try:
        if run.unasked and programs.before is not None:
            await _run(run, programs, programs.before, "before")
        result = await work()
    except (Cancelled, Superseded):
        raise
    except Exception as error:
        if is_outage(error):
            raise
        await _fail(run, programs, error)
    after_failed = await _after(run, programs, SnapshotOutcome.TAKEN)
    return {**result, "after_failed": after_failed.to_dict() if after_failed is not None else None}


async def let_go(run: Run) -> SnapkeepError | None:
    """Run the program after of an operation that is cancelled, if it is due; return why it failed."""
    programs = programs_of(run)
    if programs is None or (await run.catalog.operations.get(run.operation.id)).cursor is None:
        return None
    return await _after(run, programs, SnapshotOutcome.FAILED)


async def _fail(run: Run, programs: Programs, error: Exception) -> NoReturn:
    """Note the error, run the program after, and raise the error."""
    told = error if isinstance(error, SnapkeepError) else SnapkeepError(f"{type(error).__name__}: {error}")
    if told is not error:
        log.error("a defect of ours, with programs around it", exc_info=error)
    if not isinstance(error, AuthenticationFailed):  # it is tried again at once, all of it, if the secret has changed
        await run.catalog.operations.update(run.operation.id, error=told.to_dict())
    if (failed := await _after(run, programs, SnapshotOutcome.FAILED)) is not None:
        told.details["after_failed"] = failed.to_dict()
    raise told from error


async def _after(run: Run, programs: Programs, outcome: SnapshotOutcome) -> SnapkeepError | None:
    """Run the program after to its end, also when a cancel was asked for; return why it failed."""
    if programs.after is None:
        return None
    try:
        await _run(run, programs, programs.after, "after", SNAPKEEP_OUTCOME=outcome.value)
    except SnapkeepError as error:
        log.warning("the program after the snapshot failed", program=programs.after, reason=str(error))
        return error
    return None


async def _run(run: Run, programs: Programs, name: str, moment: str, **more: str) -> None:
    asset = await run.asset()
    environment = {
        "SNAPKEEP_OPERATION": run.operation.id,
        "SNAPKEEP_SYSTEM": asset.system_name,
        "SNAPKEEP_ASSET": asset.asset.name,
        "SNAPKEEP_SNAPSHOT": run.request["name"],
        "SNAPKEEP_MOMENT": moment,
        **more,
    }
    await run.report(f"running the program {name} {moment} the snapshot")
    before = moment == "before"
    await run_program(run, name, environment=environment, seconds=programs.seconds, interruptible=before)
