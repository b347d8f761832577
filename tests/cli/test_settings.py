"""What people type becomes what the plug-in's schema wants."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapkeep.cli.passwords import get_password
from snapkeep.cli.repositories import add
from snapkeep.cli.settings import plain_settings, secret_settings
from snapkeep.model.errors import InvalidInput

PLUGIN = {
    "settings_schema": {
        "properties": {
            "only": {"type": "array", "items": {"type": "string", "format": "path"}},
            "names": {"type": "array", "items": {"type": "string"}},
            "port": {"type": "integer"},
            "sudo": {"type": "boolean"},
        }
    },
    "secret_fields": ["password", "private_key"],
}


def test_settings_have_their_types() -> None:
    typed = plain_settings(PLUGIN, ["only=/srv,/home/x y", "names=a,b", "port=22", "sudo=yes"])
    assert typed == {"only": ["/srv", "/home/x y"], "names": ["a", "b"], "port": 22, "sudo": True}


def test_a_private_key_is_read_whole_and_a_password_is_a_line(tmp_path: Path) -> None:
    key, word = tmp_path / "key", tmp_path / "word"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----\n")
    word.write_text("secret\nnot it\n")
    read = secret_settings(PLUGIN, [f"private_key={key}", f"password={word}"], [], [])
    assert read == {"private_key": key.read_text(), "password": "secret"}


def test_a_password_is_the_first_line_of_its_file_whoever_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "word"
    file.write_bytes(b"secret\r\nnot it\r\n")
    assert get_password(file, "") == "secret"
    assert secret_settings(PLUGIN, [f"password={file}"], [], []) == {"password": "secret"}
    for nothing in (b"", b"\n", b"\r\nsecret\r\n"):
        file.write_bytes(nothing)
        for read in (
            lambda: get_password(file, ""),
            lambda: secret_settings(PLUGIN, [f"password={file}"], [], []),
            lambda: add("vault", "/vault", password_file=file),
            lambda: add("vault", "/vault", secret=(f"passphrase={file}",)),
        ):
            with pytest.raises(InvalidInput, match=r"The first line of .* is empty") as caught:
                read()
            assert "into its first line" in caught.value.next_step
