"""What all tables are made of: the metadata, types of columns, and columns that many of them have."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, DateTime, Dialect, ForeignKey, MetaData, String, Text, TypeDecorator
from sqlalchemy.types import TypeEngine


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time, stored in UTC; SQLite has no zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; convert to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("naive datetime")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Return the time as aware."""
        if value is None:
            return None
        found: datetime = value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


_ESCAPE = "\U0010ffff"
_REFUSED = re.compile(f"[\0\ud800-\udfff{_ESCAPE}]")
_ESCAPED = re.compile(f"{_ESCAPE}([0-9a-f]{{6}})")


class ExactText(TypeDecorator[str]):
    """Any text: kept and found exactly, and in the order of code points, on every database.

    PostgreSQL takes no NUL, and no database takes lone surrogates, which stand for bytes that are not UTF-8 (PEP 383).
    They are stored as U+10FFFF and six hexadecimal digits. PostgreSQL would sort by language: an index would then
    depend on the libraries of its machine, and pages on its settings.
    """

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    @property
    def python_type(self) -> type[str]:
        """Return what programs see."""
        return str

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return VARCHAR or TEXT."""
        collation = "C" if dialect.name == "postgresql" else None
        return String(self.length, collation) if self.length else Text(collation=collation)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape."""
        return value and _REFUSED.sub(lambda found: f"{_ESCAPE}{ord(found[0]):06x}", value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Turn back."""
        return value and _ESCAPED.sub(lambda found: chr(int(found[1], 16)), value)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def own_id() -> Column[Any]:
    """Return the column `id`, the primary key: a UUID as text."""
    return Column("id", ExactText(36), primary_key=True)


def reference(name: str, table: str, *, nullable: bool = False) -> Column[Any]:
    """Return a column that holds the `id` of a row of another table, and goes with that row."""
    return Column(name, ExactText(36), ForeignKey(f"{table}.id", ondelete="CASCADE"), nullable=nullable, index=True)
