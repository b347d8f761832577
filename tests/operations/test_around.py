"""Programs before and after a snapshot: order, failures, cancel, crashes, and who may name them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.operations.backups import Backups
from tests.quiesce.hosts import Application, until
from tests.support.installation import Installation, Json, Worker, installed
from tests.support.people import People
from tests.support.postgres import Postgres

from snapkeep.model.errors import Busy, InvalidInput, PermissionDenied, SnapkeepError

NOTE = 'echo "$SNAPKEEP_MOMENT${SNAPKEEP_OUTCOME:+ $SNAPKEEP_OUTCOME}"'
BOTH = {"before": "quiet", "after": "loud"}
PROGRAMS = {"programs": BOTH}


class Around:
    """Two programs that note when they run, in a log and in the share itself: what a snapshot holds shows when."""

    def __init__(self, installation: Installation, directory: Path, log: Path) -> None:
        self.installation = installation
        self.directory = directory
        self.path = log
        self.gate = log.with_name("gate")
        self.state = installation.live() / "state"
        self._asked_before = self._asked_often()
        for path in directory.iterdir():
            path.unlink()
        self.behave("quiet")
        self.behave("loud")

    def behave(self, name: str, how: str = "") -> None:
        new = self.path.with_name("new")  # what runs may still read the file that was there
        new.write_text(f"#!/bin/sh\n{NOTE} >> {self.path}\necho {name} > {self.state}\n{how}\n")
        new.chmod(0o755)
        new.rename(self.directory / name)

    @property
    def log(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []

    @property
    def made(self) -> int:
        return len(self.installation.vendor_snapshots())

    def ask(self, **body: Any) -> Json:
        path = f"/assets/{self.installation.asset()['id']}/snapshots"
        return self.installation.ask("POST", path, {**PROGRAMS, **body})

    def make(self, **body: Any) -> Json:
        return dict(self.installation.wait(self.ask(**body))["result"])

    def fails(self, **body: Any) -> SnapkeepError:
        operation = self.ask(**body)
        with pytest.raises(SnapkeepError) as caught:
            self.installation.wait(operation)
        return caught.value

    @property
    def has_asked(self) -> bool:
        """Whether the system was asked for a snapshot in this test."""
        return self._asked_often() > self._asked_before

    def _asked_often(self) -> int:
        requests = self.installation.simulator.control("GET", "/requests")["requests"]
        return sum(item["method"] == "POST" and item["path"].endswith("/snapshots") for item in requests)

    def cancel(self, operation: Json) -> None:
        self.installation.rest.request("POST", f"/operations/{operation['id']}/cancel")

    def kill(self) -> None:
        server = self.installation.server
        assert server.end(signal.SIGKILL) == -signal.SIGKILL

    def state_in(self, result: Json) -> str:
        """Who had spoken last when the snapshot was taken."""
        body = {"host": {"name": "here", "address": "127.0.0.1"}}
        exported = self.installation.run("POST", f"/snapshots/{result['snapshot_id']}/exports", body)["result"]
        return (Path(exported["locations"][0]["path"]) / "state").read_text().strip()


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module")
def with_programs(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("installation"), SNAPKEEP_PROGRAMS=str(programs)) as installation:
        yield installation


@pytest.fixture
def around(with_programs: Installation, programs: Path, tmp_path: Path) -> Around:
    with_programs.reset()
    return Around(with_programs, programs, tmp_path / "log")


def test_one_runs_before_and_one_after(around: Around) -> None:
    around.installation.simulator.control("PATCH", "/settings", {"task_seconds": 0.5})
    made = around.make()
    assert around.log == ["before", "after taken"]
    assert around.state_in(made) == "quiet"
    assert around.state.read_text() == "loud\n"
    assert (made["after_failed"], made["consistency"]) == (None, "crash"), "what programs do is not known"


def test_they_are_told_of_what(around: Around) -> None:
    around.behave("quiet", f"env | grep ^SNAPKEEP_ | sort > {around.path}.env")
    operation = around.ask(name="one")
    around.installation.wait(operation)
    assert Path(f"{around.path}.env").read_text().splitlines() == [
        "SNAPKEEP_ASSET=projects",
        "SNAPKEEP_MOMENT=before",
        f"SNAPKEEP_OPERATION={operation['id']}",
        "SNAPKEEP_SNAPSHOT=one",
        "SNAPKEEP_SYSTEM=files1",
    ]


def test_without_one_of_them(around: Around) -> None:
    around.make(programs={"after": "loud"})
    around.make(programs={"before": "quiet"})
    around.make(programs={})
    assert around.log == ["after taken", "before"]


def test_when_the_one_before_fails_no_snapshot_is_taken(around: Around) -> None:
    around.behave("quiet", "echo 'the disk is full' >&2; exit 3")
    error = around.fails()
    assert (error.code, error.vendor_code, error.vendor_message) == ("vendor_error", "3", "the disk is full")
    assert "may_exist" not in error.details
    assert around.log == ["before", "after failed"], "it may have come half the way"
    assert around.made == 0
    around.behave("quiet", "exec sleep 300")
    assert around.fails(programs=BOTH | {"seconds": 1}).code == "timeout"
    assert around.log[2:] == ["before", "after failed"]
    assert around.made == 0


def test_when_the_snapshot_fails_the_one_after_runs(around: Around) -> None:
    around.installation.fault("status", method="POST", route="/snapshots", status=422)
    around.behave("loud", "exit 4")
    error = around.fails()
    assert around.log == ["before", "after failed"]
    assert error.details["after_failed"]["vendor_code"] == "4"
    assert around.made == 0


def test_when_the_one_after_fails_the_snapshot_is_there_and_it_is_told(around: Around) -> None:
    around.behave("loud", "echo 'still locked' >&2; exit 5")
    made = around.make()
    assert around.log == ["before", "after taken"]
    assert around.made == 1
    assert made["after_failed"]["vendor_message"] == "still locked"
    assert made["after_failed"]["details"]["exit_code"] == 5


def test_nothing_begins_that_could_not_be_ended(around: Around) -> None:
    (around.directory / "loud").unlink()
    assert around.fails().code == "not_found"
    assert around.log == []
    assert around.made == 0


def test_on_the_command_line(around: Around) -> None:
    cli, words = around.installation.cli, ("--before", "quiet", "--after", "loud", "--program-seconds", "20")
    done = cli("snapshot", "create", "files1/projects", *words)
    assert done.code == 0, done
    assert around.log == ["before", "after taken"]
    around.behave("loud", "echo 'still locked' >&2; exit 5")
    done = cli("snapshot", "create", "files1/projects", *words)
    assert done.code == 0, done
    assert "still locked" in done.out
    around.behave("quiet", "exit 3")
    done = cli("snapshot", "create", "files1/projects", *words, "--output", "json")
    assert done.code == 16, done
    assert done.error()["details"]["exit_code"] == 3


def test_with_quiesce_the_programs_are_outside(around: Around, tmp_path: Path) -> None:
    application = Application(tmp_path, "db", log=around.path)
    settings = {"hooks": {"db": application.hook}, "only": [str(tmp_path)]}
    body = {"name": "host1", "plugin": "linux-host", "settings": settings}
    around.installation.rest.request("POST", "/systems", json=body)
    around.installation.discover("host1")
    made = around.make(quiesce=[around.installation.asset("db", "host1")["id"]])
    assert around.log == ["before", "freeze db", "thaw db", "after taken"]
    assert made["consistency"] == "application"


def test_a_backup_hands_them_on(around: Around, tmp_path: Path) -> None:
    backups = Backups(around.installation, tmp_path / "repository")
    backups.fill()
    result = around.installation.wait(backups.ask(**PROGRAMS))["result"]
    assert around.log == ["before", "after taken"]
    assert result["after_failed"] is None
    around.behave("loud", "echo 'still locked' >&2; exit 5")
    words = ("--before", "quiet", "--after", "loud")
    shown = around.installation.cli("backup", "run", "files1/projects", "-r", backups.name, *words)
    assert shown.code == 0, shown
    assert "still locked" in shown.out
    around.behave("quiet", "exec sleep 300")
    first = backups.ask(**PROGRAMS)
    assert backups.ask(**PROGRAMS)["id"] == backups.ask()["id"] == first["id"]
    with pytest.raises(Busy, match="without these programs"):
        backups.ask(programs={"after": "loud"})
    around.cancel(first)


# -- cancel --------------------------------------------------------------------------------------------------------
def test_cancelled_while_the_one_before_runs(around: Around) -> None:
    around.behave("quiet", "exec sleep 300")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    until(lambda: around.log == ["before"])
    around.cancel(operation)
    assert around.installation.wait(operation)["state"] == "cancelled"
    assert around.log == ["before", "after failed"]
    assert around.made == 0


def test_cancelled_while_the_snapshot_is_taken(around: Around) -> None:
    around.installation.simulator.control("PATCH", "/settings", {"task_seconds": 3.0})
    operation = around.ask()
    until(lambda: around.has_asked)
    around.cancel(operation)
    assert around.installation.wait(operation)["state"] == "cancelled"
    assert around.log == ["before", "after failed"]
    assert around.made == 0


def test_cancelled_and_the_one_after_fails(around: Around) -> None:
    around.behave("quiet", "exec sleep 300")
    around.behave("loud", "exit 4")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    until(lambda: around.log == ["before"])
    around.cancel(operation)
    with pytest.raises(SnapkeepError, match="Cancelled, but") as caught:
        around.installation.wait(operation)
    assert caught.value.vendor_code == "4"


def test_a_cancel_does_not_end_the_one_after(around: Around) -> None:
    longer_than_a_cancel_takes = "sleep 3"
    wait = f"while [ ! -e {around.gate} ]; do sleep 0.1; done; {longer_than_a_cancel_takes}"
    around.behave("loud", f"{wait}; echo whole >> {around.path}")
    operation = around.ask()
    until(lambda: around.log == ["before", "after taken"])
    around.cancel(operation)
    around.gate.touch()
    assert around.installation.wait(operation)["state"] == "succeeded"
    assert around.log == ["before", "after taken", "whole"]


# -- crashes -------------------------------------------------------------------------------------------------------
def test_killed_while_the_one_before_runs(around: Around) -> None:
    """What is left of it is ended; the one after is run, then all begins anew."""
    around.behave("quiet", "sleep 300 & echo $! > $0.pid; wait")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    pid = around.directory / "quiet.pid"
    until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    around.kill()
    around.behave("quiet")
    around.installation.server.start()
    around.installation.wait(operation)
    assert around.log == ["before", "after failed", "before", "after taken"]
    assert not Path(f"/proc/{int(pid.read_text())}").exists()
    assert around.made == 1


def test_killed_while_the_snapshot_is_taken(around: Around) -> None:
    around.installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = around.ask()
    until(lambda: around.has_asked)
    around.kill()
    assert around.log == ["before"]
    around.installation.server.start()
    made = around.installation.wait(operation)["result"]
    assert around.log == ["before", "after taken"]
    assert around.state_in(made) == "quiet"
    assert around.made == 1


def test_killed_while_the_one_after_runs(around: Around) -> None:
    around.behave("loud", "exec sleep 300")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    until(lambda: around.log == ["before", "after taken"])
    around.kill()
    around.behave("loud")
    around.installation.server.start()
    assert around.installation.wait(operation)["state"] == "succeeded"
    assert around.log == ["before", "after taken", "after taken"]
    assert around.made == 1


def test_killed_while_the_one_after_runs_since_the_one_before_failed(around: Around) -> None:
    """It does not begin anew: why it failed was noted, and is told."""
    around.behave("quiet", "exit 3")
    around.behave("loud", "exec sleep 300")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    until(lambda: around.log == ["before", "after failed"])
    around.kill()
    around.behave("quiet")
    around.behave("loud")
    around.installation.server.start()
    with pytest.raises(SnapkeepError) as caught:
        around.installation.wait(operation)
    assert (caught.value.vendor_code, "may_exist" in caught.value.details) == ("3", False)
    assert around.log == ["before", "after failed", "after failed"]
    assert around.made == 0


def test_killed_and_cancelled_meanwhile(around: Around) -> None:
    around.installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = around.ask()
    until(lambda: around.has_asked)
    around.cancel(operation)
    around.kill()
    around.installation.server.start()
    assert around.installation.wait(operation)["state"] == "cancelled"
    assert around.log[0] == "before"
    assert set(around.log[1:]) == {"after failed"}
    assert around.made == 0


def test_the_server_ends_while_the_one_before_runs(around: Around) -> None:
    around.behave("quiet", "sleep 300 & echo $! > $0.pid; wait")
    operation = around.ask(programs=BOTH | {"seconds": 300})
    pid = around.directory / "quiet.pid"
    until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    assert around.installation.server.end(signal.SIGTERM) == -signal.SIGTERM, "it was parked in time"
    until(lambda: not Path(f"/proc/{int(pid.read_text())}").exists())
    around.behave("quiet")
    around.installation.server.start()
    around.installation.wait(operation)
    assert around.log == ["before", "after failed", "before", "after taken"]


def test_another_worker_goes_on(postgres: Postgres, programs: Path, tmp_path: Path) -> None:
    """What the one that died has begun is ended, and the one after runs where the work is taken over."""
    url = postgres.create_database()
    with installed(tmp_path, SNAPKEEP_DATABASE_URL=url, SNAPKEEP_TAKEOVER_SECONDS="2") as installation:
        installation.server.end(signal.SIGTERM)
        installation.server.command.append("--no-work")
        installation.server.start()
        for name in ("w1", "w2"):
            worker = installation.workers[name] = Worker(installation.server, name)
            worker.command += ["--programs", str(programs)]
            worker.start()
        installation.reset()
        around = Around(installation, programs, tmp_path / "log")
        around.behave("quiet", f"[ -e {around.gate} ] && exit 0; sleep 300 & echo $! > $0.pid; wait")
        operation = around.ask(programs=BOTH | {"seconds": 300})
        pid = around.directory / "quiet.pid"
        until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        around.gate.touch()
        first = installation.workers[str(installation.operation(operation)["worker"])]
        first.end(signal.SIGKILL)
        assert installation.wait(operation)["worker"] != first.name
        assert around.log == ["before", "after failed", "before", "after taken"]
        assert not Path(f"/proc/{int(pid.read_text())}").exists()
        assert around.made == 1
    postgres.drop_database(url)


# -- who may -------------------------------------------------------------------------------------------------------
@pytest.fixture
def people(around: Around) -> Iterator[People]:
    found = People(around.installation)
    yield found
    found.close()


def test_only_who_may_run_programs_names_them(around: Around, people: People, tmp_path: Path) -> None:
    operator = people.user("olga", "operator")
    local = people.user("lars", ("administrator", "system:files1"))
    administrator = people.user("anna", "administrator")
    backups = Backups(around.installation, tmp_path / "repository")
    asset = around.installation.asset()["id"]
    for somebody in (operator, local):
        with pytest.raises(PermissionDenied):
            somebody.request("POST", f"/assets/{asset}/snapshots", json=PROGRAMS)
    with pytest.raises(PermissionDenied):
        operator.request("POST", f"/assets/{asset}/backups", json={"repository": backups.name, **PROGRAMS})
    around.behave("quiet", "exit 3")
    failed = administrator.request("POST", f"/assets/{asset}/snapshots", json=PROGRAMS)
    with pytest.raises(SnapkeepError):
        around.installation.wait(failed)
    with pytest.raises(PermissionDenied):
        operator.request("POST", f"/operations/{failed['id']}/retry")
    assert around.log == ["before", "after failed"]
    around.behave("quiet")
    again = administrator.request("POST", f"/operations/{failed['id']}/retry")
    around.installation.wait(again)
    assert around.log[2:] == ["before", "after taken"]
    around.installation.wait(operator.request("POST", f"/assets/{asset}/snapshots", json={"programs": {}}))


POLICY = """\
name: erp
assets: [{system: files1, name: projects}]
steps:
  - {name: often, do: snapshot, schedule: "* * * * *", keep: {last: 9}, before: slow, after: loud, program_seconds: 1}
  - {name: away, do: backup, schedule: "* * * * *", keep: {last: 9}, repository: R, before: quiet, after: loud}
