"""Export and deport: readable for whom it was opened, as long as it was opened, and nobody else."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from snapkeep.conformance.acts import (
    Hand,
    connected,
    drive,
    nothing_sent,
    played,
    promise,
    recorded,
    request_id,
    stays_pending,
)
from snapkeep.conformance.target import FAILED_TASK_TEXT, Circumstance, Fault, Step, Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.errors import InvalidInput, NotFound, SnapkeepError, Unsupported
from snapkeep.model.exports import AccessMode, BackupHost, Export
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Done

NEEDED = (Capability.CREATE, Capability.EXPORT)

ADDRESSES = [
    ("IPv4", "198.51.100.7"),
    ("IPv6", "2001:db8::7"),
    ("name", "backup-7.example.org"),
    ("IPv6 in full", "2001:0DB8:0000:0000:0000:0000:0000:0008"),
    ("name in capitals", "Backup-8.Example.ORG"),
]
BAD_ADDRESSES = ["", " ", "two words", "h/../..", "..", ".", "a..b", "-", "host\n", "10.1.1.1/24", "x" * 254, "ü.org"]


def readable(target: Target, export: Export) -> bool:
    """Say whether the export's content can be read now."""
    return target.open_export(export).is_dir()


async def exported_file(hand: Hand, content: str) -> tuple[Asset, Snapshot]:
    """Return a new asset with a file, and a snapshot of it."""
    asset = await hand.target.fresh_asset()
    (hand.target.live_path(asset) / "file").write_text(content)
    return asset, await hand.create(asset)


async def gone_soon(target: Target, export: Export, seconds: float = 5.0) -> None:
    """Wait until the export is not readable any more."""
    end = time.monotonic() + seconds
    while readable(target, export):
        assert time.monotonic() < end, "the export is still readable"
        await asyncio.sleep(min(0.05, target.longest_pause))


@promise(*NEEDED)
async def test_an_export_shows_the_snapshots_content(target: Target) -> None:
    """The backup host reads the content of the moment of the snapshot, not of today."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "old")
        (target.live_path(asset) / "file").write_text("new")
        export = await hand.export(asset, snapshot)
    assert (target.open_export(export) / "file").read_text() == "old"
    assert export.locations


@promise(*NEEDED)
async def test_an_export_says_what_was_opened_to_whom(target: Target) -> None:
    """The result names the snapshot, the asset, the host and the mode that were asked for."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot, target.hosts[1])
    assert (export.snapshot_id, export.asset_id) == (snapshot.id, asset.id)
    assert (export.host, export.mode) == (target.hosts[1], AccessMode.READ_ONLY)


@promise(*NEEDED)
async def test_an_export_tells_when_it_ends(target: Target) -> None:
    """Where access ends by itself, the times are aware, in the future, and leave room to renew it."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
    if export.expires_at is None:
        assert export.refresh_at is None
        return
    assert export.refresh_at is not None
    now = datetime.now(UTC)
    assert now < export.refresh_at < export.expires_at
    assert export.expires_at - export.refresh_at >= timedelta(seconds=10)


@promise(*NEEDED)
async def test_an_export_opens_nothing_else(target: Target) -> None:
    """Another host does not get in, nor does the same host to another asset's snapshot."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        other, hidden = await exported_file(hand, "hidden")
        export = await hand.export(asset, snapshot)
        probe = await hand.export(other, hidden, target.hosts[1])
        assert readable(target, export)
        assert readable(target, probe)
        await hand.deport(probe)
        await gone_soon(target, probe)
        assert readable(target, export)


@promise(*NEEDED)
async def test_a_read_write_export_leads_to_the_live_asset(target: Target) -> None:
    """Where it says so, what is written there is in the asset; a read-only one does not say so."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        assert [location.live for location in export.locations if location.live is not None] == []
        export = await hand.export(asset, snapshot, mode=AccessMode.READ_WRITE)
        if any(location.live is not None for location in export.locations):
            (target.open_live(export) / "written").write_text("by the backup host")
            assert (target.live_path(asset) / "written").read_text() == "by the backup host"


@promise(*NEEDED)
async def test_a_deport_takes_the_access_away(target: Target) -> None:
    """After `Done` the host cannot read the export any more."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        assert readable(target, export)
        assert await hand.deport(export) == Done()
    assert not readable(target, export)


