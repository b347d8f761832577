"""Approvals by themselves, on both stores: when they end, at the same moment, and what of a request is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.observed_time import PATIENCE
from snapkeep.catalog.paging import Paging
from snapkeep.identity.approvals import LONGEST_BODY, MOST_OPEN, Approvals, Asked
from snapkeep.identity.service import LOCAL, Identities
from snapkeep.model.access import Action, IdentityKind, Principal
from snapkeep.model.approvals import ALWAYS, USUAL, ApprovalState, FourEyes
from snapkeep.model.errors import ApprovalRequired, Conflict, LimitExceeded, PermissionDenied
from snapkeep.operations.clock import Clock

ASKED = Asked("DELETE", "/v1/snapshots/x", "", b"")
DAY = timedelta(days=1)


class World:
    """A catalog with four users who may approve, and a clock that tells what it is told to."""

    def __init__(self, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
        self.catalog = catalog
        self.identities = Identities(catalog, Clock())
        self.approvals = Approvals(catalog, self.identities, Clock())
        self.wall: datetime | None = None
        true = catalog.database.now

        async def now() -> datetime:
            return self.wall or await true()

        monkeypatch.setattr(catalog.database, "now", now)

    async def add(self, name: str) -> None:
        await self.identities.add(name, IdentityKind.USER, None)
        await self.identities.grant(LOCAL, await self.catalog.identities.get(name), "administrator", "all")

    async def person(self, name: str) -> Principal:
        """Return somebody who has logged in."""
        found = await self.identities.known(name)
        assert found is not None
        return replace(found, is_session=True)

    async def asked(self, asked: Asked = ASKED, by: Principal = LOCAL) -> str:
        with pytest.raises(ApprovalRequired) as caught:
            await self.approvals.require(by, Action.SNAPSHOT_DELETE, "s/a@x", asked, None)
        return str(caught.value.details["approval_id"])

    async def use(self, approval_id: str, asked: Asked = ASKED) -> bool:
        return await self.approvals.require(LOCAL, Action.SNAPSHOT_DELETE, "s/a@x", asked, approval_id)

    async def approve(self, approval_id: str, name: str = "anna", *, approves: bool = True) -> None:
        await self.approvals.decide(await self.person(name), approval_id, "", approves=approves)


@pytest.fixture
async def world(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    async with open_catalog(database_url, b"k" * 32) as catalog:
        made = World(catalog, monkeypatch)
        for name in ("anna", "bob", "carl", "dora"):
            await made.add(name)
        await made.approvals.set_four_eyes(LOCAL, FourEyes(frozenset(USUAL), 1, 24))
        yield made


async def test_a_token_approves_nothing(world: World) -> None:
    """Whatever holds it: a script with an officer's token is no second person."""
    approval = await world.asked()
    with pytest.raises(PermissionDenied, match="only people approve"):
        await world.approvals.decide(replace(await world.person("anna"), is_session=False), approval, "", approves=True)
    await world.approve(approval)
    assert await world.use(approval)


async def test_an_approval_is_for_what_it_was_found_to_be_about(world: World) -> None:
    """The same path may lead elsewhere by then: it has names, and beginnings of ids."""
    approval = await world.asked()
    await world.approve(approval)
    with pytest.raises(Conflict, match=r"is for snapshot\.delete of s/a@x"):
        await world.approvals.require(LOCAL, Action.SNAPSHOT_DELETE, "s/a@y", ASKED, approval)
    assert await world.use(approval)


async def test_what_is_not_covered_passes(world: World) -> None:
    for action in (Action.SNAPSHOT_CREATE, Action.LOCK_PLACE):
        assert not await world.approvals.require(LOCAL, action, "", ASKED, None)
        assert not await world.approvals.require(LOCAL, action, "", ASKED, "whatever is sent")
    await world.approvals.set_four_eyes(LOCAL, FourEyes(frozenset(), 1, 24))
    for action in ALWAYS:
        with pytest.raises(ApprovalRequired):
            await world.approvals.require(LOCAL, action, "", ASKED, None)
    await world.approvals.set_four_eyes(LOCAL, None)
    assert not await world.approvals.require(LOCAL, Action.SNAPSHOT_DELETE, "", ASKED, None)


async def test_an_approval_expires_and_no_clock_brings_it_back(world: World) -> None:
    open_one, approved = await world.asked(Asked("GET", "/", "", b"1")), await world.asked()
    await world.approve(approved)
    begin = await world.catalog.database.now()
    world.wall = begin + DAY + timedelta(minutes=1)
    with pytest.raises(Conflict, match="is expired"):
        await world.use(approved)
    with pytest.raises(Conflict, match="not open any more"):
        await world.approve(open_one)
    assert await world.asked() != approved, "it is asked for anew"
    time = world.catalog.protections.time
    await time.observe("a", 0.0, begin + PATIENCE * 2)
    await time.observe("a", DAY.total_seconds(), begin + DAY + timedelta(minutes=5))
    for back in (begin, begin - 300 * DAY):
        world.wall = back
        with pytest.raises(Conflict, match="is expired"):
            await world.use(approved)
    now = await world.approvals.now()
    found = await world.catalog.approvals.find(states=(ApprovalState.EXPIRED,), at=now, paging=Paging())
    assert {item.id for item in found} == {open_one, approved}


