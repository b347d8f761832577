"""What is done in the guest: `python -m tests.nfs.in_guest DIRECTORY TOOLS`, as the only program of a new kernel.

The kernel's own NFS server runs there with the real exportfs(8), and the kernel's own client mounts from it: the
plug-in exports, and `operations.mounts` mounts. What is seen is written to `DIRECTORY/seen.json`, and judged outside.
"""

from __future__ import annotations

import asyncio
import ctypes
import io
import json
import os
import subprocess
import sys
import traceback
import uuid
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.nfs.worker import Exporter
from tests.support import exportfs

from snapkeep.model.errors import SnapkeepError
from snapkeep.model.exports import AccessMode, Export, Location, Protocol
from snapkeep.model.snapshots import Snapshot
from snapkeep.operations import mounts
from snapkeep.operations.host import Host
from snapkeep.operations.mounts import mounted, unmount_leftovers
from snapkeep.plugin.commands.local import LocalCommands
from snapkeep.plugins.linux_host import host as linux_host
from snapkeep.plugins.linux_host.nfs import Exportfs
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

LISTED, OTHER = "127.0.0.1", "192.0.2.9"
"""The addresses of this machine: who mounts from one of them comes from it."""
LIBC = ctypes.CDLL(None, use_errno=True)
BIND = 4096 | 16384
"""MS_BIND and MS_REC of mount(2)."""
FINIT_MODULE = 313
"""finit_module(2) on x86-64: without modprobe, which a machine need not have."""
NAMES = {
    "printable": "two  spaces #hash (paren) 'quote\" *star a:b %20 Gr\u00f6\u00dfe \u2603 ".encode(),
    "others": b"new\nline\ttab back\\slash\\x2d",
    "long": b"/".join([b"l" * 200] * 5),
    "octal": rb"octal\040",
    "raw": b"raw\xff",
}


# -- the machine -------------------------------------------------------------------------------------------------------
def run(*arguments: str | Path) -> None:
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)


def bind(source: Path, target: Path) -> None:
    """Show a directory at another place, too; a program for each of them would take seconds."""
    if LIBC.mount(os.fsencode(source), os.fsencode(target), None, BIND, None):
        raise OSError(ctypes.get_errno(), str(target))


def load(modules: Path, *wanted: str) -> None:
    """Load modules of the kernel after those that they need."""
    lines = (line.split(":") for line in (modules / "modules.dep").read_text().splitlines())
    needs = {path: needed.split() for path, needed in lines}
    for path in (found for name in wanted for found in needs if found.endswith(f"/{name}.ko")):
        for each in [*reversed(needs[path]), path]:
            with (modules / each).open("rb") as file:
                if LIBC.syscall(FINIT_MODULE, file.fileno(), b"", 0) and ctypes.get_errno() != 17:  # loaded already
                    raise OSError(ctypes.get_errno(), each)


