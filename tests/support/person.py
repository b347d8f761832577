"""An ordinary user of this machine, made for a test; what it may run as root is said by a sudoers file of its own."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def ordinary_user(sudoers: str = "") -> Iterator[str]:
    """Give the name of a new user. `sudoers`: the file, in which USER stands for the name."""
    reason = "only root can make a user" if os.geteuid() else "" if shutil.which("sudo") else "sudo is missing"
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(f"This test did not run: {reason}", pytrace=False)
        pytest.skip(f"This test did not run: {reason}")
    name = f"snapkeep-{secrets.token_hex(4)}"
    rules = Path("/etc/sudoers.d") / name
    subprocess.run(["useradd", "--create-home", "--shell", "/bin/sh", name], check=True)
    subprocess.run(["usermod", "--password", "*", name], check=True)  # not locked, and no password is right
    try:
        if sudoers:
            alias = name.upper().replace("-", "_")  # two files that run at the same time must not define the same one
            rules.write_text(sudoers.replace("USER", name).replace("SNAPKEEP", alias))
            rules.chmod(0o440)
            subprocess.run(["visudo", "--check", "--file", rules], check=True, capture_output=True)
        yield name
    finally:
        rules.unlink(missing_ok=True)
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        subprocess.run(["userdel", "--remove", "--force", name], check=False, capture_output=True)
