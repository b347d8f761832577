"""Writes a report as one page of HTML: no scripts, nothing from elsewhere, and every text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from snapkeep.reports.report import Figures, Report, Row, Value
from snapkeep.reports.text import left_out_text, shown

# What comes last in the page is known last, and shown first: figures stand above the rows that they count.
STYLE: Final = (
    "body{display:flex;flex-direction:column;align-items:flex-start;font:14px/1.4 sans-serif;margin:2em;color:#222}"
    "header{order:-2}section{order:-1}h1{margin:0}"
    "table{border-collapse:collapse;margin:1em 0}th,td{text-align:left;padding:.2em .8em .2em 0;vertical-align:top;"
    "border-bottom:1px solid #ddd;overflow-wrap:anywhere}td.number{text-align:right}"
    ".failed,.late,.unproved,.unprotected{color:#b00020}.ok,.succeeded{color:#1b6e2a}rect{fill:#4a7ab5}"
)
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""What a browser may do with the page (Content-Security-Policy)."""
_BAR: Final = 300
"""Greatest width of a bar."""


class HtmlWriter:
    """One page, with a table of the rows and bars of the figures."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def head(self) -> str:
        """Return the beginning, with what the report is about."""
        asked = self._report.asked
        title = f"Snapkeep: {asked.kind}"
        if asked.since is not None or asked.until is not None:
            period = f"{_moment(asked.since) or 'the beginning'} to {_moment(asked.until) or 'now'}"
        else:
            period = "all that there is"
        about = f"{period}; system {asked.system}" if asked.system is not None else period
        headings = "".join(f"<th>{escape(heading)}</th>" for heading in self._report.columns.values())
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}"><style>{STYLE}</style></head>\n'
            f"<body><header><h1>{escape(title)}</h1><p>{escape(shown(about))}. Made {_moment(asked.at)}.</p></header>\n"
            f"<table><thead><tr>{headings}</tr></thead><tbody>\n"
        )

    def row(self, row: Row) -> str:
        """Return one row of the table."""
        return f"<tr>{''.join(_cell(key, row[key]) for key in self._report.columns)}</tr>\n"

    def tail(self, figures: Sequence[Figures], left_out: int) -> str:
        """Return the end of the table, and the figures."""
        missing = f"<p>{escape(left_out_text(left_out))}</p>\n" if left_out else ""
        return f"</tbody></table>\n{missing}{''.join(map(_figures, figures))}</body></html>\n"


def _cell(key: str, value: Value) -> str:
    text = escape(shown(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td class="number">{text}</td>'
    if key in {"state", "part"}:
        return f'<td class="{text}">{text}</td>'
    return f"<td>{_moment(value) if isinstance(value, datetime) else text}</td>"


def _figures(one: Figures) -> str:
    greatest = max((value for value in one.values.values() if value), default=0)
    lines = []
    for name, value in one.values.items():
        width = round(_BAR * (value or 0) / greatest) if greatest else 0
        bar = f'<td><svg width="{_BAR}" height="12"><rect width="{width}" height="12"/></svg></td>'
        number = f'<td class="number">{escape(shown(value)) or "-"}</td>'
        lines.append(f"<tr><td>{escape(shown(name))}</td>{number}{bar if one.is_plotted else ''}</tr>\n")
    return f"<section><h2>{escape(shown(one.name))}</h2><table>{''.join(lines)}</table></section>\n"


def _moment(value: datetime | None) -> str:
    return "" if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
