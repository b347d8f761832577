"""Programs on another machine, by SSH: one connection for all of them, made again when it was lost.

Every program runs under `timeout` (coreutils): it ends there although nobody can tell it so any more. Who still can
tells it by `kill` through another session: sshd passes a signal on (RFC 4254, 6.9) to the login shell at best, and none
for root ("session signalling requires privilege separation").
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from snapkeep import addresses
from snapkeep.model.errors import AuthenticationFailed, LimitExceeded, SnapkeepError, Unavailable
from snapkeep.plugin.commands import (
    MOST_ERRORS,
    MOST_OUTPUT,
    TIMED_OUT,
    Command,
    Held,
    Output,
    Stream,
    as_run,
    require_sudo,
)
from snapkeep.ssh import CONNECT_SECONDS, connect, connection_options

import asyncssh  # isort: skip - snapkeep.ssh says what to install where it is missing

_PIECE = 256 << 10
_GRACE = 10.0
"""Seconds between the end of a program's time there and ours: its own `timeout` is to end it first."""
_KILLED = 137
_LAST_SECONDS = 5.0
"""How long it may take to end a program."""
_SESSIONS = 8
"""Programs at once: a server allows 10 sessions on a connection (sshd_config(5), MaxSessions); two are for `kill`."""
_MARK = b"snapkeep-runs "
_TELLING = (b"sh", b"-c", b'echo "%s$$"; exec "$@"' % _MARK, b"snapkeep")
"""Says the process's number in a line of its own; what a login shell says before that is no output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SshHost:
    """Where it is and how to get in. `options` are asyncssh's: whom to trust, how to log in."""

    host: str
    port: int = 22
    user: str | None = None
    jump: str | None = None
    """Other hosts on the way: `[user@]host[:port]`, parted by commas (ssh(1), -J)."""
    options: Mapping[str, Any] = field(default_factory=dict)


