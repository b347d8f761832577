"""Reconcile: each difference made for real, reported without a change, mended, and then not found any more."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.installation import Installation, installed, until

from snapkeep.model.errors import Conflict, PermissionDenied, SnapkeepError, Timeout, Unavailable
from snapkeep.simulators.nutanix_files.testing import Api

Json = dict[str, Any]
OURS = "NB179536124790812198544"
HERE = {"host": {"name": "here", "address": "127.0.0.1"}}


@pytest.fixture(scope="module")
def running_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose server may be killed."""
    with installed(tmp_path_factory.mktemp("reconcile")) as installation:
        yield installation


@pytest.fixture
def own(running_own: Installation) -> Installation:
    running_own.reset()
    return running_own


def reconcile(installation: Installation, *, apply: bool = False, system: str = "files1") -> list[tuple[str, str]]:
    """Return (finding, subject) of each finding, in which nothing is claimed that was not asked for."""
    result = installation.run("POST", f"/systems/{system}/reconcile", {"apply": apply})["result"]
    assert result["applied"] is apply
    assert result["left"] == (0 if apply else len(result["findings"]))
    assert all(item["done"] is apply for item in result["findings"])
    found = [(item["finding"], item["subject"]) for item in result["findings"]]
    assert result["counts"] == {kind: [one for one, _ in found].count(kind) for kind, _ in found}
    return found


def mends(installation: Installation, expected: list[tuple[str, str]]) -> None:
    """Reconcile reports this and changes nothing, then mends it, then finds nothing."""
    before = state(installation)
    assert reconcile(installation) == expected
    assert state(installation) == before
    assert reconcile(installation, apply=True) == expected
    assert reconcile(installation, apply=True) == []


def state(installation: Installation) -> Any:
    """Everything that reconcile could change: the catalog's side and the system's."""
    rest = installation.rest
    snapshots = list(rest.pages("/snapshots", system="files1", gone=True))
    return snapshots, rest.request("GET", "/exports")["data"], access(installation), installation.vendor_snapshots()


def access(installation: Installation) -> list[tuple[str, str, list[str]]]:
    found = installation.simulator.control("GET", "/access")["access"]
    return sorted((item["partner_server"], item["client"], item["shares"] or []) for item in found)


def change_access(
    installation: Installation, operation: str, address: str, share: str | None = "projects", partner: str = "snapkeep"
) -> None:
    """Change the entries of a partner server, as somebody else would."""
    api = Api(installation.simulator)
    path = f"{api.server()}/partner-servers"
    (found,) = api.get(path, filter=f"name eq '{partner}'").data
    entry = {
        "address": {"ipv4": {"value": address, "prefixLength": 32}},
        "accessType": "READ_ONLY",
        "operationType": operation,
    }
    if share is not None:
        entry["mountTargetExtId"] = api.share(share).rpartition("/")[2]
    body = {key: found[key] for key in ("name", "vendorName", "partnerType")}
    body["backupServerConfig"] = {"backupClientAccessConfigs": [entry]}
    path = f"{path}/{found['extId']}"
    assert api.wait(api.call("PUT", path, body, headers=api.etag(path)))["status"] == "SUCCEEDED"
    api.close()


def vendor_snapshot(installation: Installation, name: str, share: str = "projects") -> None:
    api = Api(installation.simulator)
    api.snapshot(api.share(share), name)
    api.close()


def fault(installation: Installation, action: str, **fields: Any) -> None:
    installation.simulator.control("POST", "/faults", {"action": action, **fields})


def export(installation: Installation, snapshot: Json) -> Json:
    return installation.run("POST", f"/snapshots/{snapshot['id']}/exports", HERE)


def catalog_snapshots(installation: Installation) -> dict[str, bool]:
    return {item["name"]: item["owned"] for item in installation.rest.pages("/snapshots", system="files1")}


def running(installation: Installation, operation: Json) -> Json:
    return dict(installation.rest.request("GET", f"/operations/{operation['id']}"))


