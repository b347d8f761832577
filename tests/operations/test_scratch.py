"""Scratch directories are gone in the end, whatever was put into them."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from snapkeep.catalog.catalog import open_catalog
from snapkeep.model.errors import Busy, LimitExceeded
from snapkeep.operations.engine import WorkerSettings, engine_url
from snapkeep.operations.host import Host
from snapkeep.operations.open import OperationsSettings, open_operations
from snapkeep.operations.scratch import Room, clear, remove, remove_leftovers, scratch, scratches

DEEP = 1500
"""More than Python recurses, and longer than a path may be."""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    yield Host(directory=tmp_path / "host")
    subprocess.run(["rm", "-rf", "--", tmp_path / "host"], check=True)  # pytest itself cannot remove what is so deep


def fill(place: Path, outside: Path) -> None:
    outside.mkdir(exist_ok=True)
    (outside / "mine").write_text("stays")
    (place / "files").mkdir()
    (place / "files" / os.fsdecode(b"\xff\n -rf *")).write_text("x")
    (place / "files" / "link").symlink_to(outside)
    (place / "files" / "nowhere").symlink_to("/does/not/exist")
    os.mkfifo(place / "files" / "fifo")
    (place / "files" / "closed" / "below").mkdir(parents=True)
    (place / "files" / "closed" / "below" / "file").write_text("x")
    (place / "files" / "closed").chmod(0)
    here = os.open(place / "files", os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def test_a_tenth_of_what_is_free_stays(tmp_path: Path) -> None:
    room = Room(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert room.bytes == pytest.approx(free * 0.9, rel=0.05)
    room.require()
    room.least = 2 * free  # as if others had written meanwhile
    with pytest.raises(LimitExceeded, match="bytes are left"):
        room.require()


async def test_it_is_ours_alone_and_gone_in_the_end(host: Host, tmp_path: Path) -> None:
    async with scratch(host, "one") as place:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert list(place.iterdir()) == []
        fill(place, tmp_path / "outside")
    assert list(scratches(host).iterdir()) == []
    assert (tmp_path / "outside" / "mine").read_text() == "stays"


async def test_it_is_gone_after_a_failure_and_before_the_next_try(host: Host, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with scratch(host, "one") as place:
            fill(place, tmp_path / "outside")
            raise ZeroDivisionError
    assert not place.exists()
    place.mkdir()
    fill(place, tmp_path / "outside")
    async with scratch(host, "one"):
        assert list(place.iterdir()) == []
    await clear(host, "one")
    await clear(host, "never there")


async def test_what_a_process_that_died_has_left(host: Host, tmp_path: Path) -> None:
    await remove_leftovers(host)
    left = scratches(host) / "left"
    left.mkdir(parents=True)
    fill(left, tmp_path / "outside")
    (scratches(host) / "link").symlink_to(tmp_path / "outside")
    other = scratches(Host(name="another", directory=host.directory)) / "its"
    other.mkdir(parents=True)
    await remove_leftovers(host)
    assert not left.exists()
    assert other.exists(), "another worker on this machine has its own"
    assert (tmp_path / "outside" / "mine").read_text() == "stays"


async def test_what_cannot_be_removed_is_told(
    host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise OSError(16, "Device or resource busy")

    with pytest.raises(Busy, match="cannot be removed: Device or resource busy"):
        async with scratch(host, "one") as place:
            (place / "mounted").mkdir()
            monkeypatch.setattr(os, "rmdir", refuses)
    await remove_leftovers(host)  # the worker starts all the same
    assert "is left" in "".join(capfd.readouterr())
    monkeypatch.setattr(Path, "iterdir", refuses)
    await remove_leftovers(host)
    assert "cannot be read" in "".join(capfd.readouterr())
    monkeypatch.undo()
    remove(place)
    assert not place.exists()


async def test_a_worker_lives_while_it_removes_what_another_has_left(host: Host, tmp_path: Path) -> None:
    """Otherwise the others take it for dead."""
    left = scratches(host) / "left"
    left.mkdir(parents=True)
    for number in range(50_000):
        os.mknod(left / str(number))
    url = f"sqlite+aiosqlite:///{tmp_path / 'catalog.sqlite'}"
    worker = WorkerSettings(name="one", takeover_seconds=0.3)
    settings = OperationsSettings(engine=engine_url(sa.make_url(url), tmp_path / "engine"), worker=worker, host=host)
    async with open_catalog(url, b"k" * 32) as catalog:

        async def open_and_close() -> None:
            async with open_operations(catalog, settings):
                assert not left.exists()

        opening = asyncio.create_task(open_and_close())
        signs = set()
        while left.exists():
            signs |= {found.heartbeat_at for found in await catalog.workers.find()}
            await asyncio.sleep(0.01)
        await opening
    assert len(signs) > 1
