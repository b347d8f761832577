"""Writes reports as CSV, JSON or HTML, piece by piece as their rows come."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from snapkeep.model.reports import ReportForm
from snapkeep.reports.html import HtmlWriter
from snapkeep.reports.report import Figures, Report, Row, Value
from snapkeep.reports.text import left_out_text, shown

FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")
"""How a cell begins that a spreadsheet takes for a formula, the wide ones among them (OWASP, "CSV Injection"). Tabs and
ends of lines are escapes here. The last one makes the apostrophe before these unambiguous."""


class Writer(Protocol):
    """Writes one report in one form. All is UTF-8."""

    def head(self) -> str:
        """Return what comes before the rows."""
        ...

    def row(self, row: Row) -> str:
        """Return one row."""
        ...

    def tail(self, figures: Sequence[Figures], left_out: int) -> str:
        """Return what comes behind the rows; `left_out`: how many rows were not written."""
        ...


class Written:
    """A report in a form, as pieces of bytes."""

    def __init__(self, report: Report, form: ReportForm, *, size: int | None = None, rows: int | None = None) -> None:
        """`size`, `rows`: bytes, and rows, after which rows are left out; figures count them all. None: no bound."""
        self._report = report
        self._size = sys.maxsize if size is None else size
        self._rows = sys.maxsize if rows is None else rows
        self._writer = WRITERS[form](report)
        self.left_out = 0
        """How many rows were left out, once all was written."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Give it piece by piece, once."""
        head = self._writer.head().encode()
        size, rows = len(head), 0
        yield head
        async for page in self._report.pages:
            taken = []
            for row in page:
                line = self._writer.row(row).encode()
                if self.left_out or size + len(line) > self._size or rows == self._rows:
                    self.left_out += 1
                    continue
                size, rows = size + len(line), rows + 1
                taken.append(line)
            if taken:
                yield b"".join(taken)
        yield self._writer.tail(await self._report.figures(), self.left_out).encode()


class CsvWriter:
    """RFC 4180, every cell quoted. No cell is a formula, and each row is one line."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def head(self) -> str:
        """Return the keys of the columns."""
        return _csv_line(self._report.columns)

    def row(self, row: Row) -> str:
        """Return one line."""
        return _csv_line(row[key] for key in self._report.columns)

    def tail(self, figures: Sequence[Figures], left_out: int) -> str:
        """Return the figures, where they belong to the rows, and how many rows are missing."""
        empty = [None] * (len(self._report.columns) - 3)
        lines = [
            _csv_line([one.name, name, value, *empty])
            for one in (figures if self._report.figures_are_rows else ())
            for name, value in one.values.items()
        ]
        if left_out:
            lines.append(_csv_line([left_out_text(left_out), None, None, *empty]))
        return "".join(lines)


def _csv_line(values: Iterable[Value]) -> str:
    file = io.StringIO()
    csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerow(map(csv_cell, values))
    return file.getvalue()


def csv_cell(value: Value) -> str:
    """Return a value as a cell: one that a spreadsheet would take for a formula begins with an apostrophe."""
    text = shown(value)
    return f"'{text}" if text.startswith(FORMULA) else text


class JsonWriter:
    """One document: what it is about, `rows`, `figures`, and `left_out`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._has_rows = False

    def head(self) -> str:
        """Return the beginning."""
        asked = self._report.asked
        about = {
            "report": asked.kind.value,
            "made_at": asked.at,
            "from": asked.since,
            "to": asked.until,
            "system": asked.system,
        }
        return "{" + "".join(f"{_json(name)}:{_json(value)}," for name, value in about.items()) + '"rows":['

    def row(self, row: Row) -> str:
        """Return one object."""
        comma = "," if self._has_rows else ""
        self._has_rows = True
        return comma + "\n" + _json({key: row[key] for key in self._report.columns})

    def tail(self, figures: Sequence[Figures], left_out: int) -> str:
        """Return the end."""
        values = {one.name: dict(one.values) for one in figures}
        return f'\n],"figures":{_json(values)},"left_out":{left_out}}}\n'


def _json(value: object) -> str:
    """Return JSON in ASCII: what is no UTF-8 in a name is there as its escape."""
    return json.dumps(value, separators=(",", ":"), default=_moment)


def _moment(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} is no value of a report")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


WRITERS: Final[dict[ReportForm, type[CsvWriter] | type[JsonWriter] | type[HtmlWriter]]] = {
    ReportForm.CSV: CsvWriter,
    ReportForm.JSON: JsonWriter,
    ReportForm.HTML: HtmlWriter,
}