# -- the findings ----------------------------------------------------------------------------------------------------
def test_nothing_is_found_where_nothing_differs(installation: Installation) -> None:
    export(installation, installation.snapshot())
    installation.snapshot("chosen", "homes")
    assert reconcile(installation, apply=True) == []


def test_a_snapshot_of_ours_that_the_catalog_lacks(installation: Installation) -> None:
    vendor_snapshot(installation, OURS)
    vendor_snapshot(installation, "somebody-elses")
    mends(installation, [("forgotten_snapshot", f"files1/projects@{OURS}")])
    assert catalog_snapshots(installation) == {OURS: True}


def test_a_snapshot_of_ours_on_a_share_that_the_catalog_lacks(installation: Installation) -> None:
    installation.simulator.control("POST", "/file-servers/files1/shares", {"name": "new"})
    vendor_snapshot(installation, OURS, "new")
    mends(installation, [("forgotten_snapshot", f"files1/new@{OURS}")])
    assert installation.asset("new")["snapshots"] == 1


def test_a_snapshot_that_the_catalog_holds_to_be_gone(installation: Installation) -> None:
    snapshot = installation.snapshot()
    with catalog(installation) as database:
        database.execute("UPDATE snapshots SET gone_at = '2026-01-01 00:00:00' WHERE id = ?", (snapshot["id"],))
    mends(installation, [("forgotten_snapshot", snapshot["reference"])])
    assert catalog_snapshots(installation) == {snapshot["name"]: True}


def test_a_create_that_failed_has_left_its_snapshot(installation: Installation) -> None:
    fault(installation, "status", method="GET", route="/snapshots/{}", status=404, times=None)
    with pytest.raises((Timeout, SnapkeepError)) as caught:
        installation.snapshot("chosen")
    assert caught.value.details["may_exist"] == "chosen"
    installation.simulator.control("DELETE", "/faults")
    installation.discover()
    assert catalog_snapshots(installation) == {"chosen": False}
    mends(installation, [("forgotten_snapshot", "files1/projects@chosen")])
    assert catalog_snapshots(installation) == {"chosen": True}


def test_a_snapshot_of_somebody_else_never_becomes_ours_by_its_name(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"clock_skew_seconds": -3600})
    vendor_snapshot(installation, "nightly")
    vendor_snapshot(installation, "nightly", "homes")
    installation.simulator.control("PATCH", "/settings", {"clock_skew_seconds": 0})
    with pytest.raises(Conflict):
        installation.snapshot("nightly")
    installation.delete_behind_our_back("nightly")
    vendor_snapshot(installation, "nightly")  # after our create was refused
    fault(installation, "status", method="POST", route="/snapshots", status=503, times=None)
    with pytest.raises(SnapkeepError) as caught:
        installation.snapshot("nightly", "homes")
    assert caught.value.details["may_exist"] == "nightly"
    installation.simulator.control("DELETE", "/faults")
    installation.discover()
    assert reconcile(installation, apply=True) == []
    assert catalog_snapshots(installation) == {"nightly": False}
    assert len(list(installation.rest.pages("/snapshots", system="files1"))) == 2


def test_a_snapshot_that_somebody_deleted(installation: Installation) -> None:
    kept, lost = installation.snapshot("kept"), installation.snapshot("lost")
    installation.delete_behind_our_back("lost")
    mends(installation, [("missing_snapshot", lost["reference"])])
    assert catalog_snapshots(installation) == {kept["name"]: True}


def test_an_access_that_nothing_needs(installation: Installation) -> None:
    installation.add_partner_server("other-program")
    for address in ("127.0.0.1", "10.0.0.9"):
        change_access(installation, "ADD", address)
    change_access(installation, "ADD", "10.0.0.9", share=None)
    change_access(installation, "ADD", "10.0.0.9", partner="other-program")
    export(installation, installation.snapshot())
    mends(installation, [("leftover_export", "files1/projects to 10.0.0.9")])
    assert access(installation) == [
        ("other-program", "10.0.0.9", ["projects"]),
        ("snapkeep", "10.0.0.9", []),
        ("snapkeep", "127.0.0.1", ["projects"]),
    ]


