"""The two child processes of the demo: simulator and server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapkeep.cli.options import Common
from snapkeep.cli.rest import Rest
from snapkeep.model.errors import Timeout, Unavailable

START_SECONDS = 30.0
PARTNER = ("--partner-server", "snapkeep")
"""What the administrator of a file server registers once, so that it can open shares to backup hosts."""
STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class World:
    """What runs, and where."""

    root: Path
    simulator: dict[str, Any]
    rest: Rest

    @property
    def share(self) -> Path:
        """The live directory of the share that is protected."""
        return self.root / "simulator" / "shares" / "files1" / "projects"

    @property
    def access(self) -> Path:
        """Where the simulator's exports appear for this machine."""
        return self.root / "simulator" / "access"

    @property
    def repository(self) -> Path:
        """The repository of backups."""
        return self.root / "repository"

    @property
    def server_dir(self) -> Path:
        """The server's data directory."""
        return self.root / "server"


@contextmanager
def running(root: Path) -> Iterator[World]:
    """Start both; stop them afterwards, whatever happens."""
    root.mkdir(parents=True, exist_ok=True)
    with (
        _child(
            root / "simulator.log",
            ["simulator", "nutanix-files", "--data-dir", str(root / "simulator"), "--port", "0", *PARTNER],
        ) as simulator,
        _child(root / "server.log", ["serve", "--data-dir", str(root / "server"), "--port", "0"]) as server,
    ):
        ready = _first_line(simulator, root / "simulator.log")
        _wait_for(root / "server" / "server.json", server, root / "server.log")
        with contextlib.closing(Common(data_dir=root / "server").connect()) as rest:
            yield World(root, json.loads(ready), rest)


@contextmanager
def _child(log: Path, arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SNAPKEEP_")}
    with log.open("w") as errors:
        process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-m", "snapkeep", *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the demo alone, which then stops its children in order
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _first_line(process: subprocess.Popen[str], log: Path) -> str:
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(process.stdout.readline() if process.stdout else ""))
    reader.daemon = True
    reader.start()
    reader.join(START_SECONDS)
    if not found or not found[0]:
        raise Unavailable(f"The simulator did not start: {_tail(log)}", next_step=f"See {log}.")
    return found[0]


def _wait_for(path: Path, process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Unavailable(f"The server did not start: {_tail(log)}", next_step=f"See {log}.")
        if path.exists():
            return
        time.sleep(0.05)
    raise Timeout(f"The server was not ready within {START_SECONDS:g} s", next_step=f"See {log}.")


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return log.read_text()[-500:].strip()
    return ""