"""


def test_a_policy_names_them(around: Around, people: People, tmp_path: Path) -> None:
    rest, backups = around.installation.rest, Backups(around.installation, tmp_path / "repository")
    backups.fill()
    around.behave("slow", "exec sleep 300")
    body = {"text": POLICY.replace("repository: R", f"repository: {backups.name}")}
    rest.request("PUT", "/roles/planner", json={"actions": ["policy.read", "policy.change"]})
    with pytest.raises(PermissionDenied):
        people.someone("planner").request("PUT", "/policies/erp", json=body)
    people.someone("administrator").request("PUT", "/policies/erp", json=body)
    with pytest.raises(PermissionDenied):
        people.someone("planner").request("POST", "/policies/erp/enable")
    try:
        until(lambda: len(around.log) == 4, 90)
        assert sorted(around.log) == ["after failed", "after taken", "before", "before"]
    finally:
        rest.request("DELETE", "/policies/erp")


@pytest.mark.parametrize(
    "named", [{"before": "../x"}, {"before": ""}, {"after": "a/b"}, {"before": "x", "seconds": 0}, {"other": "x"}]
)
def test_what_is_wrong_is_refused_at_once(around: Around, named: Json) -> None:
    with pytest.raises(InvalidInput):
        around.ask(programs=named)