def test_an_export_that_was_begun_and_given_up(installation: Installation) -> None:
    snapshot = installation.snapshot()
    fault(installation, "status", method="GET", route="/partner-servers", status=403, times=None)
    with pytest.raises(PermissionDenied):
        export(installation, snapshot)
    installation.simulator.control("DELETE", "/faults")
    assert [item["state"] for item in installation.rest.request("GET", "/exports")["data"]] == ["opening"]
    mends(installation, [("leftover_export", f"{snapshot['reference']} to here")])
    assert installation.rest.request("GET", "/exports")["data"] == []


def test_an_export_whose_access_somebody_took_away(installation: Installation) -> None:
    snapshot = installation.snapshot()
    export(installation, snapshot)
    change_access(installation, "REMOVE", "127.0.0.1")
    mends(installation, [("missing_export", f"{snapshot['reference']} to here")])
    assert installation.rest.request("GET", "/exports")["data"] == []


def test_a_change_list_on_which_nobody_works(installation: Installation) -> None:
    new = installation.snapshot()
    done = installation.run("POST", "/change-lists", {"base_id": None, "new_id": new["id"]})
    with catalog(installation) as database:
        database.execute("UPDATE change_lists SET state = 'computing' WHERE id = ?", (done["id"],))
    mends(installation, [("unfinished_change_list", f"files1/projects: {done['id']}")])
    head = installation.rest.request("GET", f"/change-lists/{done['id']}")
    assert (head["state"], head["entries"]) == ("incomplete", 0)


def test_everything_at_once_and_each_once(installation: Installation) -> None:
    lost, opened = installation.snapshot("lost"), installation.snapshot("opened")
    export(installation, opened)
    installation.delete_behind_our_back("lost")
    vendor_snapshot(installation, OURS)
    change_access(installation, "ADD", "10.0.0.9")
    change_access(installation, "REMOVE", "127.0.0.1")
    mends(
        installation,
        [
            ("forgotten_snapshot", f"files1/projects@{OURS}"),
            ("missing_snapshot", lost["reference"]),
            ("leftover_export", "files1/projects to 10.0.0.9"),
            ("missing_export", f"{opened['reference']} to here"),
        ],
    )


# -- what is left alone ----------------------------------------------------------------------------------------------
def test_a_create_under_way_is_left_alone(installation: Installation) -> None:
    fault(installation, "status", method="GET", route="/snapshots/{}", status=404, lasting=2.0)
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    until(installation.vendor_snapshots)
    assert reconcile(installation, apply=True) == []
    assert installation.rest.wait(operation)["state"] == "succeeded"
    assert reconcile(installation, apply=True) == []


def test_an_export_and_a_deport_under_way_are_left_alone(installation: Installation) -> None:
    snapshot = installation.snapshot()
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})

    def left_alone(operation: Json) -> Json:
        until(lambda: running(installation, operation)["phase"].startswith("waiting"))
        assert reconcile(installation, apply=True) == []
        return installation.rest.wait(operation)

    path = f"/snapshots/{snapshot['id']}/exports"
    done = left_alone(installation.rest.request("POST", path, json=HERE))
    left_alone(installation.rest.request("DELETE", f"/exports/{done['result']['export_id']}"))
    assert access(installation) == []


def test_the_access_of_the_same_system_under_another_name_is_left_alone(installation: Installation) -> None:
    installation.add_system("again")
    installation.discover("again")
    [asset] = installation.rest.request("GET", "/assets", params={"system": "again", "name": "projects"})["data"]
    done = installation.run("POST", f"/assets/{asset['id']}/snapshots", {"name": None})
    export(installation, {"id": done["result"]["snapshot_id"]})
    installation.discover()
    assert reconcile(installation, apply=True) == []
    assert len(access(installation)) == 1


