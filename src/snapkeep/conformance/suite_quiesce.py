"""Quiesce: held while it is held, and let go by the host whatever becomes of us."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from snapkeep.conformance.acts import Hand, connected, nothing_sent, played, promise, request_id
from snapkeep.conformance.target import Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import Busy, InvalidInput, Unsupported
from snapkeep.plugin.roles import Quiesced

LONG = 60.0
"""Seconds for which nothing ends by itself in a test."""


@asynccontextmanager
async def quiesced(hand: Hand, asset: Asset, seconds: float = LONG) -> AsyncIterator[Quiesced]:
    """Hold an asset."""
    async with played(hand.roles.quiesce).quiesced(asset, seconds, request_id()) as held:
        yield held


async def is_let_go(target: Target, asset: Asset) -> None:
    """Wait until nothing holds the asset any more. Fails the test when that takes too long."""
    deadline = time.monotonic() + target.work_seconds
    while await target.is_held(asset):
        assert time.monotonic() < deadline, "it is held still"
        await asyncio.sleep(0.05)


@promise(Capability.QUIESCE)
async def test_an_asset_is_held_inside_and_let_go_at_the_end(target: Target) -> None:
    """It is held as long as the context lasts, and whoever lets it go learns that it was."""
    asset = await target.quiescent_asset()
    async with connected(target) as hand:
        assert not await target.is_held(asset)
        async with quiesced(hand, asset) as held:
            assert await target.is_held(asset)
            assert await held.release() is None
            assert not await target.is_held(asset)
            assert await held.release() is None, "asked again, it is the same"
        async with quiesced(hand, asset):
            assert await target.is_held(asset)
        assert not await target.is_held(asset)


@promise(Capability.QUIESCE)
async def test_an_asset_is_let_go_when_the_work_fails(target: Target) -> None:
    """An error inside gets out as it is, and nothing stays held."""
    asset = await target.quiescent_asset()
    async with connected(target) as hand:
        with pytest.raises(ZeroDivisionError):
            async with quiesced(hand, asset):
                raise ZeroDivisionError
        assert not await target.is_held(asset)


@promise(Capability.QUIESCE)
async def test_an_asset_is_let_go_when_its_time_is_over(target: Target) -> None:
    """After `seconds` the host lets it go, though nobody asks for it; whoever held it learns that it was too short."""
    asset = await target.quiescent_asset()
    async with connected(target) as hand, quiesced(hand, asset, 1.0) as held:
        await is_let_go(target, asset)
        assert await held.release()


@promise(Capability.QUIESCE)
async def test_an_asset_is_let_go_when_nobody_waits_any_more(target: Target) -> None:
    """A task that is cancelled while it holds, or while it begins to, leaves nothing held."""
    asset = await target.quiescent_asset()
    async with connected(target) as hand:
        reached = asyncio.Event()

        async def hold() -> None:
            async with quiesced(hand, asset):
                reached.set()
                await asyncio.sleep(LONG)

        task = asyncio.ensure_future(hold())
        while not await target.is_held(asset):
            assert not task.done(), task.exception()
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait({task})
        assert not await target.is_held(asset)
        reached.clear()
        for moment in itertools.count():
            task = asyncio.ensure_future(hold())
            await asyncio.sleep(0.02 * moment)
            task.cancel()
            await asyncio.wait({task})
            assert not await target.is_held(asset), f"begun {0.02 * moment:g} s before"
            if reached.is_set():
                break


@promise(Capability.QUIESCE)
async def test_an_asset_is_let_go_when_the_process_is_killed(target: Target) -> None:
    """After a kill -9 of the process that holds it, the host lets it go."""
    asset = await target.quiescent_asset()
    told = {"plugin": target.plugin.name, "settings": target.settings(), "asset": _as_json(asset), "seconds": LONG}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "snapkeep.conformance.holder"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None
    try:
        child.stdin.write(json.dumps(told).encode() + b"\n")
        assert await child.stdout.readline() == b"held\n"
        assert await target.is_held(asset)
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    await is_let_go(target, asset)


@promise(Capability.QUIESCE)
async def test_an_asset_is_let_go_when_the_connection_is_cut(target: Target) -> None:
    """The host notices that we are gone; we learn that it was not held to the end."""
    asset = await target.quiescent_asset()
    async with connected(target) as hand, quiesced(hand, asset) as held:
        await target.cut_connections()
        await is_let_go(target, asset)
        assert await held.release()


@promise(Capability.QUIESCE)
async def test_an_asset_is_held_by_one_at_a_time(target: Target) -> None:
    """Who asks for what is held already waits for it, or is told `Busy`; the one that holds it holds it to the end."""
    asset = await target.quiescent_asset()
    async with connected(target) as first, connected(target) as second:

        async def hold() -> bool:
            async with quiesced(second, asset):
                return await target.is_held(asset)

        async with quiesced(first, asset) as held:
            task = asyncio.ensure_future(hold())
            await asyncio.wait({task}, timeout=0.5)
            assert await target.is_held(asset)
            assert not task.done() or isinstance(task.exception(), Busy)
            assert await held.release() is None
        await asyncio.wait({task})
        assert isinstance(task.exception(), Busy) or task.result()
        assert not await target.is_held(asset)


@promise(Capability.QUIESCE)
async def test_what_cannot_be_held_is_refused_without_a_call(target: Target) -> None:
    """An asset without the capability, and a time that cannot be, are refused before any request."""
    asset = await target.quiescent_asset()
    reason = "it is a matter of principle"
    other = dataclasses.replace(asset, capabilities=frozenset(), refusals={Capability.QUIESCE: reason})
    async with connected(target) as hand, nothing_sent(target):
        with pytest.raises(Unsupported, match=reason):
            async with quiesced(hand, other):
                pass
        for seconds in (0.0, -1.0, 1e9):
            with pytest.raises(InvalidInput):
                async with quiesced(hand, asset, seconds):
                    pass


def _as_json(asset: Asset) -> dict[str, object]:
    found = dataclasses.asdict(asset)
    return {**found, "capabilities": sorted(asset.capabilities)}
