"""`snapkeep audit`: read from the server; verified without one, here and elsewhere."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.support.installation import Ran, Server

from snapkeep.cli import audit
from snapkeep.cli.database import Where, backup, restore
from snapkeep.cli.options import Common
from snapkeep.cli.rest import Rest
from snapkeep.model.errors import Conflict, Damaged, InvalidInput


def snapkeep(*arguments: str, data_dir: Path) -> Ran:
    """Run the command as a person would; most tests call its function, which is quicker."""
    done = subprocess.run(
        [sys.executable, "-m", "snapkeep", *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=os.environ,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with nothing but a few lines in its log."""
    server = Server(tmp_path_factory.mktemp("audit") / "data")
    try:
        server.start()
        for name in ("alice", "bob"):
            server.rest.request("POST", "/identities", json={"name": name, "kind": "service"})
        yield server
    finally:
        server.close()


class Connections(Common):
    """Of which each is closed: a command leaves that to the end of its process."""

    opened: ClassVar[list[Rest]] = []

    def connect(self, token: str | None = None) -> Rest:
        self.opened.append(super().connect(token))
        return self.opened[-1]

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()


class Console:
    """Calls the functions of the commands on a data directory, and reads what they print."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.where = Where(data_dir=data_dir, output="json")
        self.common = Connections(data_dir=data_dir, output="json")
        self._capsys = capsys

    def json(self, command: Callable[..., None], *arguments: Any, **options: Any) -> Any:
        self._capsys.readouterr()
        about = (
            {"where": self.where} if command in {audit.verify, audit.key, backup, restore} else {"common": self.common}
        )
        try:
            command(*arguments, **about, **options)
        finally:
            self.common.close()
        return json.loads(self._capsys.readouterr().out)

    def fault(self, *files: Path, **options: Any) -> dict[str, Any]:
        with pytest.raises(Damaged) as caught:
            self.json(audit.verify, *files, **options)
        return caught.value.details


@pytest.fixture
def here(server: Server, capsys: pytest.CaptureFixture[str]) -> Console:
    return Console(server.data_dir, capsys)


@pytest.fixture
def elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Console:
    """Where nothing of the installation is."""
    return Console(tmp_path / "elsewhere", capsys)


def test_list_shows_who_did_what(server: Server, here: Console) -> None:
    shown = snapkeep("audit", "list", "--actor", "administrator", "--limit", "2", data_dir=server.data_dir)
    heading, newest, asked = shown.out.splitlines()
    assert heading.split() == ["LINE", "TIME", "WHO", "FROM", "ACTION", "SUBJECT", "OUTCOME", "DETAIL"]
    for word in ("administrator", "127.0.0.1", "identity.manage", "/identities/bob", "done", "id "):
        assert word in newest
    assert asked.endswith("asked    fields kind, name")
    first = here.json(audit.list_lines, oldest_first=True, outcome="asked", limit=1)[0]
    assert (first["seq"], first["outcome"]) == (1, "asked")
    assert here.json(audit.list_lines, action="nothing") == []
    assert here.json(audit.list_lines, since="1h", oldest_first=True, limit=1)[0]["seq"] == 1
    assert here.json(audit.list_lines, until="1h") == here.json(audit.list_lines, since="2999-12-31") == []
    with pytest.raises(InvalidInput, match="no time"):
        here.json(audit.list_lines, since="yesterday")


def test_the_log_is_verified_beside_the_server(server: Server, here: Console) -> None:
    head = snapkeep("audit", "head", data_dir=server.data_dir).out.strip()
    found = snapkeep("audit", "verify", "--head", head, data_dir=server.data_dir)
    assert (found.code, "Whole: lines 1 to" in found.out, f"Head:  {head}\n" in found.out) == (0, True, True), found.err
    told = here.json(audit.verify)
    assert (told["ok"], told["first"], f"{told['last']}:{told['hash']}") == (True, 1, head)
    assert here.json(audit.head)["seq"] == told["last"]
    later = f"{told['last'] + 5}:{'0' * 64}"
    assert here.fault(head=later) == {"fault": "cut", "seq": told["last"] + 1}
    with pytest.raises(InvalidInput, match="first line"):
        here.json(audit.verify, first=2)


def test_an_export_is_verified_elsewhere_with_the_audit_key_alone(
    server: Server, here: Console, elsewhere: Console, tmp_path: Path
) -> None:
    file, key = tmp_path / "export.ndjson", tmp_path / "audit.key"
    made = here.json(audit.export, file)
    assert (made["first"], made["last"]) == (1, here.json(audit.verify, file)["last"])
    assert not file.with_name("export.ndjson.part").exists()
    with pytest.raises(Conflict, match="exists already"):
        here.json(audit.export, file)
    key.write_text(snapkeep("audit", "key", data_dir=server.data_dir).out)
    assert here.json(audit.key) == {"audit_key": key.read_text().strip()}
    assert key.read_text().strip() not in (server.data_dir / "secret.key").read_text()
    assert elsewhere.json(audit.verify, file, audit_key_file=key)["last"] == made["last"]
    assert elsewhere.where.data_dir is not None
    assert not elsewhere.where.data_dir.exists()

    lines = file.read_bytes().splitlines(keepends=True)
    other = tmp_path / "other"
    for tampered, fault, seq in (
        ([*lines[:2], lines[2].replace(b"identity", b"idemtity"), *lines[3:]], "altered", 2),
        ([*lines[:2], *lines[3:]], "missing", 2),
        ([*lines[:2], lines[3], lines[2], *lines[4:]], "reordered", 2),
        (lines[:-1], "cut", made["last"]),
    ):
        other.write_bytes(b"".join(tampered))
        assert elsewhere.fault(other, audit_key_file=key) == {"fault": fault, "seq": seq}
    shown = snapkeep("audit", "verify", str(other), "--audit-key-file", str(key), data_dir=tmp_path / "elsewhere")
    assert (shown.code, shown.out) == (19, "")
    assert "Error: The end is missing: lines" in shown.err

    for wrong, message in (
        (server.data_dir / "secret.key", "not written with this key"),
        (tmp_path / "none", "audit key cannot be read"),
        (file, "audit key cannot be read"),
        (None, "audit key cannot be taken from the catalog"),
    ):
        with pytest.raises(InvalidInput, match=message):
            elsewhere.json(audit.verify, file, audit_key_file=wrong)


def test_an_export_goes_on_where_the_last_one_ended(server: Server, here: Console, tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    last = here.json(audit.export, one)["last"]
    server.rest.request("POST", "/identities", json={"name": "carol", "kind": "service"})
    more = here.json(audit.export, two, first=last + 1)
    assert (more["first"], more["last"]) == (last + 1, last + 3)  # the first export itself, asked and done
    assert here.json(audit.verify, one, two)["last"] == last + 3
    assert here.json(audit.verify, two, first=last + 1)["first"] == last + 1
    assert here.fault(two) == {"fault": "missing", "seq": 1}
    printed = snapkeep("audit", "export", "--from", str(last + 1), data_dir=server.data_dir).out.splitlines()
    assert json.loads(printed[1])["seq"] == last + 1
    nothing = here.json(audit.head)["seq"] + 1
    assert here.json(audit.export, one, first=nothing, force=True)["last"] == nothing - 1


def test_one_altered_line_of_the_database_is_found(here: Console, elsewhere: Console, tmp_path: Path) -> None:
    copy = elsewhere.where.data_dir
    assert copy is not None
    copy.mkdir()
    here.json(backup, copy / "catalog.sqlite")
    assert here.where.data_dir is not None
    shutil.copy(here.where.data_dir / "secret.key", copy)
    assert elsewhere.json(audit.verify)["ok"] is True
    with sqlite3.connect(copy / "catalog.sqlite") as connection:
        connection.execute("UPDATE audit SET actor = 'nobody' WHERE seq = 2")
    assert elsewhere.fault() == {"fault": "altered", "seq": 2}
    moved = (copy / "secret.key").rename(tmp_path / "other.key")
    with pytest.raises(InvalidInput, match="secret key cannot be read"):
        elsewhere.json(audit.verify)
    assert elsewhere.fault(secret_key_file=moved) == {"fault": "altered", "seq": 2}


def test_what_is_done_without_a_server_is_on_record(here: Console, elsewhere: Console, tmp_path: Path) -> None:
    file, copy = tmp_path / "backup", elsewhere.where.data_dir
    assert here.json(backup, file)["recorded"] is True
    [line] = here.json(audit.list_lines, limit=1)
    assert (line["actor"], line["actor_kind"], line["action"]) == (getpass.getuser(), "shell", "database.backup")
    assert line["subject"] == str(file)

    assert copy is not None
    unknown = snapkeep("database", "restore", str(file), data_dir=tmp_path / "without key")
    assert (unknown.code, "not in the audit log" in unknown.err) == (0, True)
    copy.mkdir()
    assert here.where.data_dir is not None
    shutil.copy(here.where.data_dir / "secret.key", copy)
    assert elsewhere.json(restore, file)["recorded"] is True
    assert elsewhere.json(audit.verify)["last"] == line["seq"]  # that of the backup is not in it, but of the restore
