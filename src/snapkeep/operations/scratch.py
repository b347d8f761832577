"""Scratch directories: where drills restore to. Each is gone when its operation ends, and that is looked at.

What a process that died has left is removed at the next start. Of a tree of any depth never more than two directories
are open: what lies in a directory is moved up to the top before it is removed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from snapkeep.model.errors import Busy, LimitExceeded, Unavailable
from snapkeep.operations.host import Host

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger(__name__)


def scratches(host: Host) -> Path:
    """Return the directory of scratch directories; every one of them is ours. Another worker has its own."""
    return host.directory / "drills" / host.name


class Room:
    """What may be written: a tenth of what is free stays, for the worker itself, also when others write meanwhile."""

    def __init__(self, place: Path) -> None:
        self._place = place
        free = shutil.disk_usage(place).free
        self.least = free // 10
        self.bytes = free - self.least

    def require(self) -> None:
        """Raise LimitExceeded when less than that is left."""
        if (free := shutil.disk_usage(self._place).free) < self.least:
            raise LimitExceeded(
                f"Only {free:,} bytes are left in the directory of the worker",
                next_step="Others write there, too. Make room, drill less at once, or restore less.",
            )


async def clear(host: Host, name: str) -> None:
    """See that a scratch directory is gone. Raises Busy."""
    await asyncio.to_thread(remove, scratches(host) / name)


@asynccontextmanager
async def scratch(host: Host, name: str) -> AsyncIterator[Path]:
    """Give a new and empty directory that only this user reads; in the end it is gone.

    What an earlier run has left under this name is removed first. Raises Unavailable when the directory cannot be
    made, LimitExceeded when there is no room for it, Busy when it cannot be removed.
    """
    place = scratches(host) / name
    await asyncio.to_thread(_make, place)
    try:
        yield place
    except BaseException:
        with suppress(Busy):  # who undoes the operation removes it once more, and tells
            await asyncio.to_thread(remove, place)
        raise
    await asyncio.to_thread(remove, place)


async def remove_leftovers(host: Host) -> None:
    """Remove what a process that died has left. What cannot be removed is told in the log, and tried at each start."""
    top = scratches(host)
    try:
        found = await asyncio.to_thread(lambda: list(top.iterdir()) if top.is_dir() else [])
    except OSError as error:
        log.warning("the scratch directories of drills cannot be read", directory=str(top), reason=str(error))
        return
    for place in found:
        try:
            await asyncio.to_thread(remove, place)
        except (Busy, Unavailable) as error:
            log.warning("a scratch directory of a drill is left", directory=str(place), reason=error.message)


def remove(place: Path) -> None:
    """Remove a directory with all that is in it, and see that it is gone. Raises Busy."""
    try:
        with suppress(FileNotFoundError):
            _empty(place)
            place.rmdir()
    except OSError as error:
        raise Busy(
            f"The scratch directory {place} cannot be removed: {error.strerror}",
            next_step="What was restored is still in it. See what holds it (a mount, a program), and remove it, as the "
            "next start of this worker does.",
        ) from error
    if os.path.lexists(place):
        raise Unavailable(
            f"The scratch directory {place} is there again", next_step="See what makes it, and remove it."
        )


def _make(place: Path) -> None:
    remove(place)
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise LimitExceeded(f"There is no room for the scratch directory {place}") from error
        raise Unavailable(f"The scratch directory {place} cannot be made: {error.strerror}") from error


def _empty(place: Path) -> None:
    if not place.is_symlink():
        place.chmod(0o700)
    top = os.open(place, _DIRECTORY)
    try:
        waiting = [b""]
        while waiting:
            name = waiting.pop()
            here = os.open(name, _DIRECTORY, dir_fd=top) if name else os.dup(top)
            try:
                waiting += _clear(here, top)
            finally:
                os.close(here)
            if name:
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _clear(here: int, top: int) -> list[bytes]:
    """Remove what is in a directory, but move directories up; return their new names."""
    moved = []
    with os.scandir(here) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=here)
            continue
        os.chmod(name, 0o700, dir_fd=here)
        new = uuid.uuid4().hex.encode()
        os.rename(name, new, src_dir_fd=here, dst_dir_fd=top)
        moved.append(new)
    return moved
