"""A guest machine with a kernel that has NFS, as client and as server: user-mode-linux, which is one ordinary process.

Its root is that of this machine, read-only; it has a loopback network of its own, and no way out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[2]
TOOLS = CHECKOUT / ".nfs"
PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 600
"""The longest that a guest may take."""


def require_guest() -> None:
    """Without what it needs skip the test, or fail it where CI=true."""
    needed = {"linux.uml": TOOLS / "usr/bin/linux.uml", "exportfs": TOOLS / "usr/sbin/exportfs"}
    lacking = [name for name, path in needed.items() if not path.exists()]
    lacking += [name for name in ("mkfs.btrfs", "btrfs", "mount.nfs4") if shutil.which(name, path=PROGRAMS) is None]
    if not lacking:
        return
    reason = f"This test did not run: {', '.join(lacking)} missing. Get them with scripts/nfs and scripts/btrfs"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def run_in_guest(directory: Path, module: str) -> dict[str, Any]:
    """Start a guest that runs a module with a btrfs file system of its own; return what it has seen."""
    require_guest()
    disk, seen, start = directory / "disk", directory / "seen.json", directory / "init"
    with disk.open("wb") as file:
        file.truncate(256 << 20)
    subprocess.run(["mkfs.btrfs", "--quiet", disk], check=True, capture_output=True, env={"PATH": PROGRAMS})
    start.write_text(
        f"#!/bin/sh\nexport PATH={PROGRAMS} PYTHONPATH={CHECKOUT}\n"
        f"mount -t proc proc /proc\n{sys.executable} -m {module} {directory} {TOOLS}\n"
        "echo o >/proc/sysrq-trigger\nsleep 60\n"
    )
    start.chmod(0o755)
    kernel = ["mem=384M", f"ubd0={disk}", "rootfstype=hostfs", "rootflags=/", "ro", f"init={start}", "quiet"]
    console = ["con=null", "con0=null,fd:1", "ssl=null", f"uml_dir={directory}/uml", "umid=guest"]
    machine = subprocess.Popen(
        [TOOLS / "usr/bin/linux.uml", *kernel, *console],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        said = machine.communicate(timeout=SECONDS)[0].decode(errors="replace")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGKILL)  # what a guest that hangs consists of
        machine.wait()
    assert seen.exists(), f"The guest ended early:\n{said}"
    return dict(json.loads(seen.read_text()))
