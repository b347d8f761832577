"""Partner servers: entries, ETags, and the directories that they open."""

import time
from pathlib import Path
from typing import Any

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def entry(client: str = "10.0.0.7", operation: str = "ADD", share: str | None = None, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "address": {"ipv4": {"value": client, "prefixLength": 32}},
        "accessType": "READ_ONLY",
        "operationType": operation,
    }
    if share is not None:
        body["mountTargetExtId"] = share.rpartition("/")[2]
    return body | more


def server_body(*entries: dict[str, Any], **config: Any) -> dict[str, Any]:
    return {
        "name": "snapkeep",
        "vendorName": "Snapkeep",
        "partnerType": "BACKUP",
        "backupServerConfig": {"backupClientAccessConfigs": list(entries), **config},
        "$reserved": {"$fv": "v4.r0"},
        "$unknownFields": {},
    }


def register(api: Api, *entries: dict[str, Any], **config: Any) -> str:
    server = api.server()
    task = api.wait(api.call("POST", f"{server}/partner-servers", server_body(*entries, **config)))
    return f"{server}/partner-servers/{task['entitiesAffected'][0]['extId']}"


def put(api: Api, partner: str, *entries: dict[str, Any], **config: Any) -> None:
    reply = api.call("PUT", partner, server_body(*entries, **config), headers=api.etag(partner))
    assert api.wait(reply)["status"] == "SUCCEEDED"


def clients(api: Api, partner: str) -> list[tuple[str, str | None]]:
    found = api.call("GET", partner).data["backupServerConfig"]["backupClientAccessConfigs"]
    return [(each["address"]["ipv4"]["value"], each.get("mountTargetExtId")) for each in found]


@pytest.fixture
def access(simulator: SimulatorProcess) -> Path:
    return simulator.data_dir / "access"


def test_access_opens_and_closes(api: Api, live: Path, access: Path) -> None:
    share = api.share()
    (live / "file").write_text("content")
    before = api.snapshot(share, "before")
    partner = register(api)
    assert listing(access) == []
    put(api, partner, entry(share=share))
    assert clients(api, partner) == [("10.0.0.7", share.rpartition("/")[2])]
    opened = access / "10.0.0.7/projects/.snapshot"
    assert (opened / "before/file").read_text() == "content"
    assert listing(access / "10.0.0.7") == ["projects"]
    assert listing(access / "10.0.0.7/projects") == [".snapshot"]
    api.snapshot(share, "after")
    assert listing(opened) == ["after", "before"]
    api.wait(api.call("DELETE", f"{share}/snapshots/{before}"))
    assert listing(opened) == ["after"]
    put(api, partner, entry(share=share, operation="REMOVE"))
    assert clients(api, partner) == []
    assert listing(access) == []


def test_all_shares_and_live_files(api: Api, live: Path, access: Path) -> None:
    (live / "file").touch()
    api.snapshot(api.share("homes"), "one")
    partner = register(api, entry(accessType="READ_WRITE"))
    assert listing(access / "10.0.0.7") == ["archive", "homes", "projects"]
    assert (access / "10.0.0.7/projects/live/file").exists()
    assert listing(access / "10.0.0.7/homes/.snapshot") == ["one"]
    assert listing(access / "10.0.0.7/archive") == ["live"]
    api.wait(api.call("DELETE", partner))
    assert listing(access) == []


def test_access_ends_by_itself(api: Api, simulator: SimulatorProcess, access: Path) -> None:
    partner = register(api, entry(), expiryInSecs=1)
    begin = time.monotonic()
    told = simulator.control("GET", "/access")["access"][0]
    assert (told["client"], told["shares"]) == ("10.0.0.7", None)
    assert 0 < told["seconds_left"] <= 1
    while listing(access):
        assert time.monotonic() - begin < 1.5
        time.sleep(0.02)
    assert clients(api, partner) == []
    put(api, partner, entry(), expiryInSecs=100)
    assert simulator.control("GET", "/access")["access"][0]["seconds_left"] > 90


