"""Programs on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from snapkeep.model.errors import LimitExceeded, Unavailable
from snapkeep.plugin.commands import MOST_ERRORS, MOST_OUTPUT, Command, Held, Output, Stream, as_run, require_sudo

_PIECE = 256 << 10
_LAST_SECONDS = 5.0
"""How long a program may take to end when it was told to, before it is killed."""


class LocalCommands:
    """Plays `Commands` for this machine."""

    host = "this machine"
    is_local = True

    def __init__(self, *, sudo: bool = False) -> None:
        """`sudo`: what needs root is run by sudo, unless we are root."""
        self._sudo = sudo and os.geteuid() != 0

    async def run(self, command: Command, given: bytes = b"") -> Output:
        """Run a program to its end."""
        pieces: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(command.seconds):
                async with self.stream(command, given) as stream:
                    async for piece in stream:
                        pieces.append(piece)
                        size += len(piece)
                        if size > MOST_OUTPUT:
                            raise LimitExceeded(f"{command} writes more than {MOST_OUTPUT >> 20} MiB")
                    done = await stream.end()
        except TimeoutError as error:
            raise Unavailable(f"{command} did not end within {command.seconds:g} s on {self.host}") from error
        if self._sudo:
            await require_sudo(self, done)
        return Output(command, self.host, done.code, b"".join(pieces), done.err)

    def stream(self, command: Command, given: bytes = b"") -> AbstractAsyncContextManager[Stream]:
        """Run a program and read what it writes."""
        return self._begun(command, given)

    def hold(self, command: Command) -> AbstractAsyncContextManager[Held]:
        """Run a program whose standard input stays open."""
        return self._begun(command, None)

    @asynccontextmanager
    async def _begun(self, command: Command, given: bytes | None) -> AsyncIterator[_LocalStream]:
        """`given`: its standard input; None: that stays open."""
        child = await asyncio.create_subprocess_exec(
            *as_run(command, sudo=self._sudo),
            stdin=asyncio.subprocess.DEVNULL if given == b"" else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=2 * _PIECE,
        )
        stream = _LocalStream(command, child, given)
        try:
            yield stream
        finally:
            await stream.close()


class _LocalStream:
    def __init__(self, command: Command, child: asyncio.subprocess.Process, given: bytes | None) -> None:
        self._command = command
        self._child = child
        self._aside = [asyncio.ensure_future(self._complaints())]
        if given:
            self._aside.append(asyncio.ensure_future(self._give(given)))
        self._err = bytearray()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._child.stdout is None:
            raise RuntimeError("the program was started without a pipe")
        while True:
            try:
                async with asyncio.timeout(self._command.seconds):
                    piece = await self._child.stdout.read(_PIECE)
            except TimeoutError as error:
                raise Unavailable(f"{self._command} said nothing for {self._command.seconds:g} s") from error
            if not piece:
                return
            yield piece

    async def end(self) -> Output:
        await asyncio.gather(*self._aside)
        code = await self._child.wait()
        return Output(self._command, LocalCommands.host, code, b"", bytes(self._err))

    def release(self) -> None:
        if self._child.stdin is not None:
            self._child.stdin.close()

    async def close(self) -> None:
        """End the program, and what it started, if they have not ended."""
        self.release()
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._child.returncode is None:
                with suppress(ProcessLookupError, PermissionError):  # sudo's child is root's: sudo passes TERM on
                    os.killpg(self._child.pid, number)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_SECONDS):
                        await self._child.wait()
        for task in self._aside:
            task.cancel()
        await asyncio.gather(*self._aside, return_exceptions=True)
        transport = getattr(self._child, "_transport", None)
        if transport is not None:
            transport.close()  # a grandchild may still hold the pipes

    async def _complaints(self) -> None:
        if self._child.stderr is not None:
            while piece := await self._child.stderr.read(_PIECE):
                self._err = (self._err + piece)[-MOST_ERRORS:]

    async def _give(self, given: bytes) -> None:
        if self._child.stdin is not None:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have enough before the end
                self._child.stdin.write(given)
                await self._child.stdin.drain()
            self._child.stdin.close()
