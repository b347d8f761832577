"""The tutorial and the guides, run as they stand: each command, its exit code, and the output that the page shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import sys
import time
from pathlib import Path

from tests.docs.console import Command, Shell, appears, commands
from tests.support.postgres import Postgres

DOCS = Path(__file__).parents[2] / "docs"
STARTED = re.compile(r"> (\S+) &$")
"""A command that goes on in the background, and the file that says when it is ready: its JSON, or its log."""

GUIDES = (
    "add-a-system",
    "find-out-what-changed",
    "restore-and-clone",
    "export-to-a-backup-host",
    "reconcile",
    "back-up-the-catalog",
    "audit",
    *(["tls"] if shutil.which("curl") and shutil.which("openssl") else []),
    "keys-and-secrets",
    *(["monitor"] if shutil.which("curl") else []),
    "notifications",
    "reports",
)
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
        prepare(shell, tmp_path)
        for guide in GUIDES:
            follow(shell, tmp_path, guide)
    finally:
        shell.close()


def test_the_guides_to_backups_do_what_they_say(tmp_path: Path) -> None:
    """What they leave to the reader: a backup host, which with the simulator is this machine."""
    shell = Shell(tmp_path, environment())
    try:
        prepare(shell, tmp_path)
        check(shell, Command("snapkeep system set files1 --set local_exports=sim/access"))
        for guide in ("back-up-an-asset", "restore-from-a-backup"):
            follow(shell, tmp_path, guide)
    finally:
        shell.close()


def test_the_guide_to_workers_does_what_it_says(tmp_path: Path, postgres: Postgres) -> None:
    """What it leaves to the reader: the database, the file with its URL, and to stop the server before the move."""
    database = tmp_path / "database-url"
    database.touch(0o600)
    database.write_text(f"{postgres.create_database()}\n")
    shell = Shell(tmp_path, environment())
    try:
        prepare(shell, tmp_path)
        check(shell, Command("kill %2; wait %2 || true"))
        follow(shell, tmp_path, "run-workers")
    finally:
        shell.close()


def prepare(shell: Shell, directory: Path) -> None:
    for text in PREPARED.replace("\\\n", "").strip().splitlines():
        check(shell, Command(text))
        wait_until_ready(directory, text)


def follow(shell: Shell, directory: Path, guide: str) -> None:
    text = (DOCS / "how-to" / f"{guide}.md").read_text()
    if guide == "monitor":
        text = text.replace("https://127.0.0.1:8420", json.loads((directory / "server/server.json").read_text())["url"])
    found = list(commands(text))
    assert found, guide
    for command in found:
        check(shell, command)
        wait_until_ready(directory, command.text)


def check(shell: Shell, command: Command) -> None:
    code, output = shell.run(command.text)
    told = f"$ {command.text}\n" + "\n".join(output)
    assert (code != 0) == command.fails, f"exit code {code}: {told}"
    for line in command.shown:
        assert appears(line, output), f"the page shows {line!r}, but: {told}"


def wait_until_ready(directory: Path, text: str) -> None:
    """Wait for what a command started in the background, if it did."""
    if not (started := STARTED.search(text)):
        return
    file, deadline = directory / started[1], time.monotonic() + 20
    while not (file.exists() and re.search(r'"url"|] ready ', file.read_text())):
        assert time.monotonic() < deadline, f"{file.name}: it is not ready"
        time.sleep(0.05)
