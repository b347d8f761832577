"""The guide to users and roles, run as it stands; sessions are kept in a home of its own."""

from __future__ import annotations

from pathlib import Path

from tests.docs.console import Shell
from tests.docs.test_tutorial import environment, follow, prepare


def test_the_guide_to_users_does_what_it_says(tmp_path: Path) -> None:
    shell = Shell(tmp_path, environment() | {"XDG_CONFIG_HOME": str(tmp_path / "config")})
    try:
        prepare(shell, tmp_path)
        follow(shell, tmp_path, "users-and-roles")
    finally:
        shell.close()
