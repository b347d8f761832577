"""Channels and deliveries by the command line, as people use them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.hooks import Answer, Hooks
from tests.support.installation import Installation, installed, until
from tests.support.mails import Mails

from snapkeep.model.errors import InvalidInput, NotFound, SnapkeepError
from snapkeep.model.notifications import Event


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("notifications")) as installation:
        installation.reset()
        yield installation


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with Hooks().running() as running:
        yield running


def test_a_webhook(own: Installation, hooks: Hooks) -> None:
    assert "add one" in own.cli("notification", "list").err
    added = own.cli("notification", "add", "webhook", "ops", "--url", hooks.url, "--event", "operation.failed")
    assert added.out.startswith("Added channel ops. Next: snapkeep notification test ops\nSecret: whsec_")
    secret = added.out.split("Secret: ")[1].split()[0]
    tested = own.cli("notification", "test", "ops")
    assert (tested.code, tested.out) == (0, "Delivered: 204\n")
    hooks.got[0].verify(secret)
    hooks.answer = lambda _: Answer(500, b"broken\x1b[31m")
    tested = own.cli("notification", "test", "ops")
    assert (tested.code, tested.out) == (1, "Not delivered: 500 broken\\x1b[31m\n")
    hooks.answer = lambda _: Answer()
    listed = own.cli("notification", "list").out.splitlines()
    assert " ".join(listed[0].split()) == "NAME KIND TO ON WAITING GIVEN UP LAST SUCCESS LAST FAILURE"
    assert "500 broken" in listed[1]
    assert "/…" in listed[1]
    shown = own.cli("notification", "show", "ops", "-o", "json").json()
    assert shown["events"] == ["operation.failed"]
    own.fault("status", method="POST", status=400)
    with pytest.raises(SnapkeepError):
        own.snapshot("bad")
    until(lambda: len(hooks.got) == 3)
    until(lambda: "sent" in own.cli("notification", "deliveries", "ops", "--event", "operation.failed").out)
    rows = own.cli("notification", "deliveries", "--state", "given-up", "-o", "json").json()
    assert [row["event"] for row in rows] == ["notification.test"]
    changed = own.cli("notification", "set", "ops", "--all-events", "--system", "files1", "--off", "--new-secret")
    assert changed.out.startswith("Changed channel ops.\nSecret: whsec_")
    assert secret not in changed.out
    shown = own.cli("notification", "show", "ops", "-o", "json").json()
    assert (shown["events"], shown["systems"], shown["enabled"]) == ([], ["files1"], False)
    assert own.cli("notification", "set", "ops", "--on", "--all-systems").out == "Changed channel ops.\n"
    assert own.cli("notification", "remove", "ops").out == "Removed channel ops.\n"
    assert own.cli("notification", "remove", "ops").code == NotFound.exit_code


def test_an_email(own: Installation, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("the password\n")
    with Mails(tmp_path / "mails", login=("me", "the password")).running() as mails:
        added = own.cli(
            *("notification", "add", "email", "mail", "--host", "127.0.0.1", "--port", str(mails.port)),
            *("--username", "me", "--password-file", str(tmp_path / "password"), "--from", "snapkeep@example.com"),
            *("--to", "a@example.com", "--to", "b@example.com", "--ca-file", mails.target()["ca_file"]),
        )
        assert added.out == "Added channel mail. Next: snapkeep notification test mail\n"
        assert own.cli("notification", "test", "mail").out == "Delivered: 250 taken\n"
        assert mails.got[0].recipients == ["a@example.com", "b@example.com"]
        assert "a@example.com, b@example.com" in own.cli("notification", "list").out
        asked = own.cli("notification", "set", "mail", "--host", "localhost", "-o", "json")
        assert (asked.code, "gives it again" in asked.error()["message"]) == (InvalidInput.exit_code, True)
        moved = own.cli(
            "notification", "set", "mail", "--host", "localhost", "--password-file", str(tmp_path / "password")
        )
        assert moved.code == 0, moved.err
        assert own.cli("notification", "test", "mail", "-o", "json").json()["delivered"]
    assert own.cli("notification", "remove", "mail", "-o", "json").json() == {"removed": "mail"}


def test_what_cannot_be_meant_is_said(own: Installation, hooks: Hooks, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not-a-secret\n")
    add = ("notification", "add", "webhook", "ops")
    for arguments in (
        (*add,),
        (*add, "--url", hooks.url, "--url-ref", "file:x"),
        (*add, "--url", "http://example.com"),
        (*add, "--url", hooks.url, "--secret-file", str(tmp_path / "secret")),
        (*add, "--url", hooks.url, "--event", "nothing.such"),
        ("notification", "add", "email", "m", "--host", "h", "--from", "a@b", "--to", "c"),
        ("notification", "add", "email", "m", "--host", "h", "--from", "a@b", "--to", "c@d", "--username", "u"),
    ):
        ran = own.cli(*arguments, "-o", "json")
        assert (ran.code, ran.out) == (InvalidInput.exit_code, ""), arguments
        assert "not-a-secret" not in ran.err
    assert own.cli("notification", "list", "-o", "json").json() == []


def test_the_events_are_listed(own: Installation) -> None:
    rows = json.loads(own.cli("notification", "events", "-o", "json").out)
    assert [row["event"] for row in rows] == [event.value for event in Event]
    assert all(row["meaning"] for row in rows)
