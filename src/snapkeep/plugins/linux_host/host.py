"""The host as the roles use it: programs that are run as root, and what they leave undone."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, ParamSpec, TypeVar

from snapkeep.model.errors import PermissionDenied, Unavailable
from snapkeep.plugin.commands import Command, Commands, Held, Output, Stream, require_sudo
from snapkeep.plugins.linux_host.errors import Interrupted, failure, is_no_answer, number
from snapkeep.plugins.linux_host.rights import rule
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

P = ParamSpec("P")
T = TypeVar("T")

TRIES = 3
PAUSE_SECONDS = 0.1
_LOOKS = (
    *((b"findmnt",), (b"stat",), (b"find",), (b"readlink",), (b"date",), (b"id",), (b"printenv",)),
    *((b"btrfs", b"subvolume", b"list"), (b"btrfs", b"subvolume", b"show")),
    *((b"zfs", b"list"), (b"zfs", b"get"), (b"lvs",), (b"lsblk",), (b"blkid",)),
)
"""How commands begin that change nothing."""


def persistent(step: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Begin a step again when a program in it was interrupted: what such a step has done, it finds done."""

    @functools.wraps(step)
    async def repeated(*arguments: P.args, **named: P.kwargs) -> T:
        for _ in range(TRIES - 1):
            try:
                return await step(*arguments, **named)
            except Interrupted:
                await asyncio.sleep(PAUSE_SECONDS)
        return await step(*arguments, **named)

    return repeated


class CarefulCommands:
    """Commands that never take a program's failure for an answer: one that could not look has not seen nothing."""

    def __init__(self, commands: Commands, *, root: bool) -> None:
        """`root`: what needs root is run as root."""
        self._commands = commands
        self._root = root
        self.host = commands.host
        self.is_local = commands.is_local

    async def run(self, command: Command, given: bytes = b"") -> Output:
        """Run a program; one that only looks is run again when it was interrupted.

        Raises Unavailable, PermissionDenied or Unsupported, besides what `Commands.run` does.
        """
        if any(command.arguments[: len(look)] == look for look in _LOOKS):
            return await self._look(command, given)
        return await self._once(command, given)

    @asynccontextmanager
    async def stream(self, command: Command, given: bytes = b"") -> AsyncIterator[Stream]:
        """Run a program and read what it writes while it does."""
        with _told_from_hanging(command):
            async with self._commands.stream(command, given) as stream:
                yield stream

    def hold(self, command: Command) -> AbstractAsyncContextManager[Held]:
        """Run a program whose standard input stays open."""
        return self._commands.hold(command)

    async def require_allowed(self, done: Output) -> None:
        """Raise PermissionDenied when it was sudo that ended a program which was read while it ran."""
        try:
            await require_sudo(self._commands, done)
        except PermissionDenied as error:
            error.details["needed"] = rule(done.command)
            raise

    async def _once(self, command: Command, given: bytes) -> Output:
        try:
            with _told_from_hanging(command):
                done = await self._commands.run(command, given)
        except PermissionDenied as error:
            error.details["needed"] = rule(command)
            raise
        if done.code and is_no_answer(done):
            raise failure(done, str(command), root=self._root)
        return done

    _look = persistent(_once)


@contextmanager
def _told_from_hanging(command: Command) -> Iterator[None]:
    """Let what was lost long before a program's time was over be an interruption: to begin again helps."""
    began = time.monotonic()
    try:
        yield
    except Unavailable as error:
        if time.monotonic() - began > command.seconds / 2:
            raise
        raise Interrupted(error.message, next_step=error.next_step, vendor_message=error.vendor_message) from error


class Host:
    """Runs the few programs with which names are moved and marked."""

    def __init__(self, commands: Commands, settings: LinuxHostSettings) -> None:
        self.name = settings.host or "this machine"
        self.by_sudo = settings.sudo and not (commands.is_local and os.geteuid() == 0)
        self.is_root = settings.sudo or (commands.is_local and os.geteuid() == 0)
        self.commands = CarefulCommands(commands, root=self.is_root)
        self._seconds = settings.command_seconds

    async def run(self, *arguments: str | bytes) -> Output:
        """Run a program as root."""
        return await self.commands.run(Command.of(*arguments, as_root=True, seconds=self._seconds))

    async def see(self, *arguments: str | bytes) -> Output:
        """Run a program that any user may run."""
        return await self.commands.run(Command.of(*arguments, seconds=self._seconds))

    async def do(self, doing: str, *arguments: str | bytes) -> bytes:
        """Run a program as root, which must succeed; return what it wrote."""
        return self.require(await self.run(*arguments), doing)

    def require(self, done: Output, doing: str) -> bytes:
        """Return what a program wrote. Raises the error for its reason."""
        if done.code:
            raise failure(done, doing, root=self.is_root)
        return done.out

    async def mark(self, path: bytes, text: str) -> None:
        """Note a text at a path, in place of another one."""
        await self.do(f"Noting {text}", "ln", "-sfnT", "--", text, path)

    async def marked(self, path: bytes) -> str | None:
        """Return the text that was noted at a path."""
        done = await self.run("readlink", "-n", "--", path)
        return done.out.decode("utf-8", "backslashreplace") if not done.code else None

    async def unmark(self, path: bytes) -> None:
        """Remove a note; one that is not there is none."""
        await self.do("Removing a note", "rm", "-f", "--", path)

    async def move(self, doing: str, path: bytes, target: bytes) -> None:
        """Give a directory or subvolume another name, at which nothing is."""
        await self.do(doing, "mv", "-nT", "--", path, target)

    async def remove_empty(self, path: bytes) -> None:
        """Remove an empty directory, if it is there."""
        done = await self.run("rmdir", "--", path)
        if done.code and number(done) != errno.ENOENT:
            self.require(done, "Removing an empty directory")


async def has_mounts(host: Host, kind: str) -> bool:
    """Say whether a file system of a kind is mounted. Raises VendorError when it cannot be told."""
    done = await host.see("findmnt", "-J", "-l", "-t", kind, "-o", "TARGET")
    if done.code == 1 and not done.out and not done.err:  # there is none (findmnt(8))
        return False
    done.succeeded()
    return True
