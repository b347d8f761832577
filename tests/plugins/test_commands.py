"""Programs are run alike on this machine and by SSH, with a real server: nothing of an argument is lost on the way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests.support.person import ordinary_user
from tests.support.sshd import SshServer

from snapkeep.model.errors import (
    AuthenticationFailed,
    LimitExceeded,
    PermissionDenied,
    Unavailable,
    Unsupported,
    VendorError,
)
from snapkeep.plugin import commands as module
from snapkeep.plugin.commands import Command, Commands
from snapkeep.plugin.commands import local as local_module
from snapkeep.plugin.commands import ssh as ssh_module
from snapkeep.plugin.commands.local import LocalCommands
from snapkeep.plugin.commands.ssh import SshCommands, SshHost
from snapkeep.ssh import login, trust

HOSTILE = [
    b"", b" ", b"it's", b'"quoted"', b"$(id) `id`", b"new\nline", b"back\\slash", b"\xff\xfe\x80", "ünï".encode(), b"*",
    b"~", b"-rf", b"a;b", b"&", b"|", b"\x01\x7f", b"!x", b"x" * 4000,
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    started = SshServer(tmp_path_factory.mktemp("sshd"), programs=True)
    started.start()
    yield started
    started.stop()


def over(server: SshServer, *, sudo: bool = False, host_key: str | None = None, **options: Any) -> SshCommands:
    how = {**trust(host_key or server.host_key, None), **login(server.private_key, None, None), **options}
    where = SshHost(host="127.0.0.1", port=server.port, user=server.user, options=how)
    return SshCommands(where, sudo=sudo)


@pytest.fixture(params=["local", "ssh"])
async def commands(request: pytest.FixtureRequest) -> AsyncIterator[Commands]:
    if request.param == "local":
        yield LocalCommands()
        return
    made = over(request.getfixturevalue("server"))
    yield made
    await made.close()


async def test_arguments_arrive_as_they_are(commands: Commands) -> None:
    done = await commands.run(Command.of("printf", r"%s\0", *HOSTILE))
    assert done.succeeded().split(b"\0")[:-1] == HOSTILE


async def test_code_output_and_complaints_are_told_apart(commands: Commands) -> None:
    done = await commands.run(Command.of("sh", "-c", "echo out; echo err >&2; exit 3"))
    assert (done.code, done.out, done.err) == (3, b"out\n", b"err\n")
    with pytest.raises(VendorError) as caught:
        done.succeeded()
    assert (caught.value.vendor_code, caught.value.vendor_message) == ("3", "err")


async def test_input_is_given(commands: Commands) -> None:
    given = bytes(range(256)) * 10_000
    assert (await commands.run(Command.of("cat"), given)).out == given
    assert (await commands.run(Command.of("true"), given)).code == 0, "nobody reads it"


async def test_the_same_words_on_every_host(commands: Commands) -> None:
    done = await commands.run(Command.of("sh", "-c", "echo $LC_ALL $TZ"))
    assert done.out == b"C.UTF-8 UTC\n"


async def test_a_program_that_is_not_there(commands: Commands) -> None:
    done = await commands.run(Command.of("snapkeep-no-such-program"))
    with pytest.raises(Unsupported, match="no program snapkeep-no-such-program"):
        done.succeeded()


async def test_a_program_that_hangs_is_ended(commands: Commands, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not end|said nothing"):
        await commands.run(Command.of("sh", "-c", f"sleep 5; touch {mark}", seconds=1.0))
    assert time.monotonic() - began < 12
    await asyncio.sleep(max(0.0, 6 - (time.monotonic() - began)))
    assert not mark.exists(), "it went on"


async def test_nobody_waits_any_more(commands: Commands, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    task = asyncio.ensure_future(commands.run(Command.of("sh", "-c", f"sleep 2; touch {mark}")))
    await asyncio.sleep(0.7)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(2.5)
    assert not mark.exists(), "it went on"


async def test_the_input_stays_open_until_it_is_closed(commands: Commands) -> None:
    async with commands.hold(Command.of("sh", "-c", "echo begun; cat; echo ended; exit 3")) as held:
        pieces = aiter(held)
        assert await anext(pieces) == b"begun\n"
        await asyncio.sleep(0.3)
        assert (await commands.run(Command.of("echo", "beside"))).out == b"beside\n"
        held.release()
        held.release()
        assert b"".join([piece async for piece in pieces]) == b"ended\n"
        assert (await held.end()).code == 3


async def test_more_may_be_held_than_run(commands: Commands) -> None:
    """What is held must take no place from what is to end it."""
    async with contextlib.AsyncExitStack() as stack:
        holding = [commands.hold(Command.of("cat")) for _ in range(12)]
        every = [await stack.enter_async_context(each) for each in holding]
        assert (await commands.run(Command.of("echo", "beside"))).out == b"beside\n"
        for held in every:
            held.release()
            assert (await held.end()).code == 0


async def test_a_stream_comes_in_pieces_and_is_left_early(commands: Commands) -> None:
    async with commands.stream(Command.of("sh", "-c", "while :; do echo line; done")) as stream:
        size = 0
        async for piece in stream:
            size += len(piece)
            if size > 1 << 20:
                break
    done = await commands.run(Command.of("echo", "still there"))
    assert done.out == b"still there\n"


async def test_a_stream_tells_its_end(commands: Commands) -> None:
    async with commands.stream(Command.of("sh", "-c", "printf abc; echo why >&2; exit 4")) as stream:
        pieces = [piece async for piece in stream]
        done = await stream.end()
    assert (b"".join(pieces), done.code, done.err) == (b"abc", 4, b"why\n")


async def test_too_much_is_a_limit(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (local_module, ssh_module):
        monkeypatch.setattr(where, "MOST_OUTPUT", 1 << 20)
    with pytest.raises(LimitExceeded):
        await commands.run(Command.of("head", "-c", str(3 << 20), "/dev/zero"))


async def test_many_at_once(commands: Commands) -> None:
    """More than sshd allows at once on a connection (MaxSessions, 10)."""
    done = await asyncio.gather(*(commands.run(Command.of("echo", str(number))) for number in range(30)))
    assert [int(item.out) for item in done] == list(range(30))


# -- by SSH ------------------------------------------------------------------------------------------------------------
async def test_another_host_key_is_refused(server: SshServer, tmp_path: Path) -> None:
    other = SshServer(tmp_path).host_key
    commands = over(server, host_key=other)
    with pytest.raises(AuthenticationFailed, match="not the host that is known"):
        await commands.run(Command.of("true"))
    await commands.close()


async def test_another_login_is_refused(server: SshServer, tmp_path: Path) -> None:
    commands = over(server, **login(SshServer(tmp_path).private_key, None, None))
    with pytest.raises(AuthenticationFailed, match="refuses the login"):
        await commands.run(Command.of("true"))
    await commands.close()


async def test_no_server(server: SshServer) -> None:
    commands = over(server)
    commands._where = SshHost(host="127.0.0.1", port=1, options=commands._where.options)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await commands.run(Command.of("true"))


async def test_a_lost_connection_is_made_again(server: SshServer) -> None:
    commands = over(server)
    await commands.run(Command.of("true"))
    assert commands._connection is not None
    commands._connection.abort()
    assert (await commands.run(Command.of("echo", "again"))).out == b"again\n"
    running = asyncio.ensure_future(commands.run(Command.of("sleep", "30")))
    await asyncio.sleep(0.5)
    commands._connection.abort()
    with pytest.raises(Unavailable, match="was lost during sleep 30"):
        await running
    await commands.close()


async def test_whoever_gives_up_while_it_connects_leaves_no_socket(server: SshServer, tmp_path: Path) -> None:
    before = sockets()
    os.mkfifo(tmp_path / "key")
    commands = over(server, client_keys=[str(tmp_path / "key")])
    task = asyncio.ensure_future(commands.run(Command.of("true")))
    with await asyncio.to_thread(open, tmp_path / "key", "wb"):  # now it reads the key, connected already
        (tmp_path / "key").unlink()
        assert sockets() == before + 1
        task.cancel()
        await asyncio.wait({task})
        assert sockets() == before


def sockets() -> int:
    found = 0
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += entry.readlink().name.startswith("socket:")
    return found


async def test_by_another_host(server: SshServer) -> None:
    commands = over(server)
    way = {**commands._where.options}
    async with asyncssh.connect("127.0.0.1", server.port, username=server.user, config=None, **way) as hop:
        commands._where = SshHost(host="127.0.0.1", port=server.port, user=server.user, options={**way, "tunnel": hop})
        assert (await commands.run(Command.of("echo", "behind"))).out == b"behind\n"
        await commands.close()


# -- as root -----------------------------------------------------------------------------------------------------------
SUDOERS = "USER ALL = (root) NOPASSWD: /usr/bin/id -u, /usr/bin/false, /usr/bin/sleep\n"


@asynccontextmanager
async def by_sudo() -> AsyncIterator[SshCommands]:
    """Log in as an ordinary user."""
    with ordinary_user(SUDOERS) as user, tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # pytest's are closed to others: sshd reads authorized_keys as the user
        server = SshServer(Path(directory), programs=True, user=user)
        server.start()
        commands = over(server, sudo=True)
        try:
            yield commands
        finally:
            await commands.close()
            server.stop()


async def test_sudo_runs_what_is_listed_and_nothing_else() -> None:
    async with by_sudo() as commands:
        assert (await commands.run(Command.of("id", "-u"))).out != b"0\n"
        assert (await commands.run(Command.of("id", "-u", as_root=True))).out == b"0\n"
        assert (await commands.run(Command.of("false", as_root=True))).code == 1, "its own, not sudo's"
        with pytest.raises(PermissionDenied, match="does not allow cat /etc/shadow") as caught:
            await commands.run(Command.of("cat", "/etc/shadow", as_root=True))
        assert caught.value.details["needed"] == "cat /etc/shadow"


async def test_what_runs_as_root_is_ended_too() -> None:
    async with by_sudo() as commands:
        with pytest.raises(Unavailable, match="did not end"):
            await commands.run(Command.of("sleep", "31.25", as_root=True, seconds=1.0))
        task = asyncio.ensure_future(commands.run(Command.of("sleep", "31.25", as_root=True)))
        await asyncio.sleep(0.7)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.5)
        left = await commands.run(Command.of("pgrep", "-x", "-f", "sleep 31.25"))
        assert left.out == b""


def test_a_command_reads_as_a_person_would_type_it() -> None:
    assert str(Command.of("a b", b"\xff", "it's")) == r"""'a b' '\xff' 'it'"'"'s'"""
    assert module.as_run(Command.of("x", as_root=True), sudo=False)[-1] == b"x"
