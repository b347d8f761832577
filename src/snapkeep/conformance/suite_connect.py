"""Connecting: trust, logging in, and what `check` tells."""

from __future__ import annotations

import pytest

from snapkeep.conformance.acts import Hand, at_most, connected, nothing_sent, own_name, played, promise, request_id
from snapkeep.conformance.target import Circumstance, Fault, Target
from snapkeep.model.assets import Capability
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, PermissionDenied, SnapkeepError, Unavailable
from snapkeep.model.work import Finding, Outcome

HIDDEN = "a-password-that-must-not-be-shown"


async def findings(hand: Hand) -> list[Finding]:
    """Return what `check` finds; each has words, and what failed has a next step."""
    found = [finding async for finding in hand.roles.check.check()]
    assert all(finding.check and finding.message for finding in found)
    assert all(finding.next_step for finding in found if finding.outcome is Outcome.FAILED)
    return found


def failed(found: list[Finding]) -> str:
    """Return the words of what failed."""
    return "\n".join(
        f"{finding.check}: {finding.message} {finding.next_step}"
        for finding in found
        if finding.outcome is Outcome.FAILED
    )


# -- check -------------------------------------------------------------------------------------------------------
@promise()
async def test_check_finds_nothing_wrong_on_a_good_system(target: Target) -> None:
    """On a system that was prepared as documented every finding is OK."""
    await target.fresh_asset()
    async with connected(target) as hand:
        found = await findings(hand)
    assert found
    assert [finding for finding in found if finding.outcome is not Outcome.OK] == []


@promise()
async def test_check_changes_nothing(target: Target) -> None:
    """After a check there are the same assets and snapshots as before."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        if Capability.CREATE in target.plugin.all_capabilities():
            await hand.create(asset)
        before = await hand.everything()
        await findings(hand)
        assert await hand.everything() == before


@promise()
async def test_check_stops_where_the_login_fails(target: Target) -> None:
    """With a wrong password `check` says so and does not go on to guess."""
    async with connected(target, **await target.arrange(Circumstance.WRONG_PASSWORD)) as hand:
        found = await findings(hand)
    assert [finding.outcome for finding in found] == [Outcome.FAILED]


@promise()
async def test_check_names_a_system_that_is_not_there(target: Target) -> None:
    """With the name of a system that does not exist `check` repeats it and names those that do."""
    settings = await target.arrange(Circumstance.WRONG_SYSTEM)
    async with connected(target, **settings) as hand:
        words = failed(await findings(hand))
    given = [item for value in settings.values() for item in (value if isinstance(value, list) else [value])]
    assert any(str(item) in words for item in given)


@promise()
async def test_check_names_each_missing_right(target: Target) -> None:
    """With an account that may only read, a finding fails for each kind of change, and names the right."""
    async with connected(target, **await target.arrange(Circumstance.READ_ONLY_ACCOUNT)) as hand:
        words = failed(await findings(hand))
    for capability in (Capability.CREATE, Capability.DELETE, Capability.RESTORE, Capability.CLONE):
        rights = target.plugin.permissions.get(capability, ())
        assert not rights or any(right in words for right in rights), capability


@promise()
async def test_check_tells_that_the_clocks_differ(target: Target) -> None:
    """A clock that is an hour ahead is at least a warning, which says so."""
    async with connected(target, **await target.arrange(Circumstance.CLOCK_AHEAD)) as hand:
        found = await findings(hand)
    assert any("clock" in finding.message and finding.outcome is not Outcome.OK for finding in found)


@promise(Capability.EXPORT)
async def test_check_names_what_exports_still_need(target: Target) -> None:
    """What was not prepared for exports fails by its name, and nothing else does."""
    settings = await target.arrange(Circumstance.EXPORT_UNPREPARED)
    async with connected(target, **settings) as hand:
        found = await findings(hand)
    assert [finding.outcome for finding in found].count(Outcome.FAILED) == 1
    assert any(str(value) in failed(found) for value in settings.values())


@promise(Capability.EXPORT)
async def test_check_sees_that_exports_were_prepared_wrongly(target: Target) -> None:
    """What is of a kind that does not serve for exports fails too."""
    async with connected(target, **await target.arrange(Circumstance.EXPORT_WRONGLY_PREPARED)) as hand:
        found = await findings(hand)
    assert [finding.outcome for finding in found].count(Outcome.FAILED) == 1


# -- logging in --------------------------------------------------------------------------------------------------
@promise()
async def test_the_other_way_to_log_in_works(target: Target) -> None:
    """Each documented kind of login reaches the system."""
    async with connected(target, **await target.arrange(Circumstance.OTHER_LOGIN)) as hand:
        await hand.everything()


@promise()
@pytest.mark.parametrize("circumstance", [Circumstance.WRONG_PASSWORD, Circumstance.WRONG_KEY])
async def test_a_wrong_login_is_tried_at_most_twice(target: Target, circumstance: Circumstance) -> None:
    """Wrong credentials are `AuthenticationFailed`, soon, and not hammered until the account is locked."""
    async with connected(target, **await target.arrange(circumstance)) as hand:
        before = await target.requests_seen()
        with pytest.raises(AuthenticationFailed) as caught:
            await hand.everything()
    assert await target.requests_seen() - before <= 2
    assert caught.value.next_step


@promise()
async def test_a_password_is_in_no_error(target: Target) -> None:
    """What goes wrong is told without the secret."""
    settings = await target.arrange(Circumstance.WRONG_PASSWORD)
    fields = target.plugin.settings.secret_fields()
    secret = {name: HIDDEN for name, value in settings.items() if name in fields and value is not None}
    async with connected(target, **{**settings, **secret}) as hand:
        with pytest.raises(AuthenticationFailed) as caught:
            await hand.everything()
    assert HIDDEN not in str(caught.value) + repr(caught.value) + repr(caught.value.to_dict())


@promise()
async def test_an_expired_session_is_opened_again(target: Target) -> None:
    """When the system forgets that we logged in, the work goes on as if nothing had happened."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        await hand.everything()
        await target.suffer(Fault.EXPIRED_SESSION)
        assets, _ = await hand.everything()
    assert asset.id in {found.id for found in assets}


