"""Making an export readable, or its asset writable: a path on this machine, or a kernel mount."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import structlog

from snapkeep.model.errors import NotFound, PermissionDenied, Unavailable, Unsupported
from snapkeep.model.exports import Export, Location, Protocol
from snapkeep.operations.host import Host

MOUNT_SECONDS = 60.0
OPTIONS = "nosuid,nodev,noexec,soft,timeo=600,retrans=3"
"""A server that does not answer for minutes gives an error to the reader, rather than a process that nobody can end.

Who writes is told so at the latest when it closes the file.
"""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def mounted(
    export: Export, snapshot_name: str, host: Host, label: str, *, live: bool = False
) -> AsyncIterator[Path]:
    """Give the directory of an exported snapshot, checked to be this one. `label` names the mount point.

    `live`: of a read-write export, give instead the asset itself, that shows this snapshot. Raises Unsupported without
    a way that works here, NotFound when the snapshot is not there, and what `mount` says.
    """
    location = _reachable(export.locations)
    if live and location.live is None:
        raise Unsupported(
            "The exports of this system do not show the asset itself, only snapshots",
            next_step="Restore to a directory, and copy from there.",
        )
    if location.protocol is Protocol.LOCAL:
        found = await asyncio.to_thread(_local, Path(location.path), snapshot_name)
        yield Path(location.live) if live and location.live is not None else found
        return
    point = host.mounts / label
    await asyncio.to_thread(point.mkdir, parents=True, exist_ok=True)
    await _unmount(point)  # left over from a process that died
    wanted = {"rw" if live else "ro": "", **location.options}
    options = ",".join([*(f"{name}={value}" if value else name for name, value in wanted.items()), OPTIONS])
    try:
        await _run("mount", "-t", "nfs", "-o", options, "--", location.source, str(point))
        if not location.path and location.source.endswith(f"/{snapshot_name}"):
            found = await asyncio.to_thread(_checked, point, point.name)  # the snapshot is all that is exported
        else:
            found = await asyncio.to_thread(_checked, _inside(point, location.path), snapshot_name)
        yield _inside(point, location.live) if live and location.live is not None else found
    finally:
        await _unmount(point)
        point.rmdir()


async def unmount_leftovers(host: Host) -> None:
    """Unmount what a process that died has left mounted below the directory of mount points."""
    if host.mounts.is_dir():
        for point in await asyncio.to_thread(lambda: list(host.mounts.iterdir())):
            await _unmount(point)
            point.rmdir()


def _reachable(locations: Sequence[Location]) -> Location:
    for protocol in (Protocol.LOCAL, Protocol.NFS):
        for location in locations:
            if location.protocol is protocol:
                return location
    offered = ", ".join(location.protocol for location in locations) or "nothing"
    raise Unsupported(
        f"A backup reads exports by NFS, and this one offers {offered}",
        next_step="Export the share by NFS; reading by SMB would lose owners, rights and hard links.",
    )


def _inside(point: Path, path: str) -> Path:
    parts = Path(path).parts
    if ".." in parts or path.startswith("/"):
        raise Unsupported(f"The export names a path outside of itself: {path!r}")
    return point.joinpath(*parts)


def _local(directory: Path, snapshot_name: str) -> Path:
    """Return the real directory: what shows snapshots here may do so by links."""
    return _checked(directory, snapshot_name, is_link=directory.is_symlink()).resolve()


def _checked(directory: Path, snapshot_name: str, *, is_link: bool = False) -> Path:
    """Return the directory, if it is that of the snapshot: its last part is the snapshot's name, and no link."""
    try:
        status = directory.stat() if is_link else directory.lstat()
    except PermissionError as error:
        raise PermissionDenied(f"{directory} may not be read by this user", needed="read the export") from error
    except FileNotFoundError as error:
        raise NotFound(
            f"The export does not show the snapshot: there is no {directory}",
            next_step="Check that this worker runs on the backup host, and the address under which systems know it.",
        ) from error
    except OSError as error:
        raise Unavailable(f"{directory} cannot be read: {error.strerror}") from error
    if not str(directory).endswith(f"/{snapshot_name}") or (status.st_mode & 0o170000) != 0o040000:
        raise Unavailable(f"{directory} is not the directory of the snapshot {snapshot_name}")
    return directory


async def _unmount(point: Path) -> None:
    if await asyncio.to_thread(_is_mounted, point):
        try:
            await _run("umount", str(point))
        except (Unavailable, PermissionDenied):
            if await asyncio.to_thread(_is_mounted, point):  # else it only waited for a server that is gone
                await _run("umount", "-l", str(point))  # something still reads it


def _is_mounted(point: Path) -> bool:
    """Ask the kernel's table: looking at the directory itself would wait for a server that is gone."""
    wanted = os.fsencode(point.parent.resolve() / point.name)  # the kernel knows no way through a link
    with Path("/proc/self/mountinfo").open("rb") as file:
        return any(line.split()[4].decode("unicode_escape").encode("latin-1") == wanted for line in file)


async def _run(program: str, *arguments: str) -> None:
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Unsupported(
            f"{program} cannot be run: {error.strerror}", next_step="Install nfs-common (Debian, Ubuntu) or nfs-utils."
        ) from error
    try:
        async with asyncio.timeout(MOUNT_SECONDS):
            _, said = await child.communicate()
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with its helper, which would mount later on
        await child.wait()
        if not isinstance(error, TimeoutError):
            raise
        raise Unavailable(f"{program} did not end within {MOUNT_SECONDS:g} s: {' '.join(arguments)}") from error
    if child.returncode:
        reason = said.decode(errors="replace").strip()
        if os.geteuid() != 0:
            raise PermissionDenied(
                f"{program} {arguments[-1]} failed: only root mounts",
                next_step="Run the worker of the backup host as root, or let /etc/fstab allow this mount to its user.",
                vendor_message=reason,
                needed="mount",
            )
        raise Unavailable(f"{program} {arguments[-1]} failed", vendor_code=str(child.returncode), vendor_message=reason)
