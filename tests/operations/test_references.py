"""References to secrets: what they may name, and that a secret which has changed is used without a restart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.installation import installed
from tests.support.vault import Vault

from snapkeep.model.errors import (
    AuthenticationFailed,
    InvalidInput,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
)
from snapkeep.model.references import Reference
from snapkeep.operations import vault as vault_client
from snapkeep.operations.references import References
from snapkeep.plugin.http import Answer
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings
from snapkeep.server.settings import ServerSettings

CANARY = "CANARY-9d2f"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    made = Vault(tmp_path / "vault")
    with made.running():
        yield made


def references(directory: Path, vault: Vault | None = None, **settings: Any) -> References:
    given = {"vault_address": vault.address, "vault_ca_file": vault.ca_file} if vault else {}
    if vault and "vault_role_id" not in settings and "vault_token_file" not in settings:
        given["vault_token"] = vault.token
    return ServerSettings.read(data_dir=directory, **given, **settings).references()


async def resolved(found: References, text: str) -> str:
    values = await found.resolve({"host": "h", "port": 1, "password": {"reference": text}})
    assert (values["host"], values["port"]) == ("h", 1)
    return str(values["password"])


# -- the form ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["file:a", "file:/x/y", "env:SNAPKEEP_SECRET_A1", "vault:kv/a/b.c#user name"])
def test_a_reference_comes_back_as_it_was(text: str) -> None:
    assert str(Reference.parse(text)) == text
    assert Reference.of(Reference.parse(text).json) == Reference.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "file:", "file", "plain", "http://x", "env:PATH", "env:SNAPKEEP_SECRET_", "env:SNAPKEEP_SECRET_a",
        "env:SNAPKEEP_SECRET_KEY", "env:SNAPKEEP_SECRET_KEY_FILE", "env:SNAPKEEP_SECRET_KEY_COMMAND",
        "env:SNAPKEEP_SECRET_DIRECTORY", "env:SNAPKEEP_VAULT_TOKEN", "env:SNAPKEEP_SECRET_A\n", "vault:kv#x",
        "vault:kv/a", "vault:kv/../sys#x", "vault:kv/a/../../sys/x#y", "vault:../a#b", "vault:kv/./a#b",
        "vault:kv//a#b", "vault:kv/a?version=1#b", "vault:kv/a%2f..#b", "FILE:a", "file:a\0b",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


@given(st.text())
def test_any_text_is_a_reference_or_an_error_of_ours(text: str) -> None:
    try:
        assert str(Reference.parse(text)) == text
    except InvalidInput as error:
        assert error.next_step


@pytest.mark.parametrize("value", [{}, {"reference": 1}, {"reference": "file:a", "more": 1}, {"other": "file:a"}])
def test_its_form_in_json(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Reference.of(value)


# -- settings ----------------------------------------------------------------------------------------------------------
PLAIN = {"host": "h", "file_server": "f", "username": "u"}


def test_settings_keep_the_reference_and_a_secret_may_look_like_one() -> None:
    plain, hidden = NutanixFilesSettings.parse({**PLAIN, "password": {"reference": "file:pw"}}).dump()
    assert (plain["password"], hidden) == ({"reference": "file:pw"}, {})
    assert NutanixFilesSettings.parse({**plain, **hidden}).dump() == (plain, hidden)
    plain, hidden = NutanixFilesSettings.parse({**PLAIN, "password": "file:pw"}).dump()
    assert ("password" in plain, hidden) == (False, {"password": "file:pw"})


def test_settings_name_what_is_wrong_with_a_reference() -> None:
    wrong = {**PLAIN, "port": "x", "password": {"reference": "env:PATH"}, "host": {"reference": "file:host"}}
    with pytest.raises(InvalidInput) as caught:
        NutanixFilesSettings.parse(wrong)
    fields = caught.value.details["fields"]
    assert any(line.startswith("password: 'env:PATH' is no reference") for line in fields)
    assert any(line.startswith("port: ") for line in fields)
    assert any(line.startswith("host: ") for line in fields), "only secrets may be references"
    assert sum(line.startswith("password: ") for line in fields) == 1


# -- files and variables -----------------------------------------------------------------------------------------------
async def test_files_below_the_directory_alone(tmp_path: Path) -> None:
    directory = tmp_path / "secrets"
    (directory / "sub").mkdir(parents=True)
    (directory / "one").write_text("first\nsecond\n")
    (directory / "sub" / "windows").write_text("first\r\n")
    (directory / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n")
    (directory / "link").symlink_to(directory / "one")
    found = references(tmp_path)
    assert await resolved(found, "file:one") == "first"
    assert await resolved(found, f"file:{directory}/one") == "first"
    assert await resolved(found, "file:sub/../one") == "first"
    assert await resolved(found, "file:link") == "first"
    assert await resolved(found, "file:sub/windows") == "first"
    assert (await resolved(found, "file:key")).endswith("abc\n")

    (tmp_path / "outside").write_text(CANARY)
    (tmp_path / "secrets2").mkdir()
    (tmp_path / "secrets2" / "a").write_text(CANARY)
    (directory / "out").symlink_to(tmp_path / "outside")
    (directory / "loop").symlink_to(directory / "loop")
    (directory / "empty").write_text("\n")
    (directory / "bytes").write_bytes(b"\xff\xfe")
    os.mkfifo(directory / "fifo")
    wrong = ["out", "../outside", f"{tmp_path}/outside", "/etc/passwd", "none", "sub", "loop", "empty", "bytes", "fifo"]
    wrong += ["../secrets2/a", f"{directory}2/a", "one/x", "x" * 300]
    for name in wrong:
        with pytest.raises(InvalidInput) as caught:
            await resolved(found, f"file:{name}")
        assert CANARY not in str(caught.value.to_dict())
        assert caught.value.next_step
    shutil.rmtree(directory)
    with pytest.raises(InvalidInput):
        await resolved(found, "file:one")
    with pytest.raises(InvalidInput, match="no directory of secrets"):
        await resolved(References(), "file:one")


async def test_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SNAPKEEP_SECRET_FILES1", CANARY)
    assert await resolved(references(tmp_path), "env:SNAPKEEP_SECRET_FILES1") == CANARY
    for name in ("SNAPKEEP_SECRET_NONE", "PATH"):
        with pytest.raises(InvalidInput):
            await resolved(references(tmp_path), f"env:{name}")


# -- Vault -------------------------------------------------------------------------------------------------------------
async def test_secrets_from_vault(tmp_path: Path, vault: Vault) -> None:
    vault.put("kv/team/files1", password=CANARY, port=1, nothing="")
    found = references(tmp_path, vault)
    assert await resolved(found, "vault:kv/team/files1#password") == CANARY
    assert vault.asked == ["GET /v1/kv/data/team/files1"]
    both = {"a": {"reference": "vault:kv/team/files1#password"}, "b": {"reference": "vault:kv/team/files1#password"}}
    assert await found.resolve(both) == {"a": CANARY, "b": CANARY}
    assert len(vault.asked) == 2, "read once for both"
    for field in ("port", "nothing", "none"):
        with pytest.raises(InvalidInput, match="no such field"):
            await resolved(found, f"vault:kv/team/files1#{field}")


async def test_a_namespace_a_token_file_and_approle(tmp_path: Path, vault: Vault) -> None:
    vault.put("kv/a", password=CANARY)
    vault.namespace = "team/eu"
    token = tmp_path / "token"
    token.write_text("old\n")
    found = references(tmp_path, vault, vault_namespace="team/eu", vault_token_file=token)
    with pytest.raises(PermissionDenied):
        await resolved(found, "vault:kv/a#password")
    token.write_text(f"{vault.token}\n")
    assert await resolved(found, "vault:kv/a#password") == CANARY, "an agent has renewed it"
    with pytest.raises(InvalidInput):
        await resolved(references(tmp_path, vault), "vault:kv/a#password")
    vault.roles = {"role": "CANARY-secret-id"}
    secret_id = tmp_path / "secret-id"
    secret_id.write_text("CANARY-secret-id\n")
    approle = {"vault_role_id": "role", "vault_secret_id_file": secret_id, "vault_namespace": "team/eu"}
    assert await resolved(references(tmp_path, vault, **approle), "vault:kv/a#password") == CANARY
    vault.roles = {}
    with pytest.raises(AuthenticationFailed) as caught:
        await resolved(references(tmp_path, vault, **approle), "vault:kv/a#password")
    assert "invalid role or secret ID" in str(caught.value)
    assert "CANARY" not in str(caught.value.to_dict())


async def test_what_vault_refuses_has_its_kind_and_a_next_step(
    tmp_path: Path, vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapkeep.server.settings.RETRY_SECONDS", 0.0)
    vault.put("kv/refused", password=CANARY)
    vault.refused.add("kv/data/refused")
    vault.secrets["kv/data/deleted"] = None
    vault.put("kv/a", password=CANARY)
    found = references(tmp_path, vault)
    for text, kind in (
        ("vault:kv/refused#password", PermissionDenied),
        ("vault:kv/deleted#password", InvalidInput),
        ("vault:kv/none#password", InvalidInput),
    ):
        with pytest.raises(kind) as caught:
            await resolved(found, text)
        assert caught.value.message.startswith("Vault: ")
        assert "CANARY" not in str(caught.value.to_dict())
    with pytest.raises(PermissionDenied, match="invalid token"):
        await resolved(references(tmp_path, vault, vault_token_file=vault.ca_file), "vault:kv/a#password")
    vault.sealed = True
    with pytest.raises(Unavailable, match="503"):
        await resolved(found, "vault:kv/a#password")
    with pytest.raises(InvalidInput, match="does not know where that is"):
        await resolved(references(tmp_path), "vault:kv/a#password")
    untrusted = ServerSettings.read(data_dir=tmp_path, vault_address=vault.address, vault_token="x").references()
    with pytest.raises(AuthenticationFailed, match="not trusted"):
        await resolved(untrusted, "vault:kv/a#password")
    assert not any("CANARY" in line for line in vault.asked)


def test_bodies_of_answers_are_never_shown() -> None:
    for body in (b'{"data": "CANARY', b"\xffCANARY"):
        with pytest.raises(SnapkeepError) as caught:
            vault_client.answer_json(Answer(200, {}, body))
        assert "CANARY" not in str(caught.value.to_dict())
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("address", ["vault.example.com", "ftp://x", "https://", "https://x/v1", "https://u:p@x"])
def test_the_address_of_vault(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidInput):
        ServerSettings.read(data_dir=tmp_path, vault_address=address).references()
    with pytest.raises(InvalidInput, match="loopback"):
        ServerSettings.read(data_dir=tmp_path, vault_address="http://vault.example.com").references()


# -- the whole ---------------------------------------------------------------------------------------------------------
def test_a_secret_that_changes_is_used_without_a_restart(tmp_path: Path, vault: Vault) -> None:
    env = {
        "SNAPKEEP_VAULT_ADDRESS": vault.address,
        "SNAPKEEP_VAULT_CA_FILE": str(vault.ca_file),
        "SNAPKEEP_VAULT_TOKEN": vault.token,
    }
    with installed(tmp_path / "i", **env) as installation:
        simulator = installation.simulator
        vault.put("kv/files1", password=simulator.password)
        settings = [f"{name}={value}" for name, value in installation.settings().items() if name != "password"]
        pairs = [part for setting in settings for part in ("--set", setting)]
        ran = installation.cli(
            "system", "add", "files1", "--plugin", "nutanix-files", *pairs, "--secret-ref",
            "password=vault:kv/files1#password", "--output", "json",
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.json()["system"]["settings"]["password"] == {"reference": "vault:kv/files1#password"}
        assert not any(item["outcome"] == "failed" for item in ran.json()["check"] if item["check"] == "connection")
        assert installation.discover()["state"] == "succeeded"

        new = "new password 9d2f"
        simulator.control("POST", "/accounts", {"name": simulator.username, "password": new})
        simulator.control("POST", "/sessions/expire", {"refuse": 0})
        with pytest.raises(AuthenticationFailed):
            installation.discover()
        vault.put("kv/files1", password=new)
        assert installation.discover()["state"] == "succeeded", "the system refused, so it was read again"
        stored = b"".join(path.read_bytes() for path in installation.server.data_dir.rglob("*.sqlite*"))
        assert new.encode() not in stored

        secrets = installation.server.data_dir / "secrets"
        secrets.mkdir()
        (secrets / "files1").write_text(new)
        changed = installation.cli("system", "set", "files1", "--secret-ref", "password=file:files1")
        assert changed.code == 0, changed.err
        vault.sealed = True
        assert installation.discover()["state"] == "succeeded"
        (secrets / "files1").unlink()
        installation.rest.request("PATCH", "/systems/files1", json={"settings": {"retry_seconds": 1}})
        with pytest.raises(InvalidInput, match="file:files1"):
            installation.discover()
        installation.rest.request("PATCH", "/systems/files1", json={"settings": {"password": new}})
        assert installation.discover()["state"] == "succeeded"
        assert "password" not in installation.rest.request("GET", "/systems/files1")["settings"]

        (secrets / "repository").write_text("the password of the repository")
        ran = installation.cli(
            "repository", "add", "vault", str(tmp_path / "repository"), "--password-ref", "file:repository"
        )
        assert ran.code == 0, ran.err
        check = installation.run("POST", "/repositories/vault/check", {"data": "none"})
        assert check["result"]["sound"]
        (secrets / "repository").unlink()
        with pytest.raises(InvalidInput, match="file:repository"):
            installation.run("POST", "/repositories/vault/check", {"data": "none"})
