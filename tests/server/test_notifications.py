"""Notifications of a whole installation: what causes them, what may be seen of channels, and what a kill leaves."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.hooks import Answer, Got, Hooks
from tests.support.installation import Installation, Json, installed, until
from tests.support.mails import Mails
from tests.support.people import PASSWORD, People
from tests.support.postgres import Postgres

from snapkeep.model.errors import Conflict, InvalidInput, NotFound, SnapkeepError


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("notifications")) as installation:
        installation.reset()
        yield installation


@pytest.fixture
def own(shared: Installation) -> Iterator[Installation]:
    yield shared
    for channel in shared.rest.request("GET", "/channels")["data"]:
        shared.rest.request("DELETE", f"/channels/{channel['name']}")


@pytest.fixture
def people(own: Installation) -> Iterator[People]:
    everybody = People(own)
    yield everybody
    everybody.close()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks().running() as running:
        yield running


def add(own: Installation, hooks: Hooks, name: str = "ops", **more: Any) -> Json:
    body = {"name": name, "target": {"kind": "webhook", "url": hooks.url}, **more}
    return dict(own.rest.request("POST", "/channels", json=body))


def fail(own: Installation, name: str = "x") -> None:
    own.fault("status", method="POST", status=400)
    with pytest.raises(SnapkeepError):
        own.snapshot(name)


def one(hooks: Hooks, event: str) -> Got:
    """Wait for an event; return it."""
    until(lambda: event in hooks.types())
    return next(got for got in hooks.got if got.json["type"] == event)


def deliveries(own: Installation, **params: Any) -> list[Json]:
    return list(own.rest.pages("/deliveries", **params))


# -- channels ----------------------------------------------------------------------------------------------------------
def test_the_life_of_a_webhook(own: Installation, hooks: Hooks) -> None:
    rest = own.rest
    made = add(own, hooks)
    assert made["secret"].startswith("whsec_")
    assert made["target"] == {"address": hooks.url.replace("/hook", "/…")}
    shown, tag = rest.read("/channels/ops")
    assert "secret" not in shown
    with pytest.raises(Conflict):
        add(own, hooks)
    sent = rest.request("POST", "/channels/ops/test")
    assert (sent["delivered"], sent["answer"], hooks.got[0].id) == (True, "204", sent["id"])
    hooks.got[0].verify(made["secret"])
    hooks.answer = lambda _: Answer(500, b"broken")
    assert rest.request("POST", "/channels/ops/test")["answer"] == "500 broken"
    listed = rest.request("GET", "/channels")["data"][0]
    assert listed["failure"] == "500 broken"
    assert all(listed[name] for name in ("succeeded_at", "failed_at"))
    assert listed["given_up"] == 1, "a try is not repeated"
    hooks.answer = lambda _: Answer()

    body = {"events": ["operation.failed"], "systems": ["files1"], "per_minute": 5, "target": {"secret": None}}
    changed = rest.request("PATCH", "/channels/ops", json=body, headers={"If-Match": tag})
    assert (changed["events"], changed["systems"], changed["per_minute"]) == (["operation.failed"], ["files1"], 5)
    assert changed["secret"] != made["secret"]
    with pytest.raises(Conflict, match="since it was read"):
        rest.request("PATCH", "/channels/ops", json={"enabled": False}, headers={"If-Match": tag})
    rest.request("POST", "/channels/ops/test")
    hooks.got[-1].verify(changed["secret"])
    off = rest.request("PATCH", "/channels/ops", json={"enabled": False})
    assert (off["secret"], off["target"]) == (None, made["target"])
    fail(own)
    assert deliveries(own, event="operation.failed") == []
    rest.request("DELETE", "/channels/ops")
    with pytest.raises(NotFound):
        rest.request("GET", "/channels/ops")
    assert deliveries(own) == []
    lines = rest.request("GET", "/audit", params={"action": "notification.manage", "limit": 1000})["data"]
    assert {line["outcome"] for line in lines} >= {"asked", "done", "failed"}
    for secret in (made["secret"], changed["secret"]):
        assert secret not in json.dumps(lines) + own.server.said()


def test_an_email_channel(own: Installation, tmp_path: Path) -> None:
    with Mails(tmp_path, login=("snapkeep", "password of the mail")).running() as mails:
        body = {"name": "mail", "target": mails.target(to=["ops@example.com"])}
        made = own.rest.request("POST", "/channels", json=body)
        assert "password" not in made["target"]
        assert made["target"]["to"] == ["ops@example.com"]
        assert own.rest.request("POST", "/channels/mail/test")["delivered"]
        for target in ({"host": "mail.example.com"}, {"port": 1}, {"tls": "tls"}, {"ca_file": None}):
            with pytest.raises(InvalidInput, match="gives it again"):  # else it could be sent to anybody
                own.rest.request("PATCH", "/channels/mail", json={"target": target})
        with pytest.raises(InvalidInput, match="over TLS only"):
            wrong = {"tls": "none", "host": "mail.example.com", "password": "x"}
            own.rest.request("PATCH", "/channels/mail", json={"target": wrong})
        own.rest.request("PATCH", "/channels/mail", json={"target": {"to": ["night@example.com"]}})
        assert own.rest.request("POST", "/channels/mail/test")["delivered"]
        fail(own)
        until(lambda: len(mails.got) == 3)
    assert [got.recipients for got in mails.got] == [["ops@example.com"], ["night@example.com"], ["night@example.com"]]
    assert "create files1/projects@x failed" in mails.got[-1].text


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "webhook", "url": "http://example.com/"},
        {"kind": "webhook", "url": "https://u:p@example.com/"},
        {"kind": "webhook", "url": "https://example.com/", "secret": "whsec_short"},
        {"kind": "webhook", "url": {"reference": "vault:x"}},
        {"kind": "webhook", "url": "https://example.com/", "ca_file": "relative.pem"},
        {"kind": "webhook", "url": "https://example.com/", "host": "x"},
        {"kind": "email", "host": "h", "from": "a@b", "to": []},
        {"kind": "email", "host": "h", "from": "a@b\r\nBcc: c@d", "to": ["c@d"]},
        {"kind": "email", "host": "h", "from": "a@b", "to": ["c@d>\r\nRCPT TO:<e@f"]},
        {"kind": "email", "host": "h/../", "from": "a@b", "to": ["c@d"]},
        {"kind": "email", "host": "h", "from": "a@b", "to": ["c@d"], "username": "u"},
        {"kind": "email", "host": "h", "from": "a@b", "to": ["c@d"], "username": "u", "password": "p", "tls": "none"},
        {"kind": "pigeon"},
        {},
        [],
    ],
)
def test_what_is_no_target(own: Installation, target: Any) -> None:
    with pytest.raises(InvalidInput) as told:
        own.rest.request("POST", "/channels", json={"name": "wrong", "target": target})
    assert "whsec_short" not in str(told.value)
    assert "u:p@" not in str(told.value)
    assert own.rest.request("GET", "/channels")["data"] == []


def test_secrets_by_reference(own: Installation, hooks: Hooks) -> None:
    secret = "whsec_" + "QUFB" * 8
    directory = own.server.data_dir / "secrets"
    directory.mkdir(exist_ok=True)
    (directory / "hook").write_text(f"{secret}\n")
    (directory / "url").write_text(hooks.url)
    target = {"kind": "webhook", "url": {"reference": "file:url"}, "secret": {"reference": "file:hook"}}
    made = own.rest.request("POST", "/channels", json={"name": "ops", "target": target})
    assert made["target"] == {"url": {"reference": "file:url"}, "secret": {"reference": "file:hook"}}
    assert made["secret"] is None
    assert own.rest.request("POST", "/channels/ops/test")["delivered"]
    hooks.got[0].verify(secret)
    (directory / "hook").unlink()
    assert "cannot be had" in own.rest.request("POST", "/channels/ops/test")["answer"]


def test_a_channel_leads_to_no_metadata_service(own: Installation) -> None:
    for host in ("169.254.169.254", "[fd00:ec2::254]"):
        target = {"kind": "webhook", "url": f"https://{host}/latest"}
        own.rest.request("POST", "/channels", json={"name": "ssrf", "target": target})
        answer = own.rest.request("POST", "/channels/ssrf/test")
        assert (answer["delivered"], "does not connect to link-local" in answer["answer"]) == (False, True)
        own.rest.request("DELETE", "/channels/ssrf")


# -- events ------------------------------------------------------------------------------------------------------------
def test_a_failed_operation(own: Installation, hooks: Hooks) -> None:
    made = add(own, hooks, events=["operation.failed"])
    own.snapshot("good")
    fail(own, "bad")
    got = one(hooks, "operation.failed")
    got.verify(made["secret"])
    data = got.json["data"]
    assert (data["system"], data["subject"], data["actor"]) == ("files1", "files1/projects@bad", "administrator")
    assert "FILES-90400" in data["message"]
    operation = own.rest.request("GET", f"/operations/{data['details']['operation']}")
    assert (operation["state"], operation["error"]["code"]) == ("failed", data["details"]["code"])
    until(lambda: [item["state"] for item in deliveries(own)] == ["sent"])
    assert deliveries(own, channel="ops", state="sent", event="operation.failed")[0]["id"] == got.id


def test_approvals_and_what_protects(own: Installation, hooks: Hooks, people: People) -> None:
    add(own, hooks, events=["approval.asked", "approval.decided", "protection.changed"])
    rest = own.rest
    anna, bert = people.user("anna", "administrator"), people.user("bert", "administrator")
    snapshot = own.snapshot("protected")
    rest.request("PUT", "/four-eyes", json={"enabled": True, "needed": 1, "hours": 1})
    assert one(hooks, "protection.changed").json["data"]["details"]["enabled"] is True
    with pytest.raises(SnapkeepError, match="needs the approval") as told:
        anna.request("DELETE", f"/snapshots/{snapshot['id']}")
    approval = told.value.details["approval_id"]
    asked = one(hooks, "approval.asked").json["data"]
    assert (asked["actor"], asked["subject"], asked["details"]["approval"]) == ("anna", snapshot["reference"], approval)
    bert.request("POST", f"/approvals/{approval}/approve", json={"comment": "fine"})
    decided = one(hooks, "approval.decided").json["data"]
    assert (decided["actor"], decided["details"]["state"]) == ("bert", "approved")
    for method, path, body in (("PUT", "/four-eyes", {"enabled": False}),):
        with pytest.raises(SnapkeepError) as told:
            rest.request(method, path, json=body)
        needed = told.value.details["approval_id"]
        bert.request("POST", f"/approvals/{needed}/approve", json={"comment": ""})
        rest.request(method, path, json=body, headers={"Approval": needed})
    rest.request("PUT", "/cooling", json={"limit": 5, "hours": 1})
    rest.request("PUT", "/cooling", json={"limit": None})

    def changes() -> list[tuple[str, bool]]:
        found = [got.json["data"] for got in hooks.got if got.json["type"] == "protection.changed"]
        return [(item["subject"], item["details"]["enabled"]) for item in found]

    wanted = [("four-eyes", True), ("four-eyes", False), ("cooling", True), ("cooling", False)]
    until(lambda: changes() == wanted)


def test_guessed_passwords(own: Installation, hooks: Hooks, people: People) -> None:
    add(own, hooks, events=["login.braked"])
    people.user("carla")
    nobody = own.server.connect("")
    for _ in range(12):
        with pytest.raises(SnapkeepError):
            nobody.request("POST", "/login", json={"name": "carla", "password": "wrong"})
    got = one(hooks, "login.braked").json["data"]
    assert (got["subject"], got["details"]) == ("carla", {"address": "127.0.0.1", "failures": 5})
    with pytest.raises(SnapkeepError):
        nobody.request("POST", "/login", json={"name": "carla", "password": PASSWORD})
    nobody.close()
    assert hooks.types() == ["login.braked"], "once, not with every try"


def test_a_mass_deletion(own: Installation, hooks: Hooks) -> None:
    add(own, hooks, events=["deletion.cooling"])
    snapshots = [own.snapshot() for _ in range(5)]
    own.rest.request("PUT", "/cooling", json={"limit": 1, "hours": 1})
    asked = [own.ask("DELETE", f"/snapshots/{item['id']}") for item in snapshots]
    got = one(hooks, "deletion.cooling").json["data"]
    assert (got["actor"], got["details"]) == ("administrator", {"limit": 1})
    for operation in asked:
        with contextlib.suppress(SnapkeepError):
            own.rest.request("POST", f"/operations/{operation['id']}/cancel")
    own.rest.request("PUT", "/cooling", json={"limit": None})
    assert hooks.types() == ["deletion.cooling"]


def test_refused_tries_in_number(own: Installation, hooks: Hooks, people: People) -> None:
    add(own, hooks, events=["access.refused"])
    someone = people.service("curious")
    for _ in range(110):
        with pytest.raises(SnapkeepError):
            someone.request("GET", "/systems/files1")
    got = one(hooks, "access.refused").json["data"]
    assert (got["subject"], got["details"]["source"]) == ("curious", "127.0.0.1")
    assert hooks.types() == ["access.refused"]


def test_a_channel_that_is_silenced(own: Installation, hooks: Hooks) -> None:
    add(own, hooks, "loud", events=["channel.changed"])
    with Hooks().running() as others:
        add(own, others, "quiet")
        own.rest.request("PATCH", "/channels/quiet", json={"enabled": False})
        own.rest.request("DELETE", "/channels/quiet")
        until(lambda: len(hooks.got) == 2)
    assert [got.json["data"]["details"]["change"] for got in hooks.got] == ["turned off", "removed"]
    assert {got.json["data"]["actor"] for got in hooks.got} == {"administrator"}


def test_a_request_that_needs_approval_keeps_no_secret_of_a_channel(
    own: Installation, hooks: Hooks, people: People
) -> None:
    people.user("anna", "administrator")
    people.user("bert", "administrator")
    secret = "whsec_" + "Q0FO" * 8
    own.rest.request(
        "PUT", "/four-eyes", json={"enabled": True, "needed": 1, "hours": 1, "actions": ["notification.manage"]}
    )
    try:
        with pytest.raises(SnapkeepError) as told:
            target = {"kind": "webhook", "url": f"{hooks.url}/CANARY", "secret": secret}
            own.rest.request("POST", "/channels", json={"name": "ops", "target": target})
        shown = own.rest.request("GET", f"/approvals/{told.value.details['approval_id']}")
        assert shown["hidden"]
        assert secret not in json.dumps(shown)
        assert "CANARY" not in json.dumps(shown)
    finally:
        with pytest.raises(SnapkeepError) as told:
            own.rest.request("PUT", "/four-eyes", json={"enabled": False})
        needed = told.value.details["approval_id"]
        people.log_in("bert").request("POST", f"/approvals/{needed}/approve", json={"comment": ""})
        own.rest.request("PUT", "/four-eyes", json={"enabled": False}, headers={"Approval": needed})


# -- what may happen ---------------------------------------------------------------------------------------------------
def test_an_audit_log_that_was_altered_is_told(tmp_path: Path, hooks: Hooks) -> None:
    with installed(tmp_path / "i") as own:
        add(own, hooks, events=["audit.damaged"])
        with contextlib.closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite")) as database:
            database.execute("UPDATE notes SET value = x'00' || value WHERE key = 'audit-head'")
            database.commit()
        for _ in range(3):
            with pytest.raises(SnapkeepError, match="audit log cannot be written"):
                own.rest.request("POST", "/identities", json={"name": "x", "kind": "service"})
        assert "altered" in one(hooks, "audit.damaged").json["data"]["message"]
        assert hooks.types() == ["audit.damaged"]


def test_a_server_that_is_killed_while_it_sends_sends_again_under_the_same_id(tmp_path: Path, hooks: Hooks) -> None:
    with installed(tmp_path / "i") as own:
        own.reset()
        made = add(own, hooks)
        hold = threading.Event()
        hooks.answer = lambda _: Answer(hold=hold)
        fail(own)
        until(lambda: hooks.got)
        own.server.end(signal.SIGKILL)
        hold.set()
        with contextlib.closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite")) as database:
            waiting = database.execute("SELECT state, attempts FROM deliveries").fetchall()
            assert waiting == [("waiting", 1)]
            database.execute("UPDATE deliveries SET due_at = created_at")  # the lease has ended
            database.commit()
        own.server.start()
        until(lambda: len(hooks.got) == 2)
        assert hooks.got[0].id == hooks.got[1].id
        assert hooks.got[0].body == hooks.got[1].body
        hooks.got[1].verify(made["secret"])
        until(lambda: deliveries(own)[0]["state"] == "sent")
        assert deliveries(own)[0]["attempts"] == 2


def test_what_a_worker_does_is_told_by_the_server(tmp_path: Path, hooks: Hooks, postgres: Postgres) -> None:
    with installed(tmp_path / "i", 1, SNAPKEEP_DATABASE_URL=postgres.create_database()) as own:
        own.reset()
        add(own, hooks)
        fail(own)
        data = one(hooks, "operation.failed").json["data"]
        assert own.rest.request("GET", f"/operations/{data['details']['operation']}")["worker"] == "w1"


def test_the_payload_is_described(own: Installation, hooks: Hooks) -> None:
    description = own.rest.request("GET", "/openapi.json")
    body = description["webhooks"]["event"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    schema = description["components"]["schemas"][body["$ref"].rpartition("/")[2]]
    add(own, hooks)
    own.rest.request("POST", "/channels/ops/test")
    assert set(hooks.got[0].json) == set(schema["properties"])
    data = description["components"]["schemas"][schema["properties"]["data"]["$ref"].rpartition("/")[2]]
    assert set(hooks.got[0].json["data"]) == set(data["properties"])