def new_root(directory: Path, tools: Path) -> None:
    """Go to a root of our own, with the machine's directories in it: that of the host cannot be exported from."""
    root = Path("/mnt")
    run("mount", "-t", "tmpfs", "none", root)
    for path in Path("/").iterdir():
        if path.is_symlink():
            (root / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            (root / path.name).mkdir()
            if path.name not in {"etc", "mnt", "proc", "run", "tmp", "var"}:
                bind(path, root / path.name)
    for path in (tools.parent, Path(sys.prefix), Path(sys.base_prefix)):
        inside = root.joinpath(*path.parts[1:])
        if not inside.exists():
            inside.mkdir(parents=True)
            bind(path, inside)
    for name in ("passwd", "group", "hosts", "nsswitch.conf", "netconfig", "services", "protocols", "ld.so.cache"):
        if (path := Path("/etc") / name).exists():
            (root / "etc" / name).write_bytes(path.read_bytes())
    inside = root.joinpath(*directory.parts[1:])
    inside.mkdir(parents=True, exist_ok=True)
    run("mount", "-t", "hostfs", "-o", directory, "none", inside)  # to be written to, other than the rest
    run("mount", "-t", "proc", "proc", root / "proc")
    os.chroot(root)
    os.chdir("/")


def set_up(directory: Path, tools: Path) -> Path:
    """Bring up network and NFS server; return where the file system is mounted."""
    new_root(directory, tools)
    Path("/etc/exports").touch()
    Path("/etc/mtab").symlink_to("/proc/self/mounts")
    Path("/etc/nfsmount.conf").write_text("[ NFSMount_Global_Options ]\nNfsvers=4\n")  # 3 would be tried for long
    Path("/var/lib/nfs/v4recovery").mkdir(parents=True)
    for name in ("etab", "rmtab"):
        Path("/var/lib/nfs", name).touch()
    os.environ["PATH"] += f":{tools}/usr/sbin"
    load(next((tools / "usr/lib/uml/modules").iterdir()), "nfsd", "nfsv4")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{OTHER}/32", "dev", "lo")
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    run("rpc.mountd", "--no-nfs-version", "3")
    run("rpc.nfsd", "--no-nfs-version", "3", "4")
    Path("/proc/fs/nfsd/v4_end_grace").write_text("Y")  # else nobody opens a file for 90 seconds
    place = Path("/mnt/volume")
    place.mkdir()
    run("mount", "/dev/ubda", place)
    return place


# -- what is tried -----------------------------------------------------------------------------------------------------
async def outcome(work: Awaitable[Any]) -> str:
    """Return the error that something ends with, or "done"."""
    try:
        await work
    except SnapkeepError as error:
        return f"{error.code}: {error}"
    return "done"


def errno_of(path: Path, mode: str) -> int:
    """Open a file and read or write; return the errno of the failure, 0 without one."""
    try:
        with path.open(mode) as file:
            file.read() if mode == "r" else file.write("x")
    except OSError as error:
        return error.errno or -1
    return 0


def played(table: Path, call: list[str]) -> tuple[int, list[str], str]:
    """Call the exportfs of other tests: return its code, its lines, and its complaints."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err = [io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in before]
    try:
        code = exportfs.main(table, call)
    finally:
        sys.stdout, sys.stderr = before
    lines, complaints = (stream.buffer.getvalue().decode() for stream in (out, err))
    return code, sorted(lines.splitlines()), complaints


class Trial:
    """All that is tried, on one machine."""

    def __init__(self, volume: Path, worker: Exporter, nfs: Exportfs) -> None:
        self.volume = volume
        self.worker = worker
        self.nfs = nfs
        self.host = Host(directory=Path("/mnt/data"))
        self.seen: dict[str, Any] = {}

    async def all(self) -> None:
        first = (self.play, self.read, self.refuse, self.close)
        for part in (*first, self.names, self.live, self.leftovers, self.restart, self.die):
            try:
                await part()
            except Exception:
                self.seen[f"failed {part.__name__}"] = traceback.format_exc()

    async def play(self) -> None:
        """The exportfs that other tests play with says what the real one says."""
        place = self.volume / "played"
        for name in ("two  spaces", "new\nline\t#", r"octal\040"):
            (place / name).mkdir(parents=True)
        (place / "file").touch()
        option = ["-o", f"ro,no_subtree_check,no_root_squash,sec=sys,fsid={uuid.UUID(int=99)}"]
        calls = [[*option, f"{LISTED}:{place}/{name}"] for name in ("two  spaces", "new\nline\t#", "no", "file")]
        calls += [[*option, f"[::1]:{place}/two  spaces"], [*option, f"{LISTED}:/{'long' * 300}"], ["-s"]]
        calls += [["-u", call[2]] for call in calls[:-1]]
        octal = rf"{LISTED}:{place}/octal\040"
        calls += [["-s"], [*option, octal], ["-s"], ["-u", octal], ["-u", octal.replace(r"\040", " ")], ["-s"]]
        table = Path("/mnt/table")
        table.mkdir()
        self.seen["played"] = []
        for call in calls:
            real = subprocess.run(["exportfs", *call], capture_output=True, text=True, check=False)
            found = played(table, call)
            expected = (real.returncode, sorted(real.stdout.splitlines()), real.stderr)
            if found != expected:
                self.seen["played"].append([call, expected, found])
        self.seen["calls"] = len(calls)

    async def read(self) -> None:
        """Two snapshots of one asset, the first exported by the plug-in: each shows its own."""
        asset = self.volume / "asset"
        run("btrfs", "subvolume", "create", asset)
        (asset / "file").write_text("first")
        self.snapshot = await self.worker.create("asset")
        (asset / "file").write_text("second")
        self.path = asset / ".snapkeep" / "second"
        run("btrfs", "subvolume", "snapshot", "-r", asset, self.path)
        (asset / "file").write_text("live")
        self.export = await self.worker.export("asset", self.snapshot, LISTED)
        self.second = await self.open(self.path, 2)
        found = self.seen["read"] = []
        for export, name in ((self.export, self.snapshot.name), (self.second, "second")):
            async with mounted(export, name, self.host, "one") as path:
                found.append((path / "file").read_text())
                self.seen["write on a read-only mount"] = errno_of(path / "file", "w")
                self.seen["mounted"] = mounts._is_mounted(path)
        self.seen["left"] = [str(path) for path in self.host.mounts.iterdir()]

    async def refuse(self) -> None:
        """Who is not listed, and who is and wants to write."""
        export, snapshot = self.export, self.snapshot
        path = os.fsencode(self.worker.path("asset", snapshot))
        self.seen["not listed"] = await outcome(self.mount(self.elsewhere(export), snapshot))
        await self.nfs.open("", path, OTHER, AccessMode.READ_ONLY, snapshot.id)
        self.seen["listed beside"] = await outcome(self.mount(self.elsewhere(export), snapshot))
        await self.nfs.close("", export.locations[0], OTHER)
        self.seen["not listed any more"] = await outcome(self.mount(self.elsewhere(export), snapshot))
        self.seen["still listed"] = await outcome(self.mount(export, snapshot))
        point = Path("/mnt/point")
        point.mkdir()
        run("mount", "-t", "nfs", "-o", "rw", export.locations[0].source, point)
        self.seen["write on a writable mount"] = errno_of(point / "file", "w")
        run("umount", point)
        self.seen["another snapshot"] = await outcome(self.mount(export, "second"))

    async def close(self) -> None:
        """Deport while it is read: closed at once, and free to be deleted."""
        export, snapshot = self.export, self.snapshot
        async with mounted(export, snapshot.name, self.host, "one") as path:
            before = errno_of(path / "file", "r")
            await self.worker.deport(export)
            self.seen["before and after deport"] = [before, errno_of(path / "file", "r")]
        self.seen["after deport"] = await outcome(self.mount(export, snapshot))
        run("btrfs", "subvolume", "delete", self.worker.path("asset", snapshot))
        self.seen["open after deport"] = [address async for _, address in self.nfs.exported()]

    async def names(self) -> None:
        """Paths of any bytes: they are read, or refused before anything is open."""
        found = self.seen["names"] = {}
        before = len([each async for each in self.nfs.exported()])
        for number, (called, name) in enumerate(NAMES.items()):
            path = os.fsencode(self.volume) + b"/names/" + name
            os.makedirs(path)  # noqa: PTH103
            Path(os.fsdecode(path), "file").write_text(called)
            found[called] = await self.name(path, str(uuid.UUID(int=number + 1)))
        self.seen["open before and after names"] = [before, len([each async for each in self.nfs.exported()])]

    async def name(self, path: bytes, fsid: str) -> str:
        try:
            await self.nfs.open("", path, LISTED, AccessMode.READ_ONLY, fsid)
            if (path, LISTED) not in [each async for each in self.nfs.exported()]:
                return "not shown"
            location = self.nfs.location(path)
            export = replace(self.export, locations=(location,))
            async with mounted(export, os.fsdecode(path).rpartition("/")[2], self.host, "one") as place:
                text = (place / "file").read_text()
            await self.nfs.close("", location, LISTED)
        except SnapkeepError as error:
            return f"{error.code}: {error}"
        return text

    async def live(self) -> None:
        """A share that shows itself, with its snapshots in a directory: the export of other systems."""
        share = self.volume / "share"
        for place, text in ((share, "live"), (share / ".snapshot/s1", "then")):
            place.mkdir(parents=True)
            (place / "file").write_text(text)
        run("exportfs", "-o", "rw,no_subtree_check,no_root_squash,fsid=7", f"{LISTED}:{share}")
        base = replace(self.export, mode=AccessMode.READ_WRITE)
        inside = Location(protocol=Protocol.NFS, source=f"{LISTED}:{share}", path=".snapshot/s1", live="")
        export = replace(base, locations=(inside,))
        async with mounted(export, "s1", self.host, "one") as path:
            self.seen["snapshot of a share"] = [(path / "file").read_text(), errno_of(path / "file", "w")]
        async with mounted(export, "s1", self.host, "one", live=True) as path:
            before = (path / "file").read_text()
            (path / "file").write_text("restored")
        self.seen["live"] = [before, (share / "file").read_text()]
        wrong = {"no snapshot": ".snapshot/s2", "a file": ".snapshot/s1/file", "outside": "../s1"}
        for what, inside_path in wrong.items():
            bad = replace(export, locations=(replace(inside, path=inside_path),))
            self.seen[what] = await outcome(self.mount(bad, inside_path.rpartition("/")[2]))
        read_only = replace(export, locations=(replace(inside, live=None),))
        self.seen["live of a read-only export"] = await outcome(self.mount(read_only, "s1", live=True))

    async def leftovers(self) -> None:
        """What a process that died has mounted, and what somebody still reads."""
        for name in ("one", "two"):
            point = self.host.mounts / name
            point.mkdir()
            run("mount", "-t", "nfs", self.second.locations[0].source, point)
        async with mounted(self.second, "second", self.host, "one") as path:
            self.seen["over a leftover"] = Path("/proc/mounts").read_text().count(f" {path} ")
        await unmount_leftovers(self.host)
        self.seen["leftovers"] = [str(path) for path in self.host.mounts.iterdir()]
        async with AsyncExitStack() as stack:
            path = await stack.enter_async_context(mounted(self.second, "second", self.host, "one"))
            file = (path / "file").open()
        self.seen["while it was read"] = [path.exists(), mounts._is_mounted(path), file.read()]
        file.close()

    async def restart(self) -> None:
        """What nfs-server.service does when it starts: exports that /etc/exports does not have are gone."""
        before = len([each async for each in self.nfs.exported()])
        run("exportfs", "-r")
        self.seen["opened before and after restart"] = [before, len(await self.worker.opened())]
        self.seen["after restart"] = await outcome(self.mount(self.second, "second"))
        await self.open(self.path, 2)
        self.seen["exported again"] = await outcome(self.mount(self.second, "second"))

    async def die(self) -> None:
        """The server is gone while it is mounted: who mounted goes on."""
        async with mounted(self.second, "second", self.host, "one") as path:
            (path / "file").read_text()
            run("rpc.nfsd", "0")
            mounts.MOUNT_SECONDS = 3
        self.seen["server gone"] = [path.exists(), mounts._is_mounted(path)]

    async def open(self, path: Path, number: int) -> Export:
        """Export as the plug-in does, without its looking for the snapshot."""
        name = os.fsencode(path)
        await self.nfs.open("", name, LISTED, AccessMode.READ_ONLY, str(uuid.UUID(int=number)))
        return replace(self.export, locations=(self.nfs.location(name),))

    async def mount(self, export: Export, snapshot: Snapshot | str, *, live: bool = False) -> None:
        name = snapshot if isinstance(snapshot, str) else snapshot.name
        async with mounted(export, name, self.host, "one", live=live) as path:
            (path / "file").read_text()

    def elsewhere(self, export: Export) -> Export:
        """Return the export as it is mounted from the other address."""
        (location,) = export.locations
        return replace(export, locations=(replace(location, source=location.source.replace(LISTED, OTHER)),))


async def main(directory: Path, tools: Path) -> None:
    volume = set_up(directory, tools)
    settings = LinuxHostSettings(nfs="exportfs", nfs_address=LISTED)
    nfs = Exportfs(linux_host.Host(LocalCommands(), settings), settings)
    async with Exporter(volume, **settings.dump()[0]) as worker:
        trial = Trial(volume, worker, nfs)
        await trial.all()
    (directory / "seen.json").write_text(json.dumps(trial.seen))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
