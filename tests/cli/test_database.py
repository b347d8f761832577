"""`snapkeep database`: the drill of backup and restore, beside a running server and behind it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from tests.support.installation import Installation, Ran, Server, installed, until
from tests.support.postgres import Postgres

from snapkeep.catalog.database import head_revision, migrate


def run(*arguments: str, data_dir: Path, **environment: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "snapkeep", "database", *arguments, "--data-dir", str(data_dir)],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


def known(server: Server) -> Any:
    """What a person sees of a catalog."""
    found = [server.rest.request("GET", path) for path in ("/systems", "/assets", "/operations")]
    return json.loads(json.dumps(found))


def older(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        migrate(connection, "0001")
    engine.dispose()


def test_the_drill_backup_beside_the_server_restore_and_go_on(installation: Installation, tmp_path: Path) -> None:
    installation.snapshot("kept")
    file, old = tmp_path / "backup.sqlite", installation.server.data_dir
    made = run("backup", str(file), "-o", "json", data_dir=old).json()
    before = known(installation.server)
    assert made["rows"]["systems"] == 1
    assert made["rows"]["snapshots"] >= 1
    assert made["size_bytes"] == file.stat().st_size
    assert made["secret_key"] == str(old / "secret.key")

    new = tmp_path / "new"
    restored = run("restore", str(file), data_dir=new)
    assert (restored.code, str(new / "secret.key") in restored.out) == (0, True), restored.err
    assert not (new / "engine.sqlite").exists()
    shutil.copy(old / "secret.key", new)
    server = Server(new)
    server.start()
    try:
        assert known(server) == before
        assert server.rest.wait(server.rest.request("POST", "/systems/files1/discover"))["state"] == "succeeded"
    finally:
        server.end(signal.SIGTERM)


def test_an_open_operation_goes_on_after_the_restore(tmp_path: Path) -> None:
    with installed(tmp_path / "own") as own:
        own.reset()
        own.simulator.control("PATCH", "/settings", {"task_seconds": 3.0})
        operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
        until(lambda: own.rest.request("GET", f"/operations/{operation['id']}")["phase"] == "taking the snapshot")
        assert run("backup", str(tmp_path / "backup"), data_dir=own.server.data_dir).code == 0
        own.server.end(signal.SIGKILL)
        new = tmp_path / "new"
        assert run("restore", str(tmp_path / "backup"), data_dir=new).code == 0
        shutil.copy(own.server.data_dir / "secret.key", new)
        server = Server(new)
        server.start()
        try:
            assert server.rest.wait(operation)["state"] == "succeeded"
        finally:
            server.close()
        assert len(own.vendor_snapshots()) == 1


def test_nothing_is_restored_or_upgraded_under_a_server(installation: Installation, tmp_path: Path) -> None:
    data = installation.server.data_dir
    run("backup", str(tmp_path / "backup"), data_dir=data)
    assert run("restore", str(tmp_path / "backup"), "-o", "json", data_dir=data).error()["code"] == "busy"
    shown = run("show", "-o", "json", data_dir=data).json()
    assert (shown["state"], shown["revision"], shown["rows"]["systems"]) == ("current", head_revision(), 1)
    current = run("upgrade", data_dir=data)
    assert (current.code, "newest revision" in current.out) == (0, True)


def test_an_upgrade_waits_for_the_server_to_stop(tmp_path: Path) -> None:
    from snapkeep.server.datadir import claim

    older(tmp_path / "catalog.sqlite")
    with claim(tmp_path):
        refused = run("upgrade", "-o", "json", data_dir=tmp_path)
        assert (refused.code, refused.error()["code"]) == (5, "busy")
    assert run("show", "-o", "json", data_dir=tmp_path).json()["state"] == "older"


@pytest.mark.parametrize("backup", [True, False])
def test_an_upgrade_says_what_it_did(tmp_path: Path, backup: bool) -> None:
    older(tmp_path / "catalog.sqlite")
    done = run("upgrade", *([] if backup else ["--no-backup"]), data_dir=tmp_path)
    assert (done.code, f"from revision 0001 to {head_revision()}" in done.out) == (0, True), done.err
    kept = list(tmp_path.glob("catalog-0001-*.sqlite"))
    assert len(kept) == backup
    assert all(str(path) in done.out for path in kept)
    again = run("upgrade", data_dir=tmp_path)
    assert (again.code, "already" in again.out) == (0, True)
    assert len(list(tmp_path.glob("catalog-*.sqlite"))) == backup


def test_a_catalog_moves_to_postgresql_and_back(postgres: Postgres, tmp_path: Path) -> None:
    first, second, url = tmp_path / "first", tmp_path / "second", postgres.create_database()
    older(first / "catalog.sqlite")
    run("upgrade", "--no-backup", data_dir=first)
    run("backup", str(tmp_path / "one"), data_dir=first)
    (tmp_path / "url").write_text(f"{url}\n")
    moved = run("restore", str(tmp_path / "one"), "--database-url-file", str(tmp_path / "url"), data_dir=first)
    assert moved.code == 0, moved.err
    shown = run("show", "-o", "json", data_dir=first, SNAPKEEP_DATABASE_URL=url)
    assert (shown.json()["kind"], shown.json()["state"]) == ("postgresql", "current")
    assert url.split(":")[2].partition("@")[0] not in shown.out + moved.out
    assert run("backup", str(tmp_path / "two"), data_dir=first, SNAPKEEP_DATABASE_URL=url).code == 0
    assert run("restore", str(tmp_path / "two"), data_dir=second).code == 0
    postgres.drop_database(url)


def test_the_engine_of_another_catalog_is_not_taken_over(tmp_path: Path) -> None:
    older(tmp_path / "old" / "catalog.sqlite")
    run("backup", str(tmp_path / "backup"), data_dir=tmp_path / "old")
    new = tmp_path / "new"
    new.mkdir()
    (new / "engine.sqlite").write_text("")
    refused = run("restore", str(tmp_path / "backup"), "-o", "json", data_dir=new)
    assert refused.error()["code"] == "conflict"
    assert not (new / "catalog.sqlite").exists()


def test_showing_makes_nothing(tmp_path: Path) -> None:
    shown = run("show", "-o", "json", data_dir=tmp_path / "none")
    assert (shown.code, shown.json()["state"]) == (0, "empty")
    assert list(tmp_path.iterdir()) == []
