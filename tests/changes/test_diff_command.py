"""`snapkeep snapshot diff`: filters, files, Parquet, and what it refuses."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
from pathlib import Path

from tests.support.installation import Installation

DIFF = ("snapshot", "diff", "files1/projects@new", "--base")


def changed(installation: Installation) -> str:
    live = installation.live()
    (live / "d").mkdir()
    (live / "d" / "changed").write_text("old")
    name = str(installation.snapshot("old")["name"])
    (live / "d" / "changed").write_text("longer")
    (live / "link").symlink_to("d")
    (live / "added").write_text("12345678")
    installation.snapshot("new")
    return name


def test_the_command(installation: Installation, tmp_path: Path) -> None:
    base = changed(installation)
    the_summary_has_bytes_by_operation_type_and_directory(installation, base)
    what_it_refuses(installation, base, tmp_path)
    entries_go_to_a_file(installation, base, tmp_path)
    if importlib.util.find_spec("pyarrow"):
        parquet(installation, base, tmp_path)


def the_summary_has_bytes_by_operation_type_and_directory(installation: Installation, base: str) -> None:
    lines = [line.split() for line in installation.cli(*DIFF, base).out.splitlines()]
    for row in (
        ["TYPE", "ENTRIES", "BYTES"],
        ["file", "2", "14", "B"],
        ["symlink", "1", "-"],
        ["d", "1", "6", "B", "#" * 15],
        [".", "2", "8", "B", "#" * 30],
    ):
        assert row in lines
    found = installation.cli(*DIFF, base, "--type", "symlink", "--entries", "ndjson").out.splitlines()
    assert [json.loads(line)["path"] for line in found] == ["link"]
    found = installation.cli(*DIFF, base, "--type", "symlink", "--type", "file", "--entries", "ndjson").out.splitlines()
    assert len(found) == 3


def entries_go_to_a_file(installation: Installation, base: str, tmp_path: Path) -> None:
    for form in ("ndjson", "csv"):
        path = tmp_path / f"list.{form}"
        ran = installation.cli(*DIFF, base, "--entries", form, "--output-file", str(path))
        assert (ran.code, ran.out) == (0, "")
        assert "Wrote 3 entries" in ran.err
        assert path.read_bytes() == installation.cli(*DIFF, base, "--entries", form).out.encode()
    with (tmp_path / "list.csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == {"d/changed", "link", "added"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.csv", "list.ndjson"]


def parquet(installation: Installation, base: str, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    only = ("--operation", "add", "--operation", "modify")
    assert installation.cli(*DIFF, base, "--entries", "parquet", "--output-file", str(path), *only).code == 0
    table = importlib.import_module("pyarrow.parquet").read_table(path)
    assert set(table["path"].to_pylist()) == {b"d/changed", b"link", b"added"}
    assert table.schema.metadata[b"snapkeep.base"] == b"old"


def what_it_refuses(installation: Installation, base: str, tmp_path: Path) -> None:
    for form, file, said in (
        ("parquet", None, "--output-file"),
        ("table", tmp_path / "list", "--entries ndjson"),
        ("csv", tmp_path / "absent" / "list", "no directory"),
        ("ndjson", tmp_path, "cannot be written"),
    ):
        ran = installation.cli(*DIFF, base, "--entries", form, *(() if file is None else ("--output-file", str(file))))
        assert ran.code == 2
        assert said in ran.err
    assert not list(tmp_path.iterdir())
