"""What the suite does again and again: waiting as the engine does, and whole operations."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import pytest

from snapkeep.conformance.target import Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.changes import Change
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.snapshots import DEFAULT_PREFIX, Snapshot, new_snapshot_name
from snapkeep.model.work import ChangeBatch, Done, Pending, Ticket
from snapkeep.plugin import roles as contract

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

T = TypeVar("T")
Test = Callable[..., Awaitable[None]]

LONGEST_TEST = 120.0
"""A test that takes longer hangs, in seconds."""

LARGEST_TICKET = 4096
"""In bytes of JSON: a ticket is recorded with every operation."""


def promise(*capabilities: Capability) -> Callable[[Test], Test]:
    """Mark a test of the suite: skipped, with the reason, where a plug-in does not declare `capabilities`."""

    def decorate(test: Test) -> Test:
        @functools.wraps(test)
        async def kept(target: Target, **others: object) -> None:
            declared = target.plugin.all_capabilities()
            for capability in capabilities:
                target.require_applicable(capability)
                if capability not in declared:
                    pytest.skip(f"{target.plugin.name} does not declare {capability}")
            async with asyncio.timeout(LONGEST_TEST):
                await test(target, **others)

        if "target" not in inspect.signature(test).parameters:
            raise TypeError(f"{test.__name__} must take the fixture target")
        return pytest.mark.asyncio(kept)

    return decorate


def played(role: T | None) -> T:
    """Return the role, which a plug-in that declares the capability must play."""
    assert role is not None, "the capability is declared, but the connected system does not play its role"
    return role


def recorded(ticket: Ticket) -> Ticket:
    """Return the ticket as another process finds it in the catalog."""
    text = json.dumps(dict(ticket.data))
    assert len(text.encode()) < LARGEST_TICKET, f"the ticket is too large to be recorded: {len(text)} bytes"
    return Ticket(json.loads(text))


def request_id() -> str:
    """Return a new request id, of the form that the engine gives."""
    return str(uuid.uuid4())


def own_name(target: Target) -> str:
    """Return a new name of the form that the engine gives."""
    prefix = str(target.settings().get("snapshot_prefix", DEFAULT_PREFIX))
    return new_snapshot_name(prefix, datetime.now(UTC))


async def drive(target: Target, poll: Callable[[], Awaitable[Pending | T]], seconds: float | None = None) -> T:
    """Poll until there is a result, as the engine does. Fails the test after `seconds`."""
    deadline = time.monotonic() + (seconds or target.work_seconds)
    while True:
        answer = await poll()
        if not isinstance(answer, Pending):
            return answer
        assert 0 < answer.after <= 3600, f"not a sensible pause: {answer.after}"
        assert answer.progress is None or 0 <= answer.progress <= 1, f"not a progress: {answer.progress}"
        assert time.monotonic() < deadline, "the work did not come to its end"
        await asyncio.sleep(min(answer.after, target.longest_pause))


async def stays_pending(
    target: Target, poll: Callable[[], Awaitable[Pending | object]], seconds: float = 0.4
) -> Pending:
    """Poll for a while; fails the test when a result comes. Returns the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await poll()
        assert isinstance(answer, Pending), f"a result came although there can be none: {answer}"
        if time.monotonic() > deadline:
            return answer
        await asyncio.sleep(min(answer.after, target.longest_pause))


@asynccontextmanager
async def nothing_sent(target: Target) -> AsyncIterator[None]:
    """Fail the test when the block sends a request to the system."""
    before = await target.requests_seen()
    yield
    assert await target.requests_seen() == before, "a request was sent although it could be refused before"


