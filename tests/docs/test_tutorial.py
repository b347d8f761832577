"""The tutorial, run as it stands: every command, its exit code, and every line of output that the page shows."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from tests.docs.console import Command, Shell, appears, commands

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
READY = {"simulator": "sim.json", "serve": "server/server.json"}
"""What a reader waits for after starting these in the background."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAPKEEP_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"PATH": path, "SNAPKEEP_PORT": "0", "TERM": "dumb"}


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text = PAGE.read_text().replace("9440", str(free_port()))
    found = list(commands(text))
    assert len(found) > 25
    shell = Shell(tmp_path, environment())
    try:
        for command in found:
            check(shell, command)
            if command.text.endswith("&"):
                wait_until_ready(tmp_path / "snapkeep-tutorial", command.text)
    finally:
        shell.close()
    assert not (tmp_path / "snapkeep-tutorial").exists()


def check(shell: Shell, command: Command) -> None:
    code, output = shell.run(command.text)
    told = f"$ {command.text}\n" + "\n".join(output)
    assert (code != 0) == command.fails, f"exit code {code}: {told}"
    for line in command.shown:
        assert appears(line, output), f"the page shows {line!r}, but: {told}"


def wait_until_ready(directory: Path, text: str) -> None:
    file = directory / next(name for word, name in READY.items() if word in text)
    deadline = time.monotonic() + 20
    while not (file.exists() and file.stat().st_size):
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.05)
