"""The operation `compare`: change lists by a walk, the system's own verified, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from tests.operations.backups import nothing_else_left
from tests.support.installation import Installation, Json, until

from snapkeep.model.errors import SnapkeepError

Entries = set[tuple[str, str]]


class Pair:
    """Two snapshots of the share, with known differences."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        live = installation.live()
        (live / "d").mkdir()
        for name in ("stays", "written", "goes", "locked"):
            (live / "d" / name).write_text(name)
        self.base = installation.snapshot("old")
        (live / "d" / "written").write_text("something else")
        (live / "d" / "goes").unlink()
        (live / "d" / "locked").chmod(0o400)
        (live / os.fsdecode(b"new \xff")).write_text("1")
        self.new = installation.snapshot("new")

    def ask(self, **body: str) -> Json:
        ids = {"base_id": self.base["id"], "new_id": self.new["id"]}
        return self.installation.ask("POST", "/change-lists", {**ids, **body})

    def compare(self, **body: str) -> Json:
        return dict(self.installation.wait(self.ask(**body))["result"])

    def entries(self, result: Json) -> Entries:
        lines = self.installation.rest.stream(f"/change-lists/{result['change_list']}/entries", [])
        return {(item["operation"], item["path"]) for item in map(json.loads, lines) if item["path"] != "d"}

    def directory(self, name: str) -> Path:
        found: list[Any] = [item["path"] for item in self.installation.vendor_snapshots() if item["name"] == name]
        return Path(found[0])

    def nothing_left(self) -> None:
        nothing_else_left(self.installation, [])
        assert [item["name"] for item in self.installation.vendor_snapshots()] == ["old", "new"]
        scratch = self.installation.server.data_dir / "cache" / "scratch"
        assert not scratch.exists() or list(scratch.iterdir()) == []


@pytest.fixture
def pair(installation: Installation) -> Pair:
    return Pair(installation)


def test_a_walk_finds_what_the_system_finds(pair: Pair) -> None:
    by_system, by_walk = pair.compare(), pair.compare(source="walk", verify="full")
    assert pair.entries(by_walk) == pair.entries(by_system)
    assert {operation for operation, _ in pair.entries(by_walk)} == {"modify", "delete", "metadata", "add"}
    assert (by_walk["verification"]["trusted"], by_walk["verification"]["over_reported"]) == (True, 0)
    assert pair.installation.rest.request("GET", f"/change-lists/{by_walk['change_list']}")["source"] == "walk"
    pair.nothing_left()


def test_everything_by_a_walk(pair: Pair) -> None:
    everything = {"new_id": pair.new["id"]}
    results = [
        pair.installation.wait(pair.installation.ask("POST", "/change-lists", {**everything, "source": source}))[
            "result"
        ]
        for source in ("system", "walk")
    ]
    assert pair.entries(results[0]) == pair.entries(results[1])
    with pytest.raises(SnapkeepError, match="can be verified"):
        pair.installation.ask("POST", "/change-lists", {**everything, "verify": "full"})
    pair.nothing_left()


@pytest.mark.parametrize("how", ["sample", "full"])
def test_the_command_says_whether_a_list_is_true(pair: Pair, how: str) -> None:
    command = ("snapshot", "diff", "files1/projects@new", "--base", "old", "--verify", how)
    ran = pair.installation.cli(*command)
    assert ran.code == 0, ran.err
    assert "computed by the system" in ran.out
    assert "Verified: the list is true" in ran.err
    (pair.directory("new") / "d" / "stays").write_text("the system does not know")
    ran = pair.installation.cli(*command, "--output", "json")
    assert (ran.code, ran.error()["code"]) == (12, "incomplete")
    assert "d/stays" in ran.error()["message"]
    assert (ran.json()["verification"]["trusted"], ran.json()["verification"]["missed"]) == (False, 1)
    pair.nothing_left()


def test_where_the_system_has_no_diff_the_command_names_the_walk(pair: Pair) -> None:
    installation = pair.installation
    installation.simulator.control("PATCH", "/file-servers/files1/shares/projects", {"paused": True})
    installation.discover()
    command = ("snapshot", "diff", "files1/projects@new", "--base", "old", "--output", "json")
    ran = installation.cli(*command)
    assert ran.error()["code"] == "unsupported"
    assert "--source walk" in ran.error()["next_step"]
    ran = installation.cli(*command, "--source", "walk")
    assert (ran.code, ran.json()["source"], ran.json()["state"]) == (0, "walk", "complete")
    assert installation.cli(*command, "--source", "walk").json()["id"] == ran.json()["id"], "it is stored"
    pair.nothing_left()


def test_an_export_that_was_there_stays(pair: Pair) -> None:
    body = {"host": {"name": "serve", "address": "127.0.0.1"}}
    done = pair.installation.run("POST", f"/snapshots/{pair.new['id']}/exports", body)
    assert pair.compare(source="walk")["entries"] >= 4
    (left,) = pair.installation.rest.pages("/exports")
    assert left["id"] == done["result"]["export_id"]
    assert Path(left["locations"][0]["path"]).is_dir()
    pair.installation.run("DELETE", f"/exports/{left['id']}")
    pair.nothing_left()


def test_the_same_question_has_one_answer(pair: Pair) -> None:
    pair.installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    first, second = pair.ask(source="walk"), pair.ask(source="walk")
    assert first["id"] == second["id"]
    with pytest.raises(SnapkeepError, match="under way"):
        pair.ask(verify="full")
    pair.installation.wait(first)
    pair.nothing_left()


@pytest.mark.parametrize("phase", ["changes", "export of base", "export of new"])
def test_a_cancel_leaves_nothing(pair: Pair, phase: str) -> None:
    installation = pair.installation
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5, "cft_seconds": 1.5})
    operation = pair.ask(verify="full")
    until(lambda: installation.operation(operation)["phase"].startswith(phase), 30)
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    until(lambda: installation.operation(operation)["ended_at"], 30)
    assert installation.operation(operation)["state"] == "cancelled"
    pair.nothing_left()


def test_a_killed_server_ends_it(pair: Pair) -> None:
    installation = pair.installation
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    operation = pair.ask(source="walk", verify="full")
    until(lambda: installation.operation(operation)["phase"].startswith("export of new"), 30)
    installation.server.end(signal.SIGKILL)
    installation.server.start()
    assert installation.wait(operation)["result"]["verification"]["trusted"]
    states = {"state": ["queued", "running"]}
    until(lambda: not installation.rest.request("GET", "/operations", params=states)["data"], 30)
    pair.nothing_left()
