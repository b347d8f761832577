"""A directory as it is behind a network: a read-only view in which every request waits (`delay.c`, compiled here)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SOURCE = Path(__file__).with_name("delay.c")


def why_not() -> str:
    """Return why there can be no such view here; empty when there can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "there is no /dev/fuse"
    return "" if shutil.which("cc") else "there is no C compiler"


def build(directory: Path) -> Path:
    """Compile the program into a directory; return its path."""
    program = directory / "delay"
    subprocess.run(["cc", "-O2", "-pthread", _SOURCE, "-o", program], check=True)
    return program


@contextmanager
def delayed(program: Path, source: Path, mountpoint: Path, *, milliseconds: float, attributes: bool) -> Iterator[Path]:
    """Mount a new view, of which the kernel knows nothing yet. `attributes`: with one request for those of each file.

    Without, the source seems to have no extended attributes, and the kernel asks only once.
    """
    mountpoint.mkdir(parents=True, exist_ok=True)
    pause = str(round(milliseconds * 1000))
    command = [str(program), str(source), str(mountpoint), pause, "attributes" if attributes else "plain"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        if child.stdout is None or child.stdin is None or not child.stdout.readline():
            raise SystemExit("the view with delays was not mounted")
        try:
            yield mountpoint
        finally:
            child.stdin.close()
            child.wait()
