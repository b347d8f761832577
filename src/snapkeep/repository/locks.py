"""Locks of a repository, by restic's protocol: anybody who works on it says so in a small file.

Many may hold a lock that is not exclusive; an exclusive one stands alone. A lock is refreshed as long as its holder
lives; one that is older than half an hour, or whose process on this machine is dead, is stale and counts for nothing.

Who has written a lock must look again a moment later. An exclusive one waits for that. One that is not goes on
meanwhile, as long as it only reads; before it writes it waits for the second look (`sure`).
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from snapkeep.model.errors import Busy, Damaged, NotFound, SnapkeepError, Unavailable
from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.crypto import Key
from snapkeep.repository.snapshots import format_time, parse_time
from snapkeep.repository.unpacked import load_unpacked, save_unpacked

_STALE = timedelta(minutes=30)
_SETTLE = 0.2  # seconds between writing a lock and looking again: who came at the same time is seen by then
REFRESH = 300.0
RETRY = 30.0
EXPIRES = 22.5 * 60
"""Who could not refresh for so long must stop: soon others may take the lock for stale."""


class RepositoryLock:
    """A lock that is held; use it as a context manager."""

    def __init__(
        self,
        backend: Backend,
        key: Key,
        *,
        exclusive: bool,
        refresh: float = REFRESH,
        retry: float = RETRY,
        expires: float = EXPIRES,
    ) -> None:
        self._backend = backend
        self._key = key
        self._exclusive = exclusive
        self._refresh_after = refresh
        self._retry_after = retry
        self._expires = expires
        self._name = ""
        self._refreshed = 0.0
        self._reason: SnapkeepError | None = None
        self._refused: SnapkeepError | None = None
        self._looked = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="repository-lock", daemon=True)

    def __enter__(self) -> RepositoryLock:
        self._refuse_beside_others()
        self._write()
        try:
            self._thread.start()
            if self._exclusive:
                self.sure()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._backend.remove(FileKind.LOCK, self._name)
        except SnapkeepError:
            return  # it becomes stale: no reason to fail what was done under it

    def sure(self) -> None:
        """Wait until it is sure that nobody came at the same time. Whoever writes calls this before.

        Raises Busy when somebody did, Unavailable when the lock was found to be removed.
        """
        self._looked.wait()
        if self._refused is not None:
            raise self._refused

    def check(self) -> None:
        """Raises Unavailable when the lock counts for nothing any more: not refreshed for too long, or removed.

        That it was removed is noticed at the next refresh. Raises Busy when somebody came at the same time.
        """
        if self._refused is not None:
            raise self._refused
        age = _now() - self._refreshed
        if age > self._expires:
            raise Unavailable(
                f"The lock on the repository {self._backend.location} could not be refreshed for {age / 60:.0f} minutes"
                f"{f': {self._reason.message}' if self._reason else ''}"
            )

    def _write(self) -> None:
        now = _now()
        self._name, _ = save_unpacked(self._backend, self._key, FileKind.LOCK, _document(exclusive=self._exclusive))
        self._refreshed = now

    def _look_again(self) -> None:
        try:
            if not self._ended.wait(_SETTLE):
                self._refuse_beside_others()
        except SnapkeepError as error:
            with suppress(SnapkeepError):  # before anybody hears of it: who tries again need not meet this one
                self._backend.remove(FileKind.LOCK, self._name)
            self._refused = error
        except BaseException as error:
            self._refused = Unavailable(f"The locks of the repository {self._backend.location} cannot be seen: {error}")
            raise
        finally:
            self._looked.set()

    def _keep(self) -> None:
        self._look_again()
        if self._refused is not None:
            return
        wait = self._refresh_after
        while not self._ended.wait(wait):
            if _now() - self._refreshed > self._expires:
                return  # lost: others may have begun to work
            old = self._name
            try:
                if old not in (name for name, _ in self._backend.list(FileKind.LOCK)):
                    self._refused = Unavailable(
                        f"Somebody removed the lock on the repository {self._backend.location}: what is read or was "
                        "written under it may be gone",
                        next_step="Wait until the work that it was removed for has ended, then start again.",
                    )
                    return
                self._write()
                self._backend.remove(FileKind.LOCK, old)
                wait = self._refresh_after
            except SnapkeepError as error:
                self._reason = error
                wait = self._retry_after

    def _refuse_beside_others(self) -> None:
        holders = []
        for name, _ in self._backend.list(FileKind.LOCK):
            if name == self._name:
                continue
            try:
                lock = _read(self._backend, self._key, name)
            except NotFound:
                continue
            if _is_stale(lock):
                self._backend.remove(FileKind.LOCK, name)
            elif self._exclusive or lock["exclusive"]:
                holders.append(_describe(lock))
        if holders:
            raise Busy(
                f"The repository {self._backend.location} is locked by {'; '.join(holders)}",
                next_step="Wait until the other work has ended. If it is dead: `restic unlock`.",
                dependents=holders,
            )


def _document(*, exclusive: bool) -> bytes:
    content: dict[str, Any] = {
        "time": format_time(datetime.now(UTC)),
        "exclusive": exclusive,
        "hostname": socket.gethostname(),
        "username": _user(),
        "pid": os.getpid(),
    }
    if os.getuid():
        content["uid"] = os.getuid()
    if os.getgid():
        content["gid"] = os.getgid()
    return json.dumps(content, separators=(",", ":")).encode()


def _read(backend: Backend, key: Key, name: str) -> dict[str, Any]:
    text = load_unpacked(backend, key, FileKind.LOCK, name)
    try:
        content = json.loads(text)
        return {
            "time": parse_time(content["time"]),
            "exclusive": bool(content["exclusive"]),
            "hostname": str(content.get("hostname", "")),
            "username": str(content.get("username", "")),
            "pid": int(content.get("pid", 0)),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"Lock {name} of the repository cannot be read",
            next_step="When nobody works on the repository: `restic unlock --remove-all`.",
        ) from error


def _is_stale(lock: dict[str, Any]) -> bool:
    if datetime.now(UTC) - lock["time"] > _STALE:
        return True
    if lock["hostname"] != socket.gethostname() or lock["pid"] <= 0:
        return False
    try:
        os.kill(lock["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _describe(lock: dict[str, Any]) -> str:
    kind = "exclusively " if lock["exclusive"] else ""
    who = f"{lock['username']}@{lock['hostname']}, process {lock['pid']}"
    return f"{who} ({kind}since {lock['time'].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _now() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
