"""What SFTP does when the other side is not well."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import asyncssh
import pytest
from tests.repository.backends import BIG, all_of, name_of, open_sftp
from tests.support.proxy import Proxy
from tests.support.sshd import SshServer

from snapkeep.model.errors import AuthenticationFailed, InvalidInput, NotFound, SnapkeepError, Unavailable
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend


def test_the_layout_is_that_of_a_directory(sshd: SshServer, tmp_path: Path) -> None:
    with (
        closing(open_sftp(sshd, tmp_path / "a" / "b")) as backend,
        closing(LocalBackend(tmp_path / "a" / "b")) as local,
    ):
        backend.create()
        for kind in FileKind:
            name = "" if kind is FileKind.CONFIG else name_of(kind.encode())
            backend.save(kind, name, kind.encode())
            assert local.load(kind, name) == kind.encode()
            assert list(local.list(kind)) == [(name, len(kind))]
        assert list((tmp_path / "a" / "b" / "tmp").iterdir()) == []
        assert (tmp_path / "a" / "b" / "config").stat().st_mode & 0o077 == 0


def test_a_repository_without_our_directories(sshd: SshServer, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with closing(open_sftp(sshd, tmp_path)) as backend:
        backend.save(FileKind.DATA, name_of(b"x"), b"x")
        assert backend.load(FileKind.DATA, name_of(b"x")) == b"x"


def test_one_connection_is_enough(sshd: SshServer, tmp_path: Path) -> None:
    proxy = Proxy(sshd.port)
    with closing(proxy), closing(open_sftp(sshd, tmp_path, port=proxy.port)) as backend:
        backend.create()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: backend.save(FileKind.KEY, name_of(str(n).encode()), b"x"), range(50)))
        assert len(list(backend.list(FileKind.KEY))) == 50
        assert proxy.connections == 1


def test_cut_in_the_middle(sshd: SshServer, tmp_path: Path) -> None:
    proxy = Proxy(sshd.port)
    with closing(proxy), closing(open_sftp(sshd, tmp_path, port=proxy.port)) as backend:
        backend.create()
        for turn in range(3):
            data = BIG[turn:]
            proxy.cut_after(5_000_000)
            backend.save(FileKind.DATA, name_of(data), data)
            proxy.cut_after(5_000_000)
            assert backend.load(FileKind.DATA, name_of(data)) == data
        assert proxy.connections == 7
        sizes = {size for _, size in backend.list(FileKind.DATA)}
        assert sizes == {len(BIG), len(BIG) - 1, len(BIG) - 2}


def test_cut_under_eight_threads(sshd: SshServer, tmp_path: Path) -> None:
    proxy = Proxy(sshd.port)
    with closing(proxy), closing(open_sftp(sshd, tmp_path, port=proxy.port)) as backend:
        backend.create()

        def work(number: int) -> None:
            for turn in range(10):
                data = random.Random(number * 100 + turn).randbytes(200_000)
                backend.save(FileKind.DATA, name_of(data), data)
                assert backend.load(FileKind.DATA, name_of(data)) == data

        with ThreadPoolExecutor(8) as pool:
            done = [pool.submit(work, number) for number in range(8)]
            for _ in range(3):
                time.sleep(0.3)
                proxy.cut()
            for one in done:
                one.result()


def test_the_server_is_gone_and_comes_back(tmp_path: Path) -> None:
    server = SshServer(tmp_path)
    server.start()
    proxy = Proxy(server.port)
    with closing(proxy), closing(open_sftp(server, tmp_path / "r", port=proxy.port, attempts=2)) as backend:
        backend.create()
        server.stop()
        proxy.cut()
        start = time.monotonic()
        with pytest.raises(Unavailable):
            backend.save(FileKind.CONFIG, "", b"x")
        assert time.monotonic() - start < 20
        server.start()
        backend.save(FileKind.CONFIG, "", b"x")
        server.stop()


def test_a_server_that_hangs(sshd: SshServer, tmp_path: Path) -> None:
    proxy = Proxy(sshd.port)
    with closing(proxy), closing(open_sftp(sshd, tmp_path, port=proxy.port, timeout=1, attempts=2)) as backend:
        with pytest.raises(NotFound):
            backend.load(FileKind.CONFIG, "")
        proxy.delay = 30
        start = time.monotonic()
        with pytest.raises(Unavailable):
            backend.load(FileKind.CONFIG, "")
        assert time.monotonic() - start < 10


def test_the_host_key_changed(tmp_path: Path) -> None:
    server = SshServer(tmp_path)
    server.start()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    by_file = {"host_key": None, "known_hosts": str(known)}
    for options in ({}, by_file):
        with closing(open_sftp(server, tmp_path / "r", **options)) as backend:
            backend.create()
    server.stop()
    server.new_host_key()
    server.start()
    for options in ({}, by_file):
        backend = open_sftp(server, tmp_path / "r", **options)
        with closing(backend), pytest.raises(AuthenticationFailed, match="not the one that is known"):
            backend.create()
    server.stop()


def test_an_unknown_server_is_not_trusted(sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
    (tmp_path / "empty").touch()
    for known in (None, str(tmp_path / "empty")):
        backend = open_sftp(sshd, tmp_path, host_key=None, known_hosts=known)
        with closing(backend), pytest.raises(AuthenticationFailed, match="not the one that is known"):
            backend.create()


def test_the_key_is_refused(sshd: SshServer, tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    for options in ({"private_key": other}, {"private_key": None, "password": "no-such-password"}):
        with closing(open_sftp(sshd, tmp_path, **options)) as backend:
            with pytest.raises(AuthenticationFailed, match="refuses the login") as caught:
                backend.create()
            assert "no-such-password" not in all_of(caught.value)


def test_a_key_with_a_passphrase(sshd: SshServer, tmp_path: Path) -> None:
    key = asyncssh.import_private_key(sshd.private_key).export_private_key(passphrase="open sesame", rounds=50).decode()
    with closing(open_sftp(sshd, tmp_path, private_key=key, passphrase="open sesame")) as backend:
        backend.create()
    for passphrase in (None, "wrong"):
        with pytest.raises(InvalidInput, match="passphrase"):
            open_sftp(sshd, tmp_path, private_key=key, passphrase=passphrase)


def test_no_room_left(tmp_path: Path) -> None:
    server = SshServer(tmp_path, biggest_file=100_000)
    server.start()
    with closing(open_sftp(server, tmp_path / "r")) as backend:
        backend.create()
        backend.save(FileKind.DATA, name_of(b"small"), b"small")
        with pytest.raises(SnapkeepError, match="fails at data"):
            backend.save(FileKind.DATA, name_of(BIG), BIG)
        assert list(backend.list(FileKind.DATA)) == [(name_of(b"small"), 5)]
        assert list((tmp_path / "r" / "tmp").iterdir()) == []
    server.stop()


def test_no_right_to_write(sshd: SshServer) -> None:
    with closing(open_sftp(sshd, Path("/proc/repository"))) as backend:
        with pytest.raises(SnapkeepError) as caught:
            backend.create()
        assert "proc/repository" in str(caught.value)


def test_what_killed_writers_left_is_removed(sshd: SshServer, tmp_path: Path) -> None:
    with closing(open_sftp(sshd, tmp_path)) as backend:
        backend.create()
        for name, age in (("old", 3 * 86400), ("new", 60)):
            (tmp_path / "tmp" / name).touch()
            os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]
