"""What the plug-in linux-host exports, over the wire: a real NFS server says who may read, and that nobody writes."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.nfs.worker import Exporter
from tests.support.btrfs import mounted_btrfs, subvolume
from tests.support.ganesha import NfsServer, Refused
from tests.support.person import ordinary_user
from tests.support.sshd import SshServer

from snapkeep.model.errors import InvalidInput, NotFound, PermissionDenied, Unsupported
from snapkeep.model.exports import AccessMode, Export
from snapkeep.plugin.commands.local import LocalCommands
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.nfs import MOST_PATH, Exportfs
from snapkeep.plugins.linux_host.rights import sudoers
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

LISTED, OTHER = "127.0.0.1", "127.0.0.2"
"""Two backup hosts: a client of the tests may come from any address of the loopback network."""


@pytest.fixture(autouse=True)
def exportfs(nfs: NfsServer, monkeypatch: pytest.MonkeyPatch) -> Exportfs:
    """That of the test's server, first in PATH."""
    monkeypatch.setenv("PATH", str(nfs.bin), prepend=os.pathsep)
    settings = LinuxHostSettings(nfs="exportfs")
    return Exportfs(Host(LocalCommands(), settings), settings)


@pytest.fixture
async def worker(tmp_path: Path, nfs: NfsServer) -> AsyncIterator[Exporter]:
    with mounted_btrfs(tmp_path / "btrfs", 256 << 20) as mount:
        async with Exporter(mount, nfs="exportfs", nfs_port=nfs.port) as worker:
            yield worker
        nfs.clear()


def filled(path: Path, text: str) -> Path:
    """Make a subvolume with a file in a directory; return the file. At its top nfs-ls stumbles over `.snapkeep`."""
    (subvolume(path) / "dir").mkdir()
    (path / "dir/file").write_text(text)
    return path / "dir/file"


def where(export: Export) -> str:
    """Return the path of the file, as the server knows it."""
    (location,) = export.locations
    return f"/{location.source.partition(':/')[2]}/dir/file"


def refused(nfs: NfsServer, path: str, source: str = LISTED) -> bool:
    with pytest.raises(Refused, match="NFS4ERR_"):
        nfs.read(path, source)
    return True


async def test_a_listed_host_reads_the_right_snapshot(nfs: NfsServer, worker: Exporter, tmp_path: Path) -> None:
    file = filled(tmp_path / "btrfs/mnt/asset", "first")
    snapshots = [await worker.create("asset")]
    file.write_text("second")
    snapshots.append(await worker.create("asset"))
    file.write_text("live")
    exports = [await worker.export("asset", each, LISTED) for each in snapshots]
    assert [nfs.read(where(export)) for export in exports] == [b"first", b"second"]
    assert nfs.names(os.path.dirname(where(exports[0]))) == ["file"]  # noqa: PTH120
    assert exports[0].locations[0].options == {"ro": "", "port": str(nfs.port)}
    assert refused(nfs, str(file))


async def test_who_is_not_listed_is_refused(nfs: NfsServer, worker: Exporter, tmp_path: Path) -> None:
    filled(tmp_path / "btrfs/mnt/asset", "text")
    snapshot = await worker.create("asset")
    other = await worker.export("asset", snapshot, OTHER)
    assert refused(nfs, where(other))
    assert nfs.read(where(other), OTHER) == b"text"
    export = await worker.export("asset", snapshot, LISTED)
    assert nfs.read(where(export)) == nfs.read(where(export), OTHER) == b"text"
    assert refused(nfs, where(export), "127.0.0.3")
    await worker.deport(other)
    assert refused(nfs, where(other), OTHER)
    assert nfs.read(where(export)) == b"text"


async def test_nobody_writes(nfs: NfsServer, worker: Exporter, tmp_path: Path) -> None:
    filled(tmp_path / "btrfs/mnt/asset", "text")
    export = await worker.export("asset", await worker.create("asset"), LISTED)
    for name in ("file", "new"):
        with pytest.raises(Refused, match="NFS4ERR_ROFS"):
            nfs.write(where(export).replace("/file", f"/{name}"), "other")
    assert nfs.names(os.path.dirname(where(export))) == ["file"]  # noqa: PTH120
    assert nfs.read(where(export)) == b"text"


async def test_deport_closes_at_once(nfs: NfsServer, worker: Exporter, tmp_path: Path) -> None:
    filled(tmp_path / "btrfs/mnt/asset", "text")
    snapshot = await worker.create("asset")
    export = await worker.export("asset", snapshot, LISTED)
    assert await worker.opened() == [(snapshot.id, LISTED)]
    assert nfs.read(where(export)) == b"text"
    await worker.deport(export)
    assert refused(nfs, where(export))
    await worker.deport(export)
    assert await worker.opened() == []
    again = await worker.export("asset", snapshot, LISTED)
    await worker.export("asset", snapshot, LISTED)
    assert nfs.read(where(again)) == b"text"
    assert await worker.opened() == [(snapshot.id, LISTED)]


