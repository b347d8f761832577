"""A change list as a Parquet file, for programs that ask questions of tables. Needs the extra `parquet` (pyarrow).

| Column | Type |
| --- | --- |
| `operation`, `type` | string, the words of `snapkeep.model.changes` |
| `path`, `old_path` | binary: a path is bytes |
| `size` | int64 |
| `inode` | uint64 |
| `created`, `changed`, `accessed` | timestamp, nanoseconds, UTC |

All but the first three and `size` may be null.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from snapkeep.model.changes import Change
from snapkeep.model.errors import Unsupported

ROWS = 65_536
"""Rows of a group, and so what is in memory."""

_MOST = 2**63 - 1


def require_parquet() -> None:
    """Raise Unsupported when pyarrow is not there."""
    _pyarrow()


def write_parquet(path: Path, changes: Iterable[Change], about: Mapping[str, str]) -> int:
    """Write all changes, in groups of rows; return how many. `about` becomes the file's own metadata."""
    arrow, parquet = _pyarrow()
    time = arrow.timestamp("ns", tz="UTC")
    schema = arrow.schema(
        [
            arrow.field("operation", arrow.string(), nullable=False),
            arrow.field("type", arrow.string(), nullable=False),
            arrow.field("path", arrow.binary(), nullable=False),
            arrow.field("old_path", arrow.binary()),
            arrow.field("size", arrow.int64(), nullable=False),
            arrow.field("inode", arrow.uint64()),
            arrow.field("created", time),
            arrow.field("changed", time),
            arrow.field("accessed", time),
        ],
        metadata={f"snapkeep.{key}": value for key, value in about.items()},
    )
    rows = iter(changes)
    written = 0
    with parquet.ParquetWriter(path, schema, compression="zstd", use_dictionary=["operation", "type"]) as writer:
        while group := [_row(change) for change in itertools.islice(rows, ROWS)]:
            columns = zip(zip(*group, strict=True), schema.types, strict=True)
            arrays = [arrow.array(values, kind) for values, kind in columns]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema), row_group_size=ROWS)
            written += len(group)
    return written


def _row(change: Change) -> tuple[Any, ...]:
    times = (change.created_ns, change.changed_ns, change.accessed_ns)
    return (
        change.operation.value,
        change.type.value,
        *change[2:6],
        *(time if time is None or -_MOST <= time <= _MOST else None for time in times),
    )


def _pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise Unsupported(
            "Parquet files need the package pyarrow, which is not installed",
            next_step="Install it with: pip install 'snapkeep[parquet]'; or take --entries ndjson.",
        ) from error
