"""The plug-in linux-host holds real file systems and applications, and lets them go whatever becomes of the holder."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.quiesce.hosts import Application, holders, kill_holders, until
from tests.support.ext4 import Ext4, mounted_ext4
from tests.support.person import ordinary_user
from tests.support.sshd import SshServer

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import (
    Busy,
    NotFound,
    PermissionDenied,
    Timeout,
    Unsupported,
    VendorError,
)
from snapkeep.model.work import Finding, Outcome
from snapkeep.plugin.roles import Quiesced, Roles
from snapkeep.plugins.linux_host import PLUGIN
from snapkeep.plugins.linux_host import quiesce as module
from snapkeep.plugins.linux_host.rights import sudoers

HOSTILE = ["it's", "a=b:c", "x,  y", "*", "?[!a]", "\\", "a\\b", '"', "#1", "$(id)", "ünï", "^a$", "@x"]


only_here = pytest.mark.parametrize("host", ["local"], indirect=True)
"""What takes long, and is the same by SSH."""


class Host:
    """A connected host."""

    def __init__(self, settings: dict[str, Any], directory: Path) -> None:
        self.settings = settings
        self.directory = directory
        self.request = str(uuid.uuid4())
        self._stack = AsyncExitStack()

    async def roles(self, **settings: Any) -> Roles:
        parsed = PLUGIN.settings.parse({**self.settings, **settings})
        return await self._stack.enter_async_context(PLUGIN.connect(parsed))

    async def assets(self, **settings: Any) -> list[Asset]:
        batches = [batch async for batch in (await self.roles(**settings)).discover.discover()]
        return [asset for batch in batches for asset in batch.assets]

    async def asset(self, name: str, **settings: Any) -> Asset:
        (found,) = {item.id: item for item in await self.assets(**settings) if item.name == name}.values()
        return found

    @asynccontextmanager
    async def holding(self, name: str, seconds: float = 60.0, **settings: Any) -> AsyncIterator[Quiesced]:
        asset, role = await self.asset(name, **settings), (await self.roles(**settings)).quiesce
        assert role is not None
        async with role.quiesced(asset, seconds, self.request) as held:
            yield held

    async def findings(self, **settings: Any) -> dict[str, Finding]:
        return {finding.check: finding async for finding in (await self.roles(**settings)).check.check()}

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture(scope="module")
def by_ssh() -> Iterator[tuple[dict[str, Any], Path]]:
    """An ordinary user who may run what the sudoers file of the plug-in says, and one hook in a directory."""
    with tempfile.TemporaryDirectory() as place:
        directory = Path(place)
        directory.chmod(0o755)
        hooks = [(f"{place}/app.sh", "freeze"), (f"{place}/app.sh", "thaw"), ("/usr/bin/printf", *HOSTILE)]
        with ordinary_user(sudoers("USER", hooks=hooks)) as user:
            server = SshServer(directory, programs=True, user=user)
            server.start()
            settings = {
                "host": "127.0.0.1",
                "port": server.port,
                "username": user,
                "private_key": server.private_key,
                "host_key": server.host_key,
                "sudo": True,
            }
            yield settings, directory
            server.stop()


@pytest.fixture(params=["local", "ssh"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Host]:
    settings, directory = ({}, tmp_path) if request.param == "local" else request.getfixturevalue("by_ssh")
    made = Host(settings, directory)
    yield made
    await made.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Ext4]:
    with mounted_ext4(tmp_path / "ext4") as made:
        yield made


@pytest.fixture
def app(host: Host) -> Iterator[Application]:
    made = Application(host.directory, f"app-{uuid.uuid4().hex[:8]}", program=host.directory / "app.sh")
    host.settings["hooks"] = {made.name: made.hook}
    yield made
    del host.settings["hooks"]
    made.log.unlink()


# -- file systems ------------------------------------------------------------------------------------------------------
async def test_a_file_system_is_frozen_and_writing_goes_on_after_it(host: Host, disk: Ext4) -> None:
    async with host.holding(disk.name) as held:
        assert disk.is_frozen()
        assert await held.release() is None
    disk.wait_for_writers()
    assert not disk.is_frozen()
    assert len(list(disk.mount.glob("written-*"))) == 2


async def test_the_guard_thaws_when_the_holder_is_killed(host: Host, disk: Ext4) -> None:
    async with host.holding(disk.name) as held:
        kill_holders(host.request)
        until(lambda: not disk.is_frozen())
        assert await held.release()


async def test_what_others_have_frozen_stays_so(host: Host, disk: Ext4) -> None:
    disk.freeze()
    with pytest.raises(Busy, match="frozen already, by somebody else"):
        async with host.holding(disk.name):
            pass
    assert disk.is_frozen()
    assert disk.thaw()


async def test_what_others_thaw_was_not_held(host: Host, disk: Ext4) -> None:
    async with host.holding(disk.name) as held:
        assert disk.thaw()
        assert await held.release() == "somebody else has thawed it meanwhile"
    disk.freeze()
    await asyncio.sleep(1.5)
    assert disk.thaw(), "nobody of ours is left who would thaw what others freeze"


async def test_the_guard_leaves_alone_what_others_thaw(host: Host, disk: Ext4) -> None:
    async with host.holding(disk.name) as held:
        assert holders(host.request, guards=True)
        assert disk.thaw()
        kill_holders(host.request)
        until(lambda: not holders(host.request, guards=True), 4.0)  # it would try again after five
        assert await held.release()


async def test_what_is_mounted_elsewhere_meanwhile_is_not_frozen(host: Host, disk: Ext4, tmp_path: Path) -> None:
    asset, role = await host.asset(disk.name), (await host.roles()).quiesce
    assert role is not None
    place = tmp_path / "elsewhere"
    place.mkdir()
    subprocess.run(["mount", "--bind", disk.mount, place], check=True)
    subprocess.run(["umount", disk.mount], check=True)
    try:
        with pytest.raises(NotFound, match="not mounted there any more"):
            async with role.quiesced(asset, 10, host.request):
                pass
    finally:
        subprocess.run(["mount", "--bind", place, disk.mount], check=True)
        subprocess.run(["umount", place], check=True)


# -- applications ------------------------------------------------------------------------------------------------------
async def test_the_guard_lets_an_application_go(host: Host, app: Application) -> None:
    async with host.holding(app.name) as held:
        assert app.is_held
        kill_holders(host.request)
        until(lambda: app.noted == ["freeze", "thaw"])
        assert await held.release()


async def test_a_hook_that_hangs_is_ended_in_time(host: Host, app: Application) -> None:
    app.behave(freeze="exec sleep 300")
    with pytest.raises(Timeout, match="did not come to its end in time"):
        async with host.holding(app.name, 1.0):
            pass
    assert app.noted == ["thaw"]


@only_here
async def test_a_hook_that_does_not_let_itself_be_ended(host: Host, app: Application) -> None:
    app.behave(freeze="trap : TERM; for n in 1 2 3 4 5 6 7; do sleep 1; done")
    with pytest.raises(Timeout):
        async with host.holding(app.name, 1.0):
            pass
    assert app.noted[0] == "thaw", "at once"
    assert app.noted[-2:] == ["freeze", "thaw"], "and when it has ended after all"


async def test_a_hook_that_fails_gives_its_reason_and_is_undone(host: Host, app: Application) -> None:
    app.behave(freeze="echo 'the disk: No such file or directory' >&2; exit 7")
    with pytest.raises(VendorError, match="its hook failed") as caught:
        async with host.holding(app.name):
            pass
    assert (caught.value.vendor_code, app.noted) == ("7", ["thaw"])
    assert caught.value.vendor_message == "the disk: No such file or directory"


async def test_a_hook_that_is_not_there(host: Host, app: Application) -> None:
    app.program.unlink()
    with pytest.raises((Unsupported, PermissionDenied)) as caught:
        async with host.holding(app.name):
            pass
    assert str(app.program) in str(caught.value)
    assert not holders(host.request)


async def test_a_thaw_that_fails_once_is_done_again(host: Host, app: Application) -> None:
    failed = app.log.with_name("failed")
    app.behave(thaw=f"[ -e {failed} ] || {{ touch {failed}; exit 1; }}")
    async with host.holding(app.name) as held:
        assert await held.release() is None
    assert app.noted == ["freeze", "thaw"]
    failed.unlink()


async def test_a_thaw_that_fails_is_told_and_the_guard_goes_on(host: Host, app: Application) -> None:
    app.behave(thaw="[ -e $0.mended ] || { echo 'no way' >&2; exit 9; }")
    async with host.holding(app.name) as held:
        assert "could not be thawed, and the host goes on trying" in str(answer := await held.release())
        assert "no way" in str(answer)
    mended = Path(f"{app.program}.mended")
    mended.touch()
    until(lambda: app.noted == ["freeze", "thaw"])
    mended.unlink()


async def test_nobody_waits_longer_than_the_patience_for_another(
    host: Host, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0)
    async with host.holding(app.name) as held:
        with pytest.raises(Busy, match="held by somebody else"):
            async with host.holding(app.name, 1.0):
                pass
        assert await held.release() is None
    assert app.noted == ["freeze", "thaw"]


@pytest.mark.parametrize("host", ["ssh"], indirect=True)
async def test_nobody_else_can_take_the_lock_of_a_user(host: Host, app: Application) -> None:
    lock = "snapkeep-quiesce-" + hashlib.sha256((await host.asset(app.name)).id.encode()).hexdigest()[:16]
    taken = Path(f"/tmp/{lock}-{pwd.getpwnam(host.settings['username']).pw_uid}")
    taken.touch(0o600)
    try:
        async with host.holding(app.name) as held:
            assert await held.release() is None
    finally:
        taken.unlink()
    assert app.noted == ["freeze", "thaw"]


async def test_a_program_that_goes_on_after_its_hook_holds_up_nobody(host: Host, app: Application) -> None:
    """Such as a session of a database that must stay open: the thaw ends it."""
    app.behave(freeze="sleep 120 & echo $! >$0.pid", thaw="kill $(cat $0.pid); rm $0.pid")
    async with host.holding(app.name) as held:
        assert await held.release() is None
    async with host.holding(app.name) as held:
        assert await held.release() is None


async def test_words_arrive_as_they_are_and_sudo_allows_no_others(host: Host) -> None:
    words = ["/usr/bin/printf", *HOSTILE]
    hooks = {"hostile": {"freeze": words, "thaw": words}, "other": {"freeze": [*words, "more"], "thaw": words}}
    async with host.holding("hostile", hooks=hooks) as held:
        assert await held.release() is None
    if host.settings:
        with pytest.raises(PermissionDenied):
            async with host.holding("other", hooks=hooks):
                pass


def waited(seconds: float) -> bool:
    time.sleep(seconds)
    return True


@only_here
async def test_killed_at_any_moment(host: Host, app: Application) -> None:
    """Whenever the process that holds it dies, the host lets it go."""
    asset = await host.asset(app.name)
    given = {**dataclasses.asdict(asset), "capabilities": sorted(asset.capabilities)}
    told = {"plugin": PLUGIN.name, "settings": host.settings, "asset": given, "seconds": 60}
    moments: list[Callable[[], Any]] = [
        lambda: holders(str(app.program)),
        lambda: holders(str(app.program)) and waited(0.1),
        lambda: app.is_held,
    ]
    for moment in moments:
        child = subprocess.Popen(
            [sys.executable, "-m", "snapkeep.conformance.holder"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert child.stdin is not None
        child.stdin.write(json.dumps(told).encode() + b"\n")
        child.stdin.close()
        try:
            await asyncio.to_thread(until, moment)
        finally:
            child.kill()
            child.wait()
        await asyncio.to_thread(until, lambda: not app.is_held and not holders(str(app.program)))


# -- what is found -----------------------------------------------------------------------------------------------------
async def test_what_is_mounted_is_shown(host: Host, disk: Ext4, tmp_path: Path) -> None:
    found = await host.asset(disk.name)
    assert found.kind is AssetKind.FILE_SYSTEM
    assert found.capabilities == {Capability.QUIESCE}
    assert {"type": "ext4", "mounted": str(disk.mount)}.items() <= found.attributes.items()
    assert found.attributes["device"].startswith("/dev/loop")
    if not host.settings:  # for others, the directory is closed
        assert int(found.attributes["size_bytes"]) > 1 << 20
    root = await host.asset("rootfs")
    assert not root.capabilities
    assert root.refusals[Capability.QUIESCE]
    one, two = (Path(shutil.copy(disk.image, tmp_path / name)) for name in ("one.img", "two.img"))
    with (
        mounted_ext4(tmp_path / "one", image=one) as other,
        mounted_ext4(tmp_path / "two", "ro", "noload", image=two) as third,
    ):
        names = [asset.name for asset in await host.assets()]
        assert disk.name in names
        if not host.settings:  # without udev, only root can tell that it is a copy
            assert not {other.name, third.name} & set(names)
        assert await host.assets(export_directory=str(tmp_path)) == [
            asset for asset in await host.assets() if not asset.name.startswith(str(tmp_path)[1:])
        ]
        only = await host.assets(only=[str(third.mount)])
        assert [asset.name for asset in only if asset.kind is AssetKind.FILE_SYSTEM] == [third.name]
        assert only[-1].refusals[Capability.QUIESCE] == "it is mounted read-only: nothing changes in it"


async def test_what_is_not_mounted_any_more_is_gone(host: Host, app: Application, tmp_path: Path) -> None:
    discover = (await host.roles()).discover
    with mounted_ext4(tmp_path / "one") as disk:
        found, hook = await host.asset(disk.name), await host.asset(app.name)
        assert await discover.exists(found)
    assert not await discover.exists(found)
    assert await discover.exists(hook)
    assert not await (await host.roles(hooks={})).discover.exists(hook)


async def test_a_check_names_the_hooks_that_cannot_be_run(host: Host, app: Application, disk: Ext4) -> None:
    found = await host.findings(only=[str(disk.mount)])
    assert found["file systems"].outcome is not Outcome.FAILED
    assert found[f"hook {app.name}"].outcome is Outcome.OK
    if host.settings.get("sudo"):
        assert found["right to quiesce"].outcome is Outcome.OK
    app.program.unlink()
    lacking = (await host.findings())[f"hook {app.name}"]
    assert lacking.outcome is Outcome.FAILED
    assert f"{app.program} freeze" in lacking.message
    if host.settings.get("sudo"):
        assert f"{app.program} freeze" in lacking.next_step