@promise(Capability.CREATE)
async def test_an_expired_session_does_not_lose_a_create(target: Target) -> None:
    """Also a request that changes something is sent again after a new login, and acts once."""
    asset = await target.fresh_asset()
    async with connected(target) as hand:
        await hand.everything()
        await target.suffer(Fault.EXPIRED_SESSION)
        snapshot = await hand.create(asset)
        assert [found.id for found in await hand.snapshots_of(asset)] == [snapshot.id]


@promise(Capability.CREATE)
async def test_a_missing_right_is_named(target: Target) -> None:
    """What the account may not do is `PermissionDenied`, with the right that is needed."""
    asset = await target.fresh_asset()
    async with connected(target, **await target.arrange(Circumstance.READ_ONLY_ACCOUNT)) as hand:
        with pytest.raises(PermissionDenied) as caught:
            await played(hand.roles.create).start_create(asset, own_name(target), request_id())
    assert caught.value.details["needed"] in target.plugin.permissions[Capability.CREATE]


# -- trust -------------------------------------------------------------------------------------------------------
async def refused(target: Target, circumstance: Circumstance) -> SnapkeepError:
    """Return the error of connecting and using the system; fails the test when it works."""
    settings = await target.arrange(circumstance)
    with pytest.raises(SnapkeepError) as caught:
        async with at_most(target.impatient_seconds), connected(target, **{**target.impatient, **settings}) as hand:
            await hand.everything()
    assert caught.value.next_step
    return caught.value


@promise()
async def test_a_certificate_of_nobody_is_not_trusted(target: Target) -> None:
    """Without its authority or fingerprint the system is not trusted, and gets no request."""
    async with nothing_sent(target):
        assert isinstance(await refused(target, Circumstance.UNTRUSTED), AuthenticationFailed)


@promise()
async def test_a_certificate_of_another_authority_is_not_trusted(target: Target) -> None:
    """A CA file trusts that authority, and no other."""
    async with nothing_sent(target):
        assert isinstance(await refused(target, Circumstance.WRONG_CA), AuthenticationFailed)


@promise()
async def test_a_pinned_certificate_is_trusted(target: Target) -> None:
    """The fingerprint of the system's certificate is enough."""
    async with connected(target, **await target.arrange(Circumstance.PINNED)) as hand:
        await hand.everything()


@promise()
async def test_another_certificate_than_the_pinned_one_is_not_trusted(target: Target) -> None:
    """With another fingerprint the system is not trusted and gets no request; the error tells the one it showed."""
    right = str((await target.arrange(Circumstance.PINNED))["fingerprint"]).replace(":", "").lower()
    async with nothing_sent(target):
        error = await refused(target, Circumstance.PINNED_WRONG)
    assert isinstance(error, AuthenticationFailed)
    assert right in str(error.to_dict())


@promise()
async def test_a_ca_file_that_cannot_be_read_is_the_persons_to_mend(target: Target) -> None:
    """A CA file that is none is `InvalidInput`, and names the file."""
    error = await refused(target, Circumstance.UNREADABLE_CA)
    assert isinstance(error, InvalidInput)
    assert str((await target.arrange(Circumstance.UNREADABLE_CA))["ca_file"]) in str(error)


@promise()
@pytest.mark.parametrize("circumstance", [Circumstance.WRONG_HOST, Circumstance.WRONG_PORT])
async def test_a_system_that_cannot_be_reached_is_unavailable(target: Target, circumstance: Circumstance) -> None:
    """A wrong host or port is `Unavailable` in bounded time."""
    assert isinstance(await refused(target, circumstance), Unavailable)


@promise()
async def test_a_server_without_tls_gets_no_login(target: Target) -> None:
    """Where something else answers that speaks no TLS, the login is not sent and the error says so."""
    assert isinstance(await refused(target, Circumstance.PLAIN_SERVER), AuthenticationFailed | Unavailable)
