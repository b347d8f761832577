"""Parquet files hold what the list holds, and are read by the library that everybody uses."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from snapkeep.changes import parquet
from snapkeep.changes.parquet import require_parquet, write_parquet
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Unsupported

CHANGES = [
    Change(ChangeOperation.ADD, ObjectType.FILE, b"caf\xe9", None, 5, 2**64 - 1, 1, 2, None),
    Change(ChangeOperation.RENAME, ObjectType.DIRECTORY, b"new\n", b"\xff/old", 4096, None, None, 10**18 + 1, 2**70),
    *(Change(ChangeOperation.DELETE, ObjectType.SYMLINK, b"%d" % number) for number in range(20)),
]


def read(path: Path) -> Any:
    return importlib.import_module("pyarrow.parquet").read_table(path)


def test_a_file_gives_back_what_was_put_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(parquet, "ROWS", 7)
    path = tmp_path / "list.parquet"
    assert write_parquet(path, iter(CHANGES), {"new": "two"}) == len(CHANGES)
    table = read(path)
    assert table.schema.metadata == {b"snapkeep.new": b"two"}
    assert {field.name: str(field.type) for field in table.schema} == {
        "operation": "string",
        "type": "string",
        "path": "binary",
        "old_path": "binary",
        "size": "int64",
        "inode": "uint64",
        "created": "timestamp[ns, tz=UTC]",
        "changed": "timestamp[ns, tz=UTC]",
        "accessed": "timestamp[ns, tz=UTC]",
    }
    assert table["path"].to_pylist() == [change.path for change in CHANGES]
    assert table["old_path"].to_pylist() == [change.old_path for change in CHANGES]
    assert table["operation"].to_pylist() == [change.operation.value for change in CHANGES]
    assert table["inode"].to_pylist() == [change.inode for change in CHANGES]
    assert table["changed"].cast("int64").to_pylist()[:2] == [2, 10**18 + 1]
    assert table["accessed"].to_pylist()[1] is None, "outside of what the type can hold"
    assert importlib.import_module("pyarrow.parquet").ParquetFile(path).num_row_groups == 4


def test_an_empty_list_is_a_file_too(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert write_parquet(tmp_path / "list.parquet", [], {}) == 0
    assert read(tmp_path / "list.parquet").num_rows == 0


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unsupported) as caught:
        require_parquet()
    assert "snapkeep[parquet]" in caught.value.next_step
