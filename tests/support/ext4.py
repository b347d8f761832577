"""A real ext4 file system in a file, mounted for tests; it never stays frozen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SIZE = 32 << 20


class Ext4:
    """Where it is mounted, and who writes to it."""

    def __init__(self, image: Path, mount: Path) -> None:
        self.image = image
        self.mount = mount
        self._writers: list[subprocess.Popen[bytes]] = []

    @property
    def name(self) -> str:
        """As an asset."""
        return str(self.mount).strip("/")

    def is_frozen(self) -> bool:
        """Write something, and see whether that has to wait."""
        writer = subprocess.Popen(["sh", "-c", 'echo "$$" >"$0"', self.mount / f"written-{len(self._writers)}"])
        self._writers.append(writer)
        with suppress(subprocess.TimeoutExpired):
            writer.wait(0.4)
        return writer.poll() is None

    def wait_for_writers(self) -> None:
        """See everybody come to an end who has written."""
        for writer in self._writers:
            writer.wait(20)

    def freeze(self) -> None:
        subprocess.run(["fsfreeze", "-f", self.mount], check=True)

    def thaw(self) -> bool:
        return not subprocess.run(["fsfreeze", "-u", self.mount], check=False, capture_output=True).returncode


@contextmanager
def mounted_ext4(directory: Path, *options: str, image: Path | None = None) -> Iterator[Ext4]:
    """Make a file system below a directory, or take that in an image, and mount it."""
    if os.geteuid() != 0:
        reason = "This test did not run: only root can mount"
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    directory.mkdir(parents=True, exist_ok=True)
    mount = directory / "mnt"
    mount.mkdir()
    if image is None:
        image = directory / "ext4.img"
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", ",".join(("loop", *options)), image, mount], check=True)
    made = Ext4(image, mount)
    try:
        yield made
    finally:
        while made.thaw():
            pass
        made.wait_for_writers()
        subprocess.run(["umount", "-l", mount], check=True)
