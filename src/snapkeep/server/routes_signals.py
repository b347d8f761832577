"""Signals: what was thought of change lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from snapkeep.catalog.signals import SIGNAL_ORDERS, SignalRecord
from snapkeep.model.access import Action, Visible
from snapkeep.server.access import listed, on_signal
from snapkeep.server.authentication import Caller
from snapkeep.server.context import Parts
from snapkeep.server.lists import Since, Until, Wanted, wanted
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_signals import AcknowledgeIn, SignalOut

router = APIRouter(tags=["signals"])


@router.get("/signals", response_model=Page[SignalOut])
async def list_signals(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.SIGNAL_READ)],
    page: Annotated[Wanted, wanted(SignalOut, SIGNAL_ORDERS, limit=200)],
    asset_id: Annotated[str | None, Query(max_length=36)] = None,
    suspicious: Annotated[bool | None, Query(description="Only those that are, or only those that are not.")] = None,
    acknowledged: Annotated[
        bool | None, Query(description="Only those that somebody has acknowledged, or only the others.")
    ] = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """List what was thought of change lists."""
    found = await parts.catalog.signals.find(
        page.paging,
        asset_id=asset_id,
        suspicious=suspicious,
        acknowledged=acknowledged,
        since=since,
        until=until,
        visible=visible,
    )
    return page.answer([SignalOut.of(item) for item in found], found)


@router.get("/signals/{operation_id}")
async def show_signal(signal: Annotated[SignalRecord, on_signal(Action.SIGNAL_READ)]) -> SignalOut:
    """Show one, by the id of its operation; the beginning of it is enough when it is unique."""
    return SignalOut.of(signal)


@router.post("/signals/{operation_id}/acknowledge")
async def acknowledge_signal(
    signal: Annotated[SignalRecord, on_signal(Action.SIGNAL_ACKNOWLEDGE)],
    body: AcknowledgeIn,
    caller: Caller,
    parts: Parts,
) -> SignalOut:
    """Say that a suspicious list is harmless: it is usual from now on. A hold stays until somebody releases it."""
    return SignalOut.of(await parts.catalog.signals.acknowledge(signal, by=caller.name, reason=body.reason))