@asynccontextmanager
async def at_most(seconds: float) -> AsyncIterator[None]:
    """Fail the test when the block takes longer."""
    begun = time.monotonic()
    yield
    taken = time.monotonic() - begun
    assert taken <= seconds, f"it took {taken:.1f} s"


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody who works with a connected system."""

    target: Target
    roles: contract.Roles

    async def everything(self, cursor: str | None = None) -> tuple[list[Asset], list[Snapshot]]:
        """Return all that discovery shows."""
        assets: list[Asset] = []
        snapshots: list[Snapshot] = []
        complete = False
        async for batch in self.roles.discover.discover(cursor):
            assert not complete, "a batch came after the complete one"
            assets += batch.assets
            snapshots += batch.snapshots
            complete = batch.complete
        assert complete, "discovery ended without a complete batch"
        return assets, snapshots

    async def snapshots_of(self, asset: Asset) -> list[Snapshot]:
        """Return the snapshots that discovery shows for one asset."""
        return [snapshot for snapshot in (await self.everything())[1] if snapshot.asset_id == asset.id]

    async def create(self, asset: Asset, name: str | None = None, request: str | None = None) -> Snapshot:
        """Take a snapshot."""
        role = played(self.roles.create)
        ticket = recorded(await role.start_create(asset, name or own_name(self.target), request or request_id()))
        return await drive(self.target, lambda: role.poll_create(ticket))

    async def delete(self, asset: Asset, snapshot: Snapshot) -> Done:
        """Delete a snapshot."""
        role = played(self.roles.delete)
        ticket = recorded(await role.start_delete(asset, snapshot, request_id()))
        return await drive(self.target, lambda: role.poll_delete(ticket))

    async def restore(self, asset: Asset, snapshot: Snapshot) -> Done:
        """Turn an asset back."""
        role = played(self.roles.restore)
        ticket = recorded(await role.start_restore(asset, snapshot, asset.name, request_id()))
        return await drive(self.target, lambda: role.poll_restore(ticket))

    async def clone(self, asset: Asset, snapshot: Snapshot, name: str, request: str | None = None) -> Asset:
        """Make a clone."""
        role = played(self.roles.clone)
        ticket = recorded(await role.start_clone(asset, snapshot, name, asset.name, request or request_id()))
        return await drive(self.target, lambda: role.poll_clone(ticket))

    async def export(
        self,
        asset: Asset,
        snapshot: Snapshot,
        host: BackupHost | None = None,
        *,
        mode: AccessMode = AccessMode.READ_ONLY,
        others: Sequence[Export] = (),
    ) -> Export:
        """Make a snapshot readable."""
        role = played(self.roles.export)
        chosen = host or self.target.hosts[0]
        ticket = recorded(await role.start_export(asset, snapshot, chosen, mode, others, request_id()))
        return await drive(self.target, lambda: role.poll_export(ticket))

    async def deport(self, export: Export, others: Sequence[Export] = ()) -> Done:
        """Take the access away."""
        role = played(self.roles.export)
        ticket = recorded(await role.start_deport(export, others, request_id()))
        return await drive(self.target, lambda: role.poll_deport(ticket))

    async def open_exports(self, asset: Asset) -> list[Export]:
        """Return what the system says is open of one asset."""
        return [export async for export in played(self.roles.export).open_exports() if export.asset_id == asset.id]

    async def start_diff(self, asset: Asset, base: Snapshot | None, new: Snapshot) -> Ticket:
        """Ask for a diff."""
        return recorded(await played(self.roles.diff_files).start_diff(asset, base, new, request_id()))

    async def batches(self, ticket: Ticket, cursor: str | None = None) -> list[ChangeBatch]:
        """Read a change list to its end, going on at the cursor after each pause."""
        role = played(self.roles.diff_files)
        found: list[ChangeBatch] = []
        deadline = time.monotonic() + self.target.work_seconds
        while not (found and found[-1].complete):
            assert time.monotonic() < deadline, "the change list did not come to its end"
            pause: Pending | None = None
            async for item in role.read_diff(ticket, cursor):
                assert pause is None, "something came after a Pending"
                if isinstance(item, Pending):
                    pause = item
                    continue
                assert not (found and found[-1].complete), "a batch came after the complete one"
                found.append(item)
                cursor = item.cursor
            if pause is not None:
                await asyncio.sleep(min(pause.after, self.target.longest_pause))
            else:
                assert found and found[-1].complete, "the list ended without Pending and without a complete batch"
        return found

    async def diff(self, asset: Asset, base: Snapshot | None, new: Snapshot) -> list[Change]:
        """Return all differences."""
        ticket = await self.start_diff(asset, base, new)
        return [change for batch in await self.batches(ticket) for change in batch.changes]


@asynccontextmanager
async def connected(target: Target, **overrides: object) -> AsyncIterator[Hand]:
    """Connect, and return somebody who works with it."""
    async with target.connect(**overrides) as roles:
        yield Hand(target, roles)
