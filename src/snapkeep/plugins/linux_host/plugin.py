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
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mapping import VOLUME_CAPABILITIES
from snapkeep.plugins.linux_host.places import Places
from snapkeep.plugins.linux_host.rights import RULES
from snapkeep.plugins.linux_host.settings import LinuxHostSettings
from snapkeep.plugins.linux_host.snapshots import Snapshots


@asynccontextmanager
async def connect(settings: LinuxHostSettings) -> AsyncIterator[Roles]:
    """Open the way to one host."""
    async with _commands(settings) as commands:
        host = Host(commands, settings)
        btrfs = Btrfs(host.commands, settings.command_seconds)
        places = Places(btrfs, [os.fsencode(path) for path in settings.only])
        snapshots = Snapshots(host, btrfs, places, settings)
        yield Roles(
            check=Checks(host, btrfs, settings),
            discover=Discovery(places, settings),
            create=snapshots,
            delete=snapshots,
            restore=snapshots,
            clone=snapshots,
            export=Exports(host, btrfs, places, snapshots, settings),
            diff_files=Diffs(host, btrfs, snapshots),
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
    title="Linux host (btrfs; here or by SSH)",
    settings=LinuxHostSettings,
    capabilities={
        AssetKind.HOST: frozenset({Capability.DISCOVER}),
        AssetKind.FILE_SYSTEM: frozenset(),
        AssetKind.VOLUME: VOLUME_CAPABILITIES,
    },
    connect=connect,
    permissions=RULES,
    proof=Proof.REAL_SYSTEM,
)
