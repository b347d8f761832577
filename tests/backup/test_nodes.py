# ruff: noqa: PTH115, PTH208, PTH211
from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.backup.mutations import NAMES
from tests.support.restic import run_restic

from snapkeep.backup.metadata import attributes_text, node_text
from snapkeep.backup.nodes import (
    EMPTY_TREE,
    Tree,
    quote,
    read_content,
    read_node,
    read_time,
    same_time,
    time_text,
    tree_text,
    unquote,
)
from snapkeep.model.errors import Damaged


def decoded(name: bytes) -> str:
    text: str = json.loads(f'"{quote(name)}"')
    return text


@given(st.binary(min_size=1))
def test_every_name_survives(name: bytes) -> None:
    assert unquote(decoded(name)) == name


@given(st.text(min_size=1))
def test_every_text_survives(name: str) -> None:
    raw = name.encode("utf-8", "surrogatepass")
    assert unquote(decoded(raw)) == raw


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"plain.txt", "plain.txt"),
        (b'a"b', r"a\\\"b"),
        (b"a\\b", r"a\\\\b"),
        (b"<&>", r"\u003c\u0026\u003e"),
        (b"\x01\x7f\xfe", r"\\x01\\x7f\\xfe"),
        (b"\a\b\f\n\r\t\v", r"\\a\\b\\f\\n\\r\\t\\v"),
        ("\u2028\u00ad".encode(), r"\\u2028\\u00ad"),
        ("\U0001fae8".encode(), "\U0001fae8"),  # new in Unicode 15.0, which restic knows
        ("\U0002ebf0".encode(), r"\\U0002ebf0"),  # new in Unicode 15.1, which it does not
    ],
)
def test_quoting_is_gos(name: bytes, expected: str) -> None:
    assert quote(name) == expected


@given(st.integers(-2_208_988_800 * 10**9, 253_402_300_799 * 10**9 + 999_999_999))
def test_every_time_survives(nanoseconds: int) -> None:
    assert read_time(time_text(nanoseconds)) == nanoseconds


def test_times_are_gos() -> None:
    assert time_text(0) == "1970-01-01T00:00:00Z"
    assert time_text(1_500_000_000) == "1970-01-01T00:00:01.5Z"
    assert time_text(-1) == "1969-12-31T23:59:59.999999999Z"
    assert same_time("2024-05-01T12:00:00.25+02:00", "2024-05-01T10:00:00.25Z")
    assert not same_time("2024-05-01T12:00:00.25+02:00", "2024-05-01T10:00:00.26Z")
    with pytest.raises(Damaged):
        read_time("yesterday")


@pytest.mark.parametrize("text", [b"", b"{}", b'{"nodes":[{"type":"file"}]}', b'{"nodes":[{"name":"\xff"}]}', b"[]"])
def test_what_is_no_tree_is_damaged(text: bytes) -> None:
    with pytest.raises(Damaged):
        Tree(text).names  # noqa: B018 - it is read when it is asked for


def test_nodes_of_a_real_restic(share: Path, tmp_path: Path) -> None:
    for number, name in enumerate(NAMES):
        (Path(os.fsdecode(os.fsencode(share) + b"/" + name))).write_bytes(b"x" * number)
    os.link(share / "plain", share / "linked")
    os.mkfifo(share / "fifo")
    (share / "directory").mkdir(mode=0o1750)
    (share / "mode").touch(mode=0)
    (share / "set-id").touch()
    (share / "set-id").chmod(0o6755)
    os.symlink(b"bad\xff<", os.fsencode(share) + b"/link")
    os.utime(share / "mode", ns=(5, -1_500_000_000))
    os.setxattr(share / "plain", "user.one", b"\0\xff")
    os.setxattr(share / "plain", "user.<é>", b"")
    os.setxattr(share / "plain", b"user.\xff", b"not UTF-8")
    if os.geteuid() == 0:
        os.mknod(share / "device", stat.S_IFCHR | 0o600, os.makedev(7, 300))
        os.chown(share / "mode", 54321, 12345)
    run_restic(tmp_path / "restic", "init")
    run_restic(tmp_path / "restic", "backup", ".", cwd=share)
    (snapshot,) = json.loads(run_restic(tmp_path / "restic", "snapshots", "--json"))
    text = run_restic(tmp_path / "restic", "cat", "tree", snapshot["id"]).encode().rstrip(b"\n") + b"\n"
    tree = Tree(text)
    assert tree.names == sorted(os.listdir(os.fsencode(share)))
    assert tree_text(tree.texts) == text
    for name, raw in zip(tree.names, tree.texts, strict=True):
        path = os.fsencode(share) + b"/" + name
        found = os.lstat(path)
        ours = node_text(
            name,
            found,
            device_id=found.st_dev,
            size=found.st_size if stat.S_ISREG(found.st_mode) else 0,
            attributes=attributes_text(path),
            target=os.readlink(path) if stat.S_ISLNK(found.st_mode) else b"",
        )
        assert bytes(raw).startswith(ours.encode() + b',"content":')
        assert read_time(read_node(raw).mtime) == found.st_mtime_ns
        assert len(read_content(tree.known(name).content)) == (stat.S_ISREG(found.st_mode) and found.st_size > 0)  # type: ignore[union-attr]


def test_empty_tree() -> None:
    assert tree_text([]) == EMPTY_TREE
    assert Tree(EMPTY_TREE).names == []