@promise(*NEEDED)
async def test_a_repeated_deport_is_harmless(target: Target) -> None:
    """What is not exported (any more) is success, and disturbs no other export."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        other = await hand.export(asset, snapshot, target.hosts[1])
        await hand.deport(export, [other])
        assert await hand.deport(export, [other]) == Done()
    assert readable(target, other)


@promise(*NEEDED)
async def test_what_is_open_is_told_by_the_system(target: Target) -> None:
    """After the export there is one access more to its asset and host; after the deport there is none."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        assert await hand.open_exports(asset) == []
        first, second = [await hand.export(asset, snapshot, host) for host in target.hosts]
        found = await hand.open_exports(asset)
        assert {export.host.address for export in found} == {host.address for host in target.hosts}
        assert {export.snapshot_id for export in found} <= {"", snapshot.id}
        assert len(found) == len(target.hosts)
        await hand.deport(first, [second])
        assert [export.host.address for export in await hand.open_exports(asset)] == [second.host.address]
        await hand.deport(second)
        assert await hand.open_exports(asset) == []


@promise(*NEEDED)
@pytest.mark.parametrize("mode", AccessMode)
async def test_what_is_told_to_be_open_can_be_deported(target: Target, mode: AccessMode) -> None:
    """An access that nobody remembers can be closed with what the system tells of it."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot, mode=mode)
        (found,) = await hand.open_exports(asset)
        assert found.mode is mode
        await hand.deport(found)
        assert await hand.open_exports(asset) == []
    assert not readable(target, export)


@promise(*NEEDED)
async def test_what_others_opened_is_not_told(target: Target) -> None:
    """The access that another program gave to the same asset and host is not ours to list."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.foreign_access(asset, target.hosts[0])
        assert await hand.open_exports(asset) == []
        await hand.export(asset, snapshot, target.hosts[1])
        assert [export.host.address for export in await hand.open_exports(asset)] == [target.hosts[1].address]


@promise(*NEEDED)
async def test_an_access_to_a_vanished_asset_is_not_told(target: Target) -> None:
    """With its asset an access is gone: nothing is left to close."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await hand.export(asset, snapshot)
        await target.remove_asset(asset)
        assert await hand.open_exports(asset) == []


@promise(*NEEDED)
async def test_a_passing_absence_is_no_deport(target: Target) -> None:
    """When the system denies the access for a moment, it is not held to be gone while it is there."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        await target.suffer(Fault.PASSING_ABSENCE, Step.READ_ACCESS, value=2.0)
        await hand.deport(export)
        assert not readable(target, export)
        assert await hand.open_exports(asset) == []


@promise(*NEEDED)
async def test_two_hosts_are_served_at_once(target: Target) -> None:
    """One snapshot is exported to two hosts at the same time, and the deport of one leaves the other."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        first, second = await asyncio.gather(*(hand.export(asset, snapshot, host) for host in target.hosts))
        assert readable(target, first)
        assert readable(target, second)
        await hand.deport(first, [second])
        assert not readable(target, first)
        assert readable(target, second)


@promise(*NEEDED)
async def test_two_snapshots_of_one_asset_do_not_end_each_other(target: Target) -> None:
    """The deport of one snapshot keeps another one of the same asset readable on the same host."""
    async with connected(target) as hand:
        asset, old = await exported_file(hand, "old")
        (target.live_path(asset) / "file").write_text("new")
        new = await hand.create(asset)
        first = await hand.export(asset, old)
        second = await hand.export(asset, new, others=[first])
        await hand.deport(first, [second])
        assert (target.open_export(second) / "file").read_text() == "new"
        await hand.deport(second)
        assert not readable(target, second)


@promise(*NEEDED)
@pytest.mark.parametrize(
    ("one", "same"),
    [("2001:db8::9", "2001:0DB8:0:0:0:0:0:9"), ("backup-9.example.org", "BACKUP-9.example.org")],
    ids=["IPv6", "name"],
)
async def test_one_host_under_two_spellings_is_one_host(target: Target, one: str, same: str) -> None:
    """A host whose address is written in another way is the same: the deport of one keeps the other."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        first = await hand.export(asset, snapshot, BackupHost(name="one", address=one))
        newer = await hand.create(asset)
        second = await hand.export(asset, newer, BackupHost(name="same", address=same), others=[first])
        assert readable(target, second)
        await hand.deport(first, [second])
        assert readable(target, second)


