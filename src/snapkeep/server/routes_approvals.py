"""Four-eyes: which requests need the approval of others, and what others think of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from snapkeep.catalog.approvals import APPROVAL_ORDERS
from snapkeep.catalog.records import ApprovalRecord
from snapkeep.model.access import Action, Principal
from snapkeep.model.approvals import ApprovalState, FourEyes
from snapkeep.server.access import allow, for_anyone_known
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Wanted, wanted
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_approvals import ApprovalOut, DecisionIn, FourEyesIn, FourEyesOut

router = APIRouter(tags=["approvals"])


@router.get("/four-eyes", dependencies=[for_anyone_known()])
async def show_four_eyes(parts: Parts) -> FourEyesOut:
    """Say what needs the approval of others."""
    return FourEyesOut.of(await parts.catalog.approvals.four_eyes())


@router.put("/four-eyes", dependencies=[allow(Action.FOUR_EYES_CHANGE)])
async def set_four_eyes(body: FourEyesIn, caller: Caller, parts: Parts) -> FourEyesOut:
    """Let what destroys need the approval of others, or no more. While it does, that needs their approval, too."""
    policy = FourEyes(frozenset(body.actions), body.needed, body.hours) if body.enabled else None
    await parts.approvals.set_four_eyes(caller, policy)
    return FourEyesOut.of(await parts.catalog.approvals.four_eyes())


# -- approvals ---------------------------------------------------------------------------------------------------------
@router.get("/approvals", response_model=Page[ApprovalOut], dependencies=[for_anyone_known()])
async def list_approvals(
    caller: Caller,
    parts: Parts,
    page: Annotated[Wanted, wanted(ApprovalOut, APPROVAL_ORDERS)],
    state: Annotated[list[ApprovalState] | None, Query()] = None,
) -> Response:
    """List approvals: all of them for who may decide, or reads the audit log; for others, their own."""
    now = await parts.approvals.now()
    found = await parts.catalog.approvals.find(
        requester=_only(caller), states=tuple(state or ()), at=now, paging=page.paging
    )
    return page.answer([ApprovalOut.of(item, parts.approvals.state_of(item, now)) for item in found], found)


@router.get("/approvals/{approval_id}", dependencies=[for_anyone_known()])
async def show_approval(approval_id: str, caller: Caller, parts: Parts) -> ApprovalOut:
    """Show one; the beginning of its id is enough when it is unique."""
    return await _shown(parts, await parts.catalog.approvals.get(approval_id, _only(caller)))


@router.post("/approvals/{approval_id}/approve", dependencies=[allow(Action.APPROVAL_DECIDE)])
async def approve(approval_id: str, body: DecisionIn, caller: Caller, parts: Parts) -> ApprovalOut:
    """Approve what another one asks for. He then sends his request again, with the header `Approval`."""
    return await _shown(parts, await parts.approvals.decide(caller, approval_id, body.comment, approves=True))


@router.post("/approvals/{approval_id}/refuse", dependencies=[allow(Action.APPROVAL_DECIDE)])
async def refuse(approval_id: str, body: DecisionIn, caller: Caller, parts: Parts) -> ApprovalOut:
    """Refuse what another one asks for: nobody else can approve it then."""
    return await _shown(parts, await parts.approvals.decide(caller, approval_id, body.comment, approves=False))


def _only(caller: Principal) -> str | None:
    """Return whose approvals somebody may see; None: all."""
    return None if caller.may(Action.APPROVAL_DECIDE) or caller.may(Action.AUDIT_READ) else caller.name


async def _shown(parts: Context, record: ApprovalRecord) -> ApprovalOut:
    return ApprovalOut.of(record, parts.approvals.state_of(record, await parts.approvals.now()))
