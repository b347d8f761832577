"""Operations over a real server and a real simulator: ends, cancel, deadlines, exports kept alive."""

from __future__ import annotations

import os

import pytest
from tests.support.installation import Installation, until

from snapkeep.model.errors import (
    BaseMissing,
    Busy,
    Conflict,
    Incomplete,
    InvalidInput,
    NotFound,
    Unavailable,
    Unsupported,
    VendorError,
)


def test_create_records_what_the_system_has(installation: Installation) -> None:
    snapshot = installation.snapshot()
    assert snapshot["owned"]
    assert snapshot["name"].startswith("NB")
    assert len(snapshot["name"]) == 23
    assert [item["name"] for item in installation.vendor_snapshots()] == [snapshot["name"]]


def test_a_snapshot_with_a_chosen_name_stays_ours_after_discovery(installation: Installation) -> None:
    snapshot = installation.snapshot("chosen")
    installation.discover()
    assert installation.rest.request("GET", f"/snapshots/{snapshot['id']}")["owned"]


def test_discovery_finds_foreign_snapshots_and_marks_what_is_gone(installation: Installation) -> None:
    path = "/file-servers/files1/shares/projects/snapshots"
    installation.simulator.control("POST", path, {"name": "nightly", "type": "SSR_SNAPSHOT"})
    assert installation.discover()["result"]["snapshots"] == 1
    [found] = installation.rest.pages("/snapshots", system="files1")
    assert (found["name"], found["kind"], found["owned"]) == ("nightly", "schedule", False)
    installation.delete_behind_our_back("nightly")
    assert installation.discover()["result"]["snapshots_gone"] == 1
    assert list(installation.rest.pages("/snapshots", system="files1")) == []
    assert len(list(installation.rest.pages("/snapshots", system="files1", gone=True))) == 1


def test_discovery_under_way_is_not_begun_twice(installation: Installation) -> None:
    fault = {"method": "GET", "route": "/mount-targets", "action": "delay", "seconds": 1, "times": 1}
    installation.simulator.control("POST", "/faults", fault)
    first = installation.rest.request("POST", "/systems/files1/discover")
    second = installation.rest.request("POST", "/systems/files1/discover")
    assert first["id"] == second["id"]
    installation.rest.wait(first)


def test_delete_ends_with_proof_and_may_be_repeated(installation: Installation) -> None:
    snapshot = installation.snapshot()
    done = installation.run("DELETE", f"/snapshots/{snapshot['id']}")
    assert "no such snapshot" in done["result"]["proof"]
    assert installation.vendor_snapshots() == []
    with pytest.raises(NotFound):
        installation.run("DELETE", f"/snapshots/{snapshot['id']}")


def test_delete_of_what_somebody_else_deleted_succeeds(installation: Installation) -> None:
    snapshot = installation.snapshot()
    installation.delete_behind_our_back(snapshot["name"])
    assert installation.run("DELETE", f"/snapshots/{snapshot['id']}")["state"] == "succeeded"


def test_failed_task_keeps_the_vendors_reason(installation: Installation) -> None:
    fault = {"action": "task", "task": "fail", "code": "FILES-77777", "message": "Out of gold.", "method": "POST"}
    installation.simulator.control("POST", "/faults", {**fault, "route": "/snapshots"})
    with pytest.raises(VendorError) as caught:
        installation.snapshot()
    assert caught.value.vendor_code == "FILES-77777"
    assert caught.value.vendor_message == "Out of gold."


def test_cancel_of_a_create_leaves_no_snapshot(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    until(lambda: installation.rest.request("GET", f"/operations/{operation['id']}")["state"] == "running")
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    ended = installation.rest.wait(operation)
    assert ended["state"] == "cancelled"
    assert installation.vendor_snapshots() == []


def test_cancel_of_a_diff_keeps_no_entries(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"cft_seconds": 30})
    new = installation.snapshot()
    operation = installation.rest.request("POST", "/change-lists", json={"base_id": None, "new_id": new["id"]})
    until(lambda: "computing" in installation.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert installation.rest.wait(operation)["state"] == "cancelled"
    head = installation.rest.request("GET", f"/change-lists/{operation['id']}")
    assert (head["state"], head["entries"]) == ("incomplete", 0)
    with pytest.raises(Incomplete):
        installation.rest.request("GET", f"/change-lists/{operation['id']}/entries")


def test_what_cannot_be_taken_back_is_not_cancelled(installation: Installation) -> None:
    snapshot = installation.snapshot()
    with pytest.raises(Conflict, match="has ended"):
        last = installation.rest.request("GET", "/operations", params={"limit": 1})["data"][0]
        installation.rest.request("POST", f"/operations/{last['id']}/cancel")
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1})
    operation = installation.rest.request("DELETE", f"/snapshots/{snapshot['id']}")
    until(lambda: installation.rest.request("GET", f"/operations/{operation['id']}")["state"] == "running")
    with pytest.raises(Conflict, match="cannot be taken back"):
        installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert installation.rest.wait(operation)["state"] == "succeeded"


