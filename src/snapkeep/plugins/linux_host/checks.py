"""`system check`: what is missing on the host, before anything is tried."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

from snapkeep.model.assets import Capability
from snapkeep.model.errors import SnapkeepError
from snapkeep.model.work import Finding, Outcome
from snapkeep.plugin.commands import Command, allowed
from snapkeep.plugin.findings import clock, failed, ok
from snapkeep.plugins.linux_host.btrfs import Btrfs
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.rights import NEEDED, sudoers
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

_PROGRAMS = {"btrfs": "btrfs-progs", "findmnt": "util-linux", "stat": "coreutils", "find": "findutils"}


class Checks:
    """Plays the role `Check`."""

    def __init__(self, host: Host, btrfs: Btrfs, settings: LinuxHostSettings) -> None:
        self._host = host
        self._btrfs = btrfs
        self._settings = settings

    async def check(self) -> AsyncIterator[Finding]:
        """Yield: connection, clock, programs, rights, file systems, NFS server."""
        began = time.time()
        try:
            told = (await self._host.commands.run(Command.of("date", "+%s"))).succeeded()
        except SnapkeepError as error:
            yield failed("connection", error)
            return
        yield ok("connection", f"Programs run on {self._host.name}")
        yield clock(float(told or b"0") - (began + time.time()) / 2, "host")
        missing = False
        for program, package in _PROGRAMS.items():
            finding = await self._program(program, package)
            missing = missing or finding.outcome is Outcome.FAILED
            yield finding
        if missing:
            return
        async for finding in self._rights():
            yield finding
        yield await self._file_systems()
        if self._settings.nfs == "exportfs":
            yield await self._program("exportfs", "nfs-kernel-server", "-s", as_root=True)

    async def _program(
        self, program: str, package: str, option: str = "--version", *, as_root: bool = False
    ) -> Finding:
        try:
            (await self._host.commands.run(Command.of(program, option, as_root=as_root))).succeeded()
        except SnapkeepError as error:
            return Finding(
                check=program,
                outcome=Outcome.FAILED,
                message=f"{program} cannot be run on {self._host.name}: {error}",
                next_step=error.next_step or f"Install {package} there.",
            )
        return ok(program, f"{program} is there")

    async def _rights(self) -> AsyncIterator[Finding]:
        """Ask for each kind of work whether it may be done; nothing is done."""
        if not self._settings.sudo:
            if self._host.is_root or (await self._uid()) == 0:
                yield ok("rights", "The user is root")
            else:
                yield Finding(
                    check="rights",
                    outcome=Outcome.FAILED,
                    message=f"The user is not root on {self._host.name}: it may not {', '.join(NEEDED)}",
                    next_step="Set `sudo` to true, and install this as /etc/sudoers.d/snapkeep:\n" + sudoers("USER"),
                )
            return
        for capability, commands in NEEDED.items():
            if capability is Capability.EXPORT and self._settings.nfs == "none":
                continue
            lacking = [command for command in commands if await self._refused(command)]
            if lacking:
                yield Finding(
                    check=f"right to {capability}",
                    outcome=Outcome.FAILED,
                    message=f"sudo does not allow: {'; '.join(lacking)}",
                    next_step="Install this as /etc/sudoers.d/snapkeep:\n" + sudoers("USER"),
                )
            else:
                yield ok(f"right to {capability}", "sudo allows it")

    async def _uid(self) -> int:
        return int((await self._host.commands.run(Command.of("id", "-u"))).succeeded() or b"-1")

    async def _refused(self, command: str) -> bool:
        return bool((await self._host.commands.run(allowed(Command.of(*command.split())))).code)

    async def _file_systems(self) -> Finding:
        try:
            mounts = await self._btrfs.mounts()
        except SnapkeepError as error:
            return failed("file systems", error)
        there = sorted(os.fsdecode(mount.target) for mount in mounts)
        if absent := sorted({str(path) for path in self._settings.only} - set(there)):
            return Finding(
                check="file systems",
                outcome=Outcome.FAILED,
                message=f"No btrfs file system is mounted at {', '.join(absent)} on {self._host.name}",
                next_step=f"Mount it, or correct `only`. These are mounted: {', '.join(there) or 'none'}.",
            )
        if not mounts:
            return Finding(
                check="file systems",
                outcome=Outcome.WARNING,
                message=f"No btrfs file system is mounted on {self._host.name}",
                next_step="Mount one; nothing else on this host can be protected yet.",
            )
        return ok("file systems", f"{len({mount.uuid for mount in mounts})} btrfs file systems are mounted")
