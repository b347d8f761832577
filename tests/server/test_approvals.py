"""Four-eyes through the API alone: who asks, who approves, what passes, once, and what never does."""

from __future__ import annotations

import json
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation, Json, installed
from tests.support.people import PASSWORD, People

from snapkeep.cli.rest import Rest
from snapkeep.model.access import Action
from snapkeep.model.approvals import ALWAYS, USUAL
from snapkeep.model.errors import ApprovalRequired, Conflict, InvalidInput, NotFound, PermissionDenied, SnapkeepError
from snapkeep.server.openapi import PERMISSION

BOTH = ("administrator", "security-officer")
ABSENT = {"backup_id", "operation_id", "export_id", "list_id"}
"""Of which there is none in these tests."""


class Office:
    """Anna, Bob and Carl may do everything, but with four-eyes on not alone; so may a program."""

    def __init__(self, own: Installation, people: People) -> None:
        self.own = own
        self.people = people
        self.anna, self.bob, self.carl = (people.user(name, *BOTH) for name in ("anna", "bob", "carl"))
        self.program = people.service("program", *BOTH)

    def restarted(self) -> None:
        """Speak to the server where it is now."""
        self.own.server.end(signal.SIGKILL)
        self.own.server.start()
        self.anna, self.bob, self.carl = (self.people.again(name) for name in ("anna", "bob", "carl"))
        self.program = self.people.again("program")

    def turn_on(self, **body: Any) -> None:
        self.own.rest.request("PUT", "/four-eyes", json={"enabled": True, **body})

    def turn_off(self) -> None:
        """As several people do."""
        policy = self.own.rest.request("GET", "/four-eyes")
        if policy["enabled"]:
            self.by_all("PUT", "/four-eyes", {"enabled": False})

    def by_all(self, method: str, path: str, body: Any = None) -> Any:
        """Have it done by Anna, with the approval of as many as it needs."""
        approval = required(self.anna, method, path, body)
        for other in (self.bob, self.carl)[len(approval["decisions"]) : approval["needed"]]:
            approve(other, approval)
        return repeat(self.anna, method, path, body, approval["id"])


@pytest.fixture(scope="module")
def staffed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with installed(tmp_path_factory.mktemp("approvals")) as installation:
        installation.reset()
        people = People(installation)
        yield Office(installation, people)
        people.close()


@pytest.fixture
def office(staffed: Office) -> Iterator[Office]:
    yield staffed
    staffed.turn_off()


def body_of(body: Any) -> str:
    return "" if body is None else json.dumps(body)


def repeat(rest: Rest, method: str, path: str, body: Any, approval: str, query: str = "") -> Any:
    return rest.repeat(method, f"/v1{path}", query, body_of(body), approval=approval)


def send(rest: Rest, method: str, path: str, body: Any = None, query: str = "") -> Any:
    """Send a request as `repeat` does."""
    return repeat(rest, method, path, body, "", query)


def required(rest: Rest, method: str, path: str, body: Any = None, query: str = "") -> Json:
    """Ask for what needs approval; return the approval."""
    with pytest.raises(ApprovalRequired) as caught:
        send(rest, method, path, body, query)
    return dict(rest.request("GET", f"/approvals/{caught.value.details['approval_id']}"))


def approve(rest: Rest, approval: Json, verb: str = "approve", comment: str = "") -> Json:
    return dict(rest.request("POST", f"/approvals/{approval['id']}/{verb}", json={"comment": comment}))


def snapshots(own: Installation) -> set[str]:
    return {item["name"] for item in own.vendor_snapshots()}


