"""Holds, locks, four-eyes and approvals by the command line, as people use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.installation import Installation, Ran, installed
from tests.support.people import PASSWORD, People

from snapkeep.model.errors import ApprovalRequired, InvalidInput, Locked, NotFound, PermissionDenied


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("protection")) as installation:
        installation.reset()
        yield installation


def test_holds_and_locks(own: Installation) -> None:
    own.snapshot("one")
    one = "files1/projects@one"
    held = own.cli("hold", "place", one, "--reason", "audit 7")
    assert held.out.startswith(f"Held {one}: hold ")
    begin = held.out.split()[-1]
    assert own.cli("hold", "place", one, "--reason", "other", "--until", "90d").code == 0
    listed = own.cli("hold", "list", one)
    assert ("audit 7" in listed.out, begin in listed.out, "administrator" in listed.out) == (True, True, True)
    locked = own.cli("lock", "place", one, "--until", "2d", "--mode", "governance", "--reason", "monthly")
    assert locked.out.startswith(f"Locked {one} until ")
    deleted = own.cli("snapshot", "delete", one, "--yes")
    assert (deleted.code, "is kept: hold" in deleted.err, "Next:" in deleted.err) == (Locked.exit_code, True, True)
    assert "audit 7" in own.cli("snapshot", "show", one).out
    several = own.cli("hold", "release", one, "-o", "json")
    assert (several.code, "several holds" in several.error()["message"]) == (InvalidInput.exit_code, True)
    assert own.cli("hold", "release", begin).out == f"Released hold {begin} of {one}\n"
    assert own.cli("hold", "release", one).code == 0
    assert own.cli("hold", "release", one).code == NotFound.exit_code
    assert own.cli("hold", "release", begin).code == NotFound.exit_code
    later = own.cli("lock", "extend", one, "--until", "3d", "-o", "json").json()
    assert own.cli("lock", "extend", one, "--until", "1d").code == InvalidInput.exit_code
    assert own.cli("lock", "shorten", one, "--until", "4d").code == InvalidInput.exit_code
    assert own.cli("lock", "shorten", later["id"][:8], "--until", "0h").code == 0
    assert own.cli("lock", "list").out == ""
    assert "no" in own.cli("lock", "list", "--ended").out
    assert own.cli("snapshot", "delete", one, "--yes").code == 0


def test_what_cannot_be_meant_is_said(own: Installation) -> None:
    own.snapshot("two")
    two = "files1/projects@two"
    for until in ("tomorrow", "2020-01-01", "99999d", "5", "-1d", "2030-13-01", ""):
        refused = own.cli("lock", "place", two, f"--until={until}", "--mode", "governance", "--reason", "x")
        assert refused.code == InvalidInput.exit_code, until
    compliance = own.cli("lock", "place", two, "--until", "1h", "--mode", "compliance", "--reason", "x")
    assert (compliance.code, "--yes" in compliance.err) == (InvalidInput.exit_code, True)
    for subject in ("files1/projects@none", "files1/projects", "0000"):
        assert own.cli("hold", "place", subject, "--reason", "x").code in {2, NotFound.exit_code}, subject
    assert own.cli("hold", "list").out == ""


def test_a_name_is_one_part_of_a_path(own: Installation) -> None:
    own.snapshot("five")
    held = own.cli("hold", "place", "files1/projects@five", "--reason", "x", "-o", "json").json()
    [key] = own.rest.request("GET", "/keys")["data"]
    for command in (
        ("hold", "release", f"{held['id']}#x"),
        ("hold", "place", "none?x=1", "--reason", "x"),
        ("approval", "show", "none?x=1"),
        ("approval", "run", "none?x=1"),
        ("approval", "refuse", "none?x=1"),
        ("key", "retire", f"none?x={key['id']}"),
    ):
        ran = own.cli(*command, "-o", "json")
        assert (ran.code, "x" in ran.error()["message"]) == (NotFound.exit_code, True), ran
    assert own.cli("hold", "release", held["id"]).code == 0


def test_what_is_not_given_stays(own: Installation) -> None:
    people = People(own)
    for name in ("anna", "bob", "carl"):
        people.user(name, "administrator", "security-officer")

    def approved(*arguments: str) -> Ran:
        approval = own.cli(*arguments, "-o", "json", env=people.env("anna")).error()["details"]["approval_id"]
        for name in ("bob", "carl"):
            assert own.cli("approval", "approve", approval, env=people.env(name)).code == 0
        return own.cli(*arguments, "--approval", approval, env=people.env("anna"))

    begun = own.cli("four-eyes", "set", "snapshot.delete", "--needed", "2", "--hours", "48", env=people.env("anna"))
    assert begun.code == 0, begun
    before = own.rest.request("GET", "/four-eyes")
    changed = approved("four-eyes", "set", "--hours", "72")
    assert [line.split() for line in changed.out.splitlines() if "was" in line] == [["hours", "72", "was", "48"]]
    assert own.rest.request("GET", "/four-eyes") == {**before, "hours": 72}
    assert approved("four-eyes", "set", "system.remove").code == 0
    after = own.rest.request("GET", "/four-eyes")
    assert (after["needed"], after["hours"]) == (2, 72)
    assert {*after["actions"]} ^ {*before["actions"]} == {"snapshot.delete", "system.remove"}
    assert approved("four-eyes", "off").code == 0
    people.close()

    assert own.cli("cooling", "set", "--hours", "12", "-o", "json").json() == {"limit": 20, "hours": 12}
    changed = own.cli("cooling", "set", "--limit", "7")
    assert [line.split() for line in changed.out.splitlines()] == [["limit", "7", "was", "20"], ["hours", "12"]]
    assert own.cli("cooling", "set", "--hours", "9", "-o", "json").json() == {"limit": 7, "hours": 9}
    assert own.cli("cooling", "set", "--hours", "0").code == InvalidInput.exit_code
    assert own.cli("cooling", "off").code == 0


def test_four_eyes(own: Installation) -> None:
    people = People(own)
    for name in ("anna", "bob"):
        people.user(name, "administrator", "security-officer")

    def cli(name: str, *arguments: str, **env: str) -> Ran:
        return own.cli(*arguments, env=people.env(name) | env)

    own.snapshot("three")
    own.snapshot("four")
    assert "no" in cli("anna", "four-eyes", "show").out
    assert cli("anna", "four-eyes", "set", "--needed", "2").code != 0, "there is but one other"
    assert "snapshot.delete" in cli("anna", "four-eyes", "set", "--hours", "2").out

    def asked(*arguments: str) -> str:
        ran = cli("anna", *arguments, "-o", "json")
        assert (ran.code, ran.error()["code"]) == (ApprovalRequired.exit_code, "approval_required"), ran
        assert "snapkeep approval approve" in ran.error()["next_step"]
        return str(ran.error()["details"]["approval_id"])

    approval = asked("snapshot", "delete", "files1/projects@three", "--yes")
    assert "files1/projects@three" in cli("bob", "approval", "list", "--state", "open").out
    shown = cli("bob", "approval", "show", approval[:8], "-o", "json").json()
    assert (shown["method"], shown["requester"], shown["decisions"]) == ("DELETE", "anna", [])
    assert cli("anna", "approval", "approve", approval).code == PermissionDenied.exit_code
    assert cli("anna", "approval", "run", approval).code == ApprovalRequired.exit_code
    assert "Approved, to be done once" in cli("bob", "approval", "approve", approval, "--comment", "old").out
    assert cli("bob", "approval", "run", approval).code != 0, "who approves does not do it"
    assert "succeeded" in cli("anna", "approval", "run", approval[:8]).out
    assert cli("anna", "approval", "run", approval).code != 0, "it works once"

    approval = asked("snapshot", "delete", "files1/projects@four", "--yes")
    assert cli("bob", "approval", "refuse", approval, "--comment", "no").out.startswith("Refused")
    repeated = cli("anna", "snapshot", "delete", "files1/projects@four", "--yes", "--approval", approval)
    assert repeated.code == PermissionDenied.exit_code
    approval = asked("snapshot", "delete", "files1/projects@four", "--yes")
    cli("bob", "approval", "approve", approval)
    wrong = cli("anna", "system", "remove", "files1", "--force", SNAPKEEP_APPROVAL=approval)
    assert wrong.code != 0
    assert cli("anna", "snapshot", "delete", "files1/projects@four", "--yes", "--approval", approval).code == 0

    body: dict[str, Any] = {"name": "eve", "password": PASSWORD}
    with pytest.raises(ApprovalRequired) as caught:
        people.again("anna").request("POST", "/identities", json=body)
    secret = caught.value.details["approval_id"]
    cli("bob", "approval", "approve", secret)
    hidden = cli("anna", "approval", "run", secret, "-o", "json")
    assert (hidden.code, "--approval" in hidden.error()["next_step"]) == (InvalidInput.exit_code, True)
    assert PASSWORD not in json.dumps(cli("bob", "approval", "show", secret, "-o", "json").json())

    approval = asked("four-eyes", "off")
    cli("bob", "approval", "approve", approval)
    assert cli("anna", "four-eyes", "off", "--approval", approval).code == 0
    assert not cli("anna", "four-eyes", "show", "-o", "json").json()["enabled"]
    assert own.rest.request("GET", "/systems")["data"]
    people.close()
