"""A real btrfs file system in a file, mounted for tests: it needs root and a kernel that has btrfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE = 1 << 30
"""Of the sparse file: what is not used takes no room."""


def why_not() -> str:
    """Say what is missing; empty: nothing."""
    if os.geteuid() != 0:
        return "only root can mount btrfs"
    if not any(line.split()[-1] == "btrfs" for line in Path("/proc/filesystems").read_text().splitlines()):
        return "the kernel has no btrfs"
    if shutil.which("mkfs.btrfs") is None:
        return "btrfs-progs is missing: install it with scripts/btrfs"
    return ""


def require_btrfs() -> None:
    """Without it skip the test, or fail it where CI=true."""
    if reason := why_not():
        if os.environ.get("CI") == "true":
            pytest.fail(f"This test did not run: {reason}", pytrace=False)
        pytest.skip(f"This test did not run: {reason}")


@contextmanager
def mounted_btrfs(directory: Path, size: int = SIZE) -> Iterator[Path]:
    """Make a file system below a directory, and give where it is mounted."""
    require_btrfs()
    image, mount = directory / "btrfs.img", directory / "mnt"
    directory.mkdir(parents=True, exist_ok=True)
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.btrfs", "--quiet", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop,noatime", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", mount], check=True)
        image.unlink()


def subvolume(path: Path) -> Path:
    """Make a subvolume."""
    subprocess.run(["btrfs", "subvolume", "create", path], check=True, capture_output=True)
    return path


def snapshot(source: Path, target: Path, *, read_only: bool = True) -> Path:
    """Take a snapshot."""
    option = ["-r"] if read_only else []
    subprocess.run(["btrfs", "subvolume", "snapshot", *option, source, target], check=True, capture_output=True)
    return target