def test_put_is_a_delta_or_the_whole(api: Api, simulator: SimulatorProcess) -> None:
    partner = register(api, entry("10.0.0.1"))
    put(api, partner, entry("10.0.0.2"))
    put(api, partner, entry("10.0.0.2"))
    assert [client for client, _ in clients(api, partner)] == ["10.0.0.1", "10.0.0.2"]
    simulator.control("PATCH", "/settings", {"partner_put": "replace"})
    put(api, partner, entry("10.0.0.3"))
    assert [client for client, _ in clients(api, partner)] == ["10.0.0.3"]


def test_the_etag_guards_against_a_lost_update(api: Api, simulator: SimulatorProcess) -> None:
    partner = register(api)
    match = api.etag(partner)
    body = server_body(entry())
    assert api.call("PUT", partner, body).code == "FILES-10412"
    first = api.call("PUT", partner, body, headers=match)
    assert first.status == 202
    assert api.call("PUT", partner, body, headers=match).status == 412
    api.wait(first)
    api.wait(api.call("PUT", partner, body, headers=api.etag(partner)))
    simulator.control("PATCH", "/settings", {"etag_required": False})
    api.wait(api.call("PUT", partner, body))
    quoted = {"If-Match": f'"{api.etag(partner)["If-Match"]}"'}
    assert api.call("PUT", partner, body, headers=quoted).status == 202


@pytest.mark.parametrize(
    ("address", "directory"),
    [
        ({"ipv6": {"value": "fe80::1", "prefixLength": 128}}, "fe80::1"),
        ({"fqdn": {"value": "backup.example.com"}}, "backup.example.com"),
        ({"ipv4": {"value": "10.1.0.0", "prefixLength": 16}}, "10.1.0.0"),
        ({"fqdn": {"value": "../../etc"}}, None),
        ({"fqdn": {"value": ".."}}, None),
        ({"ipv4": {"value": "10.1.0.256"}}, None),
        ({"ipv6": {"value": "10.1.0.1"}}, None),
        ({}, None),
    ],
)
def test_addresses(api: Api, access: Path, address: dict[str, Any], directory: str | None) -> None:
    if directory is None:
        reply = api.call("POST", f"{api.server()}/partner-servers", server_body(entry(address=address)))
        assert reply.complaints == ["backupServerConfig.backupClientAccessConfigs[0].address"]
    else:
        partner = register(api, entry(address=address))
        assert listing(access) == [directory]
        found = api.call("GET", partner).data["backupServerConfig"]["backupClientAccessConfigs"][0]
        kind = next(iter(address))
        assert found["address"][kind]["value"] == directory


def test_refusals(api: Api) -> None:
    register(api)
    path = f"{api.server()}/partner-servers"
    assert api.call("POST", path, server_body()).code == "FILES-60409"
    wrong = {"name": "x" * 65, "partnerType": "OTHER", "backupServerConfig": {"expiryInSecs": 0}}
    complaints = api.call("POST", path, wrong).complaints
    assert complaints == ["name", "vendorName", "partnerType", "backupServerConfig.expiryInSecs"]
    unknown = server_body(entry(share="/x/y")) | {"name": "other"}
    assert api.call("POST", path, unknown).code == "FILES-30404"
    assert api.call("GET", f"{path}/x").code == "FILES-60404"


def test_shares_of_one_name_on_two_file_servers(api: Api, simulator: SimulatorProcess, access: Path) -> None:
    simulator.control("POST", "/file-servers/files2/shares", {"name": "projects"})
    register(api, entry())
    server = api.server("files2")
    api.wait(api.call("POST", f"{server}/partner-servers", server_body(entry())))
    found = listing(access / "10.0.0.7")
    assert found == ["archive", "homes", "media", "projects", "projects@files2"]
