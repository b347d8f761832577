"""What people and programs see."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from snapkeep.cli.options import Common
from snapkeep.model.errors import SnapkeepError

Json = dict[str, Any]
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def show(common: Common, rows: Iterable[Json], columns: Sequence[tuple[str, str]], *, empty: str) -> None:
    """Print rows as a table, or all of them as JSON. `columns`: (key, heading)."""
    found = list(rows)
    if common.json:
        print_json(found)
        return
    if not found:
        errors.print(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for key, heading in columns:
        numeric = isinstance(found[0].get(key), int) and not isinstance(found[0].get(key), bool)
        table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in found:
        table.add_row(*(cell(key, row.get(key)) for key, _ in columns))
    print_table(table)


def show_findings(findings: Iterable[Json]) -> None:
    """Print the lines of a check; below one that is not ok, what to do about it."""
    for finding in findings:
        outcome = finding["outcome"]
        line = Text.assemble(
            (f"{outcome:<8}", _STYLES.get(outcome, "")), f"{finding['check']}: ", printable(finding["message"])
        )
        console.print(line, soft_wrap=True)
        if outcome != "ok" and finding["next_step"]:
            console.print(
                Text.assemble("        ", ("Next: ", "bold"), printable(finding["next_step"])), soft_wrap=True
            )


def show_one(common: Common, value: Json, *, hide: Iterable[str] = (), before: Json | None = None) -> None:
    """Print one thing as lines of name and value, or as JSON. `before`: people see what of it was otherwise."""
    if common.json:
        print_json(value)
        return
    old = before or {}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, item in value.items():
        if key not in set(hide) and item not in (None, [], {}):
            was = [Text.assemble("was ", cell(key, old[key]))] if old.get(key, item) != item else []
            table.add_row(key.replace("_", " "), cell(key, item), *was)
    print_table(table)


def print_table(table: Table) -> None:
    """Print; into a pipe or a file without folding, so that a line is a row."""
    if console.is_terminal:
        console.print(table)
        return
    text = io.StringIO()
    Console(highlight=False, width=10_000, file=text).print(table, crop=False)
    for line in text.getvalue().splitlines():
        sys.stdout.write(line.rstrip() + "\n")


def cell(key: str, value: Any) -> Text:
    """Return a value as people write it."""
    if value is None:
        return Text("-", style="dim")
    if key.endswith("_at") and isinstance(value, str):
        return Text(local_time(value))
    if key.endswith("bytes") and isinstance(value, int):
        return Text(size(value))
    if key in {"outcome", "state"}:
        return Text(str(value), style=_STYLES.get(str(value), ""))
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, list):
        return Text("\n" if any(isinstance(item, dict) for item in value) else ", ").join(
            cell("", item) for item in value
        )
    if isinstance(value, dict):
        return Text("\n").join(
            Text.assemble((f"{name}: ", "dim"), cell(name, item))
            for name, item in value.items()
            if item not in ("", {})
        )
    return Text(printable(str(value)))


_STYLES = {
    "ok": "green", "succeeded": "green", "active": "green", "complete": "green", "warning": "yellow",
    "running": "cyan", "queued": "cyan", "failed": "red", "incomplete": "red", "cancelled": "yellow",
    "paused": "yellow", "alive": "green", "dead": "red", "left": "yellow",
}  # fmt: skip


def printable(text: str) -> str:
    """Return text that cannot play tricks with a terminal: control characters are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def local_time(text: str) -> str:
    """Return a time as people write it; one outside of the calendar, which files may have, as it is."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text


def size(count: int) -> str:
    """Return bytes as people read them (binary units)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")  # pragma: no cover


@contextmanager
def progress(common: Common, title: str) -> Iterator[Callable[[Json], None]]:
    """Show how an operation goes on, on standard error, where a person looks on."""
    if common.json or not errors.is_terminal:
        yield lambda _: None
        return
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    ) as bars:
        task = bars.add_task(title, total=None, note="")

        def seen(operation: Json) -> None:
            note = printable(operation["phase"])
            if operation["items"]:
                note += f", {operation['items']:,} items, {operation['items_per_second'] or 0:,.0f}/s"
            fraction = operation["progress"]
            bars.update(task, total=None if fraction is None else 1.0, completed=fraction or 0.0, note=note)

        yield seen


@contextmanager
def busy(common: Common, title: str) -> Iterator[None]:
    """Show a sign of life on standard error, where a person looks on."""
    if common.json or not errors.is_terminal:
        yield
        return
    with errors.status(title):
        yield


def print_error(error: SnapkeepError, *, as_json: bool) -> None:
    """Print an error with its next step, on standard error."""
    if as_json:
        sys.stderr.write(json.dumps({"error": error.to_dict()}) + "\n")
        return
    lines = (
        Text.assemble(("Error: ", "bold red"), printable(str(error)), ("  [" + error.code + "]", "dim")),
        Text.assemble(("Next:  ", "bold"), printable(error.next_step)),
    )
    for line in lines:
        errors.print(line, soft_wrap=True)