def test_a_page_that_never_completes_ends_as_incomplete(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"cft_seconds": 600})
    new = installation.snapshot()
    with pytest.raises(Incomplete, match="gave none"):
        installation.run("POST", "/change-lists", {"base_id": None, "new_id": new["id"]})


def test_a_stuck_task_ends_at_the_deadline(installation: Installation) -> None:
    fault = {"action": "task", "task": "stuck", "method": "POST", "route": "/snapshots"}
    installation.simulator.control("POST", "/faults", fault)
    with pytest.raises(Exception, match="no progress") as caught:
        installation.snapshot("stuck-one")
    assert "stuck-one may exist" in caught.value.next_step  # type: ignore[attr-defined]


def test_a_snapshot_in_use_is_not_deleted(installation: Installation) -> None:
    snapshot = installation.snapshot()
    host = {"host": {"name": "backup1", "address": "10.0.0.1"}}
    installation.run("POST", f"/snapshots/{snapshot['id']}/exports", host)
    with pytest.raises(Busy, match="exported to backup1"):
        installation.run("DELETE", f"/snapshots/{snapshot['id']}")
    installation.simulator.control("PATCH", "/settings", {"cft_seconds": 1.5})
    diff = installation.rest.request("POST", "/change-lists", json={"base_id": None, "new_id": snapshot["id"]})
    [export] = installation.rest.request("GET", "/exports")["data"]
    installation.run("DELETE", f"/exports/{export['id']}")
    with pytest.raises(Busy, match="needed by diff"):
        installation.run("DELETE", f"/snapshots/{snapshot['id']}")
    installation.rest.wait(diff)
    installation.run("DELETE", f"/snapshots/{snapshot['id']}")


def test_two_exports_of_one_share_stand_on_one_entry(installation: Installation) -> None:
    one, two = installation.snapshot("one"), installation.snapshot("two")
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    for snapshot in (one, two):
        installation.run("POST", f"/snapshots/{snapshot['id']}/exports", body)
    first, second = installation.rest.request("GET", "/exports")["data"]
    path = installation.simulator.data_dir / "access" / "127.0.0.1" / "projects" / ".snapshot" / "two"
    installation.run("DELETE", f"/exports/{first['id']}")
    assert path.is_dir()
    installation.run("DELETE", f"/exports/{second['id']}")
    assert not path.exists()
    assert installation.run("DELETE", f"/exports/{second['id']}")["state"] == "succeeded"


def test_an_export_is_renewed_before_it_expires(installation: Installation) -> None:
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(export_expiry_seconds=5)
    installation.discover()
    snapshot = installation.snapshot()
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    done = installation.run("POST", f"/snapshots/{snapshot['id']}/exports", body)
    path = installation.simulator.data_dir / "access" / "127.0.0.1" / "projects" / ".snapshot" / snapshot["name"]

    def renewed() -> bool:
        assert path.is_dir(), "the access was interrupted"
        [export] = installation.rest.request("GET", "/exports")["data"]
        return bool(export["expires_at"] > done["result"]["expires_at"])

    until(renewed, 10)
    [export] = installation.rest.request("GET", "/exports")["data"]
    installation.run("DELETE", f"/exports/{export['id']}")
    assert not path.exists()


def test_an_export_without_partner_server_leaves_nothing(installation: Installation) -> None:
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(partner_server="nobody")
    installation.discover()
    snapshot = installation.snapshot()
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    with pytest.raises(NotFound, match="no partner server 'nobody'") as caught:
        installation.run("POST", f"/snapshots/{snapshot['id']}/exports", body)
    assert "BACKUP" in caught.value.next_step
    assert installation.rest.request("GET", "/exports")["data"] == []


def test_restore_and_clone_need_the_name_of_the_asset(installation: Installation) -> None:
    live = installation.live()
    (live / "file").write_text("first")
    snapshot = installation.snapshot()
    (live / "file").write_text("second")
    for path, body in (("restore", {}), ("clone", {"name": "copy"})):
        with pytest.raises(InvalidInput, match="not confirmed"):
            installation.run("POST", f"/snapshots/{snapshot['id']}/{path}", {**body, "confirmation": "no"})
    assert (live / "file").read_text() == "second"
    confirmed = {"confirmation": "projects"}
    installation.run("POST", f"/snapshots/{snapshot['id']}/restore", confirmed)
    assert (live / "file").read_text() == "first"
    done = installation.run("POST", f"/snapshots/{snapshot['id']}/clone", {**confirmed, "name": "copy"})
    assert done["result"]["asset"] == "files1/copy"
    assert (installation.live("copy") / "file").read_text() == "first"
    with pytest.raises(Conflict, match="already"):
        installation.run("POST", f"/snapshots/{snapshot['id']}/clone", {**confirmed, "name": "copy"})


