"""What the simulator of Nutanix Files opens, over the wire: a real NFS server follows its partner servers."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.support.btrfs import mounted_btrfs
from tests.support.exportfs import Table
from tests.support.ganesha import NfsServer, Refused

from snapkeep.model.assets import Asset
from snapkeep.model.exports import AccessMode, BackupHost, Export, Protocol
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import Pending
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.nutanix_files import PLUGIN
from snapkeep.simulators.kit.process import SimulatorProcess

LISTED, OTHER = "127.0.0.1", "127.0.0.2"
T = TypeVar("T")


async def settled(poll: Callable[[], Awaitable[T | Pending]]) -> T:
    """Poll until there is a result."""
    while isinstance(result := await poll(), Pending):
        await asyncio.sleep(0.02)
    return result


class FileServer:
    """The simulator with a real NFS server before it, and the plug-in connected to it."""

    def __init__(self, simulator: SimulatorProcess, nfs: NfsServer, roles: Roles) -> None:
        self.simulator = simulator
        self.nfs = nfs
        self.roles = roles
        self.live = Path(self._share("projects")["live"])

    def follow(self) -> None:
        """Let the NFS server export what the partner servers open: `/SHARE/.snapshot/NAME` to each client."""
        wanted = {
            (f"/{share}/.snapshot/{snapshot['name']}", entry["client"]): snapshot
            for entry in self.simulator.control("GET", "/access")["access"]
            for share in entry["shares"] or ()
            for snapshot in self._share(share)["snapshots"]
        }
        table = Table(self.nfs.directory)
        there = {(path, address) for path, entry in table.paths.items() for address in entry["addresses"]}
        for path, address in sorted(there - wanted.keys()):
            table.close(path, address)
        for path, address in sorted(wanted.keys() - there):
            table.open(path, address, wanted[path, address]["extId"], wanted[path, address]["path"])

    def _share(self, name: str) -> dict[str, Any]:
        return dict(self.simulator.control("GET", f"/file-servers/files1/shares/{name}"))

    async def asset(self, name: str = "projects") -> Asset:
        found = [asset async for batch in self.roles.discover.discover() for asset in batch.assets]
        return next(asset for asset in found if asset.name == name)

    async def create(self, name: str) -> Snapshot:
        role = self.roles.create
        assert role is not None
        ticket = await role.start_create(await self.asset(), name, str(uuid.uuid4()))
        return await settled(lambda: role.poll_create(ticket))

    async def export(self, snapshot: Snapshot, address: str) -> Export:
        role = self.roles.export
        assert role is not None
        host = BackupHost(name="backup1", address=address)
        asset, request_id = await self.asset(), str(uuid.uuid4())
        ticket = await role.start_export(asset, snapshot, host, AccessMode.READ_ONLY, [], request_id)
        made = await settled(lambda: role.poll_export(ticket))
        self.follow()
        return made

    async def deport(self, export: Export, *others: Export) -> None:
        role = self.roles.export
        assert role is not None
        ticket = await role.start_deport(export, others, str(uuid.uuid4()))
        await settled(lambda: role.poll_deport(ticket))
        self.follow()


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimulatorProcess]:
    """On btrfs, which the NFS server can serve wherever the tests run."""
    directory = tmp_path_factory.mktemp("nutanix")
    with mounted_btrfs(directory, 512 << 20) as mount:
        arguments = ["--http", "--partner-server", "snapkeep"]
        with SimulatorProcess(mount / "simulator", arguments=arguments) as simulator:
            simulator.control("PATCH", "/settings", {"task_seconds": 0.02})
            yield simulator


@pytest.fixture
async def files1(simulator: SimulatorProcess, nfs: NfsServer) -> AsyncIterator[FileServer]:
    settings = {
        "host": "127.0.0.1",
        "port": int(simulator.url.rpartition(":")[2]),
        "plain_http": True,
        "file_server": "files1",
        "username": simulator.username,
        "password": simulator.password,
    }
    async with PLUGIN.connect(PLUGIN.settings.parse(settings)) as roles:
        yield FileServer(simulator, nfs, roles)
    nfs.clear()


def where(export: Export) -> str:
    """Return the path of a file, as an NFS client says it."""
    (location,) = export.locations
    assert location.protocol is Protocol.NFS
    assert location.options == {"ro": ""}
    return f"{location.source.partition(':')[2]}/{location.path}/dir/file"


def refused(files1: FileServer, path: str, source: str = LISTED) -> bool:
    with pytest.raises(Refused, match="NFS4ERR_"):
        files1.nfs.read(path, source)
    return True


async def test_partner_servers_over_the_wire(files1: FileServer) -> None:
    """A listed client reads the right snapshot and cannot write; who is not listed, or not any more, is refused."""
    file = files1.live / "dir/file"
    file.parent.mkdir()
    snapshots = []
    for name in ("first", "second"):
        file.write_text(name)
        snapshots.append(await files1.create(name))
    file.write_text("live")
    first, second = [await files1.export(snapshot, LISTED) for snapshot in snapshots]
    assert [files1.nfs.read(where(export)) for export in (first, second)] == [b"first", b"second"]
    with pytest.raises(Refused, match="NFS4ERR_ROFS"):
        files1.nfs.write(where(first), "other")
    assert files1.nfs.names(where(first).rpartition("/")[0]) == ["file"]
    assert refused(files1, where(first), OTHER)
    other = await files1.export(snapshots[0], OTHER)
    assert files1.nfs.read(where(other), OTHER) == b"first"
    await files1.deport(first, second)
    assert files1.nfs.read(where(second)) == b"second"
    await files1.deport(second)
    assert refused(files1, where(first))
    assert refused(files1, where(second))
    assert files1.nfs.read(where(other), OTHER) == b"first"
    await files1.deport(other)
    assert refused(files1, where(other), OTHER)