@promise(*NEEDED)
async def test_a_repeated_export_renews_its_expiry(target: Target) -> None:
    """Exporting again is harmless and moves the end away."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.SHORT_ACCESS, Step.EXPORT, times=1, value=1.0)
    async with connected(target) as hand:
        first = await hand.export(asset, snapshot)
        again = await hand.export(asset, snapshot)
        await asyncio.sleep(1.4)
    assert readable(target, again)
    assert first.expires_at is None or (again.expires_at is not None and again.expires_at > first.expires_at)


@promise(*NEEDED)
async def test_access_that_ended_by_itself_is_gone_and_deport_succeeds(target: Target) -> None:
    """After its end the export is not readable, its deport is success, and it can be exported again."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
    await target.suffer(Fault.SHORT_ACCESS, Step.EXPORT, times=1, value=1.0)
    async with connected(target) as hand:
        export = await hand.export(asset, snapshot)
        await gone_soon(target, export)
        assert await hand.deport(export) == Done()
        assert readable(target, await hand.export(asset, snapshot))


@promise(*NEEDED)
async def test_an_export_repeated_with_one_request_id_is_one(target: Target) -> None:
    """Started again after a crash, it is one export, and one deport ends it."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        role, request = played(hand.roles.export), request_id()
        arguments = (asset, snapshot, target.hosts[0], AccessMode.READ_ONLY, (), request)
        await role.start_export(*arguments)
        ticket = recorded(await role.start_export(*arguments))
        export = await drive(target, lambda: role.poll_export(ticket))
        await hand.deport(export)
    assert not readable(target, export)


@promise(*NEEDED)
async def test_eight_exports_at_once_all_succeed(target: Target) -> None:
    """Exports that change the same thing on the system at the same time all come to their end."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        hosts = [BackupHost(name=f"host-{number}", address=f"198.51.100.{number}") for number in range(20, 28)]
        exports = await asyncio.gather(*(hand.export(asset, snapshot, host) for host in hosts))
        assert [export.host.name for export in exports if not readable(target, export)] == []
        await asyncio.gather(*(hand.deport(export) for export in exports))
    assert [export.host.name for export in exports if readable(target, export)] == []


@promise(*NEEDED)
async def test_an_export_that_was_overtaken_is_tried_again(target: Target) -> None:
    """When somebody changed the same thing meanwhile, it is looked at again, for export and for deport."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.STALE_VERSION, Step.EXPORT, times=2)
        export = await hand.export(asset, snapshot)
        assert readable(target, export)
        await target.suffer(Fault.STALE_VERSION, Step.EXPORT, times=2)
        await hand.deport(export)
    assert not readable(target, export)


@promise(*NEEDED)
async def test_an_export_whose_answer_was_lost_succeeds(target: Target) -> None:
    """A lost answer, to the export and to the deport, is no failure."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.RESET_AFTER_EFFECT, Step.EXPORT)
        export = await hand.export(asset, snapshot)
        assert readable(target, export)
        await target.suffer(Fault.RESET_AFTER_EFFECT, Step.EXPORT)
        await hand.deport(export)
    assert not readable(target, export)


@promise(*NEEDED)
async def test_a_read_only_export_does_not_narrow_another(target: Target) -> None:
    """Where one grant serves several exports, a later read-only one leaves the read-write one as it is."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        writable = await hand.export(asset, snapshot, mode=AccessMode.READ_WRITE)
        newer = await hand.create(asset)
        reader = await hand.export(asset, newer, others=[writable])
    assert (writable.mode, reader.mode) == (AccessMode.READ_WRITE, AccessMode.READ_ONLY)
    assert readable(target, writable)
    assert readable(target, reader)


@promise(*NEEDED)
@pytest.mark.parametrize("address", [value for _, value in ADDRESSES], ids=[name for name, _ in ADDRESSES])
async def test_every_kind_of_address_gets_access(target: Target, address: str) -> None:
    """A host is named by IPv4 or IPv6 address or by name, in any spelling, and can read where the result says."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot, BackupHost(name="somebody", address=address))
        assert (target.open_export(export) / "file").read_text() == "x"
        assert await hand.deport(export) == Done()
    assert not readable(target, export)


