"""What every request must bear: outages, limits, silence, nonsense. Shown by discovery, which all plug-ins have."""

from __future__ import annotations

import time

import pytest

from snapkeep.conformance.acts import at_most, connected, promise
from snapkeep.conformance.target import Fault, Target
from snapkeep.model.errors import RateLimited, SnapkeepError, Unavailable, VendorError

RETRY_AFTER = 1.0
"""Seconds."""


@promise()
async def test_a_rate_limit_is_honoured(target: Target) -> None:
    """When the system asks to wait, nothing is sent to it for that time, and then the work goes on."""
    asset = await target.fresh_asset()
    await target.suffer(Fault.RATE_LIMITED, value=RETRY_AFTER)
    async with connected(target) as hand:
        begun = time.monotonic()
        assets, _ = await hand.everything()
        taken = time.monotonic() - begun
    assert asset.id in {found.id for found in assets}
    assert RETRY_AFTER <= taken < RETRY_AFTER + target.impatient_seconds


@promise()
async def test_a_rate_limit_longer_than_allowed_is_reported_at_once(target: Target) -> None:
    """A wait that does not fit is `RateLimited` with its seconds, so that the engine can wait instead."""
    await target.suffer(Fault.RATE_LIMITED, times=None, value=300)
    async with connected(target, **target.impatient) as hand, at_most(target.impatient_seconds):
        with pytest.raises(RateLimited) as caught:
            await hand.everything()
    assert caught.value.details["retry_after"] == 300


@promise()
@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.RESET, Fault.TRUNCATED])
async def test_a_short_outage_is_bridged(target: Target, fault: Fault) -> None:
    """An outage of some answers does not show."""
    asset = await target.fresh_asset()
    await target.suffer(fault, times=2)
    async with connected(target) as hand:
        assets, _ = await hand.everything()
    assert asset.id in {found.id for found in assets}


@promise()
@pytest.mark.parametrize("fault", [Fault.UNAVAILABLE, Fault.FAILING, Fault.RESET, Fault.HANG, Fault.TRUNCATED], ids=str)
async def test_a_long_outage_is_reported_in_time(target: Target, fault: Fault) -> None:
    """When it does not end, the error is `Unavailable`, within the time that the settings allow."""
    await target.suffer(fault, times=None)
    async with connected(target, **target.impatient) as hand, at_most(target.impatient_seconds):
        with pytest.raises(Unavailable) as caught:
            await hand.everything()
    assert caught.value.retryable
    assert caught.value.next_step


@promise()
@pytest.mark.parametrize("fault", [Fault.BROKEN_JSON, Fault.HTML])
async def test_nonsense_is_reported_as_such(target: Target, fault: Fault) -> None:
    """An answer that cannot be read is `VendorError`, in time, and shows what came."""
    await target.suffer(fault, times=None)
    async with connected(target, **target.impatient) as hand, at_most(target.impatient_seconds):
        with pytest.raises(VendorError) as caught:
            await hand.everything()
    assert caught.value.next_step
    if fault is Fault.HTML:
        assert "<html" in str(caught.value).lower()


@promise()
async def test_answers_of_another_shape_are_a_typed_error(target: Target) -> None:
    """Whatever well-formed nonsense comes, the error is one of the tree, never a crash."""
    await target.suffer(Fault.WRONG_SHAPE, times=None)
    async with connected(target, **target.impatient) as hand, at_most(target.impatient_seconds):
        with pytest.raises(SnapkeepError) as caught:
            await hand.everything()
    assert caught.value.code != "internal"