def test_what_is_exported_while_its_access_is_closed_is_opened_again(installation: Installation) -> None:
    snapshot = installation.snapshot()
    change_access(installation, "ADD", "127.0.0.1")
    fault(
        installation, "delay", method="GET", route="/partner-servers", nth=3, seconds=2.5
    )  # two looks, then the close
    mending = installation.rest.request("POST", "/systems/files1/reconcile", json={"apply": True})
    until(lambda: installation.simulator.control("GET", "/faults")["faults"][0]["hits"])
    export(installation, snapshot)
    result = installation.rest.wait(mending)["result"]
    assert [(item["finding"], item["done"]) for item in result["findings"]] == [("leftover_export", True)]
    assert access(installation) == [("snapkeep", "127.0.0.1", ["projects"])]
    assert reconcile(installation) == []


def test_a_finding_that_cannot_be_mended_is_left_and_the_others_are_mended(installation: Installation) -> None:
    for address in ("10.0.0.8", "10.0.0.9"):
        change_access(installation, "ADD", address)
    fault(installation, "status", method="PUT", status=403)
    result = installation.run("POST", "/systems/files1/reconcile", {"apply": True})["result"]
    assert [item["done"] for item in result["findings"]] == [False, True]
    assert "403" in result["findings"][0]["detail"] or "refused" in result["findings"][0]["detail"]
    assert result["left"] == 1
    assert len(access(installation)) == 1
    assert len(reconcile(installation, apply=True)) == 1


# -- its life --------------------------------------------------------------------------------------------------------
def test_a_crash_forgets_nothing_that_was_mended(own: Installation) -> None:
    vendor_snapshot(own, OURS)
    change_access(own, "ADD", "10.0.0.9")
    fault(own, "delay", method="PUT", route="/partner-servers/{}", seconds=2, after_effect=True)
    operation = own.rest.request("POST", "/systems/files1/reconcile", json={"apply": True})
    until(lambda: not access(own))
    assert own.server.end(signal.SIGKILL) == -signal.SIGKILL
    own.server.start()
    result = own.rest.wait(operation)["result"]
    assert ("forgotten_snapshot", f"files1/projects@{OURS}") in [
        (item["finding"], item["subject"]) for item in result["findings"]
    ]
    assert result["left"] == 0
    assert reconcile(own) == []


def test_it_can_be_cancelled_between_two_findings(installation: Installation) -> None:
    for last in range(1, 6):
        change_access(installation, "ADD", f"10.0.0.{last}")
    fault(installation, "delay", method="PUT", seconds=0.7, times=None)
    operation = installation.rest.request("POST", "/systems/files1/reconcile", json={"apply": True})
    until(lambda: len(access(installation)) < 5)
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert installation.rest.wait(operation)["state"] == "cancelled"
    installation.simulator.control("DELETE", "/faults")
    left = len(access(installation))
    assert left > 0
    assert len(reconcile(installation, apply=True)) == left
    assert access(installation) == []


def test_an_outage_is_waited_out(installation: Installation) -> None:
    vendor_snapshot(installation, OURS)
    fault(installation, "status", method="GET", route="/partner-servers", status=503, lasting=3.0)
    assert reconcile(installation, apply=True) == [("forgotten_snapshot", f"files1/projects@{OURS}")]


def test_many_findings_are_counted_and_the_first_are_shown(installation: Installation) -> None:
    body = {"file_server": "files1", "shares": 110, "snapshots_per_share": 10}
    installation.simulator.control("POST", "/synthetic", body)
    installation.discover()
    with catalog(installation) as database:
        database.execute("UPDATE snapshots SET owned = 1")
        database.execute("UPDATE snapshots SET gone_at = '2026-01-01 00:00:00'")
    result = installation.run("POST", "/systems/files1/reconcile", {"apply": True})["result"]
    assert result["counts"] == {"forgotten_snapshot": 1100}
    assert len(result["findings"]) == 1000
    assert reconcile(installation) == []


