"""What others can see of a running process: no memory, no environment, no dump."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.installation import Installation

AS_NOBODY = """
import os, subprocess, sys
import snapkeep.operations.membership as membership
import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from snapkeep.server.hygiene import forbid_dumps

registry = CollectorRegistry()
before = membership._place()
os.setgid(65534)
os.setuid(65534)
forbid_dumps()
assert os.stat("/proc/self/environ").st_uid == 0
assert os.stat("/proc/self/mem").st_uid == 0
other = subprocess.run(["cat", f"/proc/{os.getpid()}/environ"], capture_output=True)
assert other.returncode, "another process of the same user reads the environment"
assert membership._place() == before
ProcessCollector(registry=registry)
assert b"process_resident_memory_bytes" in generate_latest(registry)
print("done")
"""


def test_no_dumps_of_the_server(installation: Installation) -> None:
    limits = Path(f"/proc/{installation.server.pid}/limits").read_text()
    (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[-3:-1] == ["0", "0"]


def test_nobody_else_of_the_same_user_reads_memory_and_environment() -> None:
    """Tried as a user without rights: root reads everything."""
    done = subprocess.run([sys.executable, "-c", AS_NOBODY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
