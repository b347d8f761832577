"""Parts of the command line that need no server."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.cli.moments import ago, from_now
from snapkeep.cli.output import cell, local_time, printable, size
from snapkeep.cli.references import Reference, parse, parse_asset, parse_snapshot
from snapkeep.model.errors import InvalidInput

names = st.text(min_size=1).filter(lambda text: "/" not in text)


@given(names, names, names.filter(lambda text: "@" not in text))
def test_references_round_trip(system: str, asset: str, snapshot: str) -> None:
    assert parse_snapshot(f"{system}/{asset}@{snapshot}") == Reference(system, asset, snapshot)
    assert parse_asset(f"{system}/{asset}") == Reference(system, asset, "")


@pytest.mark.parametrize("text", ["", "/", "a/", "/b", "a/@s", "a/b@"])
def test_what_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse(text)


@given(st.text())
def test_nothing_printed_controls_the_terminal(text: str) -> None:
    assert all(char.isprintable() for char in printable(text))


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 * 2**40, "3.0 TiB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_a_time_is_local_and_one_outside_of_the_calendar_is_left_as_it_is() -> None:
    there = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert local_time(there.isoformat()) == f"{there.astimezone():%Y-%m-%d %H:%M:%S}"
    for outside in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "+12026-01-01T00:00:00Z"):
        assert cell("ends_at", outside).plain == outside


@pytest.mark.parametrize(("text", "back"), [("7d", timedelta(days=7)), ("12h", timedelta(hours=12))])
def test_days_and_hours_are_from_now_on_or_ago(text: str, back: timedelta) -> None:
    now = datetime.now(UTC)
    assert abs(from_now(text) - now - back) < timedelta(minutes=1)
    assert abs(now - ago(text) - back) < timedelta(minutes=1)
    assert ago("2026-11-28T12:00:00Z") == from_now("2026-11-28T13:00+01:00")
    with pytest.raises(InvalidInput, match="no time"):
        ago("99999d9")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_generated(shell: str) -> None:
    code = f"from snapkeep.cli.main import app; print(app.generate_completion(shell={shell!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for word in ("snapshot", "discover", "operation"):
        assert word in done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom snapkeep.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'fastapi', 'sqlalchemy', 'dbos', 'httpx2', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
