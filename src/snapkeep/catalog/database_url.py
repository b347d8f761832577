"""URLs of databases: their parts, and what they say of a connection; the password in one is never repeated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from snapkeep.model.errors import InvalidInput

CONNECT_SECONDS = 5
"""How long it is tried to reach a database."""


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return URL.create("sqlite+aiosqlite", database=str(path)).render_as_string(hide_password=False)


def parse_url(url: str) -> URL:
    """Return the parts of a URL. Raises InvalidInput, which never repeats the URL: there is a password in it."""
    next_step = "Write postgresql+psycopg://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %XX (@ is %40)."
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise InvalidInput("The database URL cannot be read", next_step=next_step) from None
    if parsed.drivername not in {"sqlite+aiosqlite", "postgresql+psycopg"}:
        raise InvalidInput("The database URL is not one of PostgreSQL", next_step=next_step)
    if parsed.get_backend_name() == "postgresql":
        if "@" in f"{parsed.host}{parsed.database}":  # a password with an @ that was not escaped: part of it is here
            raise InvalidInput("The database URL has more than one @", next_step=next_step)
        if not parsed.database:
            raise InvalidInput("The database URL names no database", next_step=next_step)
    return parsed


def address_of(url: URL) -> str:
    """Say which database it is, without user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    host = url.host or url.query.get("host") or "local socket"
    return f"{host}:{url.port or 5432}/{url.database}"


def postgresql_options(url: URL) -> dict[str, Any]:
    """Notice within some 30 seconds that the server is gone; what the URL itself says comes first."""
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives": 1,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 4,
        "tcp_user_timeout": 30_000,
        "application_name": "snapkeep",
    }
    given = url.query.get("options", "")
    zone = {"options": f"{given if isinstance(given, str) else ' '.join(given)} -c timezone=UTC".strip()}
    return {name: value for name, value in options.items() if name not in url.query} | zone