@promise(*NEEDED)
@pytest.mark.parametrize("address", BAD_ADDRESSES, ids=lambda text: ascii(text)[:20])
async def test_an_address_that_is_none_is_refused(target: Target, address: str) -> None:
    """What is neither an address nor a name is `InvalidInput`, before anything is opened."""
    async with connected(target) as hand:
        asset = await target.fresh_asset()
        snapshot = await hand.create(asset)
        role = played(hand.roles.export)
        with pytest.raises(InvalidInput):
            await role.start_export(
                asset, snapshot, BackupHost(name="nobody", address=address), AccessMode.READ_ONLY, (), request_id()
            )


@promise(*NEEDED, Capability.DELETE)
async def test_an_export_of_a_vanished_snapshot_is_not_found(target: Target) -> None:
    """A snapshot that is gone is `NotFound`, and no access is given."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await hand.delete(asset, snapshot)
        with pytest.raises(NotFound):
            await hand.export(asset, snapshot)


@promise(*NEEDED, Capability.DELETE)
async def test_a_deport_after_the_snapshot_is_gone_succeeds(target: Target) -> None:
    """Access can be taken away although snapshot and asset are gone."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        await hand.delete(asset, snapshot)
        assert await hand.deport(export) == Done()
        second = await hand.create(asset)
        export = await hand.export(asset, second)
        await target.remove_asset(asset)
        assert await hand.deport(export) == Done()


@promise(*NEEDED)
async def test_an_export_of_another_assets_snapshot_is_refused_without_a_call(target: Target) -> None:
    """Asset and snapshot must belong together."""
    async with connected(target) as hand:
        asset, other = await target.fresh_asset(), await target.fresh_asset()
        snapshot = await hand.create(asset)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput):
                await played(hand.roles.export).start_export(
                    other, snapshot, target.hosts[0], AccessMode.READ_ONLY, (), request_id()
                )


@promise(*NEEDED)
@pytest.mark.parametrize("circumstance", [Circumstance.EXPORT_UNPREPARED, Circumstance.EXPORT_WRONGLY_PREPARED])
async def test_exports_that_were_not_prepared_say_what_to_prepare(target: Target, circumstance: Circumstance) -> None:
    """When the system lacks what exports need, the error is typed and its next step names it."""
    asset = await target.fresh_asset()
    settings = await target.arrange(circumstance)
    async with connected(target, **settings) as hand:
        snapshot = await hand.create(asset)
        with pytest.raises((NotFound, Unsupported)) as caught:
            await hand.export(asset, snapshot)
    words = f"{caught.value} {caught.value.next_step}"
    assert any(str(value) in words for value in settings.values())


@promise(*NEEDED)
async def test_a_failed_export_keeps_the_systems_reason(target: Target) -> None:
    """An export that fails is an error with the system's code and text."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.FAILED_TASK, Step.EXPORT)
        with pytest.raises(SnapkeepError) as caught:
            await hand.export(asset, snapshot)
    assert (caught.value.vendor_code, caught.value.vendor_message) == (target.failed_code, FAILED_TASK_TEXT)


@promise(*NEEDED)
async def test_an_export_that_only_claims_success_is_no_export(target: Target) -> None:
    """When the system reports success and the host has no access, there is no result."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.LYING_SUCCESS, Step.EXPORT)
        with pytest.raises(SnapkeepError):
            await hand.export(asset, snapshot)


@promise(*NEEDED)
async def test_a_deport_that_only_claims_success_is_not_done(target: Target) -> None:
    """When the system reports success and the host still has access, deport does not report it gone."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        export = await hand.export(asset, snapshot)
        await target.suffer(Fault.LYING_SUCCESS, Step.EXPORT)
        with pytest.raises(SnapkeepError):
            await hand.deport(export)
    assert readable(target, export)


@promise(*NEEDED)
async def test_an_export_that_never_ends_stays_pending(target: Target) -> None:
    """A result comes with the system's confirmation and not before."""
    async with connected(target) as hand:
        asset, snapshot = await exported_file(hand, "x")
        await target.suffer(Fault.STUCK_TASK, Step.EXPORT)
        role = played(hand.roles.export)
        ticket = recorded(
            await role.start_export(asset, snapshot, target.hosts[0], AccessMode.READ_ONLY, (), request_id())
        )
        await stays_pending(target, lambda: role.poll_export(ticket))
