"""Proving who somebody is, and managing who there is, on both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.tables import identities, metadata, tokens
from snapkeep.identity.attempts import FREE, FREE_OF_ADDRESS, LONGEST
from snapkeep.identity.service import LOCAL, SESSION, Identities
from snapkeep.model.access import Action, IdentityKind, Principal, Subject
from snapkeep.model.errors import (
    AuthenticationFailed,
    Busy,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from snapkeep.operations.clock import Clock

PASSWORD = "correct horse battery"
HERE = "192.0.2.1"


class SetByHand(Clock):
    def __init__(self) -> None:
        self.passed = timedelta()

    def now(self) -> datetime:
        return datetime(2026, 11, 28, 12, tzinfo=UTC) + self.passed

    def monotonic(self) -> float:
        return self.passed.total_seconds()


@dataclass
class World:
    catalog: Catalog
    clock: SetByHand
    service: Identities

    async def user(self, name: str = "alice", *grants: tuple[str, str], password: str | None = PASSWORD) -> Any:
        identity = await self.service.add(name, IdentityKind.USER, password)
        for role, scope in grants:
            await self.service.grant(LOCAL, identity, role, scope)
        return identity

    async def login(self, name: str = "alice", password: str = PASSWORD, address: str = HERE) -> str:
        return (await self.service.login(name, password, address))[0]

    async def known(self, token: str) -> Principal:
        principal = await self.service.authenticate(token)
        assert principal is not None
        return principal


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_catalog(database_url, b"k" * 32) as catalog:
        clock = SetByHand()
        yield World(catalog, clock, Identities(catalog, clock))


# -- logging in --------------------------------------------------------------------------------------------------------
async def test_a_login_lets_in_until_its_session_ends(world: World) -> None:
    await world.user("alice", ("operator", "system:files1"))
    token = await world.login()
    principal = await world.known(token)
    assert (principal.name, principal.kind) == ("alice", IdentityKind.USER)
    assert principal.may(Action.SNAPSHOT_CREATE, Subject("files1", "x"))
    assert not principal.may(Action.SNAPSHOT_CREATE, Subject("files2", "x"))
    assert not principal.may(Action.SNAPSHOT_DELETE, Subject("files1", "x"))
    world.clock.passed += SESSION - timedelta(seconds=1)
    assert await world.service.authenticate(token)
    world.clock.passed += timedelta(seconds=1)
    assert await world.service.authenticate(token) is None


@pytest.mark.parametrize("name", ["alice", "nobody", "robot", "gone", "unset", "administrator", "a\nb", "", "x" * 500])
async def test_what_is_wrong_is_told_with_the_same_words(world: World, name: str) -> None:
    await world.user("alice")
    await world.user("unset", password=None)
    await world.service.add("robot", IdentityKind.SERVICE, None)
    gone = await world.user("gone")
    await world.service.disable(gone, disabled=True)
    wrong = PASSWORD if name == "gone" else "wrong password"
    with pytest.raises(AuthenticationFailed) as told:
        await world.login(name, wrong)
    assert str(told.value) == "Name or password is wrong"


async def test_who_guesses_waits_longer_and_longer_and_locks_out_nobody_else(world: World) -> None:
    await world.user()
    for _ in range(FREE):
        with pytest.raises(AuthenticationFailed):
            await world.login(password="wrong password")
    with pytest.raises(RateLimited) as told:
        await world.login()  # even with the right one: else guessing would go on at full speed
    assert 0 < told.value.details["retry_after"] <= 1
    assert await world.login(address="192.0.2.2")
    world.clock.passed += timedelta(seconds=2)
    with pytest.raises(AuthenticationFailed):
        await world.login(password="wrong password")
    with pytest.raises(RateLimited) as told:
        await world.login()
    assert told.value.details["retry_after"] > 1
    world.clock.passed += timedelta(seconds=LONGEST + 1)
    assert await world.login()


async def test_a_network_of_ipv6_is_one_caller(world: World) -> None:
    await world.user()
    for number in range(FREE):
        with pytest.raises(AuthenticationFailed):
            await world.login(password="wrong password", address=f"2001:db8:0:1::{number:x}")
    with pytest.raises(RateLimited):
        await world.login(address="2001:db8:0:1:ffff::1")
    assert await world.login(address="2001:db8:0:2::1")


async def test_one_address_does_not_try_many_names(world: World) -> None:
    await world.user()
    for number in range(FREE_OF_ADDRESS):
        with pytest.raises(AuthenticationFailed):
            await world.login(f"user{number}", "x" * 2000)  # too long to be one: costs nothing
    with pytest.raises(RateLimited):
        await world.login("one-more")
    assert await world.login(address="192.0.2.2")


async def test_ones_own_new_password_ends_sessions_and_anothers_ends_tokens_too(world: World) -> None:
    identity = await world.user("alice", ("viewer", "all"))
    session = await world.login()
    principal = await world.known(session)
    soon = world.clock.now() + timedelta(days=1)
    token, _ = await world.service.make_token(principal, identity, "script", None, soon)
    with pytest.raises(AuthenticationFailed):
        await world.service.change_password(identity, "wrong password", "another sentence", HERE)
    await world.service.change_password(identity, PASSWORD, "another sentence", HERE)
    assert await world.service.authenticate(session) is None
    assert await world.service.authenticate(token)
    with pytest.raises(AuthenticationFailed):
        await world.login()
    session = await world.login(password="another sentence")
    await world.service.set_password(identity, PASSWORD)  # by somebody else
    assert await world.service.authenticate(session) is None
    assert await world.service.authenticate(token) is None


@pytest.mark.parametrize("password", ["", "short", "aaaaaaaaaaaaaaaaaaaa", "x" * 2000])
async def test_what_is_no_password_is_refused(world: World, password: str) -> None:
    with pytest.raises(InvalidInput):
        await world.user(password=password)
    with pytest.raises(NotFound):
        await world.catalog.identities.get("alice")


async def test_neither_passwords_nor_tokens_are_kept(world: World) -> None:
    identity = await world.user()
    session = await world.login()
    token, _ = await world.service.make_token(
        await world.known(session), identity, "t", None, world.clock.now() + timedelta(days=1)
    )
    async with world.catalog.database.connect() as connection:
        kept = [str(row) for table in (identities, tokens) for row in await connection.execute(select(table))]
        everything = [str(row) for table in metadata.sorted_tables for row in await connection.execute(select(table))]
    assert "$argon2id$" in "".join(kept)
    for secret in (PASSWORD, session, token, session.removeprefix("skt_")):
        assert secret not in "".join(everything)


# -- tokens ------------------------------------------------------------------------------------------------------------
async def test_a_token_is_narrowed_and_never_widened(world: World) -> None:
    identity = await world.user("alice", ("operator", "system:files1"))
    principal = await world.known(await world.login())
    day = world.clock.now() + timedelta(days=1)
    limits = [("administrator", "all"), ("viewer", "label:env=prod")]
    token, record = await world.service.make_token(principal, identity, "t", limits, day)
    narrowed = await world.known(token)
    assert record.limits == tuple(limits)
    assert narrowed.may(Action.SNAPSHOT_CREATE, Subject("files1"))
    assert not narrowed.may(Action.SNAPSHOT_CREATE, Subject("files2"))
    assert not narrowed.may(Action.SNAPSHOT_DELETE, Subject("files1"))
    token, _ = await world.service.make_token(principal, identity, "t", [("viewer", "label:env=prod")], day)
    narrowed = await world.known(token)
    assert narrowed.may(Action.SNAPSHOT_READ, Subject("files1", labels=frozenset({"env=prod"})))
    assert not narrowed.may(Action.SNAPSHOT_READ, Subject("files1"))
    assert not narrowed.may(Action.SNAPSHOT_CREATE, Subject("files1", labels=frozenset({"env=prod"})))
    whole, _ = await world.service.make_token(principal, identity, "t", None, day)
    for made in (narrowed, await world.known(whole)):
        with pytest.raises(PermissionDenied, match="A token makes no other tokens"):
            await world.service.make_token(made, identity, "t", None, day)


@pytest.mark.parametrize("days", [-1, 0, 367, 4000])
async def test_a_token_ends_within_a_year(world: World, days: int) -> None:
    identity = await world.user()
    principal = await world.known(await world.login())
    with pytest.raises(InvalidInput):
        await world.service.make_token(principal, identity, "t", None, world.clock.now() + timedelta(days=days))


async def test_tokens_of_others_are_for_service_accounts(world: World) -> None:
    await world.user()
    bob = await world.user("bob")
    robot = await world.service.add("robot", IdentityKind.SERVICE, None)
    alice = await world.known(await world.login())
    day = world.clock.now() + timedelta(days=1)
    with pytest.raises(PermissionDenied):
        await world.service.make_token(alice, bob, "t", None, day)
    token, _ = await world.service.make_token(alice, robot, "t", None, day)
    assert (await world.known(token)).name == "robot"
    with pytest.raises(InvalidInput):
        await world.service.set_password(robot, PASSWORD)


async def test_what_is_taken_away_is_away_at_once(world: World) -> None:
    identity = await world.user("alice", ("operator", "all"))
    token = await world.login()
    assert (await world.known(token)).may(Action.SNAPSHOT_CREATE)
    held = (await world.catalog.identities.grants_of(identity))[0]
    await world.catalog.identities.revoke(identity, held.id)
    assert not (await world.known(token)).may(Action.SNAPSHOT_CREATE)
    await world.service.disable(identity, disabled=True)
    assert await world.service.authenticate(token) is None
    await world.service.disable(identity, disabled=False)
    assert await world.service.authenticate(token) is None, "sessions ended"
    token = await world.login()
    await world.catalog.identities.remove(identity.id)
    assert await world.service.authenticate(token) is None
    async with world.catalog.database.connect() as connection:
        assert (await connection.execute(select(tokens))).all() == []


async def test_when_a_token_was_used_is_known_to_some_minutes(world: World) -> None:
    await world.user()
    token = await world.login()
    principal = await world.known(token)
    assert principal.token_id is not None
    first = (await world.catalog.identities.token(principal.token_id)).used_at
    assert first == world.clock.now()
    world.clock.passed += timedelta(minutes=4)
    await world.known(token)
    assert (await world.catalog.identities.token(principal.token_id)).used_at == first
    world.clock.passed += timedelta(minutes=2)
    await world.known(token)
    assert (await world.catalog.identities.token(principal.token_id)).used_at == world.clock.now()


# -- roles and grants --------------------------------------------------------------------------------------------------
async def test_a_role_of_ones_own_allows_what_it_says_and_changes_for_all(world: World) -> None:
    await world.service.put_role(LOCAL, "exporter", "Opens exports.", ["export.read", "export.open"])
    identity = await world.user("alice", ("exporter", "system:files1"))
    token = await world.login()
    assert (await world.known(token)).may(Action.EXPORT_OPEN, Subject("files1"))
    await world.service.put_role(LOCAL, "exporter", "Sees exports.", ["export.read"])
    assert not (await world.known(token)).may(Action.EXPORT_OPEN, Subject("files1"))
    with pytest.raises(Busy):
        await world.catalog.identities.remove_role("exporter")
    limited, _ = await world.service.make_token(
        await world.known(token), identity, "t", [("exporter", "all")], world.clock.now() + timedelta(days=1)
    )
    assert (await world.known(limited)).may(Action.EXPORT_READ, Subject("files1"))
    await world.catalog.identities.revoke(identity, (await world.catalog.identities.grants_of(identity))[0].id)
    await world.catalog.identities.remove_role("exporter")
    assert not (await world.known(limited)).may(Action.EXPORT_READ, Subject("files1"))


async def test_bad_roles_and_grants_change_nothing(world: World) -> None:
    identity = await world.user("alice", ("security-officer", "all"))
    officer = await world.known(await world.login())
    with pytest.raises(PermissionDenied):
        await world.service.grant(officer, identity, "administrator", "all")
    await world.service.put_role(LOCAL, "mine", "", ["audit.read"])
    await world.service.grant(LOCAL, identity, "mine", "all")
    officer = await world.known(await world.login())
    with pytest.raises(PermissionDenied):
        await world.service.put_role(officer, "mine", "", ["snapshot.delete"])
    bad: tuple[tuple[str, str, type[Exception]], ...] = (
        ("nothing", "all", NotFound),
        ("viewer", "planet:x", InvalidInput),
        ("viewer", "", InvalidInput),
    )
    for role, scope, error in bad:
        with pytest.raises(error):
            await world.service.grant(LOCAL, identity, role, scope)
    wrong: tuple[tuple[str, str, type[Exception]], ...] = (
        ("administrator", "audit.read", Conflict),
        ("x", "audit.write", InvalidInput),
        ("x", "*", InvalidInput),
    )
    for name, wanted, error in wrong:
        with pytest.raises(error):
            await world.service.put_role(LOCAL, name, "", [wanted])
    held = await world.catalog.identities.grants_of(identity)
    assert {(item.role, item.scope) for item in held} == {("security-officer", "all"), ("mine", "all")}
    again = await world.service.grant(LOCAL, identity, "mine", "all")
    assert again in held
    for name in ("administrator", "snapkeep"):
        with pytest.raises(Conflict):
            await world.user(name)
    with pytest.raises(Conflict):
        await world.user("alice")


# -- labels ------------------------------------------------------------------------------------------------------------
async def test_labels_are_replaced_as_a_whole(world: World) -> None:
    await world.service.set_labels("subject", {"env": "prod", "team/name": "Web"})
    await world.service.set_labels("other", {"env": "test"})
    await world.service.set_labels("subject", {"env": "test"})
    found = await world.catalog.identities.labels_of(["subject", "other", "third"])
    assert found == {"subject": {"env": "test"}, "other": {"env": "test"}, "third": {}}
    for labels in ({"": "x"}, {"a": ""}, {"A": "x"}, {"a": "x y"}, {"a\n": "x"}, {"a": "x" * 64}, {"a=b": "x"}):
        with pytest.raises(InvalidInput):
            await world.service.set_labels("subject", labels)
    with pytest.raises(InvalidInput):
        await world.service.set_labels("subject", {f"k{number}": "v" for number in range(51)})
    assert (await world.catalog.identities.labels_of(["subject"]))["subject"] == {"env": "test"}
