"""Hostile file names go through snapshot, diff, REST, CLI and export unharmed."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.installation import Installation

NAMES = [
    b"new\nline", b"carriage\rreturn", b"tab\t", b"quote'\"", b"back\\slash", b"comma,semi;", b"not-utf-8-\xff\xfe\x80",
    b"\x1b[31mred", b"n" * 255, "ü漢🦊".encode(), b" leading and trailing ", b"-rf", b"%00%2e", b"\xed\xb3\xbf",
]  # fmt: skip
DEEP = b"/".join([b"d" * 250] * 15 + [b"e" * 235])  # 4,000 bytes


def make(root: Path, path: bytes) -> None:
    """Make a file below `root`, step by step: the whole path is longer than the kernel takes at once."""
    *directories, name = path.split(b"/")
    here = os.open(root, os.O_DIRECTORY)
    for directory in directories:
        if not _exists(directory, here):
            os.mkdir(directory, dir_fd=here)
        below = os.open(directory, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here)
    os.write(file, b"content")
    os.close(file)
    os.close(here)


def _exists(name: bytes, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return True


def parents(path: bytes) -> Iterator[bytes]:
    parts = path.split(b"/")
    for depth in range(1, len(parts) + 1):
        yield b"/".join(parts[:depth])


def exact(entry: dict[str, Any]) -> bytes:
    return base64.b64decode(entry["path_base64"]) if entry.get("path_base64") else entry["path"].encode()


def test_hostile_names(installation: Installation) -> None:
    live = installation.live()
    base = installation.snapshot("base")
    for name in [*NAMES, DEEP]:
        make(live, b"inside/" + name)
    installation.snapshot("new")
    expected = {path for name in [*NAMES, DEEP] for path in parents(b"inside/" + name)}
    assert len(b"inside/" + DEEP) == 4007

    diff = ("snapshot", "diff", "files1/projects@new", "--base", base["name"])
    lines = installation.cli(*diff, "--entries", "ndjson").out.splitlines()
    assert {exact(json.loads(line)) for line in lines} == expected
    rows = csv.DictReader(io.StringIO(installation.cli(*diff, "--entries", "csv").out, newline=""))
    assert {exact(row) for row in rows} == expected

    [stored] = installation.rest.request("GET", "/change-lists", params={"new_id": installation_new(installation)})[
        "data"
    ]
    path = f"/change-lists/{stored['id']}/entries"
    paged = {exact(entry) for entry in installation.rest.pages(path, limit=3)}
    assert paged == expected
    for name in (b"inside/not-utf-8-\xff\xfe\x80", b"inside/new\nline", b"inside/comma,semi;", b"inside/%00%2e"):
        found = [json.loads(line) for line in installation.rest.stream(path, [("path", name)])]
        assert [exact(entry) for entry in found] == [name]
    below = installation.cli(*diff, "--entries", "ndjson", "--path", b"inside/not-utf-8-\xff\xfe\x80")
    assert [exact(json.loads(line)) for line in below.out.splitlines()] == [b"inside/not-utf-8-\xff\xfe\x80"]

    table = installation.cli(*diff, "--limit", "100").out
    assert "\x1b[31mred" not in table
    assert "\\x1b[31mred" in table
    assert "new\\nline" in table

    exported = installation.cli("snapshot", "export", "files1/projects@new", "-o", "json").json()
    directory = os.fsencode(exported["result"]["locations"][0]["path"]) + b"/inside/"
    for name in NAMES:
        with open(directory + name, "rb") as file:  # noqa: PTH123 - bytes
            assert file.read() == b"content"
    installation.cli("snapshot", "deport", "files1/projects@new")


def installation_new(installation: Installation) -> str:
    found = installation.rest.pages("/snapshots", system="files1", name="new")
    return str(next(iter(found))["id"])
