"""The stock restic, as the foreign judge of repositories."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

_SCRIPT = Path(__file__).parents[2] / "scripts" / "restic"


@functools.cache
def _find() -> tuple[Path | None, str]:
    done = subprocess.run([_SCRIPT], capture_output=True, text=True, check=False, timeout=300)
    return (Path(done.stdout.strip()), "") if done.returncode == 0 else (None, done.stderr)


def restic() -> Path:
    """Return a restic of at least 0.17; without one skip the test, or fail it where CI=true."""
    found, said = _find()
    if found:
        return found
    reason = f"restic is missing: this test did not run. Get it with scripts/restic\n{said}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def run_restic(
    repository: Path | str,
    *arguments: str | Path,
    password: str = "secret",
    fails: bool = False,
    cwd: Path | None = None,
    timeout: float = 600,
) -> str:
    """Run restic on a repository and return what it printed; it must succeed, or fail where `fails` says so."""
    environment = {
        **os.environ,
        "RESTIC_REPOSITORY": str(repository),
        "RESTIC_PASSWORD": password,
        "RESTIC_FEATURES": "device-id-for-hardlinks=true",
        "RESTIC_PROGRESS_FPS": "0.01",
    }
    done = subprocess.run(
        [restic(), "--no-cache", *arguments],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=timeout,
    )
    said = f"restic {arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert (done.returncode != 0) is fails, said
    return done.stderr if fails else done.stdout
