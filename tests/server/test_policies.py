"""Policies through every door: REST, the command line, the runner of a server that runs, a kill, retention."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, Json, installed, until
from tests.support.people import People

from snapkeep.cli.coverage import UNCOVERED
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, SnapkeepError

TEXT = """\
# What people work on
name: projects
assets: [{{system: files1, name: projects}}]
delete_at_most: 10
steps:
  - {{name: often, do: snapshot, schedule: "{cron}", keep: {{last: {last}}}}}   # of course
"""


def text(cron: str = "* * * * *", last: int = 2) -> str:
    return TEXT.format(cron=cron, last=last)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("policies")) as installation:
        installation.reset()
        yield installation


@pytest.fixture(autouse=True)
def without_policies(own: Installation) -> Iterator[None]:
    yield
    for policy in own.rest.request("GET", "/policies")["data"]:
        own.rest.request("DELETE", f"/policies/{policy['name']}")


def plan(own: Installation, name: str = "projects") -> tuple[list[Json], Json]:
    *items, end = [json.loads(line) for line in own.rest.stream(f"/policies/{name}/plan", [])]
    return items, end


def test_all_mistakes_are_fields_and_nothing_is_stored(own: Installation) -> None:
    wrong = text("61 * * * *").replace("name: projects\n", "name: projects\nzone: UTC\n", 1)
    with pytest.raises(InvalidInput) as told:
        own.rest.request("PUT", "/policies/projects", json={"text": wrong})
    assert [field.partition(":")[0] for field in told.value.details["fields"]] == ["line 3", "line 7"]
    for bad in ("", "nonsense: [", text() + "---\n" + text().replace("name: projects", "name: other", 1),
                text().replace("do: snapshot", "do: backup, repository: nowhere")):  # fmt: skip
        with pytest.raises(InvalidInput):
            own.rest.request("PUT", "/policies/projects", json={"text": bad})
    with pytest.raises(InvalidInput, match="is not the name"):
        own.rest.request("PUT", "/policies/other", json={"text": text()})
    assert own.rest.request("GET", "/policies")["data"] == []


def test_the_life_of_a_policy(own: Installation) -> None:
    rest = own.rest
    dry = rest.request("PUT", "/policies/projects", json={"text": text("0 3 * * *")}, params={"dry_run": True})
    assert dry == {"would": "add the policy projects", "affected": ["1 assets are under it"]}
    first = rest.request("PUT", "/policies/projects", json={"text": text("0 3 * * *")})
    assert (first["enabled"], first["revision"], first["steps"]) == (True, 1, ["often"])
    assert first["deletes_from"] > first["changed_at"]
    shown, tag = rest.read("/policies/projects")
    assert shown == first
    assert shown["text"] == text("0 3 * * *")
    again = rest.request("PUT", "/policies/projects", json={"text": text("0 3 * * *")})
    assert again == first, "the same text changes nothing"
    rest.request("PUT", "/policies/projects", json={"text": text("0 4 * * *")}, headers={"If-Match": tag})
    with pytest.raises(Conflict, match="Somebody changed"):
        rest.request("PUT", "/policies/projects", json={"text": text("0 5 * * *")}, headers={"If-Match": tag})
    assert not rest.request("POST", "/policies/projects/disable")["enabled"]
    enabled = rest.request("POST", "/policies/projects/enable")
    assert enabled["revision"] == 4
    assert rest.request("POST", "/policies/projects/enable") == enabled, "twice is once"
    assert rest.request("DELETE", "/policies/projects", params={"dry_run": True})["would"]
    rest.request("DELETE", "/policies/projects")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/plan"), ("POST", "/enable")):
        with pytest.raises(NotFound):
            rest.request(method, f"/policies/projects{path}")
    lines = rest.request("GET", "/audit", params={"action": "policy.change", "limit": 1000})["data"]
    assert {line["outcome"] for line in lines} >= {"asked", "done", "failed"}


def test_it_runs_across_a_kill_is_planned_and_pruned(own: Installation) -> None:
    rest = own.rest
    foreign = own.snapshot("by-hand")
    rest.request("PUT", "/policies/projects", json={"text": text()})

    def runs() -> list[Json]:
        found = own.rest.request("GET", "/operations", params={"requester": "policy:projects", "state": "succeeded"})
        return list(found["data"])

    until(lambda: len(runs()) >= 1, 90)
    own.server.end(signal.SIGKILL)
    own.server.start()
    until(lambda: len(runs()) >= 3, 180)
    own.rest.request("POST", "/policies/projects/disable")
    minutes = [run["created_at"][:16] for run in runs()]
    assert len(set(minutes)) == len(minutes), "each minute is run once"
    items, end = plan(own)
    made = [item for item in items if item["step"] == "often"]
    assert [item["delete"] for item in made] == [False, False] + [True] * (len(made) - 2)
    assert made[0]["reason"] == "last 1 of 2"
    assert {item["reason"] for item in items if item["id"] == foreign["id"]} == {"no policy has made it"}
    held = own.rest.request("POST", f"/snapshots/{made[-1]['id']}/holds", json={"reason": "case 12"})
    with pytest.raises(Conflict):
        own.rest.request("POST", "/policies/projects/prune", json={"hash": end["hash"]})
    assert [item["reason"] for item in plan(own)[0] if item["id"] == made[-1]["id"]] == ["hold (case 12)"]
    own.rest.request("DELETE", f"/holds/{held['id']}")
    assert plan(own)[1]["hash"] == end["hash"]
    told = own.cli("policy", "plan", "projects")
    assert f"--plan {end['hash']}" in told.out
    assert "older than all that last 2 keeps" in told.out
    pruned = own.cli("policy", "prune", "projects", "--plan", end["hash"])
    assert pruned.out.startswith("Deleting "), pruned
    until(lambda: plan(own)[1]["deleted"] == 0, 30)
    left = {item["id"] for item in plan(own)[0]}
    assert left == {item["id"] for item in items if not item["delete"]}


def test_the_command_line(own: Installation, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text("0 3 * * *"))
    assert own.cli("policy", "apply", str(file), "--dry-run").out == (
        "Would add the policy projects: 1 assets are under it\n"
    )
    assert "no policies" in own.cli("policy", "list").err
    assert own.cli("policy", "apply", str(file)).out == "Applied projects: 1 assets are under it\n"
    file.write_text(text("0 4 * * *").replace("name: projects}", "name: nothing*}"))
    assert "note: no asset is under it" in own.cli("policy", "apply", str(file)).out
    assert own.cli("policy", "export", "projects").out == file.read_text()
    assert "0 4 * * *" in own.cli("policy", "show", "projects").out
    assert own.cli("policy", "disable", "projects").out == "projects is disabled\n"
    assert "no " in own.cli("policy", "list").out
    assert own.cli("policy", "enable", "projects", "-o", "json").json()["enabled"]
    assert own.cli("policy", "plan", "projects", "-o", "json").json()["deleted"] == 0
    assert own.cli("policy", "prune", "projects").code == InvalidInput.exit_code
    assert own.cli("policy", "prune", "projects", "--plan", "0" * 64).code == Conflict.exit_code
    assert "nothing was done" in own.cli("policy", "prune", "projects", "--dry-run").out
    assert "nothing was done" in own.cli("policy", "remove", "projects", "--dry-run").out
    assert own.cli("policy", "remove", "projects").code == 0
    assert own.cli("policy", "show", "projects").code == NotFound.exit_code
    file.write_text(text("61 * * * *"))
    assert "61 * * * *" in own.cli("policy", "apply", str(file)).err


def test_who_may_what(own: Installation) -> None:
    people = People(own)
    own.rest.request("PUT", "/policies/projects", json={"text": text("0 3 * * *")})
    viewer, administrator = people.someone("viewer"), people.someone("administrator")
    scoped = people.someone(("administrator", "system:files1"))
    assert viewer.request("GET", "/policies/projects")["name"] == "projects"
    assert b"".join(viewer.content("/policies/projects/plan", []))
    for rest in (viewer, scoped):
        for method, path, body in (
            ("PUT", "", {"text": text()}), ("DELETE", "", None), ("POST", "/disable", None),
            ("POST", "/prune", {"hash": "0" * 64}),
        ):  # fmt: skip
            with pytest.raises(SnapkeepError) as refused:
                rest.request(method, f"/policies/projects{path}", json=body)
            assert refused.value.code == "permission_denied"
    assert not administrator.request("POST", "/policies/projects/disable")["enabled"]
    people.close()


def test_what_is_covered(own: Installation) -> None:
    before = own.cli("coverage")
    assert before.code == UNCOVERED
    assert "unprotected" in before.out
    own.rest.request(
        "PUT", "/policies/projects", json={"text": text("0 3 * * *").replace("delete", "rpo: 1d\ndelete", 1)}
    )
    own.snapshot()
    rows = {row["asset"]: row for row in own.rest.pages("/coverage", limit=2)}
    assert rows["files1/projects"]["state"] == "ok"
    assert rows["files1/projects"]["policies"] == ["projects"]
    assert rows["files1/projects"]["age_seconds"] < 60
    until(lambda: {row["asset"]: row for row in own.rest.pages("/coverage")}["files1/projects"]["next_at"], 15)
    assert {row["state"] for row in rows.values()} == {"ok", "unprotected", "impossible"}
    told = own.cli("coverage", "--problems", "-o", "json")
    assert told.code == UNCOVERED
    assert {row["state"] for row in told.json()} == {"unprotected"}
    everything = text("0 3 * * *").replace("system: files1, name: projects", "system: files1")
    own.rest.request("PUT", "/policies/projects", json={"text": everything})
    assert own.cli("coverage").code == 0
