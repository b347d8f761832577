"""Running programs on a host, for systems that have no other interface: on this machine, or by SSH.

A program and its arguments are given apart, as bytes or text; no shell of ours ever sees them. (An SSH server hands
them to the user's login shell: there every argument is quoted, so that a POSIX shell changes none.)
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from snapkeep.model.errors import PermissionDenied, Unsupported, VendorError

NOT_FOUND = 127
"""Exit code of a shell that does not find the program (POSIX, Shell Command Language, 2.8.2)."""
NOT_EXECUTABLE = 126
TIMED_OUT = 124
"""Exit code of `timeout` (coreutils) when the time was over."""

MOST_OUTPUT = 64 << 20
"""Bytes that `run` takes; what may be more is streamed."""
MOST_ERRORS = 64 << 10
"""Bytes of standard error that are kept."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments. `as_root`: by sudo, where the user is not root."""

    arguments: tuple[bytes, ...]
    as_root: bool = False
    seconds: float = 60.0
    """The longest that it may take; streamed, the longest silence."""
    total: float = 0.0
    """Streamed, the longest that it may take, if that is more."""

    @classmethod
    def of(cls, *arguments: str | bytes, as_root: bool = False, seconds: float = 60.0, total: float = 0.0) -> Command:
        """Make one of text or bytes."""
        return cls(tuple(map(os.fsencode, arguments)), as_root, seconds, total)

    @property
    def program(self) -> str:
        """The program, for people."""
        return os.fsdecode(self.arguments[0])

    def __str__(self) -> str:
        return shlex.join(argument.decode("utf-8", "backslashreplace") for argument in self.arguments)


@dataclass(frozen=True, slots=True)
class Output:
    """What a program said, and how it ended."""

    command: Command
    host: str
    code: int
    out: bytes
    err: bytes

    @property
    def reason(self) -> str:
        """What it said of its failure."""
        return self.err.decode("utf-8", "backslashreplace").strip()[-1000:]

    def succeeded(self) -> bytes:
        """Return what it wrote. Raises Unsupported when there is no such program, VendorError when it failed."""
        if self.code in {NOT_FOUND, NOT_EXECUTABLE}:
            raise missing(self.command.program, self.host, self.reason)
        if self.code:
            raise VendorError(
                f"{self.command} failed on {self.host}", vendor_code=str(self.code), vendor_message=self.reason
            )
        return self.out


def missing(program: str, host: str, reason: str) -> Unsupported:
    """Return the error for a program that is not on the host."""
    return Unsupported(
        f"There is no program {program} on {host}", next_step=f"Install {program} there.", vendor_message=reason
    )


class Commands(Protocol):
    """One host on which programs can be run."""

    @property
    def host(self) -> str:
        """The host, for people."""

    @property
    def is_local(self) -> bool:
        """Whether it is this machine."""

    async def run(self, command: Command, given: bytes = b"") -> Output:
        """Run a program to its end; `given` is its standard input.

        It is ended when its time is over, and when nobody waits for it any more. Raises Unavailable (the host cannot be
        reached, or the program hangs), AuthenticationFailed (the host is not the one that is known, or refuses the
        login), PermissionDenied (sudo does not allow it), Unsupported (there is no such program), LimitExceeded (it
        wrote too much).
        """

    def stream(self, command: Command, given: bytes = b"") -> contextlib.AbstractAsyncContextManager[Stream]:
        """Run a program and read what it writes while it does; it is ended with the context. Raises what `run` does."""

    def hold(self, command: Command) -> contextlib.AbstractAsyncContextManager[Held]:
        """Run a program whose standard input stays open: until `release`, or until nobody is left who could end it.

        By SSH it has a connection of its own, which no other program can break. Raises what `run` does.
        """


class Stream(Protocol):
    """What a program writes."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield pieces of it; a program that is slow to be read is held back. Raises Unavailable."""

    async def end(self) -> Output:
        """Wait for its end, after its last piece; `out` is empty."""


class Held(Stream, Protocol):
    """What a program writes that waits for the end of its standard input."""

    def release(self) -> None:
        """Close its standard input; once more is harmless."""


def as_run(command: Command, *, sudo: bool) -> tuple[bytes, ...]:
    """Return the arguments as they are run: by sudo where they need root and the user is not.

    Output is to be the same on every host: TZ and LC_ALL reach a program through sudo (sudoers(5), env_check).
    """
    environment = (b"env", b"LC_ALL=C.UTF-8", b"TZ=UTC")
    if command.as_root and sudo:
        return (*environment, b"sudo", b"-n", b"--", *command.arguments)
    return (*environment, *command.arguments)


async def require_sudo(commands: Commands, done: Output) -> None:
    """Raise PermissionDenied when it was sudo that ended with 1, which may also be the program's own code."""
    if done.code != 1 or not done.command.as_root:
        return
    asked = await commands.run(allowed(done.command))
    if asked.code:
        raise PermissionDenied(
            f"sudo on {commands.host} does not allow {done.command}",
            needed=str(done.command),
            next_step="Install the sudoers file that `snapkeep system check` shows.",
            vendor_message=done.reason,
        )


def allowed(command: Command) -> Command:
    """Return the command that asks sudo whether it would run another one; its exit code tells (sudo(8), -l)."""
    return Command((b"sudo", b"-n", b"-l", b"--", *command.arguments), seconds=command.seconds)
