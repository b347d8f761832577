"""The tutorial and the guides, run as they stand: each command, its exit code, and the output that the page shows."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

from tests.docs.console import Command, Shell, appears, commands

DOCS = Path(__file__).parents[2] / "docs"
READY = {"simulator": "sim.json", "serve": "server/server.json"}
"""What a reader waits for after starting these in the background."""

GUIDES = ("add-a-system", "find-out-what-changed", "restore-and-clone", "export-to-a-backup-host")
PREPARED = r"""
snapkeep simulator nutanix-files --data-dir sim --port 0 --partner-server snapkeep > sim.json &
snapkeep serve --data-dir server 2> server.log &
export SNAPKEEP_DATA_DIR=$PWD/server
told() { python3 -c "import json, sys; print(json.load(open('sim.json'))[sys.argv[1]])" "$1"; }
told password > new-password && told api_key > key
port=$(told url) && port=${port##*:}
snapkeep system add files1 --plugin nutanix-files --set host=127.0.0.1 --set port=$port --set ca_file=sim/tls/ca.pem \
  --set file_server=files1 --set file_server_fqdn=files1.example.com --set username=admin \
  --secret-file password=new-password --no-check
snapkeep discover files1
cd sim/shares/files1/projects && mkdir plans && echo abc > plans/a.txt && echo abcd > b.txt && cd -
snapkeep snapshot create files1/projects --name monday
cd sim/shares/files1/projects && mv plans drafts && rm drafts/a.txt && echo abc > drafts/c.txt && cd -
echo defg >> sim/shares/files1/projects/b.txt && echo > sim/shares/files1/projects/$'caf\xe9.txt'
snapkeep snapshot create files1/projects --name tuesday
"""
"""What the guides take for granted: system `files1` with two snapshots of `projects` and changes between them."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAPKEEP_")}
    path = f"{Path(sys.executable).parent}:{kept['PATH']}"
    return kept | {"PATH": path, "SNAPKEEP_PORT": "0", "TERM": "dumb"}


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    text = (DOCS / "tutorial.md").read_text().replace("9440", str(free_port()))
    found = list(commands(text))
    assert len(found) > 25
    shell = Shell(tmp_path, environment())
    try:
        for command in found:
            check(shell, command)
            wait_until_ready(tmp_path / "snapkeep-tutorial", command.text)
    finally:
        shell.close()
    assert not (tmp_path / "snapkeep-tutorial").exists()


def test_the_guides_do_what_they_say(tmp_path: Path) -> None:
    shell = Shell(tmp_path, environment())
    try:
        for text in PREPARED.replace("\\\n", "").strip().splitlines():
            check(shell, Command(text))
            wait_until_ready(tmp_path, text)
        for guide in GUIDES:
            found = list(commands((DOCS / "how-to" / f"{guide}.md").read_text()))
            assert found, guide
            for command in found:
                check(shell, command)
    finally:
        shell.close()


def check(shell: Shell, command: Command) -> None:
    code, output = shell.run(command.text)
    told = f"$ {command.text}\n" + "\n".join(output)
    assert (code != 0) == command.fails, f"exit code {code}: {told}"
    for line in command.shown:
        assert appears(line, output), f"the page shows {line!r}, but: {told}"


def wait_until_ready(directory: Path, text: str) -> None:
    """Wait for what a command started in the background, if it did."""
    if not text.endswith("&"):
        return
    file = directory / next(name for word, name in READY.items() if word in text)
    deadline = time.monotonic() + 20
    while not (file.exists() and file.stat().st_size):
        assert time.monotonic() < deadline, f"{file.name} did not appear"
        time.sleep(0.05)
