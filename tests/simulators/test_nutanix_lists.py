"""Lists: pages, filter, order, selection, envelope."""

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api


def names(api: Api, path: str, **query: object) -> list[str]:
    reply = api.get(path, **query)
    assert reply.status == 200, reply.raw
    return [each["name"] for each in reply.data]


def test_default_content(api: Api) -> None:
    assert names(api, "/config/file-servers") == ["files1", "files2"]
    shares = api.get(f"{api.server()}/mount-targets").data
    by_name = {share["name"]: share for share in shares}
    assert set(by_name) == {"projects", "homes", "archive"}
    assert by_name["projects"]["type"] == "STANDARD"
    assert by_name["homes"]["type"] == "DISTRIBUTED"
    assert by_name["archive"]["parentMountTargetExtId"] == by_name["projects"]["extId"]
    assert by_name["archive"]["path"] == "projects/archive"


def test_every_object_names_its_type(api: Api) -> None:
    reply = api.get(f"{api.server()}/mount-targets")
    assert {each["$objectType"] for each in reply.data} == {"files.v4.config.MountTarget"}
    assert reply.json["$objectType"] == "files.v4.config.ListMountTargetsApiResponse"
    assert reply.json["$dataItemDiscriminator"] == "List<files.v4.config.MountTarget>"
    assert reply.json["metadata"]["totalAvailableResults"] == 3
    flags = {flag["name"]: flag["value"] for flag in reply.json["metadata"]["flags"]}
    assert flags == {"hasError": False, "isPaginated": True, "isTruncated": False}


def test_pages_and_their_links(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("POST", "/synthetic", {"file_server": "files2", "shares": 250, "snapshots_per_share": 0})
    path = f"{api.server('files2')}/mount-targets"
    assert len(api.get(path).data) == 50
    seen = [name for page in range(3) for name in names(api, path, page=page, limit=100)]
    assert len(seen) == len(set(seen)) == 251
    assert names(api, path, page=3, limit=100) == []
    rels = {link["rel"] for link in api.get(path, page=1, limit=100).json["metadata"]["links"]}
    assert rels == {"self", "first", "prev", "next", "last"}


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("name eq 'homes'", {"homes"}),
        ("name ne 'homes'", {"projects", "archive"}),
        ("startswith(name,'pro') or endswith(name, 'mes')", {"projects", "homes"}),
        ("contains(name,'r') and not (name eq 'archive')", {"projects"}),
        ("type eq Files.Config.MountTargetType'DISTRIBUTED'", {"homes"}),
        ("isSnapshotPaused eq false", {"projects", "homes", "archive"}),
        ("not isSnapshotPaused", {"projects", "homes", "archive"}),
        ("parentMountTargetExtId eq null", {"projects", "homes"}),
        ("name gt 'b' and name le 'homes'", {"homes"}),
        ("name eq 'it''s'", set()),
        ("$objectType eq 'x'", None),
        ("name eq", None),
        ("name eq 'a' 'b'", None),
        ("unknown eq 1", None),
        ("length(name) eq 1", None),
        ("(name eq 'a'", None),
        ("name gt 5", None),
        ("% eq 1", None),
    ],
)
def test_filter(api: Api, expression: str, found: set[str] | None) -> None:
    reply = api.get(f"{api.server()}/mount-targets", filter=expression)
    if found is None:
        assert reply.status == 400
        assert reply.data["error"]["$objectType"] == "files.v4.error.SchemaValidationError"
        assert reply.complaints == ["$filter"]
    else:
        assert {each["name"] for each in reply.data} == found


def test_filter_by_time_and_number(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("POST", "/synthetic", {"file_server": "files2", "shares": 1, "snapshots_per_share": 5})
    path = f"{api.share('synthetic-000001', 'files2')}/snapshots"
    middle = api.get(path).data[2]["createTime"]
    assert names(api, path, filter=f"createTime gt {middle}") == ["daily-0004", "daily-0005"]
    assert names(api, path, filter="totalSpaceBytes lt 2500000") == ["daily-0001", "daily-0002"]


def test_order_by_several_keys(api: Api) -> None:
    path = f"{api.server()}/mount-targets"
    assert names(api, path, orderby="name") == ["archive", "homes", "projects"]
    assert names(api, path, orderby="type desc,name desc") == ["projects", "archive", "homes"]
    assert names(api, path, orderby="parentMountTargetExtId desc,name asc")[0] == "archive"
    for bad in ("name up", "unknown", "name asc asc", ","):
        assert api.get(path, orderby=bad).complaints == ["$orderby"]


def test_select(api: Api) -> None:
    path = f"{api.server()}/mount-targets"
    selected = api.get(path, select="name,type").data[0]
    assert set(selected) == {"name", "type", "extId", "$objectType", "$reserved"}
    assert "state" in api.get(path, select="*").data[0]
    assert api.get(path, select="nonsense").complaints == ["$select"]


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 101}, {"limit": "x"}, {"page": -1}, {"page": "x"}])
def test_limits_of_pages(api: Api, query: dict[str, object]) -> None:
    reply = api.get("/config/file-servers", **query)
    assert reply.status == 400
    assert reply.data["error"]["statusCode"] == 400
    assert reply.complaints == [f"${next(iter(query))}"]


def test_synthetic_sizes_are_quick_to_read(api: Api, simulator: SimulatorProcess) -> None:
    simulator.control("POST", "/synthetic", {"file_server": "files2", "shares": 2000})
    total = api.get(f"{api.server('files2')}/mount-targets", limit=100)
    assert total.json["metadata"]["totalAvailableResults"] == 2001
    share = api.share("synthetic-001999", "files2")
    assert len(api.get(f"{share}/snapshots").data) == 10
