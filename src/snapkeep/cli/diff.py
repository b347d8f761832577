"""`snapkeep snapshot diff`: the summary first, then entries."""

from __future__ import annotations

import base64
import csv
import json
import sys
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import Reference, parse_snapshot
from snapkeep.cli.work import Wait, follow
from snapkeep.model.errors import InvalidInput

Json = dict[str, Any]
Operation = Literal["add", "modify", "metadata", "delete", "rename", "unknown"]
Entries = Literal["table", "ndjson", "csv", "none"]


def diff(
    snapshot: str,
    /,
    *,
    base: str | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    entries: Annotated[Entries | None, Parameter(name=["--entries", "-e"])] = None,
    operation: Annotated[list[Operation] | None, Parameter(negative="")] = None,
    path: str | None = None,
    limit: int = 20,
    again: Annotated[bool, Parameter(negative="")] = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Say what changed up to a snapshot: a summary, then the entries.

    A list that was fetched before is read again from Snapkeep's catalog, without asking the system.

    Parameters
    ----------
    snapshot
        The newer snapshot as system/asset@snapshot.
    base
        Name of the older snapshot of the same asset.
    full
        Without base: every object in the snapshot.
    entries
        Form of the entries: table (the first ones, for people), ndjson or csv (all of them), none.
        Default: table, with --output json none.
    operation
        Only entries with this operation; repeat it for several.
    path
        Only entries at or below this path of the asset.
    limit
        Entries of a table.
    again
        Ask the system again although a complete list is stored.
    wait
        Wait for the end.
    """
    from snapkeep.cli import output

    rest = common.connect()
    reference = parse_snapshot(snapshot)
    if (base is None) != full:
        raise InvalidInput(
            "A diff needs the snapshot to compare with", next_step="Give --base SNAPSHOT, or --full for everything."
        )
    form: Entries = entries or ("none" if common.json else "table")
    new = rest.snapshot(reference, gone=True)
    if base is not None:  # the whole name is what other commands print: take it too
        base = base.removeprefix(f"{reference.system}/{reference.asset}@")
    old = rest.snapshot(Reference(reference.system, reference.asset, base), gone=True) if base else None
    body = {"new_id": new["id"], "base_id": old["id"] if old else None}
    found = None if again else _stored(rest, body)
    if found is None:
        begun = rest.request("POST", "/change-lists", json=body)
        ended = follow(common, rest, begun, wait=wait, title=f"Comparing {snapshot}")
        found = rest.request("GET", f"/change-lists/{ended['result']['change_list']}")
    if form in {"ndjson", "csv"}:
        lines = rest.stream(f"/change-lists/{found['id']}/entries", _filters(operation, path))
        _write_ndjson(lines) if form == "ndjson" else _write_csv(lines)
        return
    if common.json:
        output.print_json(
            {**found, "entries_shown": _first(rest, found, operation, path, limit)["data"]}
            if form == "table"
            else found
        )
        return
    _print_summary(found)
    if form == "table" and found["entries"]:
        _print_entries(_first(rest, found, operation, path, limit))


def _stored(rest: Any, body: Json) -> Json | None:
    for record in rest.request("GET", "/change-lists", params=body)["data"]:
        if record["state"] == "complete" and (body["base_id"] is not None or record["base"] is None):
            return dict(record)
    return None


def _filters(operation: list[Operation] | None, path: str | None) -> list[tuple[str, str | bytes]]:
    filters: list[tuple[str, str | bytes]] = [("operation", item) for item in operation or ()]
    if path:
        filters.append(("path", path.encode("utf-8", "surrogateescape")))
    return filters


def _first(rest: Any, record: Json, operation: list[Operation] | None, path: str | None, limit: int) -> Json:
    from urllib.parse import urlencode

    query = urlencode([*_filters(operation, path), ("limit", str(max(1, min(limit, 10_000))))])
    return dict(rest.request("GET", f"/change-lists/{record['id']}/entries?{query}"))


def _print_summary(record: Json) -> None:
    from rich.table import Table

    from snapkeep.cli import output

    begin, changes = (
        record["base"] or "nothing",
        "1 change" if record["entries"] == 1 else f"{record['entries']:,} changes",
    )
    output.console.print(
        f"{output.printable(record['asset'])}: {begin} -> {record['new']}   {changes}, "
        f"{record['state']}, computed by the {record['source']}",
        markup=False,
        soft_wrap=True,
    )
    operations = record["summary"]["operations"]
    if not operations:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("OPERATION")
    table.add_column("ENTRIES", justify="right")
    table.add_column("BYTES", justify="right")
    for name, counts in operations.items():
        table.add_row(name, f"{counts['entries']:,}", output.size(counts["bytes"]) if counts["bytes"] else "-")
    output.console.print(table)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("TOP DIRECTORY")
    table.add_column("ENTRIES", justify="right")
    table.add_column("")
    most = max((item["entries"] for item in record["summary"]["top_directories"]), default=1)
    for item in record["summary"]["top_directories"]:
        bar = "#" * max(1, round(30 * item["entries"] / most))
        table.add_row(output.cell("path", item["path"]), f"{item['entries']:,}", bar)
    output.console.print()
    output.console.print(table)


def _print_entries(page: Json) -> None:
    from snapkeep.cli import output

    output.console.print()
    shown = [
        {
            **row,
            "path": _shown_path(row, "path"),
            "old_path": _shown_path(row, "old_path") if "old_path" in row else None,
            "size_bytes": row["size"],
        }
        for row in page["data"]
    ]
    columns = [("operation", "OPERATION"), ("type", "TYPE"), ("size_bytes", "SIZE"), ("path", "PATH")]
    if any(row["old_path"] for row in shown):
        columns.append(("old_path", "OLD PATH"))
    output.show(DEFAULT, shown, columns, empty="No entry matches.")
    if page["next"] is not None:
        output.errors.print("There are more: use --limit, or --entries ndjson for all of them.", markup=False)


def _shown_path(row: Json, key: str) -> str:
    """Return a path as text for people: bytes that are not UTF-8 are shown as \\xNN."""
    exact = row.get(f"{key}_base64")
    return str(row[key]) if exact is None else base64.b64decode(exact).decode("utf-8", "backslashreplace")


def _write_ndjson(lines: Iterable[bytes]) -> None:
    for line in lines:
        sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


_COLUMNS = (
    "operation", "type", "path", "path_base64", "old_path", "old_path_base64", "size", "inode",
    "created_ns", "changed_ns", "accessed_ns",
)  # fmt: skip


def _write_csv(lines: Iterable[bytes]) -> None:
    """Write RFC 4180: names with newlines or quotes are quoted; exact bytes as in NDJSON."""
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for line in lines:
        entry = json.loads(line)
        writer.writerow([entry.get(column, "") for column in _COLUMNS])
    sys.stdout.flush()
