"""Two administrators at once, requests that are repeated, and dry runs: nothing is lost, done twice, or done at all."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from tests.support.installation import Installation, Json

from snapkeep.model.errors import SnapkeepError

ROLE = {"description": "x", "actions": ["asset.read"]}


class Client:
    """Asks, and shows the whole answer."""

    def __init__(self, installation: Installation) -> None:
        token = (installation.server.data_dir / "token").read_text().strip()
        self._client = httpx2.Client(
            base_url=installation.rest.url + "/v1",
            verify=installation.trust,
            headers={"Authorization": f"Bearer {token}"},
            timeout=30,
        )

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._client.request(method, path, json=body, headers=named)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
def ask(installation: Installation) -> Iterator[Client]:
    client = Client(installation)
    yield client
    client.close()


@pytest.fixture
def names(ask: Client) -> Iterator[dict[str, str]]:
    """A user and a role, removed afterwards."""
    ask("POST", "/identities", {"name": "ann", "password": "correct horse battery"})
    ask("PUT", "/roles/mine", ROLE)
    yield {"identity": "/identities/ann", "role": "/roles/mine"}
    ask("DELETE", "/identities/ann")
    ask("DELETE", "/roles/mine")


def code(answer: httpx2.Response) -> str:
    return f"{answer.status_code} {answer.json()['code']}"


# -- conditions --------------------------------------------------------------------------------------------------------
def test_what_is_shown_has_a_tag_that_changes_with_it(installation: Installation, ask: Client, names: Json) -> None:
    asset = installation.asset()["id"]
    changes = {
        "/systems/files1": ("PATCH", "/systems/files1", {"settings": {"request_seconds": 4.0}}),
        "/systems/files1/labels": ("PUT", "/systems/files1/labels", {"labels": {"env": "prod"}}),
        f"/assets/{asset}/labels": ("PUT", f"/assets/{asset}/labels", {"labels": {"env": "prod"}}),
        names["identity"]: ("PATCH", names["identity"], {"disabled": True}),
        names["role"]: ("PUT", names["role"], {**ROLE, "description": "another"}),
    }
    for path, (method, target, body) in changes.items():
        first = ask("GET", path)
        tag = first.headers["etag"]
        same = ask("GET", path, If_None_Match=f'W/"x", {tag}')
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag), path
        done = ask(method, target, body, If_Match=tag)
        assert done.status_code == 200, done.text
        now = ask("GET", path, If_None_Match=tag)
        assert now.status_code == 200, path
        assert now.headers["etag"] == done.headers["etag"] != tag
        for outdated in (tag, f"W/{done.headers['etag']}", "x", '""', ""):
            lost = ask(method, target, body, If_Match=outdated)
            assert code(lost) == "412 conflict", (path, outdated)
        assert ask(method, target, body, If_Match="*").status_code == 200


def test_a_secret_changes_the_tag_though_nobody_sees_it(ask: Client, names: Json) -> None:
    for path, body in (
        ("/systems/files1", {"settings": {"password": "another"}}),
        (names["identity"], {"password": "another horse battery"}),
    ):
        before, tag = ask("GET", path).json(), ask("GET", path).headers["etag"]
        assert ask("PATCH", path, body).status_code == 200
        assert ask("GET", path).json() == before
        assert ask("GET", path).headers["etag"] != tag


def test_who_would_remove_what_was_changed_is_told(ask: Client, names: Json) -> None:
    for path in (names["identity"], names["role"], "/systems/files1"):
        tag = ask("GET", path).headers["etag"]
        assert code(ask("DELETE", path, If_Match='"outdated"')) == "412 conflict"
        assert ask("DELETE", f"{path}?dry_run=true", If_Match=tag).status_code == 200
        assert ask("GET", path).headers["etag"] == tag
    assert code(ask("PUT", "/roles/none", ROLE, If_Match="*")) == "412 conflict"
    assert ask("DELETE", names["role"], If_Match=ask("GET", names["role"]).headers["etag"]).status_code == 204


def test_two_administrators_at_once_lose_nothing(ask: Client, names: Json) -> None:
    """Each reads, adds his own, and writes under the condition, again and again until it is done."""

    def add(number: int) -> None:
        while True:
            read = ask("GET", "/systems/files1/labels")
            labels = {**read.json()["labels"], f"l{number}": "x"}
            done = ask("PUT", "/systems/files1/labels", {"labels": labels}, If_Match=read.headers["etag"])
            if done.status_code == 200:
                return
            assert code(done) == "412 conflict"

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert set(ask("GET", "/systems/files1/labels").json()["labels"]) == {f"l{number}" for number in range(12)}


def test_two_who_change_different_settings_at_once_without_condition(ask: Client) -> None:
    """A change names what it changes; what another one has changed meanwhile stays."""
    for turn in range(5):
        bodies = [{"settings": {"request_seconds": 3.0 + turn}}, {"settings": {"retry_seconds": 1.0 + turn}}]
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda body: ask("PATCH", "/systems/files1", body), bodies))
        assert [answer.status_code for answer in done] == [200, 200]
        settings = ask("GET", "/systems/files1").json()["settings"]
        assert (settings["request_seconds"], settings["retry_seconds"]) == (3.0 + turn, 1.0 + turn)


def test_races_end_in_clear_answers(ask: Client, installation: Installation) -> None:
    """Whatever two do to one name in the same moment: one is first, and the other is told."""
    body = {"name": "race", "plugin": "nutanix-files", "settings": installation.settings()}
    asset = installation.asset()["id"]
    with ThreadPoolExecutor(6) as pool:
        for _ in range(4):
            made = list(pool.map(lambda _: ask("POST", "/systems", body).status_code, range(4)))
            assert sorted(made) == [201, 409, 409, 409]
            gone = list(pool.map(lambda _: ask("DELETE", "/systems/race").status_code, range(4)))
            assert sorted(gone) == [204, 404, 404, 404]
            ask("POST", "/identities", {"name": "racer", "kind": "service"})
            mixed = [
                pool.submit(ask, "POST", "/identities/racer/grants", {"role": "viewer"}),
                pool.submit(ask, "POST", "/tokens", {"name": "t", "identity": "racer"}),
                pool.submit(ask, "DELETE", "/identities/racer"),
                pool.submit(ask, "PATCH", "/identities/racer", {"disabled": True}),
                pool.submit(ask, "PUT", f"/assets/{asset}/labels", {"labels": {"a": "1", "b": "2"}}),
                pool.submit(ask, "PUT", f"/assets/{asset}/labels", {"labels": {"a": "2", "c": "3"}}),
            ]
            assert {future.result().status_code for future in mixed} <= {200, 201, 204, 404, 409, 412}
    assert set(ask("GET", f"/assets/{asset}/labels").json()["labels"]) in ({"a", "b"}, {"a", "c"})


def test_the_command_line_changes_only_what_it_has_seen(installation: Installation) -> None:
    done = installation.cli("system", "set", "files1", "--set", "request_seconds=5")
    assert done.code == 0, done.err
    assert installation.rest.request("GET", "/systems/files1")["settings"]["request_seconds"] == 5.0


# -- keys --------------------------------------------------------------------------------------------------------------
def test_what_is_repeated_under_its_key_is_made_once(ask: Client, installation: Installation, names: Json) -> None:
    system = {"name": "twice", "plugin": "nutanix-files", "settings": installation.settings()}
    for path, body, other in (
        ("/systems", system, {**system, "name": "other"}),
        ("/identities", {"name": "bob"}, {"name": "eve"}),
        (f"{names['identity']}/grants", {"role": "viewer"}, {"role": "operator"}),
    ):
        key = str(uuid.uuid4())
        first, again = (ask("POST", path, body, Idempotency_Key=key) for _ in range(2))
        assert (first.status_code, first.json()) == (201, again.json()), first.text
        assert again.status_code == 201
        assert code(ask("POST", path, other, Idempotency_Key=key)) == "422 invalid_input"
        assert ask("POST", path, other, Idempotency_Key=key + "2").status_code == 201
    for path in ("/systems/twice", "/systems/other", "/identities/bob", "/identities/eve"):
        assert ask("DELETE", path).status_code == 204


def test_a_token_is_not_shown_again(ask: Client, installation: Installation) -> None:
    ask("POST", "/identities", {"name": "robot", "kind": "service"})
    body = {"name": "t", "identity": "robot"}
    first, again = (ask("POST", "/tokens", body, Idempotency_Key="k1") for _ in range(2))
    assert first.status_code == 201
    assert code(again) == "409 conflict"
    assert "revoke" in again.json()["next_step"]
    assert len(ask("GET", "/tokens?identity=robot").json()["data"]) == 1
    for file in installation.server.data_dir.glob("catalog.sqlite*"):
        assert first.json()["token"].encode() not in file.read_bytes()
    ask("DELETE", "/identities/robot")


def test_what_was_refused_can_be_asked_again_under_its_key(ask: Client) -> None:
    body = {"name": "late", "plugin": "none", "settings": {}}
    assert ask("POST", "/systems", body, Idempotency_Key="k2").status_code == 404
    assert ask("POST", "/systems", {**body, "name": "later"}, Idempotency_Key="k2").status_code == 404


def test_requests_at_once_under_one_key_make_one_thing(ask: Client) -> None:
    with ThreadPoolExecutor(5) as pool:
        done = list(pool.map(lambda _: ask("POST", "/identities", {"name": "once"}, Idempotency_Key="k3"), range(5)))
    assert {answer.status_code for answer in done} <= {201, 409}
    assert len({answer.json()["id"] for answer in done if answer.status_code == 201}) == 1
    assert ask("DELETE", "/identities/once").status_code == 204


def test_an_operation_is_begun_once_and_another_one_under_its_key_is_refused(
    ask: Client, installation: Installation
) -> None:
    path = f"/assets/{installation.asset()['id']}/snapshots"
    first, again = (ask("POST", path, {"name": "n1"}, Idempotency_Key="k4") for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert code(ask("POST", path, {"name": "n2"}, Idempotency_Key="k4")) == "422 invalid_input"
    installation.wait(first.json())
    snapshot = f"/snapshots/{installation.operation(first.json())['result']['snapshot_id']}"
    deleted, repeated = (ask("DELETE", snapshot, Idempotency_Key="k5") for _ in range(2))
    assert deleted.json()["id"] == repeated.json()["id"]
    installation.wait(deleted.json())


# -- dry runs ----------------------------------------------------------------------------------------------------------
def everything(installation: Installation) -> Any:
    """Return what there is, without what changes by itself."""
    lists = ("systems", "assets", "snapshots", "exports", "backups", "repositories", "identities", "roles", "tokens")
    found = {name: list(installation.rest.pages(f"/{name}")) for name in lists}
    return found, [item["id"] for item in installation.rest.pages("/operations")]


def test_a_dry_run_checks_everything_and_does_nothing(
    ask: Client, installation: Installation, names: Json, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tmp_path_factory.mktemp("repository") / "r"
    body: Any = {"name": "vault", "location": str(place), "password": "correct horse"}
    assert ask("POST", "/repositories", body).status_code == 201
    grant = ask("POST", f"{names['identity']}/grants", {"role": "viewer"}).json()["id"]
    ask("POST", "/identities", {"name": "robot", "kind": "service"})
    token = ask("POST", "/tokens", {"name": "t", "identity": "robot"}).json()["about"]["id"]
    snapshot = installation.snapshot("dry")
    backed = installation.run("POST", f"/assets/{snapshot['asset_id']}/backups", {"repository": "vault"})
    backup = backed["result"]["backup_id"]
    host = {"host": {"name": "h", "address": "127.0.0.1"}}
    opened = installation.run("POST", f"/snapshots/{snapshot['id']}/exports", host)
    export = opened["result"]["export_id"]
    other = installation.snapshot("free")
    confirmed = {"confirmation": "projects"}
    before = everything(installation)
    would = {
        f"/snapshots/{other['id']}": ("DELETE", None),
        f"/snapshots/{other['id']}/restore": ("POST", confirmed),
        f"/snapshots/{other['id']}/clone": ("POST", {"name": "cloned", **confirmed}),
        f"/exports/{export}": ("DELETE", None),
        f"/backups/{backup}?force=true": ("DELETE", None),
        f"/backups/{backup}/restore": ("POST", confirmed),
        "/repositories/vault?force=true": ("DELETE", None),
        "/systems/files1?force=true": ("DELETE", None),
        "/systems/files1/reconcile": ("POST", {"apply": True}),
        names["identity"]: ("DELETE", None),
        f"{names['identity']}/grants/{grant}": ("DELETE", None),
        names["role"]: ("DELETE", None),
        f"/tokens/{token}": ("DELETE", None),
    }
    for path, (method, body) in would.items():
        answer = ask(method, f"{path}{'&' if '?' in path else '?'}dry_run=true", body, Idempotency_Key="dry")
        assert answer.status_code == 200, (path, answer.text)
        assert answer.json()["would"], path
        assert answer.json()["affected"], path
    refused = {
        f"/snapshots/{snapshot['id']}": ("DELETE", None, "409 busy"),
        f"/snapshots/{other['id']}/restore": ("POST", {"confirmation": "other"}, "422 invalid_input"),
        f"/snapshots/{other['id']}/clone": ("POST", {"name": "archive", **confirmed}, "409 conflict"),
        "/repositories/vault": ("DELETE", None, "409 busy"),
        f"/backups/{backup}": ("DELETE", None, "409 busy"),
        "/systems/files1": ("DELETE", None, "409 busy"),
        "/roles/viewer": ("DELETE", None, "409 conflict"),
        "/roles/none": ("DELETE", None, "404 not_found"),
        f"/backups/{backup}/restore": ("POST", {"confirmation": "no"}, "422 invalid_input"),
    }
    for path, (method, body, expected) in refused.items():
        assert code(ask(method, f"{path}?dry_run=true", body)) == expected, path
    assert everything(installation) == before
    installation.run("DELETE", f"/exports/{export}")
    assert ask("DELETE", "/repositories/vault?force=true").status_code == 204
    assert ask("DELETE", "/identities/robot").status_code == 204
    for operation in installation.rest.request("GET", "/operations", params={"state": ["queued", "running"]})["data"]:
        installation.wait(operation)  # the snapshot that the repository needed is deleted


def test_a_dry_run_needs_the_permission(installation: Installation, ask: Client) -> None:
    ask("POST", "/identities", {"name": "robot", "kind": "service"})
    ask("POST", "/identities/robot/grants", {"role": "viewer"})
    token = ask("POST", "/tokens", {"name": "t", "identity": "robot"}).json()["token"]
    rest = installation.server.connect(token)
    with pytest.raises(SnapkeepError, match=r"system\.remove"):
        rest.request("DELETE", "/systems/files1", params={"dry_run": True})
    rest.close()
    ask("DELETE", "/identities/robot")


def test_dry_runs_on_the_command_line(installation: Installation) -> None:
    snapshot = installation.snapshot("kept")
    name = snapshot["reference"]
    for command in (
        ("snapshot", "delete", name),
        ("snapshot", "restore", name),
        ("system", "remove", "files1", "--force"),
    ):
        done = installation.cli(*command, "--dry-run")
        assert done.code == 0, (command, done.err)
        assert done.out.startswith("Would "), command
    told = installation.cli("snapshot", "clone", name, "cloned", "--dry-run", "--output", "json")
    assert json.loads(told.out)["affected"] == ["files1/cloned"]
    assert installation.rest.request("GET", f"/snapshots/{snapshot['id']}") == snapshot
