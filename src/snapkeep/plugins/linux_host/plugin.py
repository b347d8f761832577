"""The declaration of the plug-in, and how its parts are put together."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapkeep.model.assets import AssetKind, Capability
from snapkeep.plugin.commands import Commands
from snapkeep.plugin.commands.local import LocalCommands
from snapkeep.plugin.plugin import Plugin, Proof
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.linux_host.btrfs import Btrfs
from snapkeep.plugins.linux_host.checks import Checks
from snapkeep.plugins.linux_host.diffs import Diffs
from snapkeep.plugins.linux_host.discovery import Discovery
from snapkeep.plugins.linux_host.exports import Exports
from snapkeep.plugins.linux_host.file_systems.btrfs import BtrfsKind
from snapkeep.plugins.linux_host.file_systems.kind import Kind, Kinds
from snapkeep.plugins.linux_host.file_systems.lvm import LvmKind
from snapkeep.plugins.linux_host.file_systems.zfs import ZfsKind
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mapping import VOLUME_CAPABILITIES
from snapkeep.plugins.linux_host.mounts import Mounts
from snapkeep.plugins.linux_host.places import Places
from snapkeep.plugins.linux_host.quiesce import Quiescing
from snapkeep.plugins.linux_host.rights import by_capability, instructions
from snapkeep.plugins.linux_host.settings import LinuxHostSettings
from snapkeep.plugins.linux_host.snapshots import Snapshots


@asynccontextmanager
async def connect(settings: LinuxHostSettings) -> AsyncIterator[Roles]:
    """Open the way to one host."""
    async with _commands(settings) as commands:
        host = Host(commands, settings)
        btrfs = Btrfs(host.commands, settings.command_seconds)
        places = Places(btrfs, [os.fsencode(path) for path in settings.only])
        subvolumes = BtrfsKind(host, btrfs, places, settings.snapshot_prefix)
        every: list[Kind] = [subvolumes, ZfsKind(host, settings), LvmKind(host, settings)]
        kinds = Kinds(
            [kind for kind in every if not settings.file_systems or kind.name in settings.file_systems],
            asked_for=bool(settings.file_systems),
        )
        mounts = Mounts(host, settings)
        snapshots = Snapshots(kinds, settings)
        yield Roles(
            check=Checks(host, kinds, mounts, settings),
            discover=Discovery(kinds, mounts, settings),
            create=snapshots,
            delete=snapshots,
            restore=snapshots,
            clone=snapshots,
            export=Exports(host, kinds, settings),
            diff_files=Diffs(host, btrfs, subvolumes),
            quiesce=Quiescing(host, mounts, settings),
        )


@asynccontextmanager
async def _commands(settings: LinuxHostSettings) -> AsyncIterator[Commands]:
    if settings.host is None:
        yield LocalCommands(sudo=settings.sudo)
        return
    from snapkeep.plugin.commands.ssh import SshCommands, SshHost  # noqa: PLC0415 - an extra
    from snapkeep.ssh import login, trust  # noqa: PLC0415

    def plain(name: str) -> str | None:
        secret = getattr(settings, name)
        return None if secret is None else str(secret.get_secret_value())

    known_hosts = None if settings.known_hosts is None else str(settings.known_hosts)
    where = SshHost(
        host=settings.host,
        port=settings.port,
        user=settings.username,
        jump=settings.jump,
        options={
            **trust(settings.host_key, known_hosts),
            **login(plain("private_key"), plain("passphrase"), plain("password")),
        },
    )
    commands = SshCommands(where, sudo=settings.sudo)
    try:
        yield commands
    finally:
        await commands.close()


PLUGIN = Plugin(
    name="linux-host",
    title="Linux host (btrfs, LVM thin, ZFS; here or by SSH; ZFS not yet run on a real system)",
    settings=LinuxHostSettings,
    capabilities={
        AssetKind.HOST: frozenset({Capability.DISCOVER}),
        AssetKind.FILE_SYSTEM: frozenset({Capability.QUIESCE}),
        AssetKind.APPLICATION: frozenset({Capability.QUIESCE}),
        AssetKind.VOLUME: VOLUME_CAPABILITIES,
    },
    connect=connect,
    permissions=by_capability(),
    explain=instructions,
    proof=Proof.REAL_SYSTEM,
)