async def test_it_is_used_once_whoever_is_quicker(world: World) -> None:
    for _ in range(5):
        approval = await world.asked()
        await world.approve(approval)
        ends = await asyncio.gather(*(world.use(approval) for _ in range(6)), return_exceptions=True)
        assert [end for end in ends if end is True] == [True]
        assert all(end is True or isinstance(end, Conflict) for end in ends), ends


async def test_decisions_at_the_same_moment_all_count(world: World) -> None:
    await world.approvals.set_four_eyes(LOCAL, FourEyes(frozenset(USUAL), 4, 24))
    approval = await world.asked()
    names = ("anna", "bob", "carl", "dora")
    several = (name for name in names for _ in range(3))
    ends = await asyncio.gather(*(world.approve(approval, name) for name in several), return_exceptions=True)
    assert sum(end is None for end in ends) == 4, ends
    assert {one.by for one in (await world.catalog.approvals.get(approval)).decisions} == set(names)
    assert await world.use(approval)


async def test_a_refusal_and_an_approval_at_once_pass_nothing(world: World) -> None:
    await world.approvals.set_four_eyes(LOCAL, FourEyes(frozenset(USUAL), 2, 24))
    for _ in range(5):
        approval = await world.asked()
        await world.approve(approval, "anna")
        both = (world.approve(approval, "bob", approves=False), world.approve(approval, "carl"))
        ends = await asyncio.gather(*both, return_exceptions=True)
        assert sum(isinstance(end, Conflict) for end in ends) == 1
        if ends[0] is None:
            with pytest.raises(PermissionDenied):
                await world.use(approval)
        else:
            assert await world.use(approval)


async def test_more_may_be_needed_by_now(world: World) -> None:
    approval = await world.asked()
    await world.approve(approval)
    await world.approvals.set_four_eyes(LOCAL, FourEyes(frozenset(USUAL), 2, 24))
    with pytest.raises(Conflict, match="too few"):
        await world.use(approval)
    other = await world.asked()
    assert (await world.catalog.approvals.get(other)).needed == 2


async def test_nobody_floods_those_who_approve(world: World) -> None:
    for number in range(MOST_OPEN):
        await world.asked(Asked("DELETE", f"/{number}", "", b""))
    with pytest.raises(LimitExceeded):
        await world.approvals.require(LOCAL, Action.SNAPSHOT_DELETE, "", ASKED, None)
    await world.asked(ASKED, await world.person("bob"))
    await world.catalog.approvals.purge(await world.catalog.database.now() + DAY)
    await world.asked()


# -- what of a request is shown, and what makes it the same ------------------------------------------------------------
words = st.sampled_from(["password", "settings", "secrets", "old", "name", "role"])
values: Any = st.recursive(
    st.sampled_from(["SECRET", "plain", None, 1]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_no_secret_is_shown_whatever_the_body(value: Any) -> None:
    shown, hidden = Asked("POST", "/", "", json.dumps(value).encode()).shown()
    assert hidden is (json.loads(shown) != value)
    assert _secrets_of(json.loads(shown)) == set()
    if not _secrets_of(value, everything=True):
        assert not hidden


def _secrets_of(value: Any, inside: bool = False, *, everything: bool = False) -> set[str]:
    """What stands where secrets stand, and is one; or `everything` that stands there."""
    if isinstance(value, list):
        return set().union(*(_secrets_of(item, inside, everything=everything) for item in value))
    if isinstance(value, dict):
        found: set[str] = set()
        for key, item in value.items():
            secret = key in {"password", "secrets", "old", "settings"}
            if secret and everything:
                found.add(key)
            found |= _secrets_of(item, inside or secret, everything=everything)
        return found
    return {value} if inside and value == "SECRET" else set()


@given(st.binary(max_size=40), st.binary(max_size=40), st.text(max_size=5), st.text(max_size=5))
def test_the_digest_is_of_every_byte_and_every_border(one: bytes, other: bytes, path: str, query: str) -> None:
    assert (Asked("A", path, query, one).digest == Asked("A", path, query, other).digest) is (one == other)
    if query:
        moved = Asked("A", path + query[0], query[1:], one)
        assert moved.digest != Asked("A", path, query, one).digest


def test_what_is_no_json_or_too_long_is_hidden() -> None:
    for body in (b"\xff\x00", b"{", b'{"paths": ["' + b"x" * LONGEST_BODY + b'"]}'):
        shown, hidden = Asked("POST", "/", "", body).shown()
        assert hidden
        assert len(shown) <= LONGEST_BODY
    assert ASKED.shown() == ("", False)