async def test_what_is_open_is_told_truly_after_a_restart(nfs: NfsServer, worker: Exporter, tmp_path: Path) -> None:
    filled(tmp_path / "btrfs/mnt/asset", "text")
    snapshot = await worker.create("asset")
    export = await worker.export("asset", snapshot, LISTED)
    nfs.stop()
    nfs.start()
    assert await worker.opened() == [(snapshot.id, LISTED)]
    assert nfs.read(where(export)) == b"text"
    nfs.stop()
    nfs.clear()
    nfs.start()
    assert await worker.opened() == []
    assert refused(nfs, where(export))
    await worker.deport(export)
    assert nfs.read(where(await worker.export("asset", snapshot, LISTED))) == b"text"


@pytest.mark.parametrize("name", ["two  spaces #(a:b) 'quote\" %20* Größe ☃", "new\nline\ttab back\\slash\\x2d"])
async def test_paths_of_any_characters(nfs: NfsServer, worker: Exporter, tmp_path: Path, name: str) -> None:
    filled(tmp_path / "btrfs/mnt" / name, name)
    snapshot = await worker.create(name)
    export = await worker.export(name, snapshot, LISTED)
    assert nfs.read(where(export)) == name.encode()
    assert await worker.opened() == [(snapshot.id, LISTED)]
    await worker.deport(export)
    assert refused(nfs, where(export))
    assert await worker.opened() == []


@pytest.mark.parametrize("name", [b"raw\xff", rb"octal\040", b"long/" * 200 + b"path"])
async def test_paths_that_exportfs_takes_for_others_are_refused(
    exportfs: Exportfs, tmp_path: Path, name: bytes
) -> None:
    path = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(path)  # noqa: PTH103
    with pytest.raises(Unsupported, match="cannot be exported by NFS"):
        await exportfs.open("", path, LISTED, AccessMode.READ_ONLY, str(uuid.uuid4()))
    assert [each async for each in exportfs.exported()] == []


async def test_the_longest_path(exportfs: Exportfs, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/d" * MOST_PATH
    path = path[: MOST_PATH - 1] + b"d"
    os.makedirs(path)  # noqa: PTH103
    await exportfs.open("", path, LISTED, AccessMode.READ_ONLY, str(uuid.uuid4()))
    assert [each async for each in exportfs.exported()] == [(path, LISTED)]


async def test_what_cannot_be_opened_is_not_noted(exportfs: Exportfs, tmp_path: Path) -> None:
    """The real program notes it, says that it is wrong, and fails."""
    with pytest.raises(NotFound):
        await exportfs.open("", os.fsencode(tmp_path / "no"), LISTED, AccessMode.READ_ONLY, str(uuid.uuid4()))
    assert [each async for each in exportfs.exported()] == []


async def test_only_addresses_and_only_reading(worker: Exporter, tmp_path: Path) -> None:
    filled(tmp_path / "btrfs/mnt/asset", "text")
    snapshot = await worker.create("asset")
    with pytest.raises(InvalidInput, match="another name"):
        await worker.export("asset", snapshot, "localhost")
    with pytest.raises(Unsupported, match="not written"):
        await worker.export("asset", snapshot, LISTED, AccessMode.READ_WRITE)
    assert await worker.opened() == []


async def test_an_address_of_version_6(exportfs: Exportfs, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path)
    await exportfs.open("", path, "2001:db8::1", AccessMode.READ_ONLY, str(uuid.uuid4()))
    assert [each async for each in exportfs.exported()] == [(path, "2001:db8::1")]
    settings = LinuxHostSettings(nfs="exportfs", nfs_address="2001:db8::2")
    there = Exportfs(Host(LocalCommands(), settings), settings)
    assert there.location(path).source == f"[2001:db8::2]:{tmp_path}"
    await there.close("", there.location(path), "2001:db8::1")
    assert [each async for each in exportfs.exported()] == []


async def test_a_list_that_could_not_be_read_is_no_empty_one(
    exportfs: Exportfs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the real program says to who is not root; it ends well."""
    said = "exportfs: could not open /var/lib/nfs/.etab.lock for locking: errno 13 (Permission denied)"
    (tmp_path / "exportfs").write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    (tmp_path / "exportfs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(PermissionDenied):
        [each async for each in exportfs.exported()]


async def test_by_ssh_as_an_ordinary_user(nfs: NfsServer, tmp_path: Path) -> None:
    rules = sudoers("USER").replace("/usr/sbin/exportfs", f"{nfs.bin}/exportfs")
    rules = rules.replace("SNAPKEEP", f"NFS_{os.getpid()}")  # other tests have theirs, at the same time
    rules += f'Defaults:USER secure_path="{nfs.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"\n'
    with ExitStack() as stack:
        mount = stack.enter_context(mounted_btrfs(tmp_path / "btrfs", 256 << 20))
        stack.callback(nfs.clear)
        user = stack.enter_context(ordinary_user(rules))
        server = SshServer(nfs.directory, programs=True, user=user)
        server.start()
        stack.callback(server.stop)
        filled(mount / "asset", "text")
        there = {"host": "127.0.0.1", "port": server.port, "username": user, "sudo": True}
        keys = {"private_key": server.private_key, "host_key": server.host_key}
        async with Exporter(mount, nfs="exportfs", **there, **keys) as worker:
            export = await worker.export("asset", await worker.create("asset"), OTHER)
            assert nfs.read(where(export), OTHER) == b"text"
            assert refused(nfs, where(export))
            await worker.deport(export)
            assert refused(nfs, where(export), OTHER)
