"""Policies, what they would do, and applying it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, status
from fastapi.responses import StreamingResponse

from snapkeep.catalog.policies import POLICY_ORDERS, PolicyRecord
from snapkeep.model.access import Action
from snapkeep.model.errors import Conflict
from snapkeep.operations.requester import Planned
from snapkeep.policy.applying import apply, draft
from snapkeep.policy.plan import Digest
from snapkeep.policy.planning import plan_of, plans
from snapkeep.policy.selecting import Loaded
from snapkeep.server.access import Allowed, allow
from snapkeep.server.authentication import Caller
from snapkeep.server.conditional import Expected, Known, answered, tag_of
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Wanted, wanted
from snapkeep.server.requester import WOULD, Cautious, DryRun
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_policies import (
    PlanEndOut,
    PlanItemOut,
    PolicyIn,
    PolicyOut,
    PrunedOut,
    PruneIn,
    TooManyOut,
)

router = APIRouter(tags=["policies"])

READ = [allow(Action.POLICY_READ)]
CHANGE = [allow(Action.POLICY_CHANGE)]
NDJSON = "application/x-ndjson"
LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {NDJSON: {}}, "description": "One PlanItemOut a line; the last line is a PlanEndOut."}
}


@router.get("/policies", dependencies=READ, response_model=Page[PolicyOut])
async def list_policies(parts: Parts, page: Annotated[Wanted, wanted(PolicyOut, POLICY_ORDERS)]) -> Response:
    """List the policies."""
    found = await parts.catalog.policies.find(page.paging)
    return page.answer([PolicyOut.of(item) for item in found], found)


@router.get("/policies/{name}", dependencies=READ, response_model=PolicyOut)
async def show_policy(name: str, parts: Parts, known: Known) -> Response:
    """Show one policy, with its text."""
    shown = PolicyOut.of(await parts.catalog.policies.get(name))
    return known.answer(shown, tag_of(shown))


@router.put("/policies/{name}", dependencies=CHANGE, response_model=PolicyOut, responses=WOULD)
async def apply_policy(
    name: str,
    expected: Expected,
    body: PolicyIn,
    parts: Parts,
    access: Allowed,
    caller: Caller,
    dry_run: DryRun = False,
) -> Response:
    """Store a policy, enabled if it is new; all mistakes of its text are told at once, as `fields`.

    It begins with what is due after that. Until the cooling time has passed, its retention deletes nothing.
    """
    known = await parts.catalog.policies.known(name)
    expected.require(_tag(known))
    wanted = await draft(parts.catalog, name, body.text)
    for program in wanted.written.policy.programs:
        await access.program(program)
    if dry_run:
        what = "change" if known is not None else "add"
        raise Planned(f"{what} the policy {name}", [f"{wanted.assets} assets are under it", *wanted.notes])
    shown = PolicyOut.of(await apply(parts.catalog, parts.clock, known, wanted, caller.name))
    return answered(shown, tag_of(shown))


@router.delete("/policies/{name}", status_code=status.HTTP_204_NO_CONTENT, dependencies=CHANGE, responses=WOULD)
async def remove_policy(name: str, expected: Expected, parts: Parts, caller: Caller, dry_run: DryRun = False) -> None:
    """Remove a policy. What it has made stays, and no policy deletes it any more."""
    record = await parts.catalog.policies.get(name)
    expected.require(_tag(record))
    if dry_run:
        raise Planned(f"remove the policy {name}", [name])
    await parts.catalog.policies.remove(record, by=caller.name)


@router.post("/policies/{name}/enable", dependencies=CHANGE)
async def enable_policy(name: str, expected: Expected, parts: Parts, access: Allowed, caller: Caller) -> PolicyOut:
    """Let a policy run again, beginning with what is due then. Its retention waits for the cooling time."""
    record = await parts.catalog.policies.get(name)
    try:
        policy = Loaded.of(record).policy
    except ValueError as error:
        raise Conflict(f"This version cannot read the policy {name!r}", next_step="Apply its text again.") from error
    for program in policy.programs:
        await access.program(program)
    return await _enabled(name, True, expected, parts, caller.name)


@router.post("/policies/{name}/disable", dependencies=CHANGE)
async def disable_policy(name: str, expected: Expected, parts: Parts, caller: Caller) -> PolicyOut:
    """Let a policy neither run nor delete anything. What runs already goes on."""
    return await _enabled(name, False, expected, parts, caller.name)


# -- what it would do --------------------------------------------------------------------------------------------------
@router.get("/policies/{name}/plan", dependencies=READ, response_class=StreamingResponse, responses=LINES)
async def plan_policy(
    name: str,
    parts: Parts,
    deleted: Annotated[bool, Query(description="Only what would be deleted.")] = False,
) -> StreamingResponse:
    """Say of all snapshots and recovery points of the assets under a policy whether retention keeps them, and why.

    As NDJSON, by asset, the newest first. The last line has the hash by which exactly this is applied.
    """
    record = await parts.catalog.policies.get(name)
    return StreamingResponse(_lines(parts, record, deleted), media_type=NDJSON)


@router.post(
    "/policies/{name}/prune",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=[allow(Action.POLICY_PRUNE)],
    responses=WOULD,
)
async def prune_policy(name: str, body: PruneIn, parts: Parts, caller: Cautious) -> PrunedOut:
    """Delete exactly what a plan says; refused when it is another one by now. What something keeps by then stays."""
    record = await parts.catalog.policies.get(name)
    if caller.dry_run:
        going, digest = await plan_of(parts.catalog, Loaded.of(record).policy)
        named = [point.reference for point in going[:1000]]
        raise Planned(f"delete {len(going)} snapshots and recovery points (plan {digest})", named)
    return PrunedOut.of(await parts.pruner.prune(record, body.hash, caller))


# -- inside ------------------------------------------------------------------------------------------------------------
def _tag(record: PolicyRecord | None) -> str | None:
    return tag_of(PolicyOut.of(record)) if record is not None else None


async def _enabled(name: str, enabled: bool, expected: Expected, parts: Context, by: str) -> PolicyOut:
    record = await parts.catalog.policies.get(name)
    expected.require(_tag(record))
    if record.enabled != enabled:
        cooling = timedelta(hours=(await parts.catalog.cooling.get()).hours)
        now = parts.clock.now()
        record = await parts.catalog.policies.enable(record, enabled, now=now, cooling=cooling, by=by)
    return PolicyOut.of(record)


async def _lines(parts: Context, record: PolicyRecord, only_deleted: bool) -> AsyncIterator[bytes]:
    digest, counts, too_many = Digest(), {True: 0, False: 0}, []
    async for plan in plans(parts.catalog, Loaded.of(record).policy):
        digest.add(plan.items)
        reference = plan.asset.reference
        too_many += [TooManyOut(asset=reference, step=one.step, count=one.count, most=one.most) for one in plan.refused]
        lines = []
        for item in PlanItemOut.all_of(plan, record.name):
            counts[item.delete] += 1
            if item.delete or not only_deleted:
                lines.append(item.model_dump_json().encode() + b"\n")
        if lines:
            yield b"".join(lines)
    end = PlanEndOut(hash=digest.hexdigest(), deleted=counts[True], kept=counts[False], too_many=too_many)
    yield end.model_dump_json().encode() + b"\n"
