from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from snapkeep.model.errors import Busy, Damaged, Unavailable
from snapkeep.repository import writing
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.config import Config
from snapkeep.repository.crypto import Key
from snapkeep.repository.locks import RepositoryLock
from snapkeep.repository.repository import Repository
from snapkeep.repository.unpacked import load_unpacked, save_unpacked

KEY = Key.random()


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    backend = LocalBackend(tmp_path / "repository")
    backend.create()
    return backend


def lock(backend: LocalBackend, *, exclusive: bool = False, **times: float) -> RepositoryLock:
    return RepositoryLock(backend, KEY, exclusive=exclusive, **times)


def names(backend: LocalBackend) -> list[str]:
    return [name for name, _ in backend.list(FileKind.LOCK)]


def write(backend: LocalBackend, *, age: float = 0, **fields: Any) -> str:
    content = {
        "time": (datetime.now(UTC) - timedelta(seconds=age)).isoformat(),
        "exclusive": True,
        "hostname": socket.gethostname(),
        "username": "somebody",
        "pid": os.getpid(),
    }
    return save_unpacked(backend, KEY, FileKind.LOCK, json.dumps(content | fields).encode())[0]


@pytest.fixture
def dead() -> Iterator[int]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    yield child.pid


def test_many_share_a_lock_and_an_exclusive_one_stands_alone(backend: LocalBackend) -> None:
    with lock(backend) as first, lock(backend) as second:
        first.check()
        second.check()
        assert len(names(backend)) == 2
        with pytest.raises(Busy) as raised, lock(backend, exclusive=True):
            pass
        assert len(raised.value.details["dependents"]) == 2
        assert f"process {os.getpid()}" in raised.value.details["dependents"][0]
    with lock(backend, exclusive=True):
        for exclusive in (False, True):
            with pytest.raises(Busy, match="exclusively since 20"), lock(backend, exclusive=exclusive):
                pass
        assert len(names(backend)) == 1
    assert names(backend) == []


def test_of_those_who_come_at_the_same_time_at_most_one_is_alone(backend: LocalBackend) -> None:
    """Each looks again after it wrote its lock."""
    holders: list[int] = []
    most: list[int] = []
    barrier = threading.Barrier(6)

    def take(number: int) -> None:
        barrier.wait()
        try:
            with lock(backend, exclusive=True):
                holders.append(number)
                most.append(len(holders))
                time.sleep(0.3)
                holders.remove(number)
        except Busy:
            return

    threads = [threading.Thread(target=take, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) <= {1}
    assert names(backend) == []


def test_who_shares_a_lock_reads_at_once_and_writes_when_it_is_sure(backend: LocalBackend) -> None:
    repository = Repository(backend, KEY, Config.random(), Path(backend.location) / "cache")
    with repository.locked() as held:
        name = write(backend)  # somebody came at the same time
        assert repository.snapshots() == []
        repository.add_plain(BlobType.DATA, b"content")
        with pytest.raises(Busy, match="exclusively"):
            repository.flush()
        with pytest.raises(Busy):
            repository.forget("0" * 64)
        with pytest.raises(Busy):
            held.check()
        assert names(backend) == [name]
    assert not list(backend.list(FileKind.DATA))
    repository.close()


def test_stale_locks_count_for_nothing(backend: LocalBackend, dead: int) -> None:
    write(backend, pid=dead)
    write(backend, age=31 * 60)
    write(backend, age=31 * 60, hostname="elsewhere")
    with lock(backend, exclusive=True):
        assert len(names(backend)) == 1


def test_locks_that_may_be_held_count(backend: LocalBackend, dead: int) -> None:
    for fields in ({}, {"pid": 1}, {"pid": dead, "hostname": "elsewhere"}, {"age": 29 * 60}, {"pid": 0}):
        name = write(backend, **fields)
        with pytest.raises(Busy, match="somebody@"), lock(backend):
            pass
        assert names(backend) == [name]
        backend.remove(FileKind.LOCK, name)


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"time":1,"exclusive":true}'])
def test_a_lock_that_cannot_be_read_is_respected(backend: LocalBackend, content: bytes) -> None:
    save_unpacked(backend, KEY, FileKind.LOCK, content)
    with pytest.raises(Damaged) as raised, lock(backend):
        pass
    assert "unlock" in raised.value.next_step
    assert len(names(backend)) == 1


def test_a_lock_is_refreshed(backend: LocalBackend) -> None:
    with lock(backend, refresh=0.1) as held:
        (first,) = names(backend)
        seen: set[str] = set()
        while len(seen) < 3:
            seen.update(names(backend))
            time.sleep(0.01)
        held.check()
        backend.remove(FileKind.LOCK, first)
    assert names(backend) == []


class Unsteady(LocalBackend):
    """A backend that can go away."""

    gone = False

    def save(self, kind: FileKind, name: str, data: bytes | bytearray) -> None:
        if self.gone:
            raise Unavailable("The cable is cut")
        super().save(kind, name, data)


def test_who_cannot_refresh_for_too_long_must_stop(backend: LocalBackend) -> None:
    unsteady = Unsteady(Path(backend.location))
    with ExitStack() as stack:
        held = stack.enter_context(lock(unsteady, refresh=0.1, retry=0.05, expires=1.5))
        unsteady.gone = True
        time.sleep(0.5)
        held.check()  # not yet
        unsteady.gone = False
        time.sleep(0.5)
        unsteady.gone = True
        time.sleep(1)
        held.check()  # it was refreshed meanwhile
        time.sleep(1)
        with pytest.raises(Unavailable, match="The cable is cut"):
            held.check()
        unsteady.gone = False
        time.sleep(0.5)
        with pytest.raises(Unavailable):  # once lost, it stays lost: others may have begun to work
            held.check()


def test_who_lost_the_lock_to_somebody_must_stop(backend: LocalBackend) -> None:
    """As after `restic unlock --remove-all`: a prune may run meanwhile."""
    with lock(backend, refresh=0.3) as held:
        held.sure()
        for name in names(backend):
            backend.remove(FileKind.LOCK, name)
        theirs = write(backend)
        end = time.monotonic() + 10
        with suppress(Unavailable):
            while time.monotonic() < end:
                held.check()
                time.sleep(0.01)
        for ask in (held.check, held.sure):
            with pytest.raises(Unavailable, match="Somebody removed the lock"):
                ask()
        assert names(backend) == [theirs]  # and no other lock is written
    assert names(backend) == [theirs]


def test_no_index_names_packs_that_a_prune_may_have_taken(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "PACK_SIZE", 1)
    repository = Repository(backend, KEY, Config.random(), Path(backend.location) / "cache")
    with repository.locked() as held:
        repository.add_plain(BlobType.DATA, b"content")
        while not repository.statistics.packs:
            time.sleep(0.01)
        held._refused = Unavailable("Somebody removed the lock")
        with pytest.raises(Unavailable, match="Somebody removed"):
            repository.flush()
    assert not list(backend.list(FileKind.INDEX))
    repository.close()


def test_what_a_lock_says(backend: LocalBackend) -> None:
    with lock(backend, exclusive=True):
        (name,) = names(backend)
        content = json.loads(load_unpacked(backend, KEY, FileKind.LOCK, name))
    expected = {"exclusive": True, "hostname": socket.gethostname(), "pid": os.getpid()}
    assert {name: content[name] for name in expected} == expected
    assert content.get("uid", 0) == os.getuid()
