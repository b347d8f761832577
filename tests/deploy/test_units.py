"""The units of systemd are right, give little away, and the server can live with what they take from it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from tests.support.installation import Server, until

from snapkeep.cli.options import Common

UNITS = sorted((Path(__file__).parents[2] / "deploy").glob("*.service"))
MOST_EXPOSURE = 2.0
"""Of `systemd-analyze security`: 0 is the least, a unit without any protection has 9.6."""


def read(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_without_root_and_with_a_read_only_root_file_system(unit: Path) -> None:
    settings = read(unit)
    assert settings["User"] == ["snapkeep"]
    for name, value in (("ProtectSystem", "strict"), ("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", "")):
        assert settings[name] == [value]
    assert settings["LimitCORE"] == ["0"]


def not_run(reason: str) -> NoReturn:
    """Skip the test, or fail it where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"This test did not run: {reason}", pytrace=False)
    pytest.skip(f"This test did not run: {reason}")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_the_units_and_finds_them_safe(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        not_run("there is no systemd-analyze")
    copy = tmp_path / unit.name.replace("@", "@w1")
    program = tmp_path / "snapkeep"
    program.symlink_to(sys.executable)
    copy.write_text(unit.read_text().replace("/opt/snapkeep/bin/snapkeep", str(program)))
    verified = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert [line for line in verified.stderr.splitlines() if copy.name in line] == []
    assert verified.returncode == 0, verified.stderr
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSURE * 10:.0f}", copy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


CONFINED = """
set -e
mount --make-rprivate /
mkdir -p "$1"
mount --bind "$1" "$1"
mount -o remount,bind,ro /
shift
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
"""A read-only root file system, and none of root's capabilities."""


def confined(directory: Path, *command: str) -> list[str]:
    return ["unshare", "--mount", "sh", "-c", CONFINED, "sh", str(directory), *command]


def test_the_server_writes_into_its_directory_alone(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    probe = subprocess.run(confined(directory, "touch", "/no-such-file"), capture_output=True, text=True, check=False)
    if os.geteuid() != 0 or "Read-only file system" not in probe.stderr:
        not_run(f"no name space of mounts can be made here: {probe.stderr}")
    server = Server(directory)
    server.command = confined(directory, *server.command)
    server.log = directory / "log"
    (directory / "log").touch()
    server.begin()
    try:
        until(lambda: "] ready " in server.said(), 30)
        pid = json.loads((directory / "server.json").read_text())["pid"]
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        rest = Common(data_dir=directory).connect()
        assert rest.request("GET", "/systems")["data"] == []
        rest.close()
    finally:
        server.send(signal.SIGTERM)
        server.wait()
    assert "Traceback" not in server.said()