# -- the command line ------------------------------------------------------------------------------------------------
def test_the_command_line_says_what_differs_and_exits_with_18(installation: Installation) -> None:
    ran = installation.cli("reconcile")
    assert (ran.code, ran.out.strip()) == (0, "Nothing to reconcile.")
    vendor_snapshot(installation, OURS)
    ran = installation.cli("reconcile", "files1")
    assert ran.code == 18
    assert f"files1  forgotten_snapshot  files1/projects@{OURS}  record it as ours  no" in ran.out
    assert "--apply" in ran.err
    ran = installation.cli("reconcile", "files1", "--output", "json")
    assert ran.code == 18
    assert [item["result"]["counts"] for item in ran.json()] == [{"forgotten_snapshot": 1}]
    ran = installation.cli("reconcile", "--apply")
    assert ran.code == 0
    assert "record it as ours  yes" in ran.out
    assert installation.cli("reconcile", "nobody").code == 3


def test_the_command_line_tells_of_the_others_when_one_system_fails(installation: Installation) -> None:
    installation.add_system("broken", file_server="nobody")
    vendor_snapshot(installation, OURS)
    ran = installation.cli("reconcile")
    assert OURS in ran.out
    assert "nobody" in ran.err
    assert ran.code == 3
    ran = installation.cli("reconcile", "--no-wait")
    assert ran.code == 0
    assert ran.out.count("operation") == 2


def catalog(installation: Installation) -> sqlite3.Connection:
    """The catalog itself, to make of it what a crash, or a restore from a backup, would leave."""
    return sqlite3.connect(installation.server.data_dir / "catalog.sqlite", timeout=10)


# -- systems that lie ------------------------------------------------------------------------------------------------
SNAPSHOT: Json = {"route": "/mount-targets/{}/snapshots/{}"}
ABSENT: Json = {"action": "status", "status": 404}


def test_a_create_that_the_system_only_claims_ends_and_says_what_may_exist(installation: Installation) -> None:
    fault(installation, "lying_success", method="POST", route="/snapshots")
    with pytest.raises(SnapkeepError) as caught:
        installation.snapshot("claimed")
    assert not isinstance(caught.value, Unavailable)
    assert caught.value.details["may_exist"] == "claimed"
    assert reconcile(installation) == []


def test_a_snapshot_that_shows_two_seconds_late_is_a_success(installation: Installation) -> None:
    fault(installation, method="GET", lasting=2.0, **ABSENT, **SNAPSHOT)
    snapshot = installation.snapshot()
    assert [item["name"] for item in installation.vendor_snapshots()] == [snapshot["name"]]


def test_a_failure_after_the_effect_of_a_create_makes_one_snapshot(installation: Installation) -> None:
    fault(installation, "status", method="POST", route="/snapshots", status=500, after_effect=True)
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    ends(installation, operation)
    [made] = installation.vendor_snapshots()
    reconcile(installation, apply=True)
    assert catalog_snapshots(installation) == {made["name"]: True}


def test_a_failure_after_the_effect_of_a_delete_is_found_by_the_next(installation: Installation) -> None:
    snapshot = installation.snapshot()
    fault(installation, "status", method="DELETE", status=500, after_effect=True)
    if not ends(installation, installation.rest.request("DELETE", f"/snapshots/{snapshot['id']}")):
        assert installation.run("DELETE", f"/snapshots/{snapshot['id']}")["state"] == "succeeded"
    assert installation.vendor_snapshots() == []
    assert catalog_snapshots(installation) == {}


