"""A walk over two trees beside `find` and `comm`: what a comparison without any meaning costs.

    python benchmarks/changes.py [--files 100000] [--changed 1000] [--runs 5] [--workers 1 8] [--delay 0]

Makes two trees of so many files, fifty in a directory. The floor is `find -printf` of both (path, size, time, mode,
owner), `sort` and `comm`. `walk_diff` runs in a process of its own, so that its peak memory (VmHWM) is its own.
`--delay` adds so many milliseconds to each read of a directory, as a network file system does. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from snapkeep.changes.trees import Nodes, Tree
from snapkeep.changes.walk import walk_diff

PER_DIRECTORY = 50


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=int, default=100_000)
    arguments.add_argument("--changed", type=int, default=1000)
    arguments.add_argument("--runs", type=int, default=5)
    arguments.add_argument("--workers", type=int, nargs="*", default=[1, 8])
    arguments.add_argument("--delay", type=float, default=0.0, help="milliseconds a directory")
    arguments.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        one(given.one, given.workers[0], given.delay / 1000)
        return
    with tempfile.TemporaryDirectory(prefix="snapkeep-bench-") as root:
        base, new = Path(root) / "base", Path(root) / "new"
        make(base, given.files)
        shutil.copytree(base, new)
        change(new, given.files, given.changed)
        print(f"{given.files:,} files a side, {given.changed:,} changed, {given.runs} runs, medians")
        floor = measure("find + sort + comm", given.runs, lambda: find(base, new, Path(root)))
        for workers in given.workers:
            peaks: list[float] = []
            command = [
                sys.executable, __file__, "--one", str(base), str(new), "--workers", str(workers),
                "--delay", str(given.delay),
            ]  # fmt: skip

            def run(command: list[str] = command, peaks: list[float] = peaks) -> float:
                ran = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                peaks.append(ran["peak_mib"])
                return float(ran["seconds"])

            took = measure(f"walk_diff, {workers} workers", given.runs, run)
            print(f"    {took / floor:.1f} times the floor, peak memory {max(peaks):.0f} MiB")


def make(top: Path, files: int) -> None:
    for number in range(files):
        directory = top / f"{number // PER_DIRECTORY // 100}" / f"{number // PER_DIRECTORY}"
        if number % PER_DIRECTORY == 0:
            directory.mkdir(parents=True, exist_ok=True)
        (directory / f"file-{number:08}").touch()


def change(top: Path, files: int, changed: int) -> None:
    for number in range(0, files, max(1, files // changed)):
        path = top / f"{number // PER_DIRECTORY // 100}" / f"{number // PER_DIRECTORY}" / f"file-{number:08}"
        path.write_text("changed")


def find(base: Path, new: Path, root: Path) -> float:
    """Let `find`, `sort` and `comm` compare; return the seconds. Without inodes: the trees are copies."""
    plain = {**os.environ, "LC_ALL": "C"}
    began = time.perf_counter()
    lists = []
    for top in (base, new):
        listing = root / f"{top.name}.list"
        command = ["find", ".", "-printf", r"%p %s %T@ %m %U %G\n"]
        with subprocess.Popen(command, cwd=top, stdout=subprocess.PIPE) as found:
            subprocess.run(["sort", "-o", listing], stdin=found.stdout, check=True, env=plain)
        if found.returncode:
            raise subprocess.CalledProcessError(found.returncode, command)
        lists.append(listing)
    subprocess.run(["comm", "-3", *lists], check=True, stdout=subprocess.DEVNULL, env=plain)
    return time.perf_counter() - began


def measure(name: str, runs: int, run: Callable[[], float]) -> float:
    run()  # both from a warm cache
    took = [run() for _ in range(runs)]
    middle = statistics.median(took)
    print(f"{name}: {middle:.2f} s ({min(took):.2f} to {max(took):.2f})")
    return middle


class Far(Tree):
    """A tree behind a network: each directory costs a round trip."""

    def __init__(self, top: Path, delay: float) -> None:
        super().__init__(top)
        self._delay = delay

    def read(self, path: bytes) -> tuple[int, Nodes]:
        if self._delay:
            time.sleep(self._delay)
        return super().read(path)


def one(paths: list[str], workers: int, delay: float) -> None:
    began = time.perf_counter()
    trees = [Far(Path(path), delay) for path in paths]
    changes = sum(1 for _ in walk_diff(*trees, workers=workers))
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "peak_mib": peak / 1024, "changes": changes}))


if __name__ == "__main__":
    main()
