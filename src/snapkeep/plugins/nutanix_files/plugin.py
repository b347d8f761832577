"""The declaration of the plug-in, and how its parts are put together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapkeep.model.assets import AssetKind, Capability
from snapkeep.plugin.http import open_session
from snapkeep.plugin.plugin import Plugin, Proof
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.nutanix_files.checks import Checks
from snapkeep.plugins.nutanix_files.client import NutanixClient
from snapkeep.plugins.nutanix_files.diffs import Diffs
from snapkeep.plugins.nutanix_files.discovery import Discovery
from snapkeep.plugins.nutanix_files.exports import Exports
from snapkeep.plugins.nutanix_files.mapping import SHARE_CAPABILITIES
from snapkeep.plugins.nutanix_files.rights import ENDPOINTS, PERMISSIONS, instructions
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings
from snapkeep.plugins.nutanix_files.snapshots import Snapshots


@asynccontextmanager
async def connect(settings: NutanixFilesSettings) -> AsyncIterator[Roles]:
    """Open the connections to one file server."""
    async with open_session(settings) as session:
        client = NutanixClient(session, settings)
        snapshots = Snapshots(client, settings)
        yield Roles(
            check=Checks(client, settings),
            discover=Discovery(client, settings),
            create=snapshots,
            delete=snapshots,
            restore=snapshots,
            clone=snapshots,
            export=Exports(client, settings),
            diff_files=Diffs(client, settings),
        )


PLUGIN = Plugin(
    name="nutanix-files",
    title="Nutanix Files (API v4.0, through Prism Central)",
    settings=NutanixFilesSettings,
    capabilities={
        AssetKind.FILE_SERVER: frozenset({Capability.DISCOVER}),
        AssetKind.SHARE: SHARE_CAPABILITIES,
    },
    connect=connect,
    permissions=PERMISSIONS,
    allows=ENDPOINTS,
    explain=instructions,
    proof=Proof.VENDOR_SDK,
)
