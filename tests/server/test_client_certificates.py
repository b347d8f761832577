"""Mutual TLS: who shows no certificate of the operator's authority is not heard; a token is needed all the same."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.support.authority import DAY, Authority, Issued
from tests.support.installation import Ran, Server

from snapkeep.model.errors import InvalidInput
from snapkeep.server.settings import ServerSettings
from snapkeep.server.tls import ServerTls


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "clients")


@pytest.fixture(scope="module")
def operator(authority: Authority) -> Issued:
    return authority.issue("operator")


@pytest.fixture(scope="module")
def guarded(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("guarded")
    server = Server(root / "server", {"SNAPKEEP_TLS_CLIENT_CA_FILE": str(authority.file)})
    server.start()
    yield server
    server.close()


def cli(server: Server, *given: str, **env: str) -> Ran:
    """List the systems as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", "snapkeep", "system", "list", "--output", "json", *given],
        env=os.environ | {"SNAPKEEP_DATA_DIR": str(server.data_dir), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def certificate(authority: Authority, tmp_path: Path, kind: str) -> Issued | None:
    if kind == "none":
        return None
    if kind == "of another authority":
        return Authority(tmp_path, "others").issue("operator")
    if kind == "expired":
        return authority.issue("late", ends_in=-1 * DAY)
    return authority.issue("a-server", ["localhost"])


def words(found: Issued | None) -> list[str]:
    return ["--client-cert", str(found.certificate), "--client-key", str(found.key)] if found else []


KINDS = ["none", "of another authority", "expired", "of a server"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_has_no_right_certificate_gets_nothing(
    guarded: Server, authority: Authority, tmp_path: Path, kind: str
) -> None:
    """The event loop closes the connection before the reason is sent: so the command line can only guess it."""
    error = cli(guarded, *words(certificate(authority, tmp_path, kind))).error()
    assert error["code"] == "unavailable"
    assert "--client-cert" in error["next_step"]


@pytest.mark.parametrize(
    ("kind", "why"),
    [("none", "certificate required"), ("of another authority", "unknown ca"), ("expired", "certificate expired")],
)
def test_where_the_reason_is_sent_it_is_told(authority: Authority, tmp_path: Path, kind: str, why: str) -> None:
    """A reverse proxy that demands certificates, for instance, says why it does not go on."""
    server = authority.issue("proxy", ["127.0.0.1"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(server.certificate, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ssl.SSLError):
                context.wrap_socket(connection, server_side=True)

        thread = threading.Thread(target=refuse)
        thread.start()
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        (tmp_path / "token").write_text("x" * 40)
        given = ["--url", url, "--ca-file", str(authority.file), "--token-file", str(tmp_path / "token")]
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "snapkeep",
                "system",
                "list",
                *given,
                *words(certificate(authority, tmp_path, kind)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        thread.join()
    assert f"ended the connection: {why}" in done.stderr
    assert "[authentication_failed]" in done.stderr
    assert "--client-cert" in done.stderr


def test_with_the_certificate_the_command_line_works(guarded: Server, operator: Issued) -> None:
    assert cli(guarded, *words(operator)).json() == []
    by_environment = {"SNAPKEEP_CLIENT_CERT": str(operator.certificate), "SNAPKEEP_CLIENT_KEY": str(operator.key)}
    assert cli(guarded, **by_environment).json() == []
    address = json.loads((guarded.data_dir / "server.json").read_text())
    there = ["--url", address["url"], "--ca-file", address["ca_file"], *words(operator)]
    assert cli(guarded, *there).json() == []


def test_health_is_for_those_with_a_certificate_alone(guarded: Server, operator: Issued) -> None:
    address = json.loads((guarded.data_dir / "server.json").read_text())
    context = ssl.create_default_context(cafile=address["ca_file"])
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{address['url']}/health/live", verify=context)
    context.load_cert_chain(operator.certificate, operator.key)
    assert httpx2.get(f"{address['url']}/health/live", verify=context).status_code == 200


def test_a_certificate_is_no_token(guarded: Server, operator: Issued) -> None:
    address = json.loads((guarded.data_dir / "server.json").read_text())
    context = ssl.create_default_context(cafile=address["ca_file"])
    context.load_cert_chain(operator.certificate, operator.key)
    assert httpx2.get(f"{address['url']}/v1/systems", verify=context).status_code == 401


def test_curl_gets_in_with_both(guarded: Server, operator: Issued) -> None:
    address = json.loads((guarded.data_dir / "server.json").read_text())
    token = (guarded.data_dir / "token").read_text().strip()
    base = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--cacert",
        address["ca_file"],
        f"{address['url']}/v1/systems",
    ]
    base += ["--header", f"Authorization: Bearer {token}"]
    with_both = [*base, "--cert", str(operator.certificate), "--key", str(operator.key)]
    done = subprocess.run(with_both, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["data"] == []
    assert subprocess.run(base, capture_output=True, text=True, check=False).returncode != 0


def test_the_health_check_of_the_image_shows_the_certificate(guarded: Server, operator: Issued) -> None:
    script = Path(__file__).parents[2] / "deploy" / "healthcheck.py"
    shown = {"SNAPKEEP_CLIENT_CERT": str(operator.certificate), "SNAPKEEP_CLIENT_KEY": str(operator.key)}
    for more, code in ((shown, 0), ({}, 1)):
        done = subprocess.run(
            [sys.executable, script],
            env={"SNAPKEEP_DATA_DIR": str(guarded.data_dir), **more},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr


def test_what_cannot_be_used_is_said(guarded: Server, operator: Issued, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    none.write_text("This is no certificate.")
    for given in (
        ["--client-cert", str(none)],
        ["--client-cert", str(operator.certificate), "--client-key", str(none)],
        ["--client-cert", str(tmp_path / "nowhere")],
    ):
        error = cli(guarded, *given).error()
        assert error["code"] == "invalid_input"
        assert "--client-cert" in error["next_step"]
    assert cli(guarded, "--client-key", str(operator.key)).error()["code"] == "invalid_input"
    for path in (none, tmp_path / "nowhere"):
        with pytest.raises(InvalidInput, match="authorities of clients"):
            ServerTls(ServerSettings.read(data_dir=tmp_path, tls_client_ca_file=path))
    with pytest.raises(InvalidInput, match="without TLS"):
        ServerSettings.read(data_dir=tmp_path, tls=False, tls_client_ca_file=none)