def test_a_nested_share_is_refused_without_a_network_call(installation: Installation) -> None:
    nested = installation.asset("archive")
    assert nested["attributes"]["nested"] == "true"
    before = installation.simulator.control("GET", "/requests")
    with pytest.raises(Unsupported, match="nested share"):
        installation.run("POST", f"/assets/{nested['id']}/snapshots", {})
    assert installation.simulator.control("GET", "/requests") == before


def test_base_gone_newer_or_of_another_share(installation: Installation) -> None:
    old, new, other = installation.snapshot("a"), installation.snapshot("b"), installation.snapshot("c", "homes")
    with pytest.raises(InvalidInput, match="newer"):
        installation.run("POST", "/change-lists", {"base_id": new["id"], "new_id": old["id"]})
    with pytest.raises(InvalidInput, match="not one of"):
        installation.run("POST", "/change-lists", {"base_id": other["id"], "new_id": new["id"]})
    installation.delete_behind_our_back("a")
    with pytest.raises(BaseMissing):
        installation.run("POST", "/change-lists", {"base_id": old["id"], "new_id": new["id"]})


def test_directory_renames_in_both_forms_give_one_list(installation: Installation) -> None:
    live = installation.live()
    (live / "d" / "sub").mkdir(parents=True)
    for number in range(5):
        (live / "d" / "sub" / f"f{number}").write_text("x")
    base = installation.snapshot()
    (live / "d").rename(live / "e")
    (live / "e" / "sub").rename(live / "e" / "inner")
    (live / "e" / "inner" / "f0").rename(live / "f0")
    new = installation.snapshot()
    lists = []
    for listed in (False, True):
        installation.simulator.control("PATCH", "/settings", {"cft_lists_renamed_children": listed})
        body = {"base_id": base["id"], "new_id": new["id"]}
        done = installation.run("POST", "/change-lists", body)
        path = f"/change-lists/{done['result']['change_list']}/entries"
        entries = installation.rest.request("GET", path)["data"]
        lists.append({(entry["operation"], entry["path"], entry.get("old_path")) for entry in entries})
        assert done["result"]["entries"] == len(entries)
        assert done["result"]["summary"]["operations"]["rename"]["entries"] == 3
    assert lists[0] == lists[1]
    assert ("rename", "e/inner", "d/sub") in lists[0]


