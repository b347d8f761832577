"""TLS: on by default, modern, renewed by itself; the token goes to no server that was not recognised."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from tests.support.installation import Installation, Server, until

from snapkeep.cli.options import Common
from snapkeep.cli.trust import require_private, trust_there
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, SnapkeepError, Unavailable
from snapkeep.server import certificates
from snapkeep.server.headers import HEADERS
from snapkeep.server.settings import ServerSettings
from snapkeep.server.tls import own_names

TODAY = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def make(directory: Path, name: str = "snapkeep.test", *, begin: int = -1, end: int = 30, san: bool = True) -> Path:
    """Make a certificate as an operator has one, signed by itself: certificate and key, `NAME.pem` and `NAME.key`."""
    key = rsa.generate_private_key(65537, 2048)
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    number = x509.random_serial_number()
    builder = x509.CertificateBuilder(who, who, key.public_key(), number, TODAY + begin * DAY, TODAY + end * DAY)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (directory / f"{name}.key").write_bytes(private)
    path = directory / f"{name}.pem"
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


def shown(url: str) -> bytes:
    """Return the certificate that a server shows."""
    host, _, port = url.removeprefix("https://").rpartition(":")
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((host.strip("[]"), int(port))))


def answers(server: Server) -> bool:
    """Say whether the command line of this machine reaches it on a new connection."""
    with closing(Common(data_dir=server.data_dir).connect()) as rest:
        found: list[object] = rest.request("GET", "/systems")["data"]
        return not found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server")
    try:
        yield made
    finally:
        made.close()


# -- certificates of its own -------------------------------------------------------------------------------------------
def test_the_authority_and_its_certificate(tmp_path: Path) -> None:
    pair = certificates.own(tmp_path / "tls", ["localhost", "127.0.0.1", "::1", "nas.example.com"])
    authority, leaf = read(tmp_path / "tls" / "ca.pem"), read(pair.certificate)
    for path in (tmp_path / "tls").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    leaf.verify_directly_issued_by(authority)
    for certificate in (authority, leaf):
        key = certificate.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        assert isinstance(key.curve, ec.SECP256R1)
    constraints = authority.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= 398 * DAY
    assert authority.not_valid_after_utc - authority.not_valid_before_utc >= 3650 * DAY
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "nas.example.com"}
    assert ipaddress.ip_address("::1") in names.get_values_for_type(x509.IPAddress)


def test_what_is_good_stays_and_what_is_not_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, names = tmp_path / "tls", ["localhost"]

    def now() -> tuple[bytes, bytes]:
        pair = certificates.own(directory, names)
        return read(directory / "ca.pem").fingerprint(hashes.SHA256()), pair.certificate.read_bytes()

    authority, first = now()
    assert now() == (authority, first)
    names.append("other")
    assert now()[0] == authority, "a new name needs no new authority"
    second = now()[1]
    assert second != first
    monkeypatch.setattr(certificates, "RENEWED_BEFORE", 398 * DAY)
    assert now()[0] == authority
    assert now()[1] != second, "it ends soon"
    monkeypatch.undo()
    (directory / "server.pem").write_bytes(first[: len(first) // 2])
    assert now()[0] == authority
    third = now()[1]
    assert third.endswith(b"-----END CERTIFICATE-----\n")
    monkeypatch.setattr(certificates, "LIFE", 4000 * DAY)
    assert now()[0] != authority, "the authority would end before the certificate"
    monkeypatch.undo()
    changed = now()
    (directory / "ca.key").unlink()
    assert now()[0] != changed[0]


def test_the_names_of_the_own_certificate(tmp_path: Path) -> None:
    settings = ServerSettings.read(data_dir=tmp_path, host="10.1.2.3", tls_names="nas.example.com, 192.0.2.7")
    names = own_names(settings)
    assert {"localhost", "127.0.0.1", "::1", "10.1.2.3", "nas.example.com", "192.0.2.7"} <= set(names)
    assert "0.0.0.0" not in own_names(ServerSettings.read(data_dir=tmp_path, host="0.0.0.0"))


# -- what the server speaks --------------------------------------------------------------------------------------------
def test_https_is_the_default_and_modern(installation: Installation) -> None:
    url = installation.rest.url
    assert url.startswith("https://127.0.0.1:")
    address = json.loads((installation.server.data_dir / "server.json").read_text())
    assert address["ca_file"] == str(installation.server.data_dir / "tls" / "ca.pem")
    host, port = "127.0.0.1", int(url.rpartition(":")[2])

    def connect(**limits: object) -> str | None:
        context = ssl.create_default_context(cafile=address["ca_file"])
        for name, value in limits.items():
            setattr(context, name, value)
        with socket.create_connection((host, port)) as plain, context.wrap_socket(plain, server_hostname=host) as tls:
            return tls.version()

    assert connect() == "TLSv1.3"
    assert connect(maximum_version=ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    for name in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES256-SHA", "AES128-GCM-SHA256"):
        old = ssl.create_default_context(cafile=address["ca_file"])
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        old.set_ciphers(f"{name}:@SECLEVEL=0")
        with socket.create_connection((host, port)) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
            old.wrap_socket(plain, server_hostname=host)
    with socket.create_connection((host, port)) as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(100), "plain HTTP is not served beside it"


def test_handshakes_that_hang_hold_nobody_up(installation: Installation) -> None:
    port = int(installation.rest.url.rpartition(":")[2])
    with ExitStack() as stack:
        for number in range(50):
            hanging = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            hanging.sendall(b"\x16\x03\x01\x02\x00"[: number % 6])
        answer = httpx2.get(f"{installation.rest.url}/health/live", verify=installation.trust, timeout=5)
        assert answer.status_code == 200


def test_every_answer_has_the_headers(installation: Installation) -> None:
    token = (installation.server.data_dir / "token").read_text().strip()
    login = {"Authorization": f"Bearer {token}"}
    for path, headers, status in (
        ("/health/live", {}, 200),
        ("/v1/systems", {}, 401),
        ("/v1/systems", login, 200),
        ("/v1/systems/nowhere", login, 404),
        ("/metrics", login, 200),
        ("/", {}, 404),
    ):
        answer = httpx2.get(installation.rest.url + path, headers=headers, verify=installation.trust)
        assert answer.status_code == status, path
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)
        assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
        assert "server" not in answer.headers


def test_nothing_is_redirected(installation: Installation) -> None:
    token = (installation.server.data_dir / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}", "Host": "evil.example.com"}
    for path in ("/v1/systems/", "/health/live/", "/metrics/", "//evil.example.com"):
        answer = httpx2.get(installation.rest.url + path, headers=headers, verify=installation.trust)
        assert not answer.is_redirect, path
        assert "location" not in answer.headers, path


def test_plain_http_is_for_loopback(server: Server) -> None:
    server.command.append("--no-tls")
    server.start()
    assert server.rest.url.startswith("http://127.0.0.1:")
    assert server.rest.request("GET", "/systems") == {"data": [], "next": None}
    assert "Strict-Transport-Security" not in httpx2.get(f"{server.rest.url}/health/live").headers
    assert not (server.data_dir / "tls").exists()


def test_with_tls_it_listens_elsewhere_too(server: Server) -> None:
    server.command += ["--host", "0.0.0.0", "--tls-names", "nas.example.com"]
    server.start()
    assert server.rest.url.startswith("https://127.0.0.1:"), "how this machine reaches it"
    assert server.rest.request("GET", "/systems")["data"] == []
    leaf = x509.load_der_x509_certificate(shown(server.rest.url))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "nas.example.com" in names.get_values_for_type(x509.DNSName)


# -- the operator's ----------------------------------------------------------------------------------------------------
def test_the_operators_certificate_and_its_renewal(server: Server, tmp_path: Path) -> None:
    path = make(tmp_path)
    key = path.with_suffix(".key")
    server.env = {"SNAPKEEP_TLS_CERTIFICATE_FILE": str(path), "SNAPKEEP_TLS_KEY_FILE": str(key)}
    server.start()
    first = shown(server.rest.url)
    assert first == read(path).public_bytes(Encoding.DER)
    assert server.rest.request("GET", "/systems")["data"] == []

    path.write_bytes(b"not a certificate")
    server.send(signal.SIGHUP)
    until(lambda: "the old one stays" in server.said())
    assert shown(server.rest.url) == first
    assert answers(server)

    make(tmp_path)
    server.send(signal.SIGHUP)
    until(lambda: "TLS certificate replaced" in server.said())
    second = shown(server.rest.url)
    assert second == read(path).public_bytes(Encoding.DER) != first
    assert answers(server)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("expired", "is valid from"),
        ("not yet", "is valid from"),
        ("no names", "names no host"),
        ("other key", "is not that of the certificate"),
        ("other name", "is not for nas.example.com, but for snapkeep.test"),
        ("missing", "cannot be read"),
        ("none", "are not a certificate and its key"),
        ("encrypted", "are not a certificate and its key"),
    ],
)
def test_a_certificate_that_clients_would_refuse_is_refused_at_the_start(tmp_path: Path, what: str, said: str) -> None:
    times = {"expired": (-3, -1), "not yet": (1, 3)}.get(what, (-1, 30))
    path = make(tmp_path, begin=times[0], end=times[1], san=what != "no names")
    key = path.with_suffix(".key")
    if what == "other key":
        key = make(tmp_path, "other.test").with_suffix(".key")
    elif what == "missing":
        key.unlink()
    elif what == "none":
        path.write_text("-----BEGIN CERTIFICATE-----\nxxxx\n-----END CERTIFICATE-----\n")
    elif what == "encrypted":
        opened = load_pem_private_key(key.read_bytes(), None)
        key.write_bytes(opened.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")))
    settings = ServerSettings.read(
        data_dir=tmp_path / "data",
        tls_certificate_file=path,
        tls_key_file=key,
        tls_names="nas.example.com" if what == "other name" else "",
    )
    with pytest.raises(InvalidInput, match=said):
        certificates.given(path, key, settings.tls_names)


def test_a_wildcard_covers_a_name_of_one_more_part(tmp_path: Path) -> None:
    path = make(tmp_path, "*.example.com")
    key = path.with_suffix(".key")
    assert certificates.given(path, key, ["nas.example.com", "NAS2.Example.com"]).authority is None
    for name in ("a.b.example.com", "example.com", "nas.example.org"):
        with pytest.raises(InvalidInput):
            certificates.given(path, key, [name])


# -- the command line --------------------------------------------------------------------------------------------------
def test_the_token_goes_to_loopback_alone_without_tls() -> None:
    for url in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "http://127.9.9.9"):
        require_private(url, None)
    trust = ssl.create_default_context()
    require_private("https://nas.example.com", trust)
    wrong = ["http://nas.example.com:8420", "http://10.0.0.1", "http://127.0.0.1.example.com", "http://localhost.x"]
    wrong += ["ftp://127.0.0.1", "127.0.0.1:8420", "http://", "https://[x", "http://[::2]", "http://0.0.0.0"]
    for url in wrong:
        for given in (None, trust):
            with pytest.raises(InvalidInput):
                require_private(url, given)


def test_a_remote_server_by_its_authority_or_its_fingerprint(installation: Installation, tmp_path: Path) -> None:
    directory, url = installation.server.data_dir, installation.rest.url
    known = ["--url", url, "--token-file", str(directory / "token")]
    fingerprint = hashlib.sha256(shown(url)).hexdigest()
    for good in (["--ca-file", str(directory / "tls" / "ca.pem")], ["--fingerprint", fingerprint.upper()]):
        assert installation.cli("system", "list", *known, *good).code == 0
    other = certificates.own(tmp_path / "tls", ["127.0.0.1"])
    assert other.authority is not None
    for bad in ([], ["--ca-file", str(other.authority)], ["--fingerprint", "0" * 64]):
        ran = installation.cli("system", "list", *known, *bad, "--output", "json")
        assert (ran.code, ran.error()["code"]) == (AuthenticationFailed.exit_code, "authentication_failed"), bad
    ran = installation.cli("system", "list", *known, "--ca-file", str(directory / "token"))
    assert (ran.code, "cannot be used" in ran.err) == (InvalidInput.exit_code, True)


def test_a_stranger_on_the_port_gets_no_token(tmp_path: Path) -> None:
    """Who listens there with another certificate, or with none, is sent nothing."""
    ours = certificates.own(tmp_path / "ours", ["127.0.0.1"])
    theirs = certificates.own(tmp_path / "theirs", ["127.0.0.1"])
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(1000))
        writer.close()

    async def ask(context: ssl.SSLContext | None) -> SnapkeepError:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        (tmp_path / "token").write_text("CANARY-token")
        common = Common(url=url, token_file=tmp_path / "token", ca_file=ours.authority)
        with pytest.raises(SnapkeepError) as caught:
            await asyncio.to_thread(lambda: common.connect().request("GET", "/systems"))
        listener.close()
        return caught.value

    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stranger.load_cert_chain(theirs.certificate)
    assert isinstance(asyncio.run(ask(stranger)), AuthenticationFailed)
    assert isinstance(asyncio.run(ask(None)), Unavailable)
    assert b"CANARY" not in b"".join(got)


def test_https_needs_trust_that_was_given() -> None:
    assert trust_there("http://127.0.0.1:1", None, None) is None
    context = trust_there("https://nas.example.com", None, None)
    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("wrong", [{"tls": False, "tls_names": "x"}, {"tls_key_file": "/x"}, {"tls_names": "a b"}])
def test_settings_that_do_not_go_together(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="The settings are not valid"):
        ServerSettings.read(**wrong)


def test_what_a_server_cannot_serve_ends_it_before_it_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snapkeep", "serve", "--data-dir", str(tmp_path / "d"), "--port", "0"]
    for wrong in (["--host", "nowhere"], ["--tls-certificate-file", str(tmp_path / "none.pem")]):
        done = subprocess.run([*command, *wrong], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr.startswith("Error: ")) == (2, True), done.stderr
        assert not (tmp_path / "d" / "catalog.sqlite").exists()
