"""`system check`: what is missing on the host, before anything is tried."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Sequence

from snapkeep.model.assets import Capability
from snapkeep.model.errors import SnapkeepError
from snapkeep.model.work import Finding, Outcome
from snapkeep.plugin.commands import Command, allowed
from snapkeep.plugin.findings import clock, failed, ok
from snapkeep.plugins.linux_host.file_systems.kind import Kind, Kinds, Program
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mounts import Mounts
from snapkeep.plugins.linux_host.quiesce import asking
from snapkeep.plugins.linux_host.rights import needed, sudoers
from snapkeep.plugins.linux_host.settings import Hook, LinuxHostSettings

_PROGRAMS = {"findmnt": "util-linux", "stat": "coreutils", "find": "findutils"}


class Checks:
    """Plays the role `Check`."""

    def __init__(self, host: Host, kinds: Kinds, mounts: Mounts, settings: LinuxHostSettings) -> None:
        self._host = host
        self._kinds = kinds
        self._mounts = mounts
        self._settings = settings

    async def check(self) -> AsyncIterator[Finding]:
        """Yield: connection, clock, programs, rights, file systems, hooks, NFS server."""
        began = time.time()
        try:
            told = (await self._host.commands.run(Command.of("date", "+%s"))).succeeded()
        except SnapkeepError as error:
            yield failed("connection", error)
            return
        yield ok("connection", f"Programs run on {self._host.name}")
        yield clock(float(told or b"0") - (began + time.time()) / 2, "host")
        found = [await self._program(Program(package, (name, "--version"))) for name, package in _PROGRAMS.items()]
        kinds: list[Kind] = []
        if not _failed(found):
            try:
                kinds = await self._kinds.present()
            except SnapkeepError as error:
                found.append(failed("file systems", error))
        found += [await self._program(kind.program) for kind in kinds]
        for finding in found:
            yield finding
        if _failed(found):
            return
        rights = [*(kind.name for kind in kinds), "mounts"]
        async for finding in self._rights(rights):
            yield finding
        yield await self._file_systems(kinds)
        for name, hook in self._settings.hooks.items():
            yield await self._hook(name, hook, rights)
        if self._settings.nfs == "exportfs":
            yield await self._program(Program("nfs-kernel-server", ("exportfs", "-s"), as_root=True))

    async def _program(self, wanted: Program) -> Finding:
        program, package = wanted.arguments[0], wanted.package
        try:
            (await self._host.commands.run(Command.of(*wanted.arguments, as_root=wanted.as_root))).succeeded()
        except SnapkeepError as error:
            return Finding(
                check=program,
                outcome=Outcome.FAILED,
                message=f"{program} cannot be run on {self._host.name}: {error}",
                next_step=error.next_step or f"Install {package} there.",
            )
        return ok(program, f"{program} is there")

    async def _rights(self, kinds: Sequence[str]) -> AsyncIterator[Finding]:
        """Ask for each kind of work whether it may be done; nothing is done."""
        every = needed(kinds)
        file = "install this as /etc/sudoers.d/snapkeep:\n" + self._sudoers(kinds)
        if not self._settings.sudo:
            if self._host.is_root or (await self._uid()) == 0:
                yield ok("rights", "The user is root")
            else:
                yield Finding(
                    check="rights",
                    outcome=Outcome.FAILED,
                    message=f"The user is not root on {self._host.name}: it may not {', '.join(every)}",
                    next_step=f"Set `sudo` to true, and {file}",
                )
            return
        for capability, commands in every.items():
            if capability is Capability.EXPORT and self._settings.nfs == "none":
                continue
            lacking = [command for command in commands if await self._refused(command)]
            if lacking:
                yield Finding(
                    check=f"right to {capability}",
                    outcome=Outcome.FAILED,
                    message=f"sudo does not allow: {'; '.join(lacking)}",
                    next_step=file[0].upper() + file[1:],
                )
            else:
                yield ok(f"right to {capability}", "sudo allows it")

    def _sudoers(self, kinds: Sequence[str]) -> str:
        hooks = dict.fromkeys(words for hook in self._settings.hooks.values() for words in (hook.freeze, hook.thaw))
        return sudoers("USER", kinds, hooks)

    async def _hook(self, name: str, hook: Hook, kinds: Sequence[str]) -> Finding:
        """See whether the programs of a hook may be run, without running them."""
        run, sudo = self._host.commands.run, self._settings.sudo
        lacking = [
            str(Command.of(*words)) for words in (hook.freeze, hook.thaw) if (await run(asking(words, sudo=sudo))).code
        ]
        if not lacking:
            return ok(f"hook {name}", "Its programs are there")
        return Finding(
            check=f"hook {name}",
            outcome=Outcome.FAILED,
            message=f"Not there, or not allowed, on {self._host.name}: {'; '.join(lacking)}",
            next_step="Put the program there, executable."
            + (f" Install this as /etc/sudoers.d/snapkeep:\n{self._sudoers(kinds)}" if self._settings.sudo else ""),
        )

    async def _uid(self) -> int:
        return int((await self._host.commands.run(Command.of("id", "-u"))).succeeded() or b"-1")

    async def _refused(self, command: str) -> bool:
        return bool((await self._host.commands.run(allowed(Command.of(*command.split())))).code)

    async def _file_systems(self, kinds: Sequence[Kind]) -> Finding:
        try:
            there = {kind.title: sorted(map(os.fsdecode, await kind.mounted())) for kind in kinds}
            others = {mounted.path for mounted in await self._mounts.mounted()}
        except SnapkeepError as error:
            return failed("file systems", error)
        every = sorted({path for paths in there.values() for path in paths})
        titles = " or ".join(there)
        if absent := sorted({str(path) for path in self._settings.only} - {*every, *others}):
            return Finding(
                check="file systems",
                outcome=Outcome.FAILED,
                message=f"Nothing of {titles} is mounted at {', '.join(absent)} on {self._host.name}",
                next_step=f"Mount it, or correct `only`. These are mounted: {', '.join(every) or 'none'}.",
            )
        if not every:
            return Finding(
                check="file systems",
                outcome=Outcome.WARNING,
                message=f"Nothing of {titles} is mounted on {self._host.name}",
                next_step="Mount something; nothing else on this host can be protected yet.",
            )
        counts = ", ".join(f"{title} {len(paths)}" for title, paths in there.items() if paths)
        return ok("file systems", f"These are mounted: {counts}")


def _failed(found: Sequence[Finding]) -> bool:
    return any(finding.outcome is Outcome.FAILED for finding in found)
