"""What S3 does when the other side is not well."""

from __future__ import annotations

import datetime
import ipaddress
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.repository.backends import BIG, all_of, name_of
from tests.support.proxy import Proxy
from tests.support.s3 import S3Server

from snapkeep.model.errors import AuthenticationFailed, NotFound, PermissionDenied, Unavailable
from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.opening import open_backend
from snapkeep.repository.backends.s3 import S3Backend


def test_wrong_secret(s3: S3Server, bucket: str) -> None:
    keys = {**s3.owner, "secret_key": "wrong-secret-0123456789"}
    with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", keys)) as backend:
        with pytest.raises(AuthenticationFailed) as caught:
            backend.create()
        assert "wrong-secret" not in all_of(caught.value)


def test_unknown_key(s3: S3Server, bucket: str) -> None:
    keys = {"access_key": "AKIANOBODY", "secret_key": "wrong-secret-0123456789"}
    with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", keys)) as backend:
        with pytest.raises(AuthenticationFailed) as caught:
            backend.save(FileKind.CONFIG, "", b"x")
        assert "AKIANOBODY" not in all_of(caught.value)


def test_may_only_read(s3: S3Server, bucket: str) -> None:
    with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", s3.reader)) as backend:
        assert list(backend.list(FileKind.DATA)) == []
        with pytest.raises(PermissionDenied) as caught:
            backend.save(FileKind.CONFIG, "", b"x")
        assert "PutObject" in caught.value.details["needed"]


def test_no_bucket(s3: S3Server) -> None:
    with closing(open_backend(f"s3:{s3.endpoint}/not-there", s3.owner)) as backend:
        for call in (backend.create, lambda: backend.save(FileKind.CONFIG, "", b"x"),
                     lambda: list(backend.list(FileKind.DATA))):  # fmt: skip
            with pytest.raises(NotFound, match="bucket not-there") as caught:
                call()
            assert "Make the bucket" in caught.value.next_step


def test_thousands_are_listed_by_pages(s3: S3Server, bucket: str) -> None:
    with closing(open_backend(f"s3:{s3.endpoint}/{bucket}", s3.owner)) as backend:
        names = {name_of(str(n).encode()) for n in range(1100)}
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: backend.save(FileKind.DATA, name, b"x"), names))
        assert {name for name, _ in backend.list(FileKind.DATA)} == names


def test_the_server_dies(s3: S3Server, tmp_path: Path) -> None:
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


def test_cut_in_the_middle_of_an_answer(s3: S3Server, bucket: str) -> None:
    proxy = Proxy(s3.port)
    with closing(proxy), closing(S3Backend(f"http://127.0.0.1:{proxy.port}", bucket, "", **s3.owner)) as backend:
        backend.save(FileKind.DATA, name_of(BIG), BIG)
        for _ in range(3):
            proxy.cut_after(5_000_000)
            assert backend.load(FileKind.DATA, name_of(BIG)) == BIG
        proxy.cut_after(5_000_000)
        backend.save(FileKind.DATA, name_of(BIG), BIG)


def test_slow_answers(s3: S3Server, bucket: str) -> None:
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


def test_certificates_are_verified(tmp_path: Path) -> None:
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