def test_a_failure_after_the_effect_of_an_export_and_a_deport_leaves_none_or_one(installation: Installation) -> None:
    snapshot = installation.snapshot()
    failing: Json = {"action": "status", "method": "PUT", "status": 500, "after_effect": True}
    path = f"/snapshots/{snapshot['id']}/exports"
    fault(installation, **failing)
    exported = ends(installation, installation.rest.request("POST", path, json=HERE))
    assert len(access(installation)) == len(installation.rest.request("GET", "/exports")["data"]) == exported
    installation.run("POST", path, HERE)
    assert len(access(installation)) == 1
    [row] = installation.rest.request("GET", "/exports")["data"]
    fault(installation, **failing)
    if not ends(installation, installation.rest.request("DELETE", f"/exports/{row['id']}")):
        installation.run("DELETE", f"/exports/{row['id']}")
    assert access(installation) == []
    assert installation.rest.request("GET", "/exports")["data"] == []
    assert reconcile(installation) == []


def ends(installation: Installation, operation: Json) -> bool:
    """Wait; say whether it succeeded. A failure must be one that is worth another try."""
    try:
        return bool(installation.rest.wait(operation)["state"] == "succeeded")
    except SnapkeepError as error:
        assert error.retryable
        return False


@pytest.mark.parametrize("methods", [("GET",), ("DELETE", "GET")], ids=["while it is deleted", "before it is deleted"])
def test_a_snapshot_is_not_held_to_be_deleted_while_it_is_there(
    installation: Installation, methods: tuple[str, ...]
) -> None:
    snapshot = installation.snapshot()
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    for method in methods:
        fault(installation, method=method, lasting=2.0, **ABSENT, **SNAPSHOT)
    operation = installation.rest.request("DELETE", f"/snapshots/{snapshot['id']}")
    while running(installation, operation)["ended_at"] is None:
        there = installation.vendor_snapshots()
        assert there == [] or catalog_snapshots(installation)
    assert installation.rest.wait(operation)["state"] == "succeeded"
    assert installation.vendor_snapshots() == []
    assert catalog_snapshots(installation) == {}


def test_neither_discovery_nor_reconcile_believes_a_passing_absence(installation: Installation) -> None:
    snapshot = installation.snapshot()
    share = installation.asset()["vendor_id"]
    for look in (installation.discover, lambda: reconcile(installation, apply=True)):
        fault(installation, method="GET", path=f"{share}/snapshots$", lasting=2.0, **ABSENT)
        fault(installation, method="GET", path=f"{share}(/snapshots/[^/]+)?$", lasting=2.0, **ABSENT)
        assert not isinstance(found := look(), list) or found == []
        assert catalog_snapshots(installation) == {snapshot["name"]: True}
        assert installation.asset()["snapshots"] == 1


def test_an_export_of_what_is_absent_for_a_moment_leaves_nothing_open(installation: Installation) -> None:
    snapshot = installation.snapshot()
    path = f"/snapshots/{snapshot['id']}/exports"
    fault(installation, method="GET", lasting=2.0, **ABSENT, **SNAPSHOT)
    with pytest.raises(SnapkeepError) as caught:
        installation.run("POST", path, HERE)
    assert caught.value.code == "not_found"
    assert access(installation) == installation.rest.request("GET", "/exports")["data"] == []
    assert catalog_snapshots(installation) == {snapshot["name"]: True}
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1})
    operation = installation.rest.request("POST", path, json=HERE)
    until(lambda: running(installation, operation)["phase"].startswith("waiting"))
    fault(installation, method="GET", route="/partner-servers/{}", lasting=2.0, **ABSENT)
    assert installation.rest.wait(operation)["state"] == "succeeded"


def test_an_access_is_not_held_to_be_closed_while_it_is_open(installation: Installation) -> None:
    export(installation, installation.snapshot())
    [row] = installation.rest.request("GET", "/exports")["data"]
    fault(installation, method="GET", route="/partner-servers/{}", lasting=2.0, **ABSENT)
    installation.run("DELETE", f"/exports/{row['id']}")
    assert access(installation) == []
