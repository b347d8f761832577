"""Policies in files: what is wrong with them, and what they would do; without a server."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from snapkeep.cli.moments import bytes_of
from snapkeep.cli.policies import schema, simulate, validate
from snapkeep.model.errors import InvalidInput

GOOD = """\
# What people work on
name: projects
assets: [{system: "files*", kind: share}]
timezone: Europe/Zurich
rpo: 2h
steps:
  - name: hourly
    do: snapshot
    schedule: 0 * * * *
    keep: {hourly: 24, daily: 7}
  - {name: nightly, do: backup, repository: vault, schedule: 30 22 * * *, keep: {daily: 14, monthly: 12}}
"""
BAD = "name: homes\nassets: [{}]\ntimezone: Mars/Olympus\nsteps:\n  - {name: a, do: nothing, keep: {forever: maybe}}\n"

Output = pytest.CaptureFixture[str]


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    return tmp_path / "good.yaml"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path / "bad.yaml"


def parsed(output: Output) -> Any:
    return json.loads(output.readouterr().out)


def test_a_good_one_is_ok(good: Path, capsys: Output) -> None:
    validate([good])
    assert capsys.readouterr().out == f"{good}: ok: projects\n"


def test_all_mistakes_are_told_with_their_lines(good: Path, bad: Path, capsys: Output) -> None:
    with pytest.raises(SystemExit) as ended:
        validate([good, bad])
    assert ended.value.code == InvalidInput.exit_code
    first, *others = capsys.readouterr().out.splitlines()
    assert first.endswith("ok: projects")
    assert [line.split(": ")[:2] for line in others] == [
        [f"{bad}:3", "timezone"],
        [f"{bad}:5", "steps.0.do"],
        [f"{bad}:5", "steps.0.keep.forever"],
        [f"{bad}:5", "steps.0.schedule"],
    ]


def test_programs_get_the_same(bad: Path, capsys: Output) -> None:
    with pytest.raises(SystemExit):
        validate([bad], output="json")
    told = parsed(capsys)
    assert not told["valid"]
    assert {(one["line"], one["error"]) for one in told["files"][0]["mistakes"]} == {(3, True), (5, True)}


def test_one_name_in_two_files_is_a_mistake(good: Path, tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "again.yaml").write_text(GOOD)
    with pytest.raises(SystemExit):
        validate([good, tmp_path / "again.yaml"])
    assert "names are unique" in capsys.readouterr().out


def test_what_is_hardly_meant_is_only_noted(tmp_path: Path, capsys: Output) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(GOOD.replace("rpo: 2h", "rpo: 10m"))
    validate([file])
    assert ":5: note: rpo: 10m is promised" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_what_cannot_be_read_is_said(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "none.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"cannot be read|no text"):
        validate([file])


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD))
    validate([Path("-")])
    assert capsys.readouterr().out == "-: ok: projects\n"


def test_the_schema_knows_good_from_bad(capsys: Output) -> None:
    schema()
    judge = jsonschema_rs.Draft202012Validator(parsed(capsys))
    assert judge.is_valid(yaml.safe_load(GOOD))
    assert not judge.is_valid(yaml.safe_load(BAD))


def test_a_simulation_is_a_timeline(good: Path, capsys: Output) -> None:
    simulate(good, days=30, start="2027-03-15T12:00+00:00", size="1T", changed="10G")
    told = capsys.readouterr().out
    assert told.startswith("projects: 30 days from 2027-03-15, Europe/Zurich; one asset of 1.0 TiB, of which 10.0 GiB")
    weeks = [line.split() for line in told.splitlines() if line.startswith("2027-")]
    assert [week[0] for week in weeks] == ["2027-03-21", "2027-03-28", "2027-04-04", "2027-04-11", "2027-04-13"]
    assert weeks[-1][1:3] == ["30", "14"]
    assert "2027-04-13 23:00+02:00  hourly 1 of 24; daily 1 of 7" in told
    assert "nightly (backup): 30 made, 16 deleted, 14 kept (daily 14, monthly 12)" in told


def test_a_simulation_for_programs(good: Path, capsys: Output) -> None:
    simulate(good, days=14, start="2027-03-15T12:00+00:00", output="json")
    (told,) = parsed(capsys)
    assert [week["counts"]["hourly"] for week in told["weeks"]] == [30, 29]  # of the last 24 hours, two days
    assert {step["step"]: len(step["kept"]) for step in told["steps"]} == {"hourly": 29, "nightly": 14}
    assert told["weeks"][0]["held_bytes"] is None


def test_what_cannot_be_simulated_is_said(good: Path, bad: Path) -> None:
    with pytest.raises(InvalidInput, match="timezone") as wrong:
        simulate(bad)
    assert "policy validate" in wrong.value.next_step
    for options in ({"days": 0}, {"days": 99_999}, {"changed": "1G"}, {"size": "much"}):
        with pytest.raises(InvalidInput):
            simulate(good, **options)


def test_sizes_are_binary() -> None:
    assert [bytes_of(text) for text in ("10", "1k", "1.5 MiB", "2GB")] == [10, 1024, 3 * 2**19, 2**31]
