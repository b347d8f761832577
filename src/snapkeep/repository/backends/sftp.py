"""A repository on an SSH server, in restic's default layout.

One connection serves all threads. It lives on an event loop in a thread of its own, and is made anew when it broke.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)
from snapkeep.repository.backends import NAME, FileKind
from snapkeep.ssh import CONNECT_SECONDS, connect, connection_options, login, trust

import asyncssh  # isort: skip - snapkeep.ssh says what to install where it is missing

T = TypeVar("T")

_TEMPORARY = "tmp"
_LEFT_OVER = 24 * 3600.0
_AT_ONCE = 32  # directories
_LOST = (
    asyncssh.DisconnectError, asyncssh.ChannelOpenError, asyncssh.SFTPConnectionLost, asyncssh.SFTPNoConnection,
    OSError, TimeoutError,
)  # fmt: skip
_FULL = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
_ABSENT = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class SftpBackend:
    """A directory on an SSH server. A new file is written in `tmp`, made durable, and only then given its name.

    The server must prove itself by `host_key`, or by `known_hosts` (a file; else the user's own). The login is by
    `private_key`, `password`, or else by what the user's agent and own keys offer. Whatever was lost with a connection
    is done again, `attempts` times in all.
    """

    def __init__(
        self,
        host: str,
        path: str,
        *,
        user: str | None = None,
        port: int = 22,
        password: str | None = None,
        private_key: str | None = None,
        passphrase: str | None = None,
        host_key: str | None = None,
        known_hosts: str | None = None,
        attempts: int = 4,
        timeout: float = 120,
    ) -> None:
        whom = f"{user}@{host}" if user else host
        self.location = f"sftp:{whom}:{path}" if port == 22 else f"sftp://{whom}:{port}/{path}"
        self._root = path.rstrip("/") or "/"
        self._host = host
        self._attempts = attempts
        self._timeout = timeout
        self._options: dict[str, Any] = {
            "port": port,
            **connection_options(timeout),
            **({"username": user} if user else {}),
            **trust(host_key, known_hosts),
            **login(private_key, passphrase, password),
        }
        self._connection: asyncssh.SSHClientConnection | None = None
        self._client: asyncssh.SFTPClient | None = None
        self._connecting = asyncio.Lock()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def create(self) -> None:
        """Make the directories; those that are there are kept."""

        async def make(client: asyncssh.SFTPClient) -> None:
            if await client.exists(self._path(FileKind.CONFIG, "")):
                raise Conflict(f"There is a repository in {self.location} already")
            names = [_TEMPORARY, *(kind for kind in FileKind if kind is not FileKind.CONFIG)]
            names += [f"{FileKind.DATA}/{number:02x}" for number in range(256)]
            await client.makedirs(self._root, exist_ok=True)
            for start in range(0, len(names), _AT_ONCE):
                await asyncio.gather(*(self._make_directory(client, name) for name in names[start : start + _AT_ONCE]))
            await _sync(client, f"{self._root}/{FileKind.DATA}")
            await _sync(client, self._root)

        self._call("the layout", make)

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        """Store a file, whole or not at all."""
        path = self._path(kind, name)

        async def write(client: asyncssh.SFTPClient) -> None:
            temporary = f"{self._root}/{_TEMPORARY}/{secrets.token_hex(12)}"
            try:
                await self._write(client, temporary, bytes(data))
                await self._rename(client, temporary, path)
            except BaseException as error:
                with suppress(asyncssh.Error, OSError):
                    await client.remove(temporary)
                if isinstance(error, asyncssh.SFTPFailure) and await _is_full(client, self._root, len(data)):
                    raise asyncssh.SFTPNoSpaceOnFilesystem("no space left") from error
                raise
            await _sync(client, path.rpartition("/")[0])

        self._call(f"{kind} {name}", write)

    def load(self, kind: FileKind, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a file, or the part of it that is there."""

        async def read(client: asyncssh.SFTPClient) -> bytes:
            async with client.open(self._path(kind, name), "rb", encoding=None) as file:
                size = (await file.stat()).size or 0
                wanted = max(size - offset, 0) if length is None else min(length, max(size - offset, 0))
                return await file.read(wanted, offset) if wanted else b""

        return self._call(f"{kind} {name}", read)

    def list(self, kind: FileKind) -> Iterator[tuple[str, int]]:
        """Yield names and sizes, some directories at a time."""
        if kind is FileKind.CONFIG:

            async def look(client: asyncssh.SFTPClient) -> int:
                return (await client.stat(self._path(kind, ""))).size or 0

            with suppress(NotFound):
                yield "", self._call(kind, look)
            return
        directories = [f"{self._root}/{kind}"]
        if kind is FileKind.DATA:
            inner = self._entries(kind, directories)
            directories = sorted(f"{directories[0]}/{name}" for name, _ in inner if len(name) == 2)
        for start in range(0, len(directories), _AT_ONCE):
            for name, size in self._entries(kind, directories[start : start + _AT_ONCE]):
                if NAME.fullmatch(name):
                    yield name, size

    def remove(self, kind: FileKind, name: str) -> None:
        """Remove a file; one that is not there is success."""

        async def remove(client: asyncssh.SFTPClient) -> None:
            await client.remove(self._path(kind, name))

        with suppress(NotFound):
            self._call(f"{kind} {name}", remove)

    def close(self) -> None:
        """Remove what writers that were killed left in `tmp` long ago, and disconnect."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._leave(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()

    def _path(self, kind: FileKind, name: str) -> str:
        if kind is FileKind.CONFIG:
            return f"{self._root}/{kind}"
        if kind is FileKind.DATA:
            return f"{self._root}/{kind}/{name[:2]}/{name}"
        return f"{self._root}/{kind}/{name}"

    def _entries(self, kind: FileKind, directories: Sequence[str]) -> Sequence[tuple[str, int]]:
        async def read_one(client: asyncssh.SFTPClient, directory: str) -> Sequence[tuple[str, int]]:
            return [(name, size) async for name, size, _ in _scan(client, directory)]

        async def read(client: asyncssh.SFTPClient) -> Sequence[tuple[str, int]]:
            lists = await asyncio.gather(*(read_one(client, directory) for directory in directories))
            return [entry for entries in lists for entry in entries]

        return self._call(kind, read)

    async def _make_directory(self, client: asyncssh.SFTPClient, name: str) -> None:
        path = f"{self._root}/{name}"
        try:
            await client.mkdir(path, asyncssh.SFTPAttrs(permissions=0o700))
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if not await client.isdir(path):
                raise

    async def _write(self, client: asyncssh.SFTPClient, path: str, data: bytes) -> None:
        try:
            file = await client.open(path, "xb", asyncssh.SFTPAttrs(permissions=0o600), encoding=None)
        except _ABSENT:  # a repository that restic made has no `tmp`
            await self._make_directory(client, _TEMPORARY)
            file = await client.open(path, "xb", asyncssh.SFTPAttrs(permissions=0o600), encoding=None)
        async with file:
            await file.write(data)
            with suppress(asyncssh.SFTPOpUnsupported):
                await file.fsync()

    async def _rename(self, client: asyncssh.SFTPClient, temporary: str, path: str) -> None:
        try:
            await _replace(client, temporary, path)
        except _ABSENT:  # others make directories below `data` when they are needed
            await self._make_directory(client, path.rpartition("/")[0].removeprefix(f"{self._root}/"))
            await _replace(client, temporary, path)

    def _call(self, what: str, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """Run `work` on the loop; again, on a new connection, where the old one broke. All of it is safe to repeat."""
        for attempt in range(1, self._attempts + 1):
            try:
                return asyncio.run_coroutine_threadsafe(self._run(work), self._running_loop()).result()
            except (asyncssh.Error, OSError, TimeoutError) as error:
                translated = self._translated(what, error)
                broken = isinstance(error, _LOST) and isinstance(translated, Unavailable)
                if not broken or attempt == self._attempts:
                    raise translated from error
            time.sleep(min(2 ** (attempt - 2), 20))
        raise AssertionError

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="sftp", daemon=True)
                self._thread.start()
            return self._loop

    async def _run(self, work: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        client = await self._connected()
        try:
            async with asyncio.timeout(self._timeout):
                return await work(client)
        except _LOST:
            self._drop(client)
            raise

    async def _connected(self) -> asyncssh.SFTPClient:
        async with self._connecting:
            if self._client is None:
                seconds = min(self._timeout, CONNECT_SECONDS)
                connection = await connect(self._host, seconds=seconds, **self._options)
                try:
                    self._client = await connection.start_sftp_client()
                except BaseException:
                    connection.abort()
                    raise
                self._connection = connection
            return self._client

    def _drop(self, client: asyncssh.SFTPClient) -> None:
        if client is self._client and self._connection is not None:  # and not one that another thread made since
            self._connection.abort()
            self._client = self._connection = None

    async def _leave(self) -> None:
        if self._client is None or self._connection is None:
            return
        with suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(min(self._timeout, 15)):
                old = time.time() - _LEFT_OVER
                directory = f"{self._root}/{_TEMPORARY}"
                for name in [name async for name, _, when in _scan(self._client, directory) if when < old]:
                    await self._client.remove(f"{directory}/{name}")
        self._connection.close()
        with suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(5):
                await self._connection.wait_closed()

    def _translated(self, what: str, error: Exception) -> SnapkeepError:
        reason = str(error) or type(error).__name__
        if isinstance(error, asyncssh.HostKeyNotVerifiable):
            return AuthenticationFailed(
                f"The server of {self.location} is not the one that is known: {reason}",
                next_step="Compare its key with the administrator's, then give it as host_key or in known_hosts.",
            )
        if isinstance(error, asyncssh.PermissionDenied):
            return AuthenticationFailed(
                f"The server of {self.location} refuses the login: {reason}",
                next_step="Check user name, private_key or password, and the server's authorized_keys.",
            )
        if isinstance(error, _ABSENT):
            return NotFound(f"{what} is not in the repository {self.location}", next_step="Check the path.")
        if isinstance(error, asyncssh.SFTPPermissionDenied | asyncssh.SFTPWriteProtect):
            return PermissionDenied(
                f"The repository {self.location} refuses {what}: {reason}", needed="read and write",
                next_step="Give the user read and write access to the directory on the server.",
            )  # fmt: skip
        if isinstance(error, _FULL):
            return LimitExceeded(
                f"The repository {self.location} cannot take {what}: {reason}",
                next_step="Make room on the server's file system, then try again.",
            )
        return Unavailable(f"The repository {self.location} fails at {what}: {reason}")


async def _scan(client: asyncssh.SFTPClient, directory: str) -> AsyncIterator[tuple[str, int, float]]:
    async for entry in client.scandir(directory):
        yield str(entry.filename), entry.attrs.size or 0, float(entry.attrs.mtime or 0)


async def _replace(client: asyncssh.SFTPClient, temporary: str, path: str) -> None:
    try:
        await client.posix_rename(temporary, path)
    except asyncssh.SFTPOpUnsupported:
        try:
            await client.rename(temporary, path)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):  # what is there has the same content
            if not await client.exists(path):
                raise
            await client.remove(temporary)


async def _is_full(client: asyncssh.SFTPClient, directory: str, size: int) -> bool:
    """Ask whether there is room for a file: the protocol's own word for every such failure is `Failure`."""
    try:
        answer = await client.statvfs(directory)
    except (asyncssh.Error, OSError):
        return False
    return answer.bavail * answer.frsize < size or answer.favail == 0 < answer.files


async def _sync(client: asyncssh.SFTPClient, directory: str) -> None:
    """Make names durable, where the server lets a directory be opened; SFTP promises no such thing."""
    with suppress(asyncssh.SFTPError):
        async with client.open(directory, "rb", encoding=None) as opened:
            await opened.fsync()
