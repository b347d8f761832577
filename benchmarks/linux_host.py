"""The diff of two btrfs snapshots beside a bare `btrfs send`: what it costs to make a change list of it.

    python -m benchmarks.linux_host [--files 1000000] [--changed 1000] [--runs 5] [--directory /var/tmp]

Makes a btrfs in a file below the directory, with so many files in one subvolume, fifty in a directory; takes a
snapshot, writes to some files all over the tree, and takes another. Then, in turn: `btrfs send --no-data -p base new`
into `wc -c`, and the whole diff by the plug-in (connect, start, read to the end). Needs root. Medians.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from tests.support.btrfs import mounted_btrfs, why_not

from snapkeep.model.assets import Asset
from snapkeep.model.snapshots import Snapshot, new_snapshot_name
from snapkeep.model.work import ChangeBatch, Pending
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.linux_host import PLUGIN
from snapkeep.plugins.linux_host.settings import LinuxHostSettings

PER_DIRECTORY = 50
BYTES_PER_FILE = 4096
"""Room for one: its entries in the trees, twice, and no data."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=1_000_000)
    arguments.add_argument("--changed", type=int, default=1000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    given = arguments.parse_args()
    if reason := why_not():
        sys.exit(f"Not measured: {reason}")
    size = (4 << 30) + given.files * BYTES_PER_FILE
    with (
        tempfile.TemporaryDirectory(prefix="snapkeep-bench-", dir=given.directory) as root,
        mounted_btrfs(Path(root) / "btrfs", size) as mount,
    ):
        live = mount / "live"
        subprocess.run(["btrfs", "subvolume", "create", live], check=True, capture_output=True)
        make(live, given.files)
        before = asyncio.run(create(mount))
        change(live, given.files, given.changed)
        pair = before, asyncio.run(create(mount))
        print(f"{given.files:,} files, {given.changed:,} changed, {given.runs} runs, medians")
        report(*measure(mount, pair, given.changed, given.runs))


def make(top: Path, files: int) -> None:
    """Make the tree, by as many processes as there are processors."""
    lots = range(0, files, PER_DIRECTORY * 100)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(make_lot, [top] * len(lots), lots, [min(lot + lots.step, files) for lot in lots]))


def make_lot(top: Path, first: int, end: int) -> None:
    for number in range(first, end):
        path = place(top, number)
        if number % PER_DIRECTORY == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))


def place(top: Path, number: int) -> Path:
    return top / f"{number // PER_DIRECTORY // 100}" / f"{number // PER_DIRECTORY}" / f"file-{number:08}"


def change(top: Path, files: int, changed: int) -> None:
    step = max(1, files // changed)
    for number in range(0, min(files, step * changed), step):
        place(top, number).write_text("changed")


async def create(mount: Path) -> Snapshot:
    """Take a snapshot as Snapkeep does."""
    async with PLUGIN.connect(settings(mount)) as roles:
        assert roles.create is not None
        name = new_snapshot_name("NB", datetime.now(UTC))
        ticket = await roles.create.start_create(await asset(roles, mount), name, str(uuid.uuid4()))
        made = await roles.create.poll_create(ticket)
    assert not isinstance(made, Pending)
    return made


def settings(mount: Path) -> LinuxHostSettings:
    return LinuxHostSettings.parse({"only": [str(mount)]})


async def asset(roles: Roles, mount: Path) -> Asset:
    wanted = str(mount / "live").strip("/")
    async for batch in roles.discover.discover():
        for found in batch.assets:
            if found.name == wanted:
                return found
    raise LookupError(wanted)


def measure(mount: Path, pair: tuple[Snapshot, Snapshot], changed: int, runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds of `btrfs send` and of our diff, in turn; the first of each only warms the cache."""
    os.sync()
    bare, ours = [], []
    found = asyncio.run(asset_of(mount))
    for _ in range(runs + 1):
        bare.append(send(mount, *pair))
        seconds, count = asyncio.run(diff(mount, found, *pair))
        if count != changed:
            sys.exit(f"The diff has {count} changes, and {changed} files were changed")
        ours.append(seconds)
    return bare[1:], ours[1:]


async def asset_of(mount: Path) -> Asset:
    async with PLUGIN.connect(settings(mount)) as roles:
        return await asset(roles, mount)


def send(mount: Path, base: Snapshot, new: Snapshot) -> float:
    directory = mount / "live" / ".snapkeep"
    began = time.perf_counter()
    paths = [str(directory / base.name), str(directory / new.name)]
    command = ["btrfs", "send", "--quiet", "--no-data", "-p", *paths]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as sent:
        subprocess.run(["wc", "-c"], stdin=sent.stdout, check=True, stdout=subprocess.DEVNULL)
    if sent.returncode:
        raise subprocess.CalledProcessError(sent.returncode, command)
    return time.perf_counter() - began


async def diff(mount: Path, found: Asset, base: Snapshot, new: Snapshot) -> tuple[float, int]:
    """Return the seconds from no connection to the last change, and how many changes there are."""
    began = time.perf_counter()
    count = 0
    async with PLUGIN.connect(settings(mount)) as roles:
        assert roles.diff_files is not None
        ticket = await roles.diff_files.start_diff(found, base, new, str(uuid.uuid4()))
        async for batch in roles.diff_files.read_diff(ticket):
            assert isinstance(batch, ChangeBatch)
            count += len(batch.changes)
    return time.perf_counter() - began, count


def report(bare: list[float], ours: list[float]) -> None:
    for name, took in (("btrfs send | wc -c", bare), ("the diff", ours)):
        print(f"{name}: {statistics.median(took):.3f} s ({min(took):.3f} to {max(took):.3f})")
    print(f"    {statistics.median(ours) / statistics.median(bare):.2f} times a bare btrfs send")


if __name__ == "__main__":
    main()
