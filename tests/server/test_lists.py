"""Lists: every page in every order and back, filters that find exactly what they say, and fields that are wanted."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Server
from tests.support.postgres import Postgres

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.cli.rest import Rest
from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import InvalidInput
from snapkeep.model.snapshots import Snapshot, SnapshotKind

Json = dict[str, Any]
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
ASSETS = 23
LISTS = (
    *("systems", "plugins", "assets", "snapshots", "exports", "operations", "change-lists", "backups", "repositories"),
    *("workers", "identities", "roles", "tokens"),
)
NAMES = ["a", "B", "b", "ä", "a%b", "a_b", "axb", "日本"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def rest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rest]:
    """A server whose catalog is full, without any system behind it."""
    directory = tmp_path_factory.mktemp(request.param)
    env = {}
    url = sqlite_url(directory / "server" / "catalog.sqlite")
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        url = env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
    server = Server(directory / "server", env)
    try:
        server.start()
        add_systems(server.rest)
        asyncio.run(fill(url, server))
        yield server.rest
    finally:
        server.close()


def add_systems(rest: Rest) -> None:
    for name in ("one", "two"):
        settings = {"host": "127.0.0.1", "file_server": "x", "api_key": "k"}
        rest.request("POST", "/systems", json={"name": name, "plugin": "nutanix-files", "settings": settings})
    rest.request("PUT", "/systems/two/labels", json={"labels": {"env": "prod"}})


async def fill(url: str, server: Server) -> None:
    key = base64.b64decode((server.data_dir / "secret.key").read_bytes())
    async with open_catalog(url, key) as catalog:
        for system in await catalog.systems.find():
            found = [
                Asset(
                    id=f"{number:03}",
                    kind=AssetKind.SHARE if number % 3 else AssetKind.VOLUME,
                    name=f"{NAMES[number % len(NAMES)]}{number // len(NAMES)}",
                    capabilities=frozenset(
                        {Capability.CREATE, Capability.DIFF_FILES} if number % 2 else {Capability.CREATE}
                    ),
                    refusals={},
                )
                for number in range(ASSETS)
            ]
            taken = [
                Snapshot(
                    id=f"{asset.id}-{index}",
                    asset_id=asset.id,
                    name=f"s{index}",
                    kind=SnapshotKind.USER,
                    owned=bool(index),
                    created_at=BEGIN + timedelta(hours=int(asset.id) // 4) if index else None,
                )
                for asset in found[:5]
                for index in range(3)
            ]
            await catalog.inventory.record_batch(system.id, found, taken, seen_by="o")
            assets = {item.asset.id: item.id for item in await catalog.inventory.assets(system.name)}
            await catalog.identities.set_labels(assets["001"], {"env": "test", "tier": "1"})
            for number in range(12):
                await catalog.operations.add(
                    operation_id=f"{system.name}-{number:02}".ljust(36, "0"),
                    kind=("create", "delete", "diff")[number % 3],
                    system_id=system.id,
                    system_name=system.name,
                    asset_id=assets["000"] if number < 3 else None,
                    queue="nobody",
                    target="x",
                    request={},
                    requester="ann" if number % 2 else "bob",
                    exclusive=None,
                    now=BEGIN + timedelta(minutes=number // 3),
                )


def pages(rest: Rest, path: str, limit: int, **params: Any) -> list[Json]:
    """Return all entries; without what is another figure every time."""
    found = rest.pages(path, limit=limit, **params)
    return [{key: value for key, value in item.items() if key != "heartbeat_age_seconds"} for item in found]


# -- orders and cursors ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "sort", "key"),
    [
        ("/assets", "reference", lambda item: (item["system"], item["name"], item["id"])),
        ("/assets", "name", lambda item: (item["name"], item["id"])),
        ("/assets", "kind", lambda item: (item["kind"], item["name"], item["id"])),
        ("/snapshots", "reference", lambda item: (item["system"], item["asset"], item["name"], item["id"])),
        ("/snapshots", "name", lambda item: (item["name"], item["id"])),
        ("/snapshots", "created_at", lambda item: (item["created_at"] or "", item["id"])),
        ("/operations", "created_at", lambda item: (item["created_at"], item["id"])),
        ("/operations", "kind", lambda item: (item["kind"], item["created_at"], item["id"])),
        ("/operations", "system", lambda item: (item["system"], item["created_at"], item["id"])),
        ("/systems", "name", lambda item: item["name"]),
        ("/systems", "created_at", lambda item: item["created_at"]),
        ("/plugins", "name", lambda item: item["name"]),
        ("/roles", "name", lambda item: item["name"]),
        ("/workers", "started_at", lambda item: item["started_at"]),
    ],
)
def test_all_pages_in_every_order_and_from_the_end(rest: Rest, path: str, sort: str, key: Any) -> None:
    whole = pages(rest, path, 1000)
    assert whole
    expected = sorted(whole, key=key)
    for limit in (1, 4, 1000):
        assert pages(rest, path, limit, sort=sort) == expected
        assert pages(rest, path, limit, sort=f"-{sort}") == expected[::-1]
    exact = rest.request("GET", path, params={"limit": len(whole), "sort": sort})
    assert exact["next"] is None


def test_every_list_has_pages_orders_and_fields(rest: Rest) -> None:
    paths = rest.request("GET", "/openapi.json")["paths"]
    for path in (*LISTS, "protections"):
        names = {parameter["name"] for parameter in paths[f"/v1/{path}"]["get"]["parameters"]}
        assert {"limit", "after", "sort", "fields"} <= names, path
        assert rest.request("GET", f"/{path}", params={"limit": 1}).keys() == {"data", "next"}


def test_a_cursor_goes_with_its_order(rest: Rest) -> None:
    after = rest.request("GET", "/assets", params={"limit": 3, "sort": "name"})["next"]
    for params in ({"sort": "-name"}, {"sort": "kind"}, {}):
        with pytest.raises(InvalidInput):
            rest.request("GET", "/assets", params={"after": after, **params})
    values = json.loads(base64.urlsafe_b64decode(after + "=" * (-len(after) % 4)))
    wrong: list[Any] = [
        [],
        {},
        ["name"],
        values[:-1],
        [*values, "x"],
        ["name", 1, 2],
        ["name", None, None],
        ["name", [], {}],
        7,
    ]
    for forged in wrong:
        cursor = base64.urlsafe_b64encode(json.dumps(forged).encode()).decode().rstrip("=")
        with pytest.raises(InvalidInput):
            rest.request("GET", "/assets", params={"after": cursor, "sort": "name"})
    for time in ("x", "2026-11-01", "0001-01-01T00:00:00+23:00", "\ud800"):
        cursor = base64.urlsafe_b64encode(json.dumps(["-created_at", time, "x"]).encode()).decode().rstrip("=")
        with pytest.raises(InvalidInput):
            rest.request("GET", "/operations", params={"after": cursor})


def test_what_goes_between_two_pages_shifts_nothing(rest: Rest) -> None:
    for name in ("r1", "r2", "r3", "r4"):
        rest.request("PUT", f"/roles/{name}", json={"actions": ["asset.read"]})
    first = rest.request("GET", "/roles", params={"built_in": False, "limit": 2})
    rest.request("DELETE", "/roles/r2")  # the last one of the page: its cursor holds
    second = rest.request("GET", "/roles", params={"built_in": False, "limit": 2, "after": first["next"]})
    assert [item["name"] for item in first["data"] + second["data"]] == ["r1", "r2", "r3", "r4"]
    for name in ("r1", "r3", "r4"):
        rest.request("DELETE", f"/roles/{name}")


# -- filters -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "params", "holds"),
    [
        ("/assets", {"system": "one"}, lambda item: item["system"] == "one"),
        ("/assets", {"name": "ä0"}, lambda item: item["name"] == "ä0"),
        ("/assets", {"kind": "volume"}, lambda item: item["kind"] == "volume"),
        ("/assets", {"q": "b1"}, lambda item: "b1" in item["name"].lower()),
        ("/assets", {"q": "B"}, lambda item: "b" in item["name"].lower()),
        ("/assets", {"q": "a%"}, lambda item: "a%" in item["name"]),
        ("/assets", {"q": "a_"}, lambda item: "a_" in item["name"]),
        ("/assets", {"q": "日"}, lambda item: "日" in item["name"]),
        ("/assets", {"capability": "diff-files"}, lambda item: "diff-files" in item["capabilities"]),
        ("/assets", {"label": "env=test"}, lambda item: item["labels"].get("env") == "test"),
        ("/assets", {"label": "env=prod"}, lambda item: item["system"] == "two"),
        ("/assets", {"label": ["env=prod", "tier=1"]}, lambda item: item["system"] == "two" and item["labels"]),
        ("/snapshots", {"system": "two", "owned": False}, lambda item: item["system"] == "two" and not item["owned"]),
        ("/snapshots", {"owned": True}, lambda item: item["owned"]),
        ("/snapshots", {"q": "S1"}, lambda item: item["name"] == "s1"),
        ("/snapshots", {"since": "2026-11-01T01:00:00Z"}, lambda item: (item["created_at"] or "") >= "2026-11-01T01"),
        (
            "/snapshots",
            {"until": "2026-11-01T02:00:00+01:00"},
            lambda item: item["created_at"] and item["created_at"] < "2026-11-01T01",
        ),
        ("/operations", {"kind": ["create", "diff"]}, lambda item: item["kind"] != "delete"),
        ("/operations", {"requester": "ann"}, lambda item: item["requester"] == "ann"),
        ("/operations", {"system": "one", "state": "queued"}, lambda item: item["system"] == "one"),
        ("/operations", {"since": "2026-11-01T00:02:00Z"}, lambda item: item["created_at"] >= "2026-11-01T00:02"),
        ("/operations", {"until": "2026-11-01T00:02:00Z"}, lambda item: item["created_at"] < "2026-11-01T00:02"),
        ("/systems", {"label": "env=prod"}, lambda item: item["name"] == "two"),
        ("/systems", {"q": "TW"}, lambda item: item["name"] == "two"),
        ("/workers", {"state": "alive", "queue": "default"}, lambda item: True),
        ("/roles", {"built_in": True}, lambda item: item["built_in"]),
    ],
)
def test_a_filter_finds_exactly_what_it_says(rest: Rest, path: str, params: Json, holds: Any) -> None:
    whole = pages(rest, path, 1000)
    expected = [item for item in whole if holds(item)]
    assert expected
    assert len(expected) < len(whole) or path in {"/workers", "/roles"}
    for limit in (2, 1000):
        assert pages(rest, path, limit, **params) == expected


@pytest.mark.parametrize(
    ("path", "params"),
    [
        ("/assets", {"system": "none"}),
        ("/assets", {"q": "nothing"}),
        ("/assets", {"label": "env=none"}),
        ("/snapshots", {"asset_id": "none"}),
        ("/operations", {"asset_id": "none"}),
        ("/operations", {"state": "failed"}),
        ("/exports", {"system": "one"}),
        ("/exports", {"host": "none"}),
        ("/backups", {"system": "one", "since": "2026-01-01T00:00:00Z"}),
        ("/change-lists", {"system": "one", "state": "complete"}),
        ("/identities", {"kind": "user", "disabled": True, "q": "x"}),
        ("/tokens", {"identity": "none", "kind": "api"}),
        ("/repositories", {"q": "none", "queue": "none"}),
        ("/workers", {"queue": "none"}),
        ("/systems", {"plugin": "none"}),
    ],
)
def test_a_filter_may_find_nothing(rest: Rest, path: str, params: Json) -> None:
    assert rest.request("GET", path, params=params) == {"data": [], "next": None}


def test_operations_of_an_asset(rest: Rest) -> None:
    asset = rest.request("GET", "/assets", params={"system": "one", "name": "a0"})["data"][0]
    found = pages(rest, "/operations", 100, asset_id=asset["id"])
    assert len(found) == 3


@pytest.mark.parametrize(
    "params",
    [
        {"label": "x"},
        {"kind": "x"},
        {"capability": "x"},
        {"limit": 0},
        {"limit": 1001},
        {"sort": "id"},
        {"fields": "x"},
    ],
)
def test_what_is_no_filter_is_refused(rest: Rest, params: Json) -> None:
    with pytest.raises(InvalidInput):
        rest.request("GET", "/assets", params=params)


# -- fields ------------------------------------------------------------------------------------------------------------
def test_only_the_fields_that_are_wanted(rest: Rest) -> None:
    whole = pages(rest, "/assets", 7)
    some = pages(rest, "/assets", 7, fields="id,labels")
    assert some == [{"id": item["id"], "labels": item["labels"]} for item in whole]
    assert pages(rest, "/operations", 1000, fields="state")[0] == {"state": "queued"}
    with pytest.raises(InvalidInput, match="colour"):
        rest.request("GET", "/assets", params={"fields": "id,colour"})


def test_the_command_line_reads_all_pages(rest: Rest, tmp_path: Path) -> None:
    assert len(list(rest.pages("/assets", limit=10))) == 2 * ASSETS