# -- the way -----------------------------------------------------------------------------------------------------------
def test_two_people_delete_a_snapshot(office: Office) -> None:
    own, snapshot = office.own, office.own.snapshot()
    path = f"/snapshots/{snapshot['id']}"
    office.turn_on()
    approval = required(office.anna, "DELETE", path)
    assert (approval["action"], approval["subject"], approval["requester"]) == (
        "snapshot.delete", snapshot["reference"], "anna",
    )  # fmt: skip
    assert (approval["method"], approval["path"], approval["body"]) == ("DELETE", f"/v1{path}", "")
    assert (approval["state"], approval["needed"], approval["decisions"]) == ("open", 1, [])
    assert required(office.anna, "DELETE", path)["id"] == approval["id"], "asked again, it is the same"
    with pytest.raises(ApprovalRequired):
        repeat(office.anna, "DELETE", path, None, approval["id"])
    for nobody in (office.anna, office.program, own.rest):
        with pytest.raises(PermissionDenied):
            approve(nobody, approval)
    assert [item["id"] for item in office.bob.pages("/approvals", state=["open"])] == [approval["id"]]
    approved = approve(office.bob, approval, comment="it is old")
    assert approved["state"] == "approved"
    assert [(one["by"], one["approves"], one["comment"]) for one in approved["decisions"]] == [
        ("bob", True, "it is old")
    ]
    with pytest.raises(Conflict, match="not open any more"):
        approve(office.carl, approval, "refuse")
    assert snapshot["name"] in snapshots(own), "to approve does nothing"
    for other in (office.bob, office.program, own.rest):
        with pytest.raises(Conflict, match="has no approval"):
            repeat(other, "DELETE", path, None, approval["id"])
    operation = repeat(office.anna, "DELETE", path, None, approval["id"])
    assert own.wait(operation)["requester"] == "anna"
    assert snapshot["name"] not in snapshots(own)
    assert office.anna.request("GET", f"/approvals/{approval['id']}")["state"] == "used"
    with pytest.raises(Conflict, match="is used"):
        repeat(office.anna, "DELETE", path, None, approval["id"])


def test_every_route_whose_action_is_covered_asks_first(office: Office) -> None:
    """By the description: nothing can forget it. What is refused for want of approval has changed nothing."""
    own = office.own
    snapshot = own.snapshot()
    hold = own.rest.request("POST", f"/snapshots/{snapshot['id']}/holds", json={"reason": "x"})
    lock = own.rest.request(
        "POST",
        f"/snapshots/{snapshot['id']}/locks",
        json={"reason": "x", "mode": "governance", "until": "2030-01-01T00:00:00Z"},
    )
    description = own.rest.request("GET", "/openapi.json")
    everything = sorted(set(Action) - {Action.APPROVAL_DECIDE} - {one for one in Action if one.value.endswith(".read")})
    own.rest.request("PUT", "/four-eyes", json={"enabled": True, "actions": everything})
    here = {"name": "files1", "snapshot_id": snapshot["id"], "asset_id": own.asset()["id"]}
    asked: dict[str, set[str]] = {}
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            actions = set(operation[PERMISSION])
            if not actions & set(everything):
                continue
            values = {**here, "protection_id": (lock if "/locks/" in path else hold)["id"]}
            values |= {"name": "anna"} if "/identities/" in path else {}
            missing = set(re.findall(r"\{(\w+)\}", path)) - values.keys()
            assert missing <= {*ABSENT, "grant_id", "key_id"}, (path, missing)
            if missing & ABSENT or "/repositories/" in path:
                continue  # each of them is found as the others are
            concrete = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "x"), path)  # noqa: B023
            code = code_of(own.rest, method.upper(), concrete.removeprefix("/v1"))
            if actions == {"change-list.create"}:
                assert code == "invalid_input", "what it is about is in the body"
                continue
            assert code == "approval_required", (method, path, code)
            asked.setdefault(sorted(actions)[0], set()).add(path)
    assert len(asked) >= 17, sorted(asked)
    assert own.rest.request("GET", f"/snapshots/{snapshot['id']}")["gone_at"] is None
    assert own.asset()["labels"] == {}


def code_of(rest: Rest, method: str, path: str) -> str:
    try:
        rest.request(method, path, json={} if method in {"POST", "PUT", "PATCH"} else None)
    except SnapkeepError as error:
        return error.code
    return "done"


def test_recovery_points_operations_and_repositories_ask_too(office: Office, tmp_path: Path) -> None:
    from tests.operations.backups import Backups

    own = office.own
    backups = Backups(own, tmp_path / "r")
    backups.fill(5)
    backup = backups.make()
    snapshot = own.snapshot()
    own.fault("task", task="fail", method="DELETE", route="/snapshots/{snapshot}")
    failed = own.ask("DELETE", f"/snapshots/{snapshot['id']}")
    with pytest.raises(SnapkeepError):
        own.wait(failed)
    office.turn_on()
    for method, path, body, action in (
        ("DELETE", f"/backups/{backup['id']}?force=true", None, "backup.forget"),
        ("POST", f"/backups/{backup['id']}/restore", {"confirmation": "projects"}, "backup.put-back"),
        ("DELETE", f"/repositories/{backups.name}?force=true", None, "repository.remove"),
        ("POST", f"/operations/{failed['id']}/retry", None, "snapshot.delete"),
        ("POST", f"/snapshots/{snapshot['id']}/restore", {"confirmation": "projects"}, "snapshot.restore"),
        ("DELETE", "/systems/files1?force=true", None, "system.remove"),
    ):
        bare, _, query = path.partition("?")
        assert required(office.anna, method, bare, body, query)["action"] == action
    assert backups.known() == [backup]
    assert office.anna.request("GET", f"/snapshots/{snapshot['id']}")["gone_at"] is None
    body = {"target": str(tmp_path / "back")}  # to a directory: not of the usual ones
    own.wait(office.anna.request("POST", f"/backups/{backup['id']}/restore", json=body))


