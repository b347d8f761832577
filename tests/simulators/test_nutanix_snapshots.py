"""Snapshots and shares: tasks, refusals, restore, clone."""

import time
from pathlib import Path

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import TASKS, Api


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_snapshot_appears_at_the_end_of_its_task(api: Api, simulator: SimulatorProcess, live: Path) -> None:
    simulator.control("PATCH", "/settings", {"task_seconds": 0.3})
    (live / "a").write_text("one")
    share = api.share()
    begun = api.call("POST", f"{share}/snapshots", {"name": "NB1", "type": "SSR_SNAPSHOT"})
    assert begun.data["extId"].startswith("ZXJnb24=:")
    first = api.call("GET", f"{TASKS}/{begun.data['extId']}").data
    assert first["status"] in {"QUEUED", "RUNNING"}
    assert api.get(f"{share}/snapshots").data == []
    task = api.wait(begun)
    assert task["progressPercentage"] == 100
    snapshot = api.get(f"{share}/snapshots").data[0]
    assert {each["extId"] for each in task["entitiesAffected"]} == {share.rpartition("/")[2], snapshot["extId"]}
    assert (snapshot["name"], snapshot["type"], snapshot["totalSpaceBytes"]) == ("NB1", "USER_SNAPSHOT", 3)
    told = simulator.control("GET", "/file-servers/files1/shares/projects")["snapshots"][0]
    assert (Path(told["path"]) / "a").read_text() == "one"
    for version in ("v4.0", "v4.1", "v4.2"):
        found = api.call("GET", f"/api/prism/{version}/config/tasks/{task['extId']}")
        assert found.data["status"] == "SUCCEEDED"
    assert api.call("GET", TASKS).json["metadata"]["totalAvailableResults"] == 1


