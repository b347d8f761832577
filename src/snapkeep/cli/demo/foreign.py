"""The stock restic as a judge that is not ours, where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from snapkeep.model.errors import Damaged

OLDEST = (0, 14)
"""The first version that reads format 2."""


def check(repository: Path, password: str) -> str:
    """Have restic check all of a repository; return what is to be told. Raises Damaged."""
    program = shutil.which("restic")
    if program is None:
        return "by Snapkeep itself; restic is not installed, so it was not asked"
    version = _run(program, "version").stdout
    found = re.search(r"restic (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        return f"by Snapkeep itself; this restic is too old to be asked: {version.strip()}"
    environment = {"RESTIC_REPOSITORY": str(repository), "RESTIC_PASSWORD": password}
    ran = _run(program, "--no-cache", "check", "--read-data", **environment)
    if ran.returncode:
        raise Damaged(f"restic found the repository wrong: {(ran.stderr or ran.stdout).strip()[-500:]}")
    return f"restic {found[1]}.{found[2]} agrees: check --read-data found no errors"


def _run(program: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the restic on PATH
        [program, *arguments], capture_output=True, text=True, check=False, env=os.environ | environment, timeout=300
    )
