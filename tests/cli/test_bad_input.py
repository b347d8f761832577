"""Each wrong input gives one clear typed error with a next step, and leaves nothing unrecorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation, Ran

SNAPSHOT = ("snapshot", "create", "files1/projects")


@dataclass(frozen=True)
class Case:
    """Arrange something wrong, run a command, expect this error."""

    code: str
    exit_code: int
    says: str
    next_step: str
    command: tuple[str, ...]
    arrange: Callable[[Installation], Any] = lambda _: None


def again(installation: Installation, **settings: Any) -> None:
    installation.rest.request("DELETE", "/systems/files1", params={"force": True})
    installation.add_system(**settings)


def discovered_then(**settings: Any) -> Callable[[Installation], None]:
    """Keep what was discovered, but let the connection be wrong from now on."""

    def arrange(installation: Installation) -> None:
        again(installation, **settings)

    return arrange


def pause(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/file-servers/files1/shares/projects", {"paused": True})


def fault(**values: Any) -> Callable[[Installation], None]:
    return lambda installation: installation.simulator.control("POST", "/faults", values)


def paused_and_known(installation: Installation) -> None:
    pause(installation)
    installation.discover()


def base_gone(installation: Installation) -> None:
    three_snapshots(installation)
    installation.delete_behind_our_back("a")


def never_computed(installation: Installation) -> None:
    installation.snapshot("a")
    installation.simulator.control("PATCH", "/settings", {"cft_seconds": 600})


def three_snapshots(installation: Installation) -> None:
    for name, asset in (("a", "projects"), ("b", "projects"), ("other", "homes")):
        installation.snapshot(name, asset)


def notification_partner(installation: Installation) -> None:
    installation.add_partner_server("watcher", "NOTIFICATION")
    again(installation, partner_server="watcher")
    installation.discover()
    installation.snapshot("a")


def without_partner(installation: Installation) -> None:
    again(installation, partner_server="nobody")
    installation.discover()
    installation.snapshot("a")


def viewer(installation: Installation) -> None:
    password, _ = installation.simulator.secrets("viewer")
    again(installation, username="viewer", password=password)
    installation.discover()


CASES = {
    "wrong password": Case(
        "authentication_failed", 8, "refused", "password", ("discover", "files1"), discovered_then(password="wrong")
    ),
    "wrong host": Case(
        "unavailable", 13, "cannot be reached", "address", ("discover", "files1"), discovered_then(host="127.0.0.9")
    ),
    "wrong file server": Case(
        "not_found", 3, "no file server", "files1", ("discover", "files1"), discovered_then(file_server="nope")
    ),
    "untrusted certificate": Case(
        "authentication_failed", 8, "not trusted", "ca_file", ("discover", "files1"), discovered_then(ca_file=None)
    ),
    "wrong fingerprint": Case(
        *("authentication_failed", 8, "fingerprint", "certificate", ("discover", "files1")),
        discovered_then(ca_file=None, fingerprint="0" * 64),
    ),
    "unknown system": Case("not_found", 3, "no system", "system list", ("discover", "files9")),
    "unknown share": Case("not_found", 3, "no asset", "discover", ("snapshot", "create", "files1/nope")),
    "unknown snapshot": Case(
        "not_found", 3, "no snapshot", "snapshot list", ("snapshot", "export", "files1/projects@nope")
    ),
    "nested share": Case("unsupported", 10, "nested share", "asset show", ("snapshot", "create", "files1/archive")),
    "paused share": Case("unsupported", 10, "paused", "", SNAPSHOT, pause),
    "paused share, known": Case(
        *("unsupported", 10, "paused", "", SNAPSHOT),
        paused_and_known,
    ),
    "name too long": Case("invalid_input", 2, "name", "80", (*SNAPSHOT, "--name", "x" * 81)),
    "name with a slash": Case("invalid_input", 2, "name", "80", (*SNAPSHOT, "--name", "a/b")),
    "name taken": Case("conflict", 4, "refused", "another name", (*SNAPSHOT, "--name", "a"), three_snapshots),
    "base of another share": Case(
        *("not_found", 3, "no snapshot 'other'", "snapshot list"),
        ("snapshot", "diff", "files1/projects@b", "--base", "other"),
        three_snapshots,
    ),
    "base newer": Case(
        *("invalid_input", 2, "newer", "older"),
        ("snapshot", "diff", "files1/projects@a", "--base", "b"),
        three_snapshots,
    ),
    "base missing": Case(
        *("base_missing", 11, "base", "full"),
        ("snapshot", "diff", "files1/projects@b", "--base", "a"),
        base_gone,
    ),
    "no base given": Case(
        *("invalid_input", 2, "compare", "--base"),
        ("snapshot", "diff", "files1/projects@b"),
        three_snapshots,
    ),
    "partner server missing": Case(
        "not_found", 3, "partner server", "BACKUP", ("snapshot", "export", "files1/projects@a"), without_partner
    ),
    "partner server of the wrong type": Case(
        *("unsupported", 10, "NOTIFICATION", "BACKUP", ("snapshot", "export", "files1/projects@a")),
        notification_partner,
    ),
    "bad host": Case(
        *("invalid_input", 2, "neither an IP address nor a host name", "address"),
        ("snapshot", "export", "files1/projects@a", "--host", "../etc"),
        three_snapshots,
    ),
    "broken JSON": Case(
        *("vendor_error", 16, "not JSON", "another service", ("discover", "files1")),
        fault(action="garbage", garbage="json", route="/mount-targets", times=None),
    ),
    "a web page instead": Case(
        *("vendor_error", 16, "not JSON", "another service", ("discover", "files1")),
        fault(action="garbage", garbage="html", route="/mount-targets", times=None),
    ),
    "unreachable in the middle": Case(
        *("unavailable", 13, "mount-targets", "try again", ("discover", "files1")),
        fault(action="reset", route="/mount-targets", times=None),
    ),
    "a page that never completes": Case(
        *("incomplete", 12, "gave none", "full", ("snapshot", "diff", "files1/projects@a", "--full")),
        never_computed,
    ),
    "missing right": Case(
        *("permission_denied", 9, "Create_Mount_Target_Snapshot", "right", SNAPSHOT),
        viewer,
    ),
    "not a reference": Case("invalid_input", 2, "does not name", "system/asset", ("snapshot", "create", "files1")),
    "secret on the command line": Case(
        *("invalid_input", 2, "secret", "--ask password"),
        ("system", "add", "x", "--plugin", "nutanix-files", "--set", "password=x"),
    ),
    "unknown plug-in": Case("not_found", 3, "no plug-in", "nutanix-files", ("system", "add", "x", "--plugin", "y")),
    "setting that is none": Case(
        *("invalid_input", 2, "colour", ""),
        ("system", "add", "x", "--plugin", "nutanix-files", "--set", "colour=red"),
    ),
    "system name taken": Case(
        *("conflict", 4, "already", ""),
        (
            *("system", "add", "files1", "--plugin", "nutanix-files", "--set", "host=h", "--set", "file_server=f"),
            *("--set", "username=u", "--secret-env", "password=HOME"),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input(installation: Installation, name: str) -> None:
    case = CASES[name]
    case.arrange(installation)
    ran = installation.cli(*case.command, "--output", "json")
    assert_error(ran, case)
    for_people = installation.cli(*case.command)
    assert for_people.code == case.exit_code
    assert "Error: " in for_people.err
    assert "Next: " in for_people.err
    assert "Traceback" not in for_people.err
    assert installation.rest.request("GET", "/exports")["data"] == []
    open_ones = installation.rest.request("GET", "/operations", params={"state": "running"})["data"]
    assert open_ones == []


def assert_error(ran: Ran, case: Case) -> None:
    assert ran.code == case.exit_code, ran
    error = ran.error()
    assert error["code"] == case.code
    everything = f"{error['message']} {error['vendor_message']} {error['details']}"
    assert case.says in everything
    assert error["next_step"]
    assert case.next_step in error["next_step"]


def test_no_server_runs(installation: Installation, tmp_path: Path) -> None:
    ran = installation.cli("asset", "list", "--data-dir", str(tmp_path), "-o", "json")
    assert (ran.code, ran.error()["code"]) == (13, "unavailable")
    assert "snapkeep serve" in ran.error()["next_step"]


def test_wrong_token(installation: Installation) -> None:
    ran = installation.cli("asset", "list", "-o", "json", env={"SNAPKEEP_TOKEN": "wrong"})
    assert (ran.code, ran.error()["code"]) == (8, "authentication_failed")


def test_usage_error(installation: Installation) -> None:
    ran = installation.cli("snapshot", "creat")
    assert ran.code == 2 or ran.code == 1
    assert "creat" in ran.err + ran.out
