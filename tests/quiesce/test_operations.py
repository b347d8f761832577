"""Snapshots of one system while applications on another are held: order, failures, crashes, and what is recorded."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.operations.backups import Backups
from tests.quiesce.hosts import Application, holders, until
from tests.support.installation import Installation, Json

from snapkeep.model.errors import InvalidInput, SnapkeepError


class Applications:
    """Two of them on this machine, the system `host1`; the first notes in the share whether it is held."""

    def __init__(self, installation: Installation, directory: Path) -> None:
        self.installation = installation
        log = directory / "log"
        self.first, self.second = (Application(directory, name, log=log) for name in ("db", "app"))
        self.state = installation.live() / "state"
        self.behave()
        hooks = {each.name: each.hook for each in (self.first, self.second)}
        settings = {"hooks": hooks, "only": [str(directory)]}
        body = {"name": "host1", "plugin": "linux-host", "settings": settings}
        installation.rest.request("POST", "/systems", json=body)
        installation.discover("host1")

    def behave(self) -> None:
        self.first.behave(freeze=f"echo frozen >{self.state}", thaw=f"echo thawed >{self.state}")

    @property
    def ids(self) -> list[str]:
        return [self.installation.asset(each.name, "host1")["id"] for each in (self.first, self.second)]

    @property
    def log(self) -> list[str]:
        return self.first.log.read_text().splitlines()

    @property
    def are_held(self) -> bool:
        return self.first.is_held and self.second.is_held

    @property
    def holders(self) -> list[int]:
        return holders(str(self.first.program.parent))

    @property
    def are_let_go(self) -> bool:
        return not self.first.is_held and not self.second.is_held

    def ask(self, **body: Any) -> Json:
        path = f"/assets/{self.installation.asset()['id']}/snapshots"
        return self.installation.ask("POST", path, {"quiesce": self.ids, **body})

    def make(self, **body: Any) -> Json:
        result: Json = self.installation.wait(self.ask(**body))["result"]
        return result

    def fails(self, **body: Any) -> SnapkeepError:
        operation = self.ask(**body)
        with pytest.raises(SnapkeepError) as caught:
            self.installation.wait(operation)
        return caught.value

    def snapshot(self, result: Json) -> Json:
        return dict(self.installation.rest.request("GET", f"/snapshots/{result['snapshot_id']}"))

    def state_in(self, result: Json) -> str:
        """What the first one had noted when the snapshot was taken."""
        body = {"host": {"name": "here", "address": "127.0.0.1"}}
        exported = self.installation.run("POST", f"/snapshots/{result['snapshot_id']}/exports", body)["result"]
        return (Path(exported["locations"][0]["path"]) / "state").read_text().strip()


@pytest.fixture
def apps(installation: Installation, tmp_path: Path) -> Applications:
    return Applications(installation, tmp_path)


BOTH = ["host1/db", "host1/app"]
IN_ORDER = ["freeze db", "freeze app", "thaw app", "thaw db"]


def test_a_snapshot_is_taken_while_all_are_held(apps: Applications) -> None:
    apps.installation.simulator.control("PATCH", "/settings", {"task_seconds": 0.5})
    made = apps.make()
    assert apps.log == IN_ORDER
    assert apps.state_in(made) == "frozen"
    assert apps.state.read_text().strip() == "thawed"
    told = {"consistency": "application", "quiesced": BOTH, "consistency_reason": None}
    assert told.items() <= made.items()
    assert told.items() <= apps.snapshot(made).items()
    apps.installation.discover()
    assert told.items() <= apps.snapshot(made).items(), "a discovery cannot know it"


def test_what_is_said_of_others(apps: Applications) -> None:
    plain = apps.installation.snapshot()
    assert (plain["consistency"], plain["quiesced"], plain["consistency_reason"]) == ("crash", [], None)
    path = "/file-servers/files1/shares/projects/snapshots"
    apps.installation.simulator.control("POST", path, {"name": "somebody's"})
    apps.installation.discover()
    (foreign,) = (item for item in apps.installation.rest.pages("/snapshots") if item["name"] == "somebody's")
    assert (foreign["consistency"], foreign["quiesced"]) == (None, [])
    assert apps.log == []


def test_on_the_command_line(apps: Applications) -> None:
    cli = apps.installation.cli
    both = [word for name in BOTH for word in ("--quiesce", name)]
    done = cli("snapshot", "create", "files1/projects", "--name", "one", *both)
    assert done.code == 0, done
    assert "Application-consistent: host1/db, host1/app held from before until after" in done.out
    assert apps.log == IN_ORDER
    shown = cli("snapshot", "show", "files1/projects@one", "-o", "json").json()
    assert (shown["consistency"], shown["quiesced"]) == ("application", BOTH)
    assert "quiesce" in cli("asset", "show", "host1/db").out


def test_hooks_are_given_on_the_command_line(apps: Applications) -> None:
    cli, hooks = apps.installation.cli, '{"one": {"freeze": ["/bin/true"], "thaw": ["/bin/true", "x"]}}'
    assert cli("system", "set", "host1", "--set", f"hooks={hooks}").code == 0
    settings = apps.installation.rest.request("GET", "/systems/host1")["settings"]
    assert settings["hooks"]["one"]["thaw"] == ["/bin/true", "x"]
    assert cli("system", "set", "host1", "--set", "hooks={").code == 2
    wrong: tuple[Any, ...] = (
        {"one": {"freeze": ["true"], "thaw": ["/bin/true"]}},
        {"a b": {}},
        {"x": {"thaw": []}},
        {"x": {}},
        [],
        "x",
    )
    for each in wrong:
        with pytest.raises(InvalidInput):
            apps.installation.rest.request("PATCH", "/systems/host1", json={"settings": {"hooks": each}})
    apps.installation.discover("host1")
    assert [item["name"] for item in apps.installation.rest.pages("/assets", system="host1")] == ["localhost", "one"]


def test_what_is_wrong_is_refused_before_anything(apps: Applications) -> None:
    installation, ids = apps.installation, apps.ids
    path = f"/assets/{installation.asset()['id']}/snapshots"

    def code(**body: Any) -> str:
        with pytest.raises(SnapkeepError) as caught:
            installation.ask("POST", path, body)
        return caught.value.code

    assert code(quiesce=[ids[0], ids[1], ids[0]]) == "invalid_input"
    assert code(quiesce=[installation.asset()["id"]]) == "unsupported"
    assert code(quiesce=["nobody"]) == "not_found"
    for seconds in (0, 601):
        assert code(quiesce=ids, quiesce_seconds=seconds) == "invalid_input"
    assert code(quiesce=[str(number) for number in range(17)]) == "invalid_input"
    installation.rest.request("PATCH", "/systems/host1", json={"settings": {}, "queue": "elsewhere"})
    assert code(quiesce=ids) == "invalid_input", "no worker need reach both"
    installation.rest.request("PATCH", "/systems/host1", json={"settings": {"hooks": {}}, "queue": "default"})
    installation.discover("host1")
    assert code(quiesce=ids) == "not_found"
    assert apps.log == []
    assert installation.vendor_snapshots() == []


def test_when_one_cannot_be_held_nothing_is_made(apps: Applications) -> None:
    apps.second.behave(freeze="echo 'out of paper' >&2; exit 3")
    error = apps.fails()
    assert (error.code, error.vendor_code, error.vendor_message) == ("vendor_error", "3", "out of paper")
    assert "may_exist" not in error.details
    assert apps.log == ["freeze db", "thaw app", "thaw db"]
    assert apps.installation.vendor_snapshots() == []
    apps.second.behave(freeze="exec sleep 300")
    assert apps.fails(quiesce_seconds=1).code == "timeout"
    apps.second.program.unlink()
    assert apps.fails().code == "unsupported"
    assert apps.are_let_go
    assert apps.installation.vendor_snapshots() == []
    apps.second.behave()
    failed = apps.installation.rest.request("GET", "/operations", params={"state": ["failed"]})["data"][0]
    again = apps.installation.run("POST", f"/operations/{failed['id']}/retry")
    assert again["result"]["consistency"] == "application", "what was asked for is asked for again"


def test_when_the_snapshot_fails_all_are_let_go(apps: Applications) -> None:
    apps.installation.fault("status", method="POST", route="/snapshots", status=422)
    error = apps.fails()
    assert error.code != "internal"
    assert apps.log == IN_ORDER
    assert apps.installation.vendor_snapshots() == []


def test_when_the_time_is_too_short_the_snapshot_is_kept_as_what_it_is(apps: Applications) -> None:
    apps.installation.simulator.control("PATCH", "/settings", {"task_seconds": 2.5})
    made = apps.make(quiesce_seconds=1)
    assert made["consistency"] == "crash"
    assert "host1/db: it was let go after 1 s" in made["consistency_reason"]
    assert "host1/app: it was let go after 1 s" in made["consistency_reason"]
    assert apps.snapshot(made)["consistency_reason"] == made["consistency_reason"]
    assert len(apps.installation.vendor_snapshots()) == 1


def test_a_thaw_that_fails_once_does_no_harm_and_one_that_fails_is_told(apps: Applications) -> None:
    apps.second.behave(thaw="[ -e $0.once ] || { touch $0.once; exit 1; }")
    assert apps.make()["consistency"] == "application"
    apps.second.behave(thaw="[ -e $0.mended ] || exit 1")
    made = apps.make()
    assert made["consistency"] == "crash"
    assert "host1/app: it could not be thawed" in made["consistency_reason"]
    assert not apps.first.is_held
    Path(f"{apps.second.program}.mended").touch()
    until(lambda: apps.are_let_go)


def test_cancelled_while_all_are_held(apps: Applications) -> None:
    apps.installation.simulator.control("PATCH", "/settings", {"task_seconds": 3.0})
    operation = apps.ask()
    until(lambda: apps.are_held)
    apps.installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert apps.installation.wait(operation)["state"] == "cancelled"
    assert apps.log == IN_ORDER
    assert apps.installation.vendor_snapshots() == []


def test_cancelled_while_one_cannot_be_held(apps: Applications) -> None:
    apps.second.behave(freeze="exec sleep 300")
    operation = apps.ask()
    until(lambda: apps.first.is_held)
    apps.installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert apps.installation.wait(operation)["state"] == "cancelled"
    until(lambda: not apps.holders)
    assert sorted(apps.log) == ["freeze db", "thaw app", "thaw db"]
    assert apps.installation.vendor_snapshots() == []


def test_a_backup_is_made_of_what_was_held(apps: Applications, tmp_path: Path) -> None:
    backups = Backups(apps.installation, tmp_path / "repository")
    backups.fill()
    result = apps.installation.wait(backups.ask(quiesce=apps.ids))["result"]
    assert (result["consistency"], result["quiesced"], result["consistency_reason"]) == ("application", BOTH, None)
    assert apps.log == IN_ORDER
    shown = apps.installation.cli("backup", "run", "files1/projects", "-r", backups.name, "--quiesce", "host1/app")
    assert shown.code == 0, shown
    assert "Application-consistent: host1/app" in shown.out


# -- crashes -----------------------------------------------------------------------------------------------------------
@contextmanager
def killed(apps: Applications) -> Iterator[None]:
    """Kill the server, see the host let go of everything by itself, and start the server again at the end."""
    server = apps.installation.server
    assert server.end(signal.SIGKILL) == -signal.SIGKILL
    try:
        until(lambda: apps.are_let_go and not apps.holders)
        yield
    finally:
        server.start()


def test_killed_while_the_snapshot_is_taken(apps: Applications) -> None:
    apps.installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = apps.ask()
    until(lambda: apps.are_held and _asked(apps))
    with killed(apps):
        pass
    made = apps.installation.wait(operation)["result"]
    assert made["consistency"] == "crash"
    assert made["consistency_reason"] == "what was held was let go before it was known that the snapshot was there"
    assert made["quiesced"] == BOTH
    assert apps.log.count("freeze db") == 1, "nobody is held for what may be there already"
    assert len(apps.installation.vendor_snapshots()) == 1


def test_killed_while_one_is_frozen(apps: Applications) -> None:
    """Nothing was asked for: it is all done again."""
    apps.second.behave(freeze="exec sleep 300")
    operation = apps.ask()
    until(lambda: apps.first.is_held)
    with killed(apps):
        assert apps.installation.vendor_snapshots() == []
        apps.second.behave()
    made = apps.installation.wait(operation)["result"]
    assert (made["consistency"], made["consistency_reason"]) == ("application", None)
    assert apps.state_in(made) == "frozen"
    assert apps.log[-4:] == IN_ORDER
    assert len(apps.installation.vendor_snapshots()) == 1


def test_killed_and_cancelled_meanwhile(apps: Applications) -> None:
    apps.installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = apps.ask()
    until(lambda: apps.are_held and _asked(apps))
    apps.installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    with killed(apps):
        pass
    assert apps.installation.wait(operation)["state"] == "cancelled"
    assert apps.installation.vendor_snapshots() == []


def _asked(apps: Applications) -> bool:
    requests = apps.installation.simulator.control("GET", "/requests")["requests"]
    return any(item["method"] == "POST" and item["path"].endswith("/snapshots") for item in requests)