def test_an_unreachable_system_is_said_and_work_goes_on_when_it_is_back(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    until(lambda: "taking" in installation.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    installation.simulator.kill()
    until(lambda: "cannot be reached" in installation.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    installation.simulator.start()
    assert installation.rest.wait(operation)["state"] == "succeeded"
    assert len(installation.vendor_snapshots()) == 1


def test_a_system_that_is_down_fails_with_one_clear_error(installation: Installation) -> None:
    installation.simulator.stop()
    try:
        with pytest.raises(Unavailable, match="cannot be reached"):
            installation.snapshot()
    finally:
        installation.simulator.start()


def test_a_renewal_does_not_bring_back_what_was_deported(installation: Installation) -> None:
    """The renewal is queued behind the deport of the same export: it must find nothing to renew."""
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(export_expiry_seconds=5)
    installation.discover()
    snapshot = installation.snapshot()
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    done = installation.run("POST", f"/snapshots/{snapshot['id']}/exports", body)
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 4})
    deport = installation.rest.request("DELETE", f"/exports/{done['result']['export_id']}")

    def renewal() -> object:
        found = installation.rest.request("GET", "/operations", params={"limit": 10})["data"]
        return next((item for item in found if item["requester"] == "snapkeep"), None)

    queued = until(renewal)
    assert installation.rest.wait(deport)["state"] == "succeeded"
    assert installation.rest.wait(queued)["result"] == {"not_renewed": "deported in the meantime"}
    assert installation.rest.request("GET", "/exports")["data"] == []
    assert not (installation.simulator.data_dir / "access" / "127.0.0.1").exists()


def test_one_export_that_cannot_be_renewed_keeps_no_other_from_it(installation: Installation) -> None:
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(export_expiry_seconds=6)
    installation.discover()
    bad, good = installation.snapshot("bad"), installation.snapshot("good", "homes")
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    installation.run("POST", f"/snapshots/{bad['id']}/exports", body)
    done = installation.run("POST", f"/snapshots/{good['id']}/exports", body)
    installation.delete_behind_our_back("bad")
    installation.discover()

    def renewed_and_ended() -> bool:
        found = {item["snapshot"]: item for item in installation.rest.request("GET", "/exports")["data"]}
        kept = found["files1/homes@good"]
        return "files1/projects@bad" not in found and kept["expires_at"] > done["result"]["expires_at"]

    until(renewed_and_ended, 15)


def test_a_renewal_that_failed_is_tried_again(installation: Installation) -> None:
    installation.rest.request("DELETE", "/systems/files1")
    installation.add_system(export_expiry_seconds=20)
    installation.discover()
    snapshot = installation.snapshot()
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    done = installation.run("POST", f"/snapshots/{snapshot['id']}/exports", body)
    fault = {"method": "PUT", "action": "status", "status": 403, "times": None}
    fault_id = installation.simulator.control("POST", "/faults", fault)["id"]

    def failed() -> bool:
        operations = installation.rest.request("GET", "/operations", params={"limit": 10})["data"]
        return any(item["requester"] == "snapkeep" and item["state"] == "failed" for item in operations)

    until(failed, 18)
    installation.simulator.control("DELETE", f"/faults/{fault_id}")
    until(
        lambda: installation.rest.request("GET", "/exports")["data"][0]["expires_at"] > done["result"]["expires_at"], 8
    )


def test_a_chosen_name_must_not_look_like_ours(installation: Installation) -> None:
    with pytest.raises(InvalidInput, match="looks like a name that Snapkeep makes"):
        installation.snapshot("NB1")


def test_what_is_being_deleted_is_not_exported_or_compared(installation: Installation) -> None:
    snapshot = installation.snapshot()
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    delete = installation.rest.request("DELETE", f"/snapshots/{snapshot['id']}")
    with pytest.raises(Busy, match="being deleted"):
        installation.run(
            "POST", f"/snapshots/{snapshot['id']}/exports", {"host": {"name": "h", "address": "127.0.0.1"}}
        )
    with pytest.raises(Busy, match="being deleted"):
        installation.run("POST", "/change-lists", {"base_id": None, "new_id": snapshot["id"]})
    assert installation.rest.wait(delete)["state"] == "succeeded"


def test_a_file_from_the_year_1601_breaks_no_diff(installation: Installation) -> None:
    (installation.live() / "old").write_text("x")
    os.utime(installation.live() / "old", ns=(-(10**19) // 2, 0))
    new = installation.snapshot()
    body = {"base_id": None, "new_id": new["id"]}
    assert installation.run("POST", "/change-lists", body)["result"]["entries"] >= 1


def test_many_exports_at_once_to_one_partner_server(installation: Installation) -> None:
    shares = [f"share{number}" for number in range(20)]
    for name in shares:
        installation.simulator.control("POST", "/file-servers/files1/shares", {"name": name})
    installation.discover()
    fault = {"method": "PUT", "action": "delay", "seconds": 0.1, "times": None}
    installation.simulator.control("POST", "/faults", fault)
    snapshots = [installation.snapshot("s", name) for name in shares]
    body = {"host": {"name": "here", "address": "127.0.0.1"}}
    begun = [
        installation.rest.request("POST", f"/snapshots/{snapshot['id']}/exports", json=body) for snapshot in snapshots
    ]
    assert {installation.rest.wait(operation)["state"] for operation in begun} == {"succeeded"}
    opened = installation.simulator.data_dir / "access" / "127.0.0.1"
    assert all((opened / name / ".snapshot" / "s").is_dir() for name in shares)


def test_cancel_of_a_create_that_fails_is_no_failure_to_undo(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    fault = {"action": "task", "task": "fail", "method": "POST", "route": "/snapshots"}
    installation.simulator.control("POST", "/faults", fault)
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    until(lambda: installation.rest.request("GET", f"/operations/{operation['id']}")["state"] == "running")
    installation.rest.request("POST", f"/operations/{operation['id']}/cancel")
    assert installation.rest.wait(operation)["state"] == "cancelled"


def test_a_huge_retry_after_does_not_beat_the_limit_of_an_outage(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 1.0})
    operation = installation.rest.request("POST", f"/assets/{installation.asset()['id']}/snapshots", json={})
    until(lambda: "taking" in installation.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    fault = {"method": "GET", "route": "/tasks/{id}", "action": "status", "status": 503, "retry_after": "100000"}
    installation.simulator.control("POST", "/faults", {**fault, "times": 1})
    assert installation.rest.wait(operation)["state"] == "succeeded"


def test_a_system_does_not_become_another_one_under_our_exports(installation: Installation) -> None:
    installation.snapshot()
    with pytest.raises(Busy, match="file_server"):
        installation.rest.request("PATCH", "/systems/files1", json={"settings": {"file_server": "files2"}})
    installation.rest.request("PATCH", "/systems/files1", json={"settings": {"retry_seconds": 2}})
