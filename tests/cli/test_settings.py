"""What people type becomes what the plug-in's schema wants."""

from __future__ import annotations

from pathlib import Path

from snapkeep.cli.settings import plain_settings, secret_settings

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