# -- what never passes -------------------------------------------------------------------------------------------------
def test_only_the_very_same_request_passes(office: Office) -> None:
    own, snapshot = office.own, office.own.snapshot()
    path, body = f"/snapshots/{snapshot['id']}/restore", {"confirmation": "projects"}
    other = f"/snapshots/{own.snapshot()['id']}/restore"
    office.turn_on()
    approval = required(office.anna, "POST", path, body, "dry_run=false")
    approve(office.bob, approval)
    raw, same = body_of(body), "dry_run=false"
    for method, wrong_path, query, content in (
        ("POST", path, same, raw + " "), ("POST", path, same, raw.replace("p", "P", 1)), ("POST", path, same, ""),
        ("POST", path, "dry_run=0", raw), ("POST", path, "", raw), ("POST", other, same, raw),
        ("DELETE", f"/snapshots/{snapshot['id']}", "", ""),
    ):  # fmt: skip
        with pytest.raises(Conflict, match="is for another request"):
            office.anna.repeat(method, f"/v1{wrong_path}", query, content, approval=approval["id"])
    for unknown in ("x", approval["id"][::-1]):
        with pytest.raises(Conflict, match="has no approval"):
            repeat(office.anna, "POST", path, body, unknown, "dry_run=false")
    done = repeat(office.anna, "POST", path, body, approval["id"][:8], "dry_run=false")
    assert own.wait(done)["state"] == "succeeded"


def test_a_refusal_ends_it(office: Office) -> None:
    path = f"/snapshots/{office.own.snapshot()['id']}"
    office.turn_on(needed=2)
    approval = required(office.anna, "DELETE", path)
    assert approve(office.bob, approval)["state"] == "open", "one of two"
    with pytest.raises(Conflict, match="has decided already"):
        approve(office.bob, approval)
    assert approve(office.carl, approval, "refuse", "not today")["state"] == "refused"
    with pytest.raises(PermissionDenied, match="not today"):
        repeat(office.anna, "DELETE", path, None, approval["id"])
    again = required(office.anna, "DELETE", path)
    assert again["id"] != approval["id"]
    for other in (office.bob, office.carl):
        approve(other, again)
    assert office.own.wait(repeat(office.anna, "DELETE", path, None, again["id"]))["state"] == "succeeded"


def test_who_has_lost_the_right_has_not_approved(office: Office) -> None:
    own, path = office.own, f"/snapshots/{office.own.snapshot()['id']}"
    people = office.people
    for name in ("dora", "emil"):
        people.user(name, "administrator")
    office.turn_on()
    grant = own.rest.request("GET", "/identities/emil")["grants"][0]["id"]
    let_in = ("PATCH", "/identities/dora", {"disabled": False})
    for name, losing in (
        ("dora", [("PATCH", "/identities/dora", {"disabled": True}), let_in]),
        ("dora", [("DELETE", "/identities/dora", None), ("POST", "/identities", {"name": "dora", "password": PASSWORD}),
                ("POST", "/identities/dora/grants", {"role": "administrator", "scope": "all"})]),
        ("emil", [("DELETE", f"/identities/emil/grants/{grant}", None)]),
    ):  # fmt: skip
        approval = required(office.anna, "DELETE", path)
        approve(people.again(name), approval)
        back = losing.pop() if losing[-1] == let_in else None
        for one in losing:
            office.by_all(*one)
        with pytest.raises(Conflict, match="too few still may"):
            repeat(office.anna, "DELETE", path, None, approval["id"])
        with pytest.raises(Conflict, match="is expired"):
            repeat(office.anna, "DELETE", path, None, approval["id"])
        if back:
            office.by_all(*back)
            people.log_in(name)
    for name in ("dora", "emil"):
        office.by_all("DELETE", f"/identities/{name}")
        del people.tokens[name]
    assert own.rest.request("GET", path)["gone_at"] is None


def test_who_asks_must_be_allowed_to_when_it_is_done(office: Office) -> None:
    own, path = office.own, f"/snapshots/{office.own.snapshot()['id']}"
    office.turn_on()
    approval = required(office.program, "DELETE", path)
    approve(office.bob, approval)
    grants = [one for one in own.rest.request("GET", "/identities/program")["grants"] if one["role"] == BOTH[0]]
    revoking = required(office.anna, "DELETE", f"/identities/program/grants/{grants[0]['id']}")
    approve(office.bob, revoking)
    repeat(office.anna, "DELETE", f"/identities/program/grants/{grants[0]['id']}", None, revoking["id"])
    with pytest.raises(PermissionDenied):
        repeat(office.program, "DELETE", path, None, approval["id"])
    office.by_all("POST", "/identities/program/grants", {"role": BOTH[0], "scope": "all"})
    assert own.rest.request("GET", path)["gone_at"] is None


def test_an_approval_that_is_used_twice_at_once_passes_once(office: Office) -> None:
    own, snapshot = office.own, office.own.snapshot()
    path = f"/snapshots/{snapshot['id']}/clone"
    office.turn_on(actions=["snapshot.clone"])
    approval = required(office.anna, "POST", path, {"name": "twice", "confirmation": "projects"})
    approve(office.bob, approval)
    ends: list[str] = []
    start = threading.Barrier(6)

    def use(rest: Rest) -> None:
        start.wait()
        try:
            repeat(rest, "POST", path, {"name": "twice", "confirmation": "projects"}, approval["id"])
            ends.append("done")
        except SnapkeepError as error:
            ends.append(error.code)

    threads = [threading.Thread(target=use, args=(office.people.again("anna"),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["conflict"] * 5 + ["done"]
    found = own.rest.request("GET", "/operations", params={"limit": 1000})["data"]
    assert len([item for item in found if item["kind"] == "clone"]) == 1


# -- the policy itself -------------------------------------------------------------------------------------------------
def test_turning_it_off_or_weakening_it_needs_two(office: Office) -> None:
    rest = office.own.rest
    shown = {"enabled": False, "actions": [], "needed": 0, "hours": 0}
    assert rest.request("GET", "/four-eyes") == shown
    office.turn_on(actions=["snapshot.delete"], needed=2, hours=5)
    shown = {"enabled": True, "actions": sorted({"snapshot.delete", *ALWAYS}), "needed": 2, "hours": 5}
    for body in (
        {"enabled": False}, {"enabled": True, "needed": 1}, {"enabled": True, "actions": []},
        {"enabled": True, "actions": ["snapshot.delete"], "needed": 2, "hours": 5},
    ):  # fmt: skip
        for alone in (office.anna, office.program, rest):
            required(alone, "PUT", "/four-eyes", body)
    bodies: list[tuple[str, str, Json]] = [
        ("POST", "/identities", {"name": "eve", "password": PASSWORD}),
        ("POST", "/identities/program/grants", {"role": "administrator"}),
        ("PATCH", "/identities/carl", {"password": PASSWORD}),
        ("PUT", "/roles/mine", {"actions": ["approval.decide"]}),
        ("POST", "/tokens", {"name": "x", "identity": "program"}),
    ]
    for method, path, content in bodies:
        required(office.anna, method, path, content)
    assert rest.request("GET", "/four-eyes") == shown
    approval = required(office.anna, "PUT", "/four-eyes", {"enabled": False})
    approve(office.bob, approval)
    with pytest.raises(ApprovalRequired):
        repeat(office.anna, "PUT", "/four-eyes", {"enabled": False}, approval["id"])
    assert rest.request("GET", "/four-eyes") == shown
    approve(office.carl, approval)
    repeat(office.anna, "PUT", "/four-eyes", {"enabled": False}, approval["id"])
    assert not rest.request("GET", "/four-eyes")["enabled"]


def test_it_is_not_turned_on_without_others_who_could_approve(office: Office) -> None:
    rest = office.own.rest
    with pytest.raises(Conflict, match="Only 3 others could approve what needs 4"):
        office.turn_on(needed=4)
    with pytest.raises(Conflict, match="Only 2 others"):
        office.anna.request("PUT", "/four-eyes", json={"enabled": True, "needed": 3})
    for actions in (["approval.decide"], ["snapshot.read"], ["everything"]):
        with pytest.raises(InvalidInput, match="no action that can need approval"):
            office.turn_on(actions=actions)
    for wrong in ({"needed": 0}, {"needed": 6}, {"hours": 0}, {"hours": 721}, {"enabled": "perhaps"}):
        with pytest.raises(InvalidInput):
            rest.request("PUT", "/four-eyes", json={"enabled": True, **wrong})
    assert not rest.request("GET", "/four-eyes")["enabled"]
    office.turn_on()
    assert rest.request("GET", "/four-eyes")["actions"] == sorted(USUAL)


def test_it_survives_a_kill_between_approval_and_use(office: Office) -> None:
    own, snapshot = office.own, office.own.snapshot()
    path = f"/snapshots/{snapshot['id']}"
    office.turn_on()
    approval = required(office.anna, "DELETE", path)
    approve(office.bob, approval)
    office.restarted()
    required(office.anna, "DELETE", f"/snapshots/{own.snapshot()['id']}")
    operation = repeat(office.anna, "DELETE", path, None, approval["id"])
    office.restarted()
    assert own.wait(operation)["state"] == "succeeded"
    with pytest.raises(Conflict, match="is used"):
        repeat(office.anna, "DELETE", path, None, approval["id"])


def test_a_dry_run_needs_nobody(office: Office) -> None:
    path = f"/snapshots/{office.own.snapshot()['id']}"
    office.turn_on()
    for query in ("dry_run=true", "dry_run=1"):
        assert "would" in send(office.anna, "DELETE", path, query=query)
    for query in ("dry_run=false", "dry_run=true&dry_run=false", "dry_run=no"):
        required(office.anna, "DELETE", path, query=query)
    with pytest.raises(InvalidInput, match="no parameter"):  # it knows no dry run: it would be done
        send(office.anna, "PUT", "/four-eyes", {"enabled": False}, "dry_run=true")
    assert office.own.rest.request("GET", path)["gone_at"] is None
    assert office.own.rest.request("GET", "/four-eyes")["enabled"]


# -- what is seen ------------------------------------------------------------------------------------------------------
def test_no_secret_is_kept(office: Office) -> None:
    own, secret = office.own, "a very secret password 7"
    office.turn_on(actions=["system.change", "repository.add"])
    for method, path, body, seen in (
        ("POST", "/identities", {"name": "eve", "password": secret}, '"name": "eve"'),
        ("PATCH", "/identities/carl", {"password": secret}, "password"),
        ("PATCH", "/systems/files1", {"settings": {"password": secret, "host": secret}}, '"host"'),
        ("POST", "/repositories", {"name": "r", "location": "/r", "password": secret, "secrets": {"k": secret}}, "/r"),
    ):
        approval = required(own.rest, method, path, body)
        assert approval["hidden"]
        assert seen in approval["body"]
        assert secret not in json.dumps(approval)
    grant = required(own.rest, "POST", "/identities/carl/grants", {"role": "auditor", "scope": "all"})
    assert (grant["hidden"], json.loads(grant["body"])) == (False, {"role": "auditor", "scope": "all"})
    for file in own.server.data_dir.rglob("*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    asked = required(own.rest, "POST", "/identities", {"name": "eve", "password": secret})
    approve(office.bob, asked)
    repeat(own.rest, "POST", "/identities", {"name": "eve", "password": secret}, asked["id"])
    office.people.tokens["eve"] = ""  # to be removed, too


def test_others_see_only_their_own(office: Office) -> None:
    restorer = office.people.service("restorer", "restorer")
    office.turn_on()
    path = f"/snapshots/{office.own.snapshot()['id']}"
    approval = required(office.anna, "DELETE", path)
    own = required(restorer, "POST", f"{path}/restore", {"confirmation": "projects"})
    assert {item["id"] for item in office.bob.pages("/approvals", state=["open"])} >= {approval["id"], own["id"]}
    assert [item["id"] for item in restorer.pages("/approvals")] == [own["id"]]
    with pytest.raises(NotFound):
        restorer.request("GET", f"/approvals/{approval['id']}")
    with pytest.raises(PermissionDenied):
        approve(restorer, own)
