"""Rotating the secret key while server and workers run."""

from __future__ import annotations

import base64
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, Server, installed, until
from tests.support.postgres import Postgres

from snapkeep.catalog.secrets import key_id
from snapkeep.model.errors import Busy, Conflict, NotFound, SnapkeepError, Unsupported


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Installation]:
    with installed(tmp_path) as installation:
        installation.add_partner_server()
        installation.add_system()
        yield installation


def keys(installation: Installation) -> dict[str, tuple[str, int]]:
    found = installation.rest.request("GET", "/keys")["data"]
    return {item["id"]: (item["state"], item["records"]) for item in found}


def lines(path: Path) -> list[str]:
    return [key_id(base64.b64decode(line)) for line in path.read_text().split()]


def test_a_new_key_follows_and_the_old_one_is_retired(alone: Installation) -> None:
    file = alone.server.data_dir / "secret.key"
    (old,) = keys(alone)
    assert keys(alone) == {old: ("primary", 3)}
    ran = alone.cli("key", "rotate")
    assert ran.code == 0, ran.err
    new, _ = lines(file)
    assert new in ran.out
    assert keys(alone) == {new: ("primary", 3), old: ("unused", 0)}
    alone.discover()
    for wrong, error in ((new, Conflict), ("0" * 16, NotFound)):
        with pytest.raises(error):
            alone.rest.request("DELETE", f"/keys/{wrong}")
    assert alone.cli("key", "retire", old).code == 0
    assert lines(file) == [new]

    # As after SIGKILL behind the moment in which a rotation has written the file: the next start goes on.
    alone.server.end(signal.SIGKILL)
    file.write_text(base64.b64encode(os.urandom(32)).decode() + "\n" + file.read_text())
    newest, _ = lines(file)
    alone.server.start()
    until(lambda: keys(alone) == {newest: ("primary", 3), new: ("unused", 0)})
    assert alone.discover()["state"] == "succeeded"

    before = file.read_text()
    file.unlink()
    file.mkdir()
    with pytest.raises(SnapkeepError) as caught:
        alone.rest.request("POST", "/keys/rotate")
    assert caught.value.code == "invalid_input"
    file.rmdir()
    file.write_text(before)
    alone.add_system("again")
    assert alone.discover("again")["state"] == "succeeded"
    assert "Traceback" not in alone.server.said()


def test_keys_that_are_in_no_file_are_not_changed(tmp_path: Path) -> None:
    key = base64.b64encode(os.urandom(32)).decode()
    printed = tmp_path / "key"
    printed.write_text(key)
    server = Server(tmp_path / "server", {"SNAPKEEP_SECRET_KEY_COMMAND": f"cat '{printed}'"})
    try:
        server.start()
        (found,) = server.rest.request("GET", "/keys")["data"]
        assert found["id"] == key_id(base64.b64decode(key))
        with pytest.raises(Unsupported):
            server.rest.request("POST", "/keys/rotate")
        assert not (server.data_dir / "secret.key").exists()
    finally:
        server.close()


def test_workers_with_files_of_their_own(postgres: Postgres, tmp_path: Path) -> None:
    """The new key waits for all of them; one that comes without it says so, and takes it up without a restart."""
    url = postgres.create_database()
    own = tmp_path / "w1.key"
    with installed(tmp_path / "i", SNAPKEEP_DATABASE_URL=url) as installation:
        installation.add_partner_server()
        installation.add_system(queue="w1")
        shutil.copy(installation.server.data_dir / "secret.key", own)
        worker = installation.add_worker("w1", SNAPKEEP_SECRET_KEY_FILE=str(own), SNAPKEEP_QUEUES="w1")
        installation.add_worker("w2")
        assert installation.discover()["state"] == "succeeded"

        (old,) = keys(installation)
        with pytest.raises(Busy) as caught:
            installation.rest.request("POST", "/keys/rotate")
        assert caught.value.details["dependents"] == ["w1"], "w2 reads the file of the server"
        file = installation.server.data_dir / "secret.key"
        first, new = lines(file)
        assert first == old
        assert keys(installation) == {old: ("primary", 3), new: ("next", 0)}

        before = own.read_text()
        shutil.copy(file, own)
        assert installation.rest.request("POST", "/keys/rotate") == {"key": new, "records": 3}
        assert keys(installation) == {new: ("primary", 3), old: ("unused", 0)}

        own.write_text(before)  # somebody takes it away again: nothing opens there until it is back
        until(lambda: f"this worker lacks the secret key {new}" in worker.said())
        installation.rest.request("PATCH", "/systems/files1", json={"settings": {"retry_seconds": 1}})
        asked = installation.ask_create("patient")
        until(lambda: f"need the secret key {new}" in installation.operation(asked)["phase"])
        shutil.copy(file, own)
        assert installation.wait(asked)["state"] == "succeeded"
        worker.end(signal.SIGTERM)
        own.write_text(before)
        worker.begin()
        assert worker.wait() == 2, "without the key it does not even begin"
        assert f"need the secret key {new}" in worker.said()
    postgres.drop_database(url)