class SshCommands:
    """Plays `Commands` for another machine."""

    is_local = False

    def __init__(self, where: SshHost, *, sudo: bool = False) -> None:
        """`sudo`: what needs root is run by sudo."""
        self.host = where.host
        self._where = where
        self._sudo = sudo
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS)

    async def run(self, command: Command, given: bytes = b"") -> Output:
        """Run a program to its end."""
        pieces: list[bytes] = []
        size = 0
        async with self.stream(command, given) as stream:
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > MOST_OUTPUT:
                    raise LimitExceeded(f"{command} writes more than {MOST_OUTPUT >> 20} MiB")
            done = await stream.end()
        if self._sudo:
            await require_sudo(self, done)
        return Output(command, self.host, done.code, b"".join(pieces), done.err)

    @asynccontextmanager
    async def stream(self, command: Command, given: bytes = b"") -> AsyncIterator[Stream]:
        """Run a program and read what it writes."""
        async with self._sessions:
            connection, process = await self._start(command)
            stream = _SshStream(self, command, connection, process, given)
            try:
                yield stream
            finally:
                await stream.close()

    @asynccontextmanager
    async def hold(self, command: Command) -> AsyncIterator[Held]:
        """Run a program whose standard input stays open, on a connection of its own."""
        connection = await self._connect()
        try:
            stream = _SshStream(self, command, connection, await self._process(connection, command), None)
            try:
                yield stream
            finally:
                await stream.close()
        finally:
            await _close(connection)

    async def close(self) -> None:
        """End the connection."""
        if self._connection is not None:
            await _close(self._connection)
            self._connection = None

    def lost(self, error: Exception, command: Command, connection: asyncssh.SSHClientConnection) -> SnapkeepError:
        """Forget a connection that broke; return the error for whoever used it."""
        connection.abort()
        if connection is self._connection:
            self._connection = None
        return self._translated(error, f"The connection to {self.host} was lost during {command}")

    async def _start(self, command: Command) -> tuple[asyncssh.SSHClientConnection, asyncssh.SSHClientProcess[bytes]]:
        for last in (False, True):
            connection = await self._connected()
            try:
                return connection, await self._process(connection, command)
            except Unavailable:
                if last:
                    raise  # an idle connection may have been cut: once more on a new one
        raise AssertionError("unreachable")  # pragma: no cover

    async def _process(
        self, connection: asyncssh.SSHClientConnection, command: Command
    ) -> asyncssh.SSHClientProcess[bytes]:
        limit = (b"timeout", b"--kill-after=5", b"%d" % max(1, round(max(command.seconds, command.total))))
        text = b" ".join(map(_quoted, (*_TELLING, *limit, *as_run(command, sudo=self._sudo))))
        try:
            async with asyncio.timeout(command.seconds):
                return await connection.create_process(text, encoding=None)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self.lost(error, command, connection) from error

    async def _connected(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> asyncssh.SSHClientConnection:
        where = self._where
        user = {"username": where.user} if where.user else {}
        options = {**connection_options(30.0), **user, **where.options}
        try:
            if where.jump:  # the host's own address is looked up behind it
                await addresses.require_host(first_hop(where.jump), 22)
                return await asyncssh.connect(where.host, where.port, tunnel=where.jump, **options)
            return await connect(where.host, where.port, CONNECT_SECONDS, **options)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self._translated(error, f"{self.host} cannot be reached by SSH") from error

    def _translated(self, error: Exception, message: str) -> SnapkeepError:
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return AuthenticationFailed(
                f"{self.host} is not the host that is known: {reason}",
                next_step="Compare its key with the administrator's, then give it as host_key or in known_hosts.",
            )
        if isinstance(error, asyncssh.PermissionDenied):
            return AuthenticationFailed(
                f"{self.host} refuses the login: {reason}",
                next_step="Check user name, private_key or password, and the host's authorized_keys.",
            )
        return Unavailable(f"{message}: {reason}")


class _SshStream:
    def __init__(
        self,
        commands: SshCommands,
        command: Command,
        connection: asyncssh.SSHClientConnection,
        process: asyncssh.SSHClientProcess[bytes],
        given: bytes | None,
    ) -> None:
        """`given`: standard input; None: that stays open."""
        self._commands = commands
        self._command = command
        self._connection = connection
        self._process = process
        self._err = bytearray()
        self._number: int | None = None
        """Of the process there; 0: it does not say."""
        self._aside = [asyncio.ensure_future(self._complaints())]
        if given is not None:
            self._aside.append(asyncio.ensure_future(self._give(given)))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._command.seconds + _GRACE):
                    await self._begun()
                    piece = await self._process.stdout.read(_PIECE)
            except TimeoutError as error:
                raise Unavailable(
                    f"{self._command} said nothing for {self._command.seconds:g} s on {self._commands.host}"
                ) from error
            except (asyncssh.Error, OSError) as error:
                raise self._lost(error) from error
            if not piece:
                return
            yield piece

    async def end(self) -> Output:
        try:
            async with asyncio.timeout(self._command.seconds + _GRACE):
                await self._process.wait_closed()
                await asyncio.gather(*self._aside)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise self._lost(error) from error
        code = self._process.returncode
        if code is None:
            raise self._lost(asyncssh.ConnectionLost("the host did not say how the program ended"))
        if code in {TIMED_OUT, _KILLED}:
            raise Unavailable(
                f"{self._command} did not end within {self._command.seconds:g} s on {self._commands.host}"
            )
        return Output(self._command, self._commands.host, code, b"", bytes(self._err))

    def release(self) -> None:
        with suppress(asyncssh.Error, OSError):
            self._process.stdin.write_eof()

    def _lost(self, error: Exception) -> SnapkeepError:
        return self._commands.lost(error, self._command, self._connection)

    async def close(self) -> None:
        """End the program, if it has not ended."""
        if self._process.exit_status is None:
            with suppress(asyncssh.Error, OSError, TimeoutError):
                async with asyncio.timeout(_LAST_SECONDS):
                    await self._kill()
        self._process.close()
        for task in self._aside:
            task.cancel()
        await asyncio.gather(*self._aside, return_exceptions=True)

    async def _begun(self) -> None:
        """Read the process's number, and what comes before it, which is kept as a complaint."""
        while self._number is None:
            line = await self._process.stdout.readline()
            if line.startswith(_MARK):
                self._number = int(line.removeprefix(_MARK))
            elif not line:
                self._number = 0
            else:
                self._err = (self._err + line)[-MOST_ERRORS:]

    async def _kill(self) -> None:
        await self._begun()
        if self._number:
            # The number may be another process's by now.
            ours = f"head -c 7 /proc/{self._number}/cmdline | grep -q timeout"
            await self._connection.run(f"{ours} && kill -TERM {self._number}", encoding=None)

    async def _complaints(self) -> None:
        with suppress(asyncssh.Error, OSError):
            while piece := await self._process.stderr.read(_PIECE):
                self._err = (self._err + piece)[-MOST_ERRORS:]

    async def _give(self, given: bytes) -> None:
        with suppress(asyncssh.Error, OSError):  # it may have enough before the end
            if given:
                self._process.stdin.write(given)
                await self._process.stdin.drain()
            self._process.stdin.write_eof()


async def _close(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    with suppress(asyncssh.Error, OSError, TimeoutError):
        async with asyncio.timeout(5):
            await connection.wait_closed()


def first_hop(jump: str) -> str:
    """Return the first host of `[user@]host[:port],...`; IPv6 addresses with a port are in brackets."""
    first = jump.partition(",")[0].rpartition("@")[2]
    if first.startswith("["):
        return first[1:].partition("]")[0]
    return first if first.count(":") > 1 else first.partition(":")[0]


def _quoted(argument: bytes) -> bytes:
    """Return an argument as a POSIX shell reads it back unchanged, whatever its bytes."""
    return shlex.quote(argument.decode("latin-1")).encode("latin-1")