def test_refused_snapshots(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    api.snapshot(share, "taken")
    path = "/file-servers/files1/shares/homes"

    def create(where: str, body: object) -> tuple[int, str]:
        reply = api.call("POST", f"{where}/snapshots", body)
        schema = isinstance(reply.data["error"], dict)
        return reply.status, reply.complaints[0] if schema else reply.code

    assert create(share, {"name": "taken"}) == (409, "FILES-40409")
    assert create(share, {"name": ""}) == (400, "name")
    assert create(share, {"name": "x" * 81}) == (400, "name")
    assert create(share, {"name": "a/b"}) == (400, "name")
    assert create(share, {}) == (400, "name")
    assert create(share, b"{") == (400, "")
    assert create(share, [1]) == (400, "")
    assert create(api.share("archive"), {"name": "n"}) == (400, "FILES-40401")
    simulator.control("PATCH", path, {"paused": True})
    assert create(api.share("homes"), {"name": "n"}) == (400, "FILES-40402")
    simulator.control("PATCH", path, {"paused": False, "state": "OFFLINE"})
    assert create(api.share("homes"), {"name": "n"}) == (400, "FILES-40403")
    unknown = share[:-1] + ("0" if share[-1] != "0" else "1")
    assert create(unknown, {"name": "n"}) == (404, "FILES-30404")
    simulator.control("PATCH", "/settings", {"max_snapshots_per_share": 1})
    assert create(share, {"name": "more"}) == (422, "FILES-40422")


def test_a_name_that_is_being_made_is_taken(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("PATCH", "/settings", {"task_seconds": 0.2})
    share = api.share()
    begun = api.call("POST", f"{share}/snapshots", {"name": "one"})
    assert api.call("POST", f"{share}/snapshots", {"name": "one"}).status == 409
    api.wait(begun)


@pytest.mark.parametrize("name", ["NB" + "1" * 21, "x" * 80, "ünï © code", "a b'c\"d\\e", ".hidden", "漢" * 60])
def test_names(api: Api, name: str) -> None:
    share = api.share()
    snapshot = api.snapshot(share, name)
    assert api.call("GET", f"{share}/snapshots/{snapshot}").data["name"] == name


def test_delete_answers_200_until_the_task_ends(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    path = f"{share}/snapshots/{api.snapshot(share, 'one')}"
    where = Path(simulator.control("GET", "/file-servers/files1/shares/projects")["snapshots"][0]["path"])
    simulator.control("PATCH", "/settings", {"task_seconds": 0.2})
    begun = api.call("DELETE", path)
    assert api.call("GET", path).status == 200
    api.wait(begun)
    assert api.call("GET", path).status == 404
    assert api.call("DELETE", path).code == "FILES-40404"
    assert not where.exists()
    api.snapshot(share, "one")


def test_a_deleted_snapshot_may_linger(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    path = f"{share}/snapshots/{api.snapshot(share, 'one')}"
    simulator.control("PATCH", "/settings", {"delete_lag_seconds": 0.3})
    api.wait(api.call("DELETE", path))
    assert api.call("GET", path).status == 200
    time.sleep(0.35)
    assert api.call("GET", path).status == 404


def test_restore_needs_the_etag_of_the_share(api: Api, live: Path) -> None:
    share = api.share()
    (live / "file").write_text("old")
    old = api.snapshot(share, "old")
    (live / "file").write_text("new")
    (live / "more").write_text("more")
    api.snapshot(share, "newer")
    action = f"{share}/snapshots/{old}/$actions/restore"
    assert api.call("POST", action).status == 412
    assert api.call("POST", action, headers={"If-Match": "nonsense"}).status == 412
    match = api.etag(share)
    assert api.wait(api.call("POST", action, headers=match))["status"] == "SUCCEEDED"
    assert listing(live) == ["archive", "file"]
    assert (live / "file").read_text() == "old"
    assert [each["name"] for each in api.get(f"{share}/snapshots").data] == ["old", "newer"]
    assert api.call("POST", action, headers=match).status == 412


def test_a_snapshot_in_use_is_not_deleted(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    path = f"{share}/snapshots/{api.snapshot(share, 'one')}"
    simulator.control("PATCH", "/settings", {"task_seconds": 0.2})
    begun = api.call("POST", f"{path}/$actions/restore", headers=api.etag(share))
    assert api.call("DELETE", path).code == "FILES-40410"
    api.wait(begun)
    api.wait(api.call("DELETE", path))


def test_clone_from_a_snapshot_and_from_live(api: Api, simulator: SimulatorProcess, live: Path) -> None:
    share = api.share()
    (live / "file").write_text("old")
    old = api.snapshot(share, "old")
    (live / "file").write_text("new")
    for name, snapshot, content in (("c1", old, "old"), ("c2", None, "new")):
        body = {"name": name, "description": "a clone", "snapshotExtId": snapshot}
        task = api.wait(api.call("POST", f"{share}/$actions/clone", body))
        assert task["entitiesAffected"][-1]["name"] == name
        told = simulator.control("GET", f"/file-servers/files1/shares/{name}")
        assert (Path(told["live"]) / "file").read_text() == content
        assert told["snapshots"] == []
    assert api.call("POST", f"{share}/$actions/clone", {"name": "C1"}).code == "FILES-30409"
    assert api.call("POST", f"{share}/$actions/clone", {"name": "c3", "snapshotExtId": "x"}).status == 404
    assert api.call("POST", f"{api.share('archive')}/$actions/clone", {"name": "c4"}).status == 400


def test_shares_are_made_changed_and_removed(api: Api, simulator: SimulatorProcess) -> None:
    server = api.server()
    body = {"name": "fresh", "type": "STANDARD", "protocol": "NFS", "maxSizeGB": 5, "extId": "mine", "state": "x"}
    assert api.wait(api.call("POST", f"{server}/mount-targets", body))["status"] == "SUCCEEDED"
    share = api.share("fresh")
    assert api.call("GET", share).data["maxSizeGB"] == 5
    live = Path(simulator.control("GET", "/file-servers/files1/shares/fresh")["live"])
    link = live.parents[3] / "shares/files1/fresh"
    assert link.resolve() == live.resolve()
    nested = {"name": "inner", "path": "fresh/a/b"}
    api.wait(api.call("POST", f"{server}/mount-targets", nested))
    assert (live / "a/b").is_dir()
    assert api.call("DELETE", share).code == "FILES-30410"
    change = {"name": "fresh2", "isSnapshotPaused": True, "description": "d"}
    assert api.call("PUT", share, change).status == 412
    api.wait(api.call("PUT", share, change, headers=api.etag(share)))
    assert api.call("GET", share).data["description"] == "d"
    assert not link.is_symlink()
    assert (link.parent / "fresh2").resolve() == live.resolve()
    api.wait(api.call("DELETE", api.share("inner")))
    api.wait(api.call("DELETE", share))
    assert api.call("GET", share).status == 404
    assert not live.exists()
    assert api.call("POST", f"{server}/mount-targets", {"name": "x", "path": "nowhere/y"}).status == 400
    assert api.call("POST", f"{server}/mount-targets", {"name": "Homes"}).status == 409
    bad = {"name": "..", "type": "ODD", "maxSizeGB": -1, "secondaryProtocol": "NFS"}
    complaints = api.call("POST", f"{server}/mount-targets", bad).complaints
    assert complaints == ["name", "type", "maxSizeGB", "secondaryProtocol"]


def test_foreign_snapshots_of_any_type(api: Api, simulator: SimulatorProcess) -> None:
    path = "/file-servers/files1/shares/projects/snapshots"
    made = simulator.control("POST", path, {"name": "dr", "type": "REPLICATION_SNAPSHOT"})
    assert Path(made["path"]).is_dir()
    assert api.call("GET", f"{api.share()}/snapshots/{made['extId']}").data["type"] == "REPLICATION_SNAPSHOT"


def test_schedules(api: Api) -> None:
    path = f"{api.server()}/snapshot-schedules"
    body = {"type": "DAILY", "schedule": {"frequency": 1}, "maxRetentionCount": 7}
    made = api.call("POST", path, body)
    assert made.status == 201
    one = f"{path}/{made.data['extId']}"
    assert api.call("GET", one).data["schedule"]["$objectType"] == "files.v4.config.DailySchedule"
    assert api.call("PUT", one, body | {"maxRetentionCount": 9}).status == 412
    changed = api.call("PUT", one, body | {"maxRetentionCount": 9}, headers=api.etag(one))
    assert changed.data["maxRetentionCount"] == 9
    assert api.call("POST", path, body | {"maxRetentionCount": 51}).complaints == ["maxRetentionCount"]
    assert len(api.get(path).data) == 1
    assert api.call("DELETE", one).status == 204
    assert api.call("GET", one).status == 404


def test_replication(api: Api, simulator: SimulatorProcess) -> None:
    assert api.get("/config/replication-policies").data == []
    simulator.control("POST", "/replication", {"policies": [{"name": "dr"}], "jobs": [{"status": "SUCCEEDED"}]})
    policy = api.get("/config/replication-policies", filter="name eq 'dr'").data[0]
    assert api.call("GET", f"/config/replication-policies/{policy['extId']}").data["name"] == "dr"
    job = api.get("/operations/replication-jobs").data[0]
    assert api.call("GET", f"/operations/replication-jobs/{job['extId']}").data["status"] == "SUCCEEDED"
    assert api.call("GET", "/operations/replication-jobs/x").status == 404
