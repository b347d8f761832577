"""What is written can be read again, and no name plays a trick: on spreadsheets, on browsers, on whoever parses it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.cli.output import printable
from snapkeep.model.reports import ReportForm, ReportKind
from snapkeep.reports.report import Asked, Figures, Report, Row
from snapkeep.reports.text import plain, shown
from snapkeep.reports.writing import Written

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOSTILE = (
    "=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1", "\t=1", "\r\n=1", "\uff1d1", "'=1", '"', '",=1', "]]>", "&lt;",
    "<script>alert(1)</script>", "</table><img src=x onerror=alert(1)>", "caf\udce9", "\0", "\u202egpj.exe", "\ud800",
    "a\nb", "",
)  # fmt: skip
texts = st.sampled_from(HOSTILE) | st.text(st.characters(codec=None), max_size=12)
values = texts | st.none() | st.booleans() | st.integers(0, 2**60) | st.lists(texts, max_size=3) | st.just(AT)
rows = st.lists(st.fixed_dictionaries({"name": values, "state": texts, "more": values}), max_size=6)
COLUMNS = {"name": "Name", "state": "State", "more": "More <b>"}


def report(found: Sequence[Row], *figures: Figures, system: str | None = None, **more: Any) -> Report:
    async def pages() -> AsyncIterator[Sequence[Row]]:
        for start in range(0, len(found), 2):
            yield found[start : start + 2]

    async def told() -> Sequence[Figures]:
        return figures

    asked = Asked(ReportKind.SUMMARY, AT, system=system)
    return Report(asked=asked, columns=COLUMNS, pages=pages(), figures=told, **more)


def written(made: Report, form: ReportForm, **most: int) -> tuple[bytes, int]:
    """Write a report; there is nothing to wait for."""
    one = Written(made, form, **most)
    found: list[bytes] = []

    async def write() -> None:
        found.extend([piece async for piece in one.pieces()])

    with pytest.raises(StopIteration):
        write().send(None)
    return b"".join(found), one.left_out


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, "everything that begins ends"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in {"src", "href"} for name, _ in attrs)
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


@given(rows)
def test_csv_reads_back_and_no_cell_is_a_formula(found: list[dict[str, Any]]) -> None:
    content, _ = written(report(found), ReportForm.CSV)
    text = content.decode()
    assert text.count("\r\n") == len(found) + 1, "each row is a line"
    assert "\0" not in text
    head, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert head == list(COLUMNS)
    for row, line in zip(found, lines, strict=True):
        for key, cell in zip(COLUMNS, line, strict=True):
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
            assert cell.removeprefix("'") == shown(row[key]), "what is before it can be taken away"


@given(rows, texts)
def test_html_parses_and_shows_every_text_as_text(found: list[dict[str, Any]], system: str) -> None:
    figures = Figures("per <kind>", {"a<b>": 3, "c": None, "d": 0})
    content, _ = written(report(found, figures, system=system), ReportForm.HTML)
    page = Page(content.decode())
    assert page.tags <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "p", "table", "thead", "tbody", "tr", "th",
        "td", "section", "h2", "svg", "rect",
    }  # fmt: skip
    expected = [shown(row[key]) if row[key] != AT else "2026-11-28 12:00:00 UTC" for row in found for key in COLUMNS]
    assert page.cells[: len(expected)] == expected
    assert [cell for cell in page.cells[len(expected) :] if cell] == ["a<b>", "3", "c", "-", "d", "0"]


@given(rows, texts)
def test_json_is_exact(found: list[dict[str, Any]], system: str) -> None:
    content, _ = written(report(found, Figures("x", {"a": 1, "b": 0.5}), system=system), ReportForm.JSON)
    assert content.isascii()
    read = json.loads(content)
    moments = [{key: "2026-11-28T12:00:00Z" if value == AT else value for key, value in row.items()} for row in found]
    assert read["rows"] == moments
    assert (read["system"], read["figures"], read["left_out"]) == (system, {"x": {"a": 1, "b": 0.5}}, 0)


@pytest.mark.parametrize("form", list(ReportForm))
@given(size=st.integers(0, 6000), rows=st.integers(0, 50))
def test_what_is_too_long_is_cut_at_a_row_and_says_so(form: ReportForm, size: int, rows: int) -> None:
    found: list[Row] = [{"name": f"n{number}", "state": "ok", "more": "x" * 20} for number in range(40)]
    content, left_out = written(report(found, Figures("f", {"a": 40})), form, size=size, rows=rows)
    assert 40 - left_out <= rows
    names = [f"n{number}" for number in range(40 - left_out)]
    text = content.decode()
    assert (left_out == 0) == ("left out" not in text if form is not ReportForm.JSON else '"left_out":0' in text)
    if left_out:
        assert str(left_out) in text
        assert len(content) < size + 1500, "what comes before and behind the rows is short"
    match form:
        case ReportForm.JSON:
            assert [row["name"] for row in json.loads(text)["rows"]] == names
        case ReportForm.CSV:
            told = [line[0] for line in csv.reader(io.StringIO(text))][1:]
            assert told[: len(names)] == names
            assert len(told) == len(names) + bool(left_out)
        case ReportForm.HTML:
            cells = Page(text).cells
            assert [cell for cell in cells if cell.startswith("n")] == names


def test_figures_are_rows_where_they_belong_to_them() -> None:
    figures = Figures("coverage", {"ok": 3, "late": 1})
    content, _ = written(report([], figures, figures_are_rows=True), ReportForm.CSV)
    assert list(csv.reader(io.StringIO(content.decode())))[1:] == [["coverage", "ok", "3"], ["coverage", "late", "1"]]
    assert b"coverage" not in written(report([], figures), ReportForm.CSV)[0]


def test_names_that_are_no_utf8_are_as_elsewhere_on_the_command_line() -> None:
    for text in HOSTILE:
        assert plain(text) == printable(text)
