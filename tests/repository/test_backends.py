"""Every backend keeps every promise of the role; and what S3 and SFTP do when the other side is not well."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.proxy import Proxy
from tests.support.s3 import S3Server
from tests.support.sshd import SshServer

from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)
from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.backends.opening import open_backend
from snapkeep.repository.backends.s3 import S3Backend
from snapkeep.repository.backends.sftp import SftpBackend

_BIG = random.Random(1).randbytes(17 << 20)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("sshd"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3: S3Server) -> str:
    name = f"bucket-{os.urandom(6).hex()}"
    s3.make_bucket(name)
    return name


@pytest.fixture(params=["local", "s3", "s3-prefix", "sftp"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Backend]:
    """Return what opens the same backend again and again."""
    if request.param == "local":
        return lambda: open_backend(str(tmp_path / "repository"))
    if request.param == "sftp":
        server: SshServer = request.getfixturevalue("sshd")
        return lambda: _sftp(server, tmp_path / "repository")
    s3: S3Server = request.getfixturevalue("s3")
    url = f"s3:{s3.endpoint}/{request.getfixturevalue('bucket')}"
    return lambda: open_backend(f"{url}/backups/first" if request.param == "s3-prefix" else url, s3.owner)


@pytest.fixture
def backend(make: Callable[[], Backend]) -> Iterator[Backend]:
    with closing(make()) as opened:
        opened.create()
        yield opened


def _sftp(server: SshServer, path: Path, **options: Any) -> SftpBackend:
    given = {"port": server.port, "private_key": server.private_key, "host_key": server.host_key, **options}
    return SftpBackend("127.0.0.1", str(path), user=server.user, **given)


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class TestEveryBackend:
    def test_what_is_saved_is_loaded(self, backend: Backend) -> None:
        for kind in FileKind:
            for data in (b"", b"x", b"hello" * 1000):
                name = "" if kind is FileKind.CONFIG else _name(data)
                backend.save(kind, name, data)
                assert backend.load(kind, name) == data

    def test_parts(self, backend: Backend) -> None:
        name = _name(_BIG)
        backend.save(FileKind.DATA, name, _BIG)
        size = len(_BIG)
        for offset, length in ((0, 1), (5, 0), (0, 0), (100, 5_000_000), (size - 10, 10), (size - 10, 100), (7, None)):
            expected = _BIG[offset:] if length is None else _BIG[offset : offset + length]
            assert backend.load(FileKind.DATA, name, offset, length) == expected, (offset, length)
        for offset, length in ((size, 5), (size + 5, 5), (size, None), (size + 5, None), (size, 0)):
            assert backend.load(FileKind.DATA, name, offset, length) == b""
        assert backend.load(FileKind.DATA, name) == _BIG

    def test_what_is_not_there(self, backend: Backend) -> None:
        for arguments in ((), (5, 10), (0, 0)):
            for kind in FileKind:
                with pytest.raises(NotFound):
                    backend.load(kind, "" if kind is FileKind.CONFIG else "ab" * 32, *arguments)
        for kind in FileKind:
            backend.remove(kind, "" if kind is FileKind.CONFIG else "ab" * 32)
            assert list(backend.list(kind)) == []

    def test_the_list_is_right(self, backend: Backend) -> None:
        files = {kind: {_name(f"{kind}{n}".encode()): n for n in range(30)} for kind in FileKind if kind != "config"}
        for kind, names in files.items():
            for name, size in names.items():
                backend.save(kind, name, bytes(size))
        for kind, names in files.items():
            assert dict(backend.list(kind)) == names
        backend.save(FileKind.CONFIG, "", b"12345")
        assert list(backend.list(FileKind.CONFIG)) == [("", 5)]
        for name in files[FileKind.LOCK]:
            backend.remove(FileKind.LOCK, name)
        assert list(backend.list(FileKind.LOCK)) == []
        assert dict(backend.list(FileKind.DATA)) == files[FileKind.DATA]

    def test_twice_is_harmless(self, backend: Backend) -> None:
        for _ in range(2):
            backend.save(FileKind.INDEX, _name(b"same"), b"same")
        assert list(backend.list(FileKind.INDEX)) == [(_name(b"same"), 4)]
        for _ in range(2):
            backend.remove(FileKind.INDEX, _name(b"same"))
        assert list(backend.list(FileKind.INDEX)) == []

    def test_a_second_repository_is_refused(self, backend: Backend, make: Callable[[], Backend]) -> None:
        backend.create()  # without a configuration it is not one yet: whoever died half way may go on
        backend.save(FileKind.CONFIG, "", b"x")
        with closing(make()) as again, pytest.raises(Conflict):
            again.create()

    def test_others_see_it(self, backend: Backend, make: Callable[[], Backend]) -> None:
        backend.save(FileKind.SNAPSHOT, _name(b"s"), b"s")
        with closing(make()) as other:
            assert list(other.list(FileKind.SNAPSHOT)) == [(_name(b"s"), 1)]
            assert other.load(FileKind.SNAPSHOT, _name(b"s")) == b"s"

    def test_eight_threads(self, backend: Backend) -> None:
        def work(number: int) -> None:
            source = random.Random(number)
            for _ in range(6):
                data = source.randbytes(source.randrange(1, 3_000_000))
                name = _name(data)
                backend.save(FileKind.DATA, name, data)
                assert backend.load(FileKind.DATA, name) == data
                assert backend.load(FileKind.DATA, name, 100, 500) == data[100:600]
                assert name in dict(backend.list(FileKind.DATA))
                if source.random() < 0.5:
                    backend.remove(FileKind.DATA, name)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))

    def test_the_same_file_by_eight_threads_is_never_seen_half(self, backend: Backend) -> None:
        data = _BIG[: 4 << 20]
        name, stop, seen = _name(data), threading.Event(), set[int]()

        def watch() -> None:
            while not stop.is_set():
                seen.update(size for _, size in backend.list(FileKind.DATA))

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: backend.save(FileKind.DATA, name, data), range(8)))
        stop.set()
        watcher.join()
        assert seen <= {len(data)}
        assert backend.load(FileKind.DATA, name) == data

    def test_its_place_tells_no_secret(self, backend: Backend, s3: S3Server) -> None:
        assert s3.owner["secret_key"] not in backend.location + repr(backend)


class TestS3:
    def test_wrong_secret(self, s3: S3Server, bucket: str) -> None:
        keys = {**s3.owner, "secret_key": "wrong-secret-0123456789"}
        with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", keys)) as backend:
            with pytest.raises(AuthenticationFailed) as caught:
                backend.create()
            assert "wrong-secret" not in _everything(caught.value)

    def test_unknown_key(self, s3: S3Server, bucket: str) -> None:
        keys = {"access_key": "AKIANOBODY", "secret_key": "wrong-secret-0123456789"}
        with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", keys)) as backend:
            with pytest.raises(AuthenticationFailed) as caught:
                backend.save(FileKind.CONFIG, "", b"x")
            assert "AKIANOBODY" not in _everything(caught.value)

    def test_may_only_read(self, s3: S3Server, bucket: str) -> None:
        with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", s3.reader)) as backend:
            assert list(backend.list(FileKind.DATA)) == []
            with pytest.raises(PermissionDenied) as caught:
                backend.save(FileKind.CONFIG, "", b"x")
            assert "PutObject" in caught.value.details["needed"]

    def test_no_bucket(self, s3: S3Server) -> None:
        with closing(open_backend(f"s3:{s3.endpoint}/not-there", s3.owner)) as backend:
            for call in (backend.create, lambda: backend.save(FileKind.CONFIG, "", b"x"),
                         lambda: list(backend.list(FileKind.DATA))):  # fmt: skip
                with pytest.raises(NotFound, match="bucket not-there") as caught:
                    call()
                assert "Make the bucket" in caught.value.next_step

    def test_thousands_are_listed_by_pages(self, s3: S3Server, bucket: str) -> None:
        with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", s3.owner)) as backend:
            names = {_name(str(n).encode()) for n in range(1100)}
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda name: backend.save(FileKind.DATA, name, b"x"), names))
            assert {name for name, _ in backend.list(FileKind.DATA)} == names

    def test_the_server_dies(self, s3: S3Server, tmp_path: Path) -> None:
        server = S3Server(tmp_path)
        server.make_bucket("bucket")
        with closing(S3Backend(server.endpoint, "bucket", "", **server.owner, attempts=3, timeout=5)) as backend:
            backend.save(FileKind.CONFIG, "", b"x")
            server.kill()
            start = time.monotonic()
            for call in (lambda: backend.load(FileKind.CONFIG, ""), lambda: backend.save(FileKind.CONFIG, "", b"x"),
                         lambda: list(backend.list(FileKind.DATA))):  # fmt: skip
                with pytest.raises(Unavailable):
                    call()
            assert time.monotonic() - start < 60

    def test_cut_in_the_middle_of_an_answer(self, s3: S3Server, bucket: str) -> None:
        proxy = Proxy(s3.port)
        with closing(proxy), closing(S3Backend(f"http://127.0.0.1:{proxy.port}", bucket, "", **s3.owner)) as backend:
            backend.save(FileKind.DATA, _name(_BIG), _BIG)
            for _ in range(3):
                proxy.cut_after(5_000_000)
                assert backend.load(FileKind.DATA, _name(_BIG)) == _BIG
            proxy.cut_after(5_000_000)
            backend.save(FileKind.DATA, _name(_BIG), _BIG)

    def test_slow_answers(self, s3: S3Server, bucket: str) -> None:
        proxy = Proxy(s3.port)
        with closing(proxy):
            proxy.delay = 0.4
            url = f"http://127.0.0.1:{proxy.port}"
            with closing(S3Backend(url, bucket, "", **s3.owner)) as patient:
                patient.save(FileKind.CONFIG, "", b"x")
                assert patient.load(FileKind.CONFIG, "") == b"x"
            proxy.delay = 3
            with closing(S3Backend(url, bucket, "", **s3.owner, attempts=2, timeout=0.5)) as hasty:
                start = time.monotonic()
                with pytest.raises(Unavailable):
                    hasty.load(FileKind.CONFIG, "")
                assert time.monotonic() - start < 15

    def test_certificates_are_verified(self, tmp_path: Path) -> None:
        certificate, key = _certificate(tmp_path)
        server = S3Server(tmp_path, certificate=certificate, key=key)
        try:
            server.make_bucket("bucket")
            url = f"s3:{server.endpoint}/bucket"
            backend = open_backend(url, server.owner)
            with closing(backend), pytest.raises(AuthenticationFailed, match="certificate"):
                backend.create()
            with closing(open_backend(url, {**server.owner, "ca_file": str(certificate)})) as backend:
                backend.create()
                backend.save(FileKind.CONFIG, "", b"x")
                assert backend.load(FileKind.CONFIG, "") == b"x"
        finally:
            server.kill()


class TestSftp:
    def test_the_layout_is_that_of_a_directory(self, sshd: SshServer, tmp_path: Path) -> None:
        with (
            closing(_sftp(sshd, tmp_path / "a" / "b")) as backend,
            closing(LocalBackend(tmp_path / "a" / "b")) as local,
        ):
            backend.create()
            for kind in FileKind:
                name = "" if kind is FileKind.CONFIG else _name(kind.encode())
                backend.save(kind, name, kind.encode())
                assert local.load(kind, name) == kind.encode()
                assert list(local.list(kind)) == [(name, len(kind))]
            assert list((tmp_path / "a" / "b" / "tmp").iterdir()) == []
            assert (tmp_path / "a" / "b" / "config").stat().st_mode & 0o077 == 0

    def test_a_repository_without_our_directories(self, sshd: SshServer, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        with closing(_sftp(sshd, tmp_path)) as backend:
            backend.save(FileKind.DATA, _name(b"x"), b"x")
            assert backend.load(FileKind.DATA, _name(b"x")) == b"x"

    def test_one_connection_is_enough(self, sshd: SshServer, tmp_path: Path) -> None:
        proxy = Proxy(sshd.port)
        with closing(proxy), closing(_sftp(sshd, tmp_path, port=proxy.port)) as backend:
            backend.create()
            with ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda n: backend.save(FileKind.KEY, _name(str(n).encode()), b"x"), range(50)))
            assert len(list(backend.list(FileKind.KEY))) == 50
            assert proxy.connections == 1

    def test_cut_in_the_middle(self, sshd: SshServer, tmp_path: Path) -> None:
        proxy = Proxy(sshd.port)
        with closing(proxy), closing(_sftp(sshd, tmp_path, port=proxy.port)) as backend:
            backend.create()
            for turn in range(3):
                data = _BIG[turn:]
                proxy.cut_after(5_000_000)
                backend.save(FileKind.DATA, _name(data), data)
                proxy.cut_after(5_000_000)
                assert backend.load(FileKind.DATA, _name(data)) == data
            assert proxy.connections == 7
            sizes = {size for _, size in backend.list(FileKind.DATA)}
            assert sizes == {len(_BIG), len(_BIG) - 1, len(_BIG) - 2}

    def test_cut_under_eight_threads(self, sshd: SshServer, tmp_path: Path) -> None:
        proxy = Proxy(sshd.port)
        with closing(proxy), closing(_sftp(sshd, tmp_path, port=proxy.port)) as backend:
            backend.create()

            def work(number: int) -> None:
                for turn in range(10):
                    data = random.Random(number * 100 + turn).randbytes(200_000)
                    backend.save(FileKind.DATA, _name(data), data)
                    assert backend.load(FileKind.DATA, _name(data)) == data

            with ThreadPoolExecutor(8) as pool:
                done = [pool.submit(work, number) for number in range(8)]
                for _ in range(3):
                    time.sleep(0.3)
                    proxy.cut()
                for one in done:
                    one.result()

    def test_the_server_is_gone_and_comes_back(self, tmp_path: Path) -> None:
        server = SshServer(tmp_path)
        server.start()
        proxy = Proxy(server.port)
        with closing(proxy), closing(_sftp(server, tmp_path / "r", port=proxy.port, attempts=2)) as backend:
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

    def test_a_server_that_hangs(self, sshd: SshServer, tmp_path: Path) -> None:
        proxy = Proxy(sshd.port)
        with closing(proxy), closing(_sftp(sshd, tmp_path, port=proxy.port, timeout=1, attempts=2)) as backend:
            with pytest.raises(NotFound):
                backend.load(FileKind.CONFIG, "")
            proxy.delay = 30
            start = time.monotonic()
            with pytest.raises(Unavailable):
                backend.load(FileKind.CONFIG, "")
            assert time.monotonic() - start < 10

    def test_the_host_key_changed(self, tmp_path: Path) -> None:
        server = SshServer(tmp_path)
        server.start()
        known = tmp_path / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
        by_file = {"host_key": None, "known_hosts": str(known)}
        for options in ({}, by_file):
            with closing(_sftp(server, tmp_path / "r", **options)) as backend:
                backend.create()
        server.stop()
        server.new_host_key()
        server.start()
        for options in ({}, by_file):
            backend = _sftp(server, tmp_path / "r", **options)
            with closing(backend), pytest.raises(AuthenticationFailed, match="not the one that is known"):
                backend.create()
        server.stop()

    def test_an_unknown_server_is_not_trusted(
        self, sshd: SshServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text("Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n")
        (tmp_path / "empty").touch()
        for known in (None, str(tmp_path / "empty")):
            backend = _sftp(sshd, tmp_path, host_key=None, known_hosts=known)
            with closing(backend), pytest.raises(AuthenticationFailed, match="not the one that is known"):
                backend.create()

    def test_the_key_is_refused(self, sshd: SshServer, tmp_path: Path) -> None:
        other = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
        for options in ({"private_key": other}, {"private_key": None, "password": "no-such-password"}):
            with closing(_sftp(sshd, tmp_path, **options)) as backend:
                with pytest.raises(AuthenticationFailed, match="refuses the login") as caught:
                    backend.create()
                assert "no-such-password" not in _everything(caught.value)

    def test_a_key_with_a_passphrase(self, sshd: SshServer, tmp_path: Path) -> None:
        key = (
            asyncssh.import_private_key(sshd.private_key)
            .export_private_key(passphrase="open sesame", rounds=50)
            .decode()
        )
        with closing(_sftp(sshd, tmp_path, private_key=key, passphrase="open sesame")) as backend:
            backend.create()
        for passphrase in (None, "wrong"):
            with pytest.raises(InvalidInput, match="passphrase"):
                _sftp(sshd, tmp_path, private_key=key, passphrase=passphrase)

    def test_no_room_left(self, tmp_path: Path) -> None:
        server = SshServer(tmp_path, biggest_file=100_000)
        server.start()
        with closing(_sftp(server, tmp_path / "r")) as backend:
            backend.create()
            backend.save(FileKind.DATA, _name(b"small"), b"small")
            with pytest.raises(SnapkeepError, match="fails at data"):
                backend.save(FileKind.DATA, _name(_BIG), _BIG)
            assert list(backend.list(FileKind.DATA)) == [(_name(b"small"), 5)]
            assert list((tmp_path / "r" / "tmp").iterdir()) == []
        server.stop()

    def test_no_right_to_write(self, sshd: SshServer) -> None:
        with closing(_sftp(sshd, Path("/proc/repository"))) as backend:
            with pytest.raises(SnapkeepError) as caught:
                backend.create()
            assert "proc/repository" in str(caught.value)

    def test_what_killed_writers_left_is_removed(self, sshd: SshServer, tmp_path: Path) -> None:
        with closing(_sftp(sshd, tmp_path)) as backend:
            backend.create()
            for name, age in (("old", 3 * 86400), ("new", 60)):
                (tmp_path / "tmp" / name).touch()
                os.utime(tmp_path / "tmp" / name, (time.time() - age,) * 2)
        assert [path.name for path in (tmp_path / "tmp").iterdir()] == ["new"]


class TestOpening:
    @pytest.mark.parametrize(
        ("url", "kind", "location"),
        [
            ("/srv/backup", LocalBackend, "/srv/backup"),
            ("/srv/a:b", LocalBackend, "/srv/a:b"),
            ("file:///srv/with%20space", LocalBackend, "/srv/with space"),
            ("local:/srv/backup", LocalBackend, "/srv/backup"),
            ("s3:https://host:9000/bucket/a/b/", S3Backend, "s3:https://host:9000/bucket/a/b"),
            ("s3:http://host/bucket", S3Backend, "s3:http://host/bucket"),
            ("s3:s3.eu-west-1.amazonaws.com/bucket", S3Backend, "s3:https://s3.eu-west-1.amazonaws.com/bucket"),
            ("sftp:ann@host:/srv/backup", SftpBackend, "sftp:ann@host:/srv/backup"),
            ("sftp:host:backup", SftpBackend, "sftp:host:backup"),
            ("sftp://ann@host:2222//srv/backup", SftpBackend, "sftp://ann@host:2222//srv/backup"),
            ("sftp://ann@[::1]:2222/backup", SftpBackend, "sftp://ann@::1:2222/backup"),
        ],
    )
    def test_spellings(self, url: str, kind: type[Backend], location: str) -> None:
        secrets = {"access_key": "a", "secret_key": "b"} if url.startswith("s3") else {}
        with closing(open_backend(url, secrets)) as backend:
            assert type(backend) is kind
            assert backend.location == location

    @pytest.mark.parametrize(
        "url",
        ["", "relative", "ftp://host/x", "local:relative", "s3:https://host", "s3:", "s3:ftp://host/b", "sftp:host",
         "sftp://host", "sftp:host:", "sftp://host:port//x", "sftp://ann:word@host//x", "s3:https://a:word@host/b"],
    )  # fmt: skip
    def test_wrong_urls(self, url: str) -> None:
        with pytest.raises(InvalidInput) as caught:
            open_backend(url, {"access_key": "a", "secret_key": "b"} if url.startswith("s3") else {})
        assert "word@" not in _everything(caught.value)

    def test_wrong_secrets(self) -> None:
        for url, secrets in (
            ("/srv", {"password": "x"}), ("s3:https://host/b", {}), ("s3:https://host/b", {"access_key": "x"}),
            ("sftp:host:/x", {"attempts": "5"}), ("sftp:host:/x", {"host_key": "secret-text"}),
            ("sftp:host:/x", {"private_key": "secret-text"}), ("sftp:host:/x", {"known_hosts": "/not/there"}),
        ):  # fmt: skip
            with pytest.raises(InvalidInput) as caught:
                open_backend(url, secrets)
            assert "secret-text" not in _everything(caught.value)

    @pytest.mark.parametrize(
        ("url", "extra", "library"),
        [("s3:https://host/b", "s3", "boto3"), ("sftp:host:/x", "sftp", "asyncssh")],
    )
    def test_a_missing_extra_is_named(
        self, url: str, extra: str, library: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, library, None)
        monkeypatch.delitem(sys.modules, f"snapkeep.repository.backends.{extra}")
        with pytest.raises(InvalidInput) as caught:
            open_backend(url, {"access_key": "a", "secret_key": "b"} if extra == "s3" else {})
        assert f"snapkeep[{extra}]" in caught.value.next_step


def _everything(error: SnapkeepError) -> str:
    """Return all that a log may show of an error."""
    return f"{error!r} {error} {error.to_dict()} {error.__cause__!r} {vars(error.__cause__) if error.__cause__ else ''}"


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = directory / "certificate.pem", directory / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths
