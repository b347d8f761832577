"""Every route, by every role and by nobody; and what a scope hides, in every list and by every id."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter
from tests.support.installation import Installation, Json, Server, until
from tests.support.people import PASSWORD, People

from snapkeep.cli.rest import Rest
from snapkeep.model.access import ROLES, Action
from snapkeep.model.errors import AuthenticationFailed, NotFound, PermissionDenied, RateLimited, SnapkeepError
from snapkeep.server.app import declare_permissions
from snapkeep.server.openapi import PERMISSION

OPEN = {"anybody", "authenticated"}
PARAMETER = re.compile(r"\{([^}]*)\}")
BODIES = {"/backups/{backup_id}/restore": {"target": "/nonexistent"}}
"""Bodies of routes of which the right depends on the body."""
LOCK = {"mode": "governance", "until": "2030-01-01T00:00:00Z", "reason": "test"}
STREAMED: dict[str, list[tuple[str, str | bytes]]] = {
    "entries": [],
    "export": [],
    "find": [("pattern", "x")],
    "content": [("path", "x")],
    "plan": [],
}
"""GETs whose answers are no JSON, by the end of their path, with what they must be given."""


@pytest.fixture
def people(installation: Installation) -> Iterator[People]:
    everybody = People(installation)
    yield everybody
    everybody.close()


def answer(rest: Rest, method: str, path: str, body: Any = None) -> tuple[str, Any]:
    """Return the code of the error, or empty and what was answered; who asks too fast waits."""
    while True:
        code, said = _answer(rest, method, path, body)
        if code != RateLimited.code:
            return code, said
        time.sleep(0.2)


def _answer(rest: Rest, method: str, path: str, body: Any) -> tuple[str, Any]:
    try:
        if path.endswith("/events"):  # they never end: what is told first will do
            return "", next(rest.content(path, [])).decode()
        query = STREAMED.get(path.rpartition("/")[2]) if method == "GET" else None
        if query is not None:
            return "", b"".join(rest.content(path, query)).decode()
        return "", rest.request(method, path, json=body)
    except SnapkeepError as error:
        return error.code, error


def operations_of(description: Json) -> Iterator[tuple[str, str, set[str]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path.removeprefix("/v1"), set(operation[PERMISSION])


# -- what routes declare -----------------------------------------------------------------------------------------------
def test_a_route_that_declares_nothing_does_not_start() -> None:
    router = APIRouter()

    @router.get("/everything")
    async def everything() -> None:
        pass

    with pytest.raises(RuntimeError, match="/everything has declared no permission"):
        declare_permissions(router)


def test_every_action_is_asked_for_by_some_route(installation: Installation) -> None:
    description = installation.rest.request("GET", "/openapi.json")
    asked = set().union(*(actions for _, _, actions in operations_of(description)))
    inside = {Action.REPOSITORY_USE, Action.PROGRAM_RUN, Action.METRICS_READ}  # by what a body names; not described
    assert set(Action) - asked - inside == set(), "an action that nothing asks for allows nothing"
    assert asked - set(Action) == OPEN


# -- by every role, and by nobody --------------------------------------------------------------------------------------
def test_every_route_by_every_role(
    installation: Installation, people: People, two_assets: dict[str, dict[str, str]]
) -> None:
    """Who lacks the action is refused, on things that are there; who has it is not, on things that are not."""
    routes = list(operations_of(installation.rest.request("GET", "/openapi.json")))
    before = state(installation)
    refused = dict.fromkeys([*ROLES, "nothing"], 0)
    for role in refused:
        rest = people.someone(*([] if role == "nothing" else [role]))
        allowed = set() if role == "nothing" else {str(action) for action in ROLES[role][1]}
        for method, path, actions in routes:
            if actions & OPEN:
                continue
            if actions & allowed:
                code, _ = answer(rest, method, PARAMETER.sub("not-there", path), BODIES.get(path, {}))
                assert code not in {"authentication_failed", "permission_denied", "internal"}, (role, method, path)
            else:
                concrete = PARAMETER.sub(partial(real_one, path, two_assets["projects"]), path)
                code, error = answer(rest, method, concrete, BODIES.get(path, {}))
                assert code == "permission_denied", (role, method, path, error)
                refused[role] += 1
    assert all(refused.values())
    assert refused["nothing"] > 50
    assert state(installation) == before, "nothing was done"


@pytest.mark.parametrize("token", ["skt_" + "x" * 43, ""])
def test_every_route_by_nobody(installation: Installation, token: str) -> None:
    rest = installation.server.connect(token)
    before = state(installation)
    for method, path, actions in operations_of(installation.rest.request("GET", "/openapi.json")):
        if "anybody" not in actions:
            code, _ = answer(rest, method, PARAMETER.sub("x", path), {})
            assert code == "authentication_failed", (method, path)
    rest.close()
    assert state(installation) == before, "nothing was done"


def real_one(path: str, there: dict[str, str], found: re.Match[str]) -> str:
    """Return something that is there for a parameter of a path."""
    by_path = {
        "/repositories": {"name": there["repository"]},
        "/locks": {"protection_id": there["lock"]},
        "/signals": {"operation_id": there["list_id"]},
    }
    special = next((values for start, values in by_path.items() if path.startswith(start)), {})
    return {"name": "files1", **there, **special}.get(found[1], "x")


def state(installation: Installation) -> Json:
    """Return what there is."""
    paths = ("/systems", "/assets", "/snapshots", "/exports", "/backups", "/repositories", "/protections", "/roles")
    found = {path: installation.rest.request("GET", path)["data"] for path in paths}
    return {path: [item.get("id") or item["name"] for item in items] for path, items in found.items()}


# -- what a scope hides ------------------------------------------------------------------------------------------------
@pytest.fixture
def two_assets(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, str]]]:
    """The same things of two shares: snapshots, a change list, an export, backups in two repositories."""
    rest = installation.rest
    found: dict[str, dict[str, str]] = {}
    for share in ("projects", "homes"):
        asset = installation.asset(share)
        (installation.live(share) / f"of-{share}.txt").write_text(share)
        first, second = (installation.snapshot(f"{share}-{number}", share) for number in "12")
        host = {"name": f"host-{share}", "address": "127.0.0.1"}
        listed = installation.run("POST", "/change-lists", {"base_id": first["id"], "new_id": second["id"]})
        export = installation.run("POST", f"/snapshots/{second['id']}/exports", {"host": host})
        place = tmp_path_factory.mktemp(share)
        body = {"name": f"vault-{share}", "location": str(place / "repository"), "password": "secret", "create": True}
        rest.request("POST", "/repositories", json=body)
        backup = installation.run("POST", f"/assets/{asset['id']}/backups", {"repository": f"vault-{share}"})
        verified = installation.run("POST", f"/backups/{backup['result']['backup_id']}/verify", {})
        found[share] = {
            "asset_id": asset["id"],
            "snapshot_id": first["id"],
            "new_id": second["id"],
            "list_id": listed["result"]["change_list"],
            "export_id": export["result"]["export_id"],
            "backup_id": backup["result"]["backup_id"],
            "operation_id": backup["id"],
            "verify_id": verified["id"],
            "repository": f"vault-{share}",
            "hold": rest.request("POST", f"/snapshots/{first['id']}/holds", json={"reason": "test"})["id"],
            "lock": rest.request("POST", f"/snapshots/{first['id']}/locks", json=LOCK)["id"],
        }
        found[share]["protection_id"] = found[share]["hold"]
    yield found
    for share in found:
        rest.request("DELETE", f"/holds/{found[share]['hold']}")
        now = datetime.now(UTC).isoformat()
        rest.request("POST", f"/locks/{found[share]['lock']}/shorten", json={"until": now})
        rest.request("DELETE", f"/repositories/vault-{share}", params={"force": True})


@pytest.mark.parametrize("kind", ["asset", "label", "token"])
def test_a_scope_hides_the_rest_in_every_list_and_by_every_id(
    installation: Installation, people: People, two_assets: dict[str, dict[str, str]], kind: str
) -> None:
    mine, other = two_assets["projects"], two_assets["homes"]
    rest = installation.rest
    rest.request("PUT", f"/assets/{mine['asset_id']}/labels", json={"labels": {"team": "mine"}})
    everything = {"description": "", "actions": [str(action) for action in Action if "identity" not in action]}
    rest.request("PUT", "/roles/everything", json=everything)
    if kind == "token":  # may see everything; its token may not
        limits = [{"role": "everything", "scope": f"asset:{mine['asset_id']}"}]
        me = people.service("narrowed", "everything", limits=limits)
    else:
        me = people.someone(("everything", "label:team=mine" if kind == "label" else f"asset:{mine['asset_id']}"))
    description = rest.request("GET", "/openapi.json")
    hidden = {value for key, value in other.items() if key != "repository"} | {"homes-1", "of-homes", "host-homes"}
    lists = 0
    for method, path, _ in operations_of(description):
        if method == "GET" and "{" not in path:
            wanted = "?new_id=" + mine["new_id"] if path == "/change-lists" else ""
            code, said = answer(me, "GET", path + wanted)
            assert code in {"", "permission_denied"}, (path, said)
            assert not [word for word in hidden if word in json.dumps(said, default=str)], path
            lists += 1
        keys = set(PARAMETER.findall(path)) & other.keys()
        if keys:
            there = PARAMETER.sub(lambda found: {**other, "name": "x"}.get(found[1], "x"), path)
            absent = PARAMETER.sub("not-there", path)
            code, error = answer(me, method, there, {})
            assert code == "not_found", (method, path, error)
            _, unknown = answer(me, method, absent, {})
            found = next(other[key] for key in keys)
            assert str(error).replace(found, "not-there") == str(unknown), "hidden is told as absent, word by word"
            assert error.next_step == unknown.next_step
    assert lists > 8
    for path, key in (
        ("/assets", "asset_id"), ("/snapshots", "snapshot_id"), ("/exports", "export_id"), ("/backups", "backup_id"),
        ("/operations", "operation_id"),
    ):  # fmt: skip
        assert mine[key] in {item["id"] for item in me.request("GET", path)["data"]}, path
    assert mine["verify_id"] in {item["operation_id"] for item in me.request("GET", "/drills")["data"]}
    for path in ("assets/{asset_id}", "snapshots/{new_id}", "exports/{export_id}", "change-lists/{list_id}",
                 "backups/{backup_id}", "operations/{operation_id}"):  # fmt: skip
        assert me.request("GET", "/" + path.format(**mine))
    entries = b"".join(me.content(f"/change-lists/{mine['list_id']}/entries", []))
    assert b"entries" in entries or b"data" in entries
    # what a body names is looked at, too
    for body in (
        {"base_id": other["snapshot_id"], "new_id": mine["new_id"]},
        {"base_id": None, "new_id": other["new_id"]},
    ):
        with pytest.raises(NotFound):
            me.request("POST", "/change-lists", json=body)
    with pytest.raises((NotFound, PermissionDenied)):
        me.request("POST", f"/assets/{mine['asset_id']}/backups", json={"repository": other["repository"]})
    assert me.request("GET", "/change-lists", params={"new_id": other["new_id"]})["data"] == []
    with pytest.raises(PermissionDenied):
        me.request("POST", "/systems", json={"name": "mine", "plugin": "nutanix-files", "settings": {}})


def test_scopes_of_systems_and_repositories(installation: Installation, people: People, tmp_path: Path) -> None:
    rest = installation.rest
    installation.add_system("files2")
    installation.discover("files2")
    for name in ("one", "two"):
        place = {"name": name, "location": str(tmp_path / name), "password": "secret", "create": True}
        rest.request("POST", "/repositories", json=place)
    me = people.someone(("administrator", "system:files2"), ("operator", "repository:one"))
    assert {item["name"] for item in me.request("GET", "/systems")["data"]} == {"files2"}
    assert {item["system"] for item in me.request("GET", "/assets")["data"]} == {"files2"}
    assert {item["name"] for item in me.request("GET", "/repositories")["data"]} == {"one"}
    assert {item["system"] for item in me.request("GET", "/operations")["data"]} == {"files2"}
    asset = installation.asset(system="files2")
    with pytest.raises(NotFound):
        me.request("POST", f"/assets/{asset['id']}/backups", json={"repository": "two"})
    done = me.wait(me.request("POST", f"/assets/{asset['id']}/backups", json={"repository": "one"}))
    assert done["state"] == "succeeded"
    assert done["requester"] == me.request("GET", "/me")["name"]
    restorer = people.someone(("restorer", "system:files2"))
    to = {"target": str(tmp_path / "restored")}
    asked = restorer.request("POST", f"/backups/{done['result']['backup_id']}/restore", json=to)
    assert restorer.wait(asked)["state"] == "succeeded", "he sees what he has asked for"
    assert asked["id"] in {item["id"] for item in restorer.request("GET", "/operations")["data"]}
    with pytest.raises(NotFound):
        people.someone(("viewer", "system:files1")).request("GET", f"/operations/{asked['id']}")
    with pytest.raises(NotFound):
        me.request("DELETE", "/systems/files1")
    for body in ({"name": "files3", "plugin": "nutanix-files", "settings": {}}, {}):
        with pytest.raises(PermissionDenied):  # a system that is not there yet is in no scope but all
            me.request("POST", "/systems", json=body)


def test_to_retry_needs_what_asking_needs(installation: Installation, people: People) -> None:
    """Who may control operations does not restore by retrying somebody's restore."""
    snapshot = installation.snapshot("before")
    installation.fault("status", method="POST", status=400)
    with pytest.raises(SnapkeepError):
        installation.run("POST", f"/snapshots/{snapshot['id']}/restore", {"confirmation": "projects"})
    failed = installation.rest.request("GET", "/operations", params={"state": "failed"})["data"][0]
    assert failed["kind"] == "restore"
    for role, scope in (("operator", "all"), ("viewer", "all"), ("restorer", "system:files2")):
        with pytest.raises((PermissionDenied, NotFound)):
            people.someone((role, scope)).request("POST", f"/operations/{failed['id']}/retry")
    assert people.someone(("restorer", "system:files1")).request("POST", f"/operations/{failed['id']}/retry")


def test_to_retry_a_backup_needs_its_repository(installation: Installation, people: People, tmp_path: Path) -> None:
    rest = installation.rest
    place = {"name": "vault", "location": str(tmp_path / "vault"), "password": "secret", "create": True}
    rest.request("POST", "/repositories", json=place)
    installation.fault("status", method="POST", status=400)
    with pytest.raises(SnapkeepError):
        installation.run("POST", f"/assets/{installation.asset()['id']}/backups", {"repository": "vault"})
    failed = rest.request("GET", "/operations", params={"state": "failed", "kind": "backup"})["data"][0]
    with pytest.raises(NotFound, match="There is no repository"):
        people.someone(("operator", "system:files1")).request("POST", f"/operations/{failed['id']}/retry")
    both = people.someone(("operator", "system:files1"), ("operator", "repository:vault"))
    assert both.wait(both.request("POST", f"/operations/{failed['id']}/retry"))["state"] == "succeeded"
    rest.request("DELETE", "/repositories/vault", params={"force": True})


# -- people, over REST -------------------------------------------------------------------------------------------------
def test_the_life_of_a_user(installation: Installation, people: People) -> None:
    rest = installation.rest
    officer = people.someone("security-officer")
    made = officer.request("POST", "/identities", json={"name": "alice", "password": PASSWORD})
    assert made["has_password"]
    assert made["grants"] == []
    nobody = installation.server.connect("")
    session = nobody.request("POST", "/login", json={"name": "alice", "password": PASSWORD})
    alice = people.with_token(session["token"])
    assert alice.request("GET", "/me") == {"name": "alice", "kind": "user", "grants": [], "limits": None}
    with pytest.raises(PermissionDenied) as told:
        alice.request("GET", "/assets")
    assert told.value.details["needed"] == "asset.read"
    held = officer.request("POST", "/identities/alice/grants", json={"role": "viewer", "scope": "system:files1"})
    assert alice.request("GET", "/assets")["data"]
    for method, path, body in (  # whoever manages people does not manage himself
        ("POST", f"/identities/{officer.request('GET', '/me')['name']}/grants", {"role": "administrator"}),
        ("PATCH", f"/identities/{officer.request('GET', '/me')['name']}", {"disabled": False}),
        ("DELETE", f"/identities/{officer.request('GET', '/me')['name']}", None),
    ):
        with pytest.raises(PermissionDenied):
            officer.request(method, path, json=body)
    token = alice.request("POST", "/tokens", json={"name": "script", "days": 1})
    script = people.with_token(token["token"])
    assert script.request("GET", "/assets")["data"]
    assert {item["kind"] for item in alice.request("GET", "/tokens")["data"]} == {"session", "api"}
    assert token["token"] not in json.dumps(alice.request("GET", "/tokens"))
    with pytest.raises(NotFound):  # of others one does not even learn that they have tokens
        people.someone().request("DELETE", f"/tokens/{token['about']['id']}")
    officer.request("DELETE", f"/identities/alice/grants/{held['id']}")
    with pytest.raises(PermissionDenied):
        script.request("GET", "/assets")
    alice.request("DELETE", f"/tokens/{token['about']['id']}")
    with pytest.raises(AuthenticationFailed):
        script.request("GET", "/me")
    alice.request("PUT", "/me/password", json={"old": PASSWORD, "new": PASSWORD + "!"})
    with pytest.raises(AuthenticationFailed):
        alice.request("GET", "/me")
    again = people.with_token(
        nobody.request("POST", "/login", json={"name": "alice", "password": PASSWORD + "!"})["token"]
    )
    again.request("POST", "/logout")
    with pytest.raises(AuthenticationFailed):
        again.request("GET", "/me")
    officer.request("PATCH", "/identities/alice", json={"disabled": True})
    with pytest.raises(AuthenticationFailed):
        nobody.request("POST", "/login", json={"name": "alice", "password": PASSWORD + "!"})
    nobody.close()
    for secret in (PASSWORD, session["token"], token["token"]):
        assert secret not in installation.server.log.read_text()
    rest.request("DELETE", "/identities/alice")


def test_without_the_local_token_only_people_get_in(tmp_path: Path) -> None:
    server = Server(tmp_path / "closed", {"SNAPKEEP_LOCAL_TOKEN": "false"})
    try:
        server.begin()
        until(server.is_ready, 30)
        rest = server.connect("x" * 43)
        with pytest.raises(AuthenticationFailed):
            rest.request("GET", "/systems")
        rest.close()
        assert not (server.data_dir / "token").exists()
    finally:
        server.close()
