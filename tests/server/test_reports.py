"""Reports through every door: REST, the command line, by whom, and by mail of a server that runs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.test_metrics import scrape
from tests.support.installation import Installation, Json, installed, until
from tests.support.mails import Mails
from tests.support.people import People

from snapkeep.cli.rest import Rest
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, SnapkeepError

WHATS = ("coverage", "snapshots", "operations", "summary")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("reports")) as installation:
        installation.reset()
        yield installation


@pytest.fixture
def people(own: Installation) -> Iterator[People]:
    everybody = People(own)
    yield everybody
    everybody.close()


def report(rest: Rest, what: str, **params: str) -> Json:
    return dict(rest.request("GET", f"/reports/{what}", params=params))


def mentioned(rest: Rest) -> set[str]:
    """Return the names of shares that are anywhere in any report in any form."""
    told = "".join(
        b"".join(rest.content(f"/reports/{what}", [("format", form)])).decode()
        for what in WHATS
        for form in ("csv", "json", "html")
    )
    return {name for name in ("projects", "homes") if f"files1/{name}" in told}


def test_a_scope_hides_the_rest_in_every_report_and_form(own: Installation, people: People) -> None:
    own.snapshot("a", "projects")
    own.snapshot("b", "homes")
    assert mentioned(own.rest) == {"projects", "homes"}
    homes = own.asset("homes")["id"]
    scoped = people.someone(("viewer", f"asset:{homes}"))
    assert mentioned(scoped) == {"homes"}
    assert report(scoped, "coverage")["figures"]["coverage"]["unprotected"] == 1
    assert set(report(scoped, "operations")["figures"]["operations by kind"]) == {"create succeeded"}
    assert mentioned(people.someone(("viewer", "system:elsewhere"))) == set()
    assert mentioned(people.someone("viewer")) == {"projects", "homes"}
    with pytest.raises(SnapkeepError) as refused:
        scoped.request("GET", "/report-schedules")
    assert refused.value.code == "permission_denied", "they are of the whole installation"


def test_what_is_answered(own: Installation) -> None:
    client = own.rest._client
    for form, kind in (("csv", "text/csv; charset=utf-8"), ("json", "application/json"), ("html", "text/html")):
        answer = client.get("/v1/reports/summary", params={"format": form})
        assert answer.headers["content-type"].startswith(kind)
        assert f".{form}" in answer.headers["content-disposition"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    page = client.get("/v1/reports/summary", params={"format": "html"})
    assert page.headers["content-security-policy"].endswith("frame-ancestors 'none'; sandbox")
    assert "<script" not in page.text
    day = report(own.rest, "operations", to="2026-01-08T00:00:00Z")
    assert (day["from"], day["to"], day["rows"]) == ("2026-01-01T00:00:00Z", "2026-01-08T00:00:00Z", [])


@pytest.mark.parametrize(
    ("what", "params"),
    [
        ("coverage", {"from": "2026-01-01T00:00:00Z"}),
        ("operations", {"from": "2026-01-02T00:00:00Z", "to": "2026-01-02T00:00:00Z"}),
        ("operations", {"to": "0001-01-02T00:00:00Z"}),
        ("summary", {"since": "2026-01-02T00:00:00Z"}),
        ("summary", {"format": "xml"}),
        ("nothing", {}),
    ],
)
def test_what_cannot_be_reported_is_refused(own: Installation, what: str, params: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        report(own.rest, what, **params)


def test_the_command_line(own: Installation, tmp_path: Path) -> None:
    own.snapshot("of the day", "projects")
    asked = own.rest.request("GET", "/reports/operations", params={"limit": "0"})
    assert (asked["rows"], asked["left_out"]) == ([], sum(asked["figures"]["operations"].values()))
    table = own.cli("report", "operations", "--last", "1d")
    assert table.code == 0
    assert "create" in table.out
    assert "success rate: 1 of all that succeeded or failed" in table.out
    assert own.cli("report", "summary", "-o", "json").json()["report"] == "summary"
    for what in WHATS:
        file = tmp_path / f"{what}.csv"
        assert own.cli("report", what, "--format", "csv", "--file", str(file)).code == 0
        lines = list(csv.reader(io.StringIO(file.read_text(), newline="")))
        assert len(lines) > 1
        assert {len(line) for line in lines} == {len(lines[0])}
        assert own.cli("report", what).code == 0
        page = own.cli("report", what, "--format", "html").out
        assert page.startswith("<!DOCTYPE html>")
        assert json.loads(own.cli("report", what, "--format", "json").out)["left_out"] == 0
    assert own.cli("report", "summary", "--last", "1d", "--from", "2d").code == InvalidInput.exit_code
    assert own.cli("report", "summary", "--last", "yesterday").code == InvalidInput.exit_code
    assert own.cli("report", "summary", "--file", str(tmp_path / "x")).code == InvalidInput.exit_code


def test_the_life_of_a_schedule(own: Installation, people: People, tmp_path: Path) -> None:
    with Mails(tmp_path, "none").running() as mails:
        own.rest.request("POST", "/channels", json={"name": "team", "target": mails.target()})
        hook = {"kind": "webhook", "url": "https://hooks.example.com/x"}
        own.rest.request("POST", "/channels", json={"name": "hook", "target": hook})
        for role in ("viewer", "operator", "security-officer", "auditor"):
            with pytest.raises(SnapkeepError) as refused:
                people.someone(role).request("POST", "/report-schedules", json=_schedule())
            assert refused.value.code == "permission_denied", role
        scoped = people.someone(("administrator", "system:files1"))
        with pytest.raises(SnapkeepError) as refused:
            scoped.request("POST", "/report-schedules", json=_schedule())
        assert refused.value.code == "permission_denied", "it shows more than he may see"
        for wrong in ({"cron": "61 * * * *"}, {"timezone": "Nowhere/Else"}, {"timezone": "../etc/passwd"},
                      {"channel": "hook"}, {"cron": "0 0 30 2 *"}):  # fmt: skip
            with pytest.raises(InvalidInput):
                own.rest.request("POST", "/report-schedules", json=_schedule() | wrong)
        with pytest.raises(NotFound):
            own.rest.request("POST", "/report-schedules", json=_schedule() | {"channel": "nobody"})

        command = ("report", "schedule", "add", "weekly", "--report", "summary", "--cron", "0 7 * * MON")
        added = own.cli(
            *command, "--format", "html", "--timezone", "Europe/Berlin", "--last", "7d", "--channel", "team"
        )
        assert added.code == 0, added.err
        assert own.cli(*command, "--channel", "team").code == Conflict.exit_code
        shown = own.cli("report", "schedule", "show", "weekly", "-o", "json").json()
        assert (shown["last_hours"], shown["channel"], shown["timezone"]) == (168, "team", "Europe/Berlin")
        assert shown["made_by"]
        assert "weekly" in own.cli("report", "schedule", "list").out
        with pytest.raises(Conflict, match="Reports are sent over the channel"):
            own.rest.request("DELETE", "/channels/team")

        key = {"Idempotency-Key": "once"}
        for _ in range(2):
            own.rest.request("POST", "/report-schedules/weekly/send", headers=key)
        until(lambda: mails.got, 15)
        own.cli("report", "schedule", "send", "weekly")
        until(lambda: len(mails.got) == 2, 15)
        _, file = mails.got[0].message.iter_parts()
        assert "files1/projects" in file.get_content()
        own.rest.request("PATCH", "/channels/team", json={"enabled": False})
        assert own.cli("report", "schedule", "send", "weekly").code == Conflict.exit_code
        assert own.cli("report", "schedule", "remove", "weekly").code == 0
        assert own.cli("report", "schedule", "show", "weekly").code == NotFound.exit_code
        own.rest.request("DELETE", "/channels/team")
        own.rest.request("DELETE", "/channels/hook")


def _schedule() -> Json:
    return {"name": "weekly", "report": "summary", "cron": "0 7 * * MON", "channel": "team"}


def test_who_changes_a_policy_is_told(own: Installation, people: People) -> None:
    own.rest.request(
        "POST", "/channels", json={"name": "hook2", "target": {"kind": "webhook", "url": "https://hooks.example.com/x"}}
    )
    administrator = people.service("paula", "administrator")
    step = "{name: s, do: snapshot, schedule: 0 1 * * *, keep: {last: 1}}"
    text = f"name: p\nassets: [{{name: nothing}}]\nsteps: [{step}]\n"
    administrator.request("PUT", "/policies/p", json={"text": text})
    administrator.request("PUT", "/policies/p", json={"text": text})
    administrator.request("PUT", "/policies/p", json={"text": text + "# again\n"})
    administrator.request("POST", "/policies/p/disable")
    administrator.request("POST", "/policies/p/disable")
    administrator.request("POST", "/policies/p/enable")
    administrator.request("DELETE", "/policies/p")
    told = [row["data"] for row in own.rest.pages("/deliveries", event="policy.changed", channel="hook2")]
    assert [one["details"]["change"] for one in reversed(told)] == [
        "added", "changed", "disabled", "enabled", "removed",
    ]  # fmt: skip
    assert {one["actor"] for one in told} == {"paula"}
    own.rest.request("DELETE", "/channels/hook2")


def test_metrics_of_what_is_covered(own: Installation) -> None:
    """What the watcher saw at the start: three shares of the demo and what belongs to them."""
    until(lambda: scrape(own).all("coverage_assets"), 15)
    shown = {dict(labels)["state"]: value for labels, value in scrape(own).all("coverage_assets").items()}
    assert set(shown) >= {"ok", "late", "unprotected", "impossible"}
    assert scrape(own).value("coverage_rpo_used_ratio") == 0
    assert 0 < scrape(own).value("coverage_look_age_seconds") < 600
