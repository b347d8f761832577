"""What is protected, since when, and what is not."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response

from snapkeep.catalog.inventory import ASSET_ORDERS
from snapkeep.model.access import Action
from snapkeep.policy.coverage import coverage, loaded
from snapkeep.server.access import allow
from snapkeep.server.context import Parts
from snapkeep.server.lists import Wanted, wanted
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_coverage import CoverageOut

router = APIRouter(tags=["policies"])


@router.get("/coverage", dependencies=[allow(Action.POLICY_READ)], response_model=Page[CoverageOut])
async def list_coverage(
    parts: Parts, page: Annotated[Wanted, wanted(CoverageOut, ASSET_ORDERS, limit=200)]
) -> Response:
    """Say of each asset which policies it is under, how old its last good recovery point is, and what is next due."""
    assets = await parts.catalog.inventory.assets(paging=page.paging)
    found = await coverage(parts.catalog, assets, await loaded(parts.catalog), parts.clock.now())
    return page.answer([CoverageOut.of(one) for one in found], assets)
