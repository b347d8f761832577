"""`snapkeep snapshot diff`: the summary first, then entries."""

from __future__ import annotations

import base64
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from cyclopts import Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import Reference, parse_snapshot
from snapkeep.cli.signals import tell_signal
from snapkeep.cli.work import Wait, follow
from snapkeep.model.errors import Incomplete, InvalidInput, Unsupported

Json = dict[str, Any]
Operation = Literal["add", "modify", "metadata", "delete", "rename", "unknown"]
Type = Literal[
    "file", "directory", "symlink", "hard-link", "fifo", "socket", "block-device", "character-device", "other"
]
Entries = Literal["table", "ndjson", "csv", "parquet", "none"]


def diff(
    snapshot: str,
    /,
    *,
    base: str | None = None,
    full: Annotated[bool, Parameter(negative="")] = False,
    source: Literal["system", "walk"] = "system",
    verify: Literal["none", "sample", "full"] = "none",
    entries: Annotated[Entries | None, Parameter(name=["--entries", "-e"])] = None,
    output_file: Path | None = None,
    operation: Annotated[list[Operation] | None, Parameter(negative="")] = None,
    type: Annotated[list[Type] | None, Parameter(negative="")] = None,
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
    source
        Who says what changed: the system, or a walk: a backup host reads both snapshots.
    verify
        Have a backup host hold the list against both snapshots: some directories (sample) or all (full).
        The verdict is printed; a list that lacks changes ends with the exit code of incomplete.
    entries
        Form of the entries: table (the first ones, for people), ndjson, csv or parquet (all of them), none.
        Default: table, with --output json none.
    output_file
        Write the entries there instead of to standard output: with ndjson or csv, and always with parquet.
        The file appears when it is whole.
    operation
        Only entries with this operation; repeat it for several.
    type
        Only entries with this type of object; repeat it for several.
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
    _check_form(form, output_file)
    new = rest.snapshot(reference, gone=True)
    if base is not None:  # the whole name is what other commands print: take it too
        base = base.removeprefix(f"{reference.system}/{reference.asset}@")
    old = rest.snapshot(Reference(reference.system, reference.asset, base), gone=True) if base else None
    body = {"new_id": new["id"], "base_id": old["id"] if old else None}
    found = None if again or verify != "none" else _stored(rest, body, source)
    verification: Json | None = None
    if found is None:
        begun = _begin(rest, {**body, "source": source, "verify": verify})
        ended = follow(common, rest, begun, wait=wait, title=f"Comparing {snapshot}")
        found = rest.request("GET", f"/change-lists/{ended['result']['change_list']}")
        verification = ended["result"].get("verification")
        if not common.json and form == "table":
            tell_signal(ended["result"])
    filters = _filters(operation, type, path)
    if form in _WHOLE:
        lines = rest.stream(f"/change-lists/{found['id']}/entries", filters)
        if output_file is None:
            _write_ndjson(lines, sys.stdout.buffer) if form == "ndjson" else _write_csv(lines, sys.stdout)
        else:
            count = _write_file(output_file, form, lines, found)
            output.errors.print(f"Wrote {count:,} entries to {output_file}", markup=False, soft_wrap=True)
    elif common.json:
        shown = {**found, "verification": verification}
        if form == "table":
            shown["entries_shown"] = _first(rest, found, filters, limit)["data"]
        output.print_json(shown)
    else:
        _print_summary(found)
        if form == "table" and found["entries"]:
            _print_entries(_first(rest, found, filters, limit))
    if verification is not None:
        _judge(common, verification)


def _begin(rest: Any, body: Json) -> Json:
    try:
        return dict(rest.request("POST", "/change-lists", json=body))
    except Unsupported as error:
        if body["source"] != "system":
            raise
        step = "With --source walk a backup host reads both snapshots and compares them."
        raise Unsupported(error.message, next_step=step, **error.details) from error


def _judge(common: Common, verification: Json) -> None:
    """Say the verdict. Raises Incomplete for a list that lacks changes."""
    from snapkeep.cli import output

    if not verification["trusted"]:
        raise Incomplete(
            f"Verified: {verification['verdict']}: {'; '.join(verification['examples'])}",
            next_step="Do not trust this list: take one by --source walk, and tell the vendor.",
        )
    if not common.json:
        output.errors.print(f"Verified: {output.printable(verification['verdict'])}", markup=False, soft_wrap=True)


def _stored(rest: Any, body: Json, source: str) -> Json | None:
    for record in rest.request("GET", "/change-lists", params=body)["data"]:
        if record["source"] != source:
            continue
        if record["state"] == "complete" and (body["base_id"] is not None or record["base"] is None):
            return dict(record)
    return None


def _check_form(form: Entries, output_file: Path | None) -> None:
    """Refuse what cannot end well before anything is asked of a system."""
    if form == "parquet":
        from snapkeep.changes.parquet import require_parquet

        if output_file is None:
            raise InvalidInput("Parquet is not for standard output", next_step="Give --output-file FILE.")
        require_parquet()
    if output_file is not None:
        if form not in _WHOLE:
            raise InvalidInput("Only entries go to a file", next_step="Give --entries ndjson, csv or parquet.")
        if not output_file.parent.is_dir():
            raise InvalidInput(f"There is no directory {output_file.parent}", next_step="Make it, or name another.")


Filters = list[tuple[str, str | bytes]]


def _filters(operation: list[Operation] | None, type: list[Type] | None, path: str | None) -> Filters:
    filters: Filters = [("operation", item) for item in operation or ()]
    filters += [("type", item) for item in type or ()]
    if path:
        filters.append(("path", path.encode("utf-8", "surrogateescape")))
    return filters


def _first(rest: Any, record: Json, filters: Filters, limit: int) -> Json:
    from urllib.parse import urlencode

    query = urlencode([*filters, ("limit", str(max(1, min(limit, 10_000))))])
    return dict(rest.request("GET", f"/change-lists/{record['id']}/entries?{query}"))


def _print_summary(record: Json) -> None:
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
    summary = record["summary"]
    if not summary["operations"]:
        return
    table = _counts("OPERATION")
    for name, counts in summary["operations"].items():
        table.add_row(name, f"{counts['entries']:,}", _bytes(counts["bytes"]))
    output.print_table(table)
    table = _counts("TYPE")
    for name, count in summary["types"].items():
        table.add_row(name, f"{count:,}", _bytes(summary.get("type_bytes", {}).get(name)))
    output.console.print()
    output.print_table(table)
    table = _counts("TOP DIRECTORY")
    table.add_column("")
    most = max((item["entries"] for item in summary["top_directories"]), default=1)
    for item in summary["top_directories"]:
        bar = "#" * max(1, round(30 * item["entries"] / most))
        table.add_row(output.cell("path", item["path"]), f"{item['entries']:,}", _bytes(item.get("bytes")), bar)
    output.console.print()
    output.print_table(table)


def _counts(heading: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading, overflow="fold")
    table.add_column("ENTRIES", justify="right")
    table.add_column("BYTES", justify="right")
    return table


def _bytes(count: int | None) -> str:
    from snapkeep.cli import output

    return output.size(count) if count else "-"


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


def _write_file(path: Path, form: Entries, lines: Iterable[bytes], record: Json) -> int:
    """Write all entries; return how many."""
    with whole_file(path) as partial:
        if form == "parquet":
            from snapkeep.changes.parquet import write_parquet
            from snapkeep.changes.wire import change_from_dict

            about = {key: str(record[key]) for key in ("id", "asset", "base", "new", "source")}
            return write_parquet(partial, (change_from_dict(json.loads(line)) for line in lines), about)
        if form == "ndjson":
            with partial.open("wb") as file:
                return _write_ndjson(lines, file)
        with partial.open("w", encoding="utf-8", newline="") as text:
            return _write_csv(lines, text)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the file its name when it is whole: a part of the changes would look like all of them."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write_ndjson(lines: Iterable[bytes], file: IO[bytes]) -> int:
    count = 0
    for line in lines:
        file.write(line + b"\n")
        count += 1
    file.flush()
    return count


_WHOLE = ("ndjson", "csv", "parquet")
_COLUMNS = (
    "operation", "type", "path", "path_base64", "old_path", "old_path_base64", "size", "inode",
    "created_ns", "changed_ns", "accessed_ns",
)  # fmt: skip


def _write_csv(lines: Iterable[bytes], file: IO[str]) -> int:
    """Write RFC 4180: names with newlines or quotes are quoted; exact bytes as in NDJSON."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    count = 0
    for line in lines:
        entry = json.loads(line)
        writer.writerow([entry.get(column, "") for column in _COLUMNS])
        count += 1
    file.flush()
    return count
