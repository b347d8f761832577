"""Changed contents: pages, tokens, forms of paths, refusals, sizes."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

RELATIVE: dict[str, Any] = {"shouldShowRelativePath": True}
Facts = set[tuple[str, str, str]]


def facts(entries: list[dict[str, Any]]) -> Facts:
    return {(each["operationType"], each["objectType"], each["path"]) for each in entries}


def test_what_changed(api: Api, live: Path) -> None:
    share = api.share()
    for name in ("same", "grows", "goes", "moves", "mode"):
        (live / name).write_text(name)
    base = api.snapshot(share, "base")
    (live / "grows").write_text("grows longer")
    (live / "goes").unlink()
    (live / "moves").rename(live / "moved")
    (live / "mode").chmod(0o600)
    (live / "new").mkdir()
    (live / "link").symlink_to("same")
    new = api.snapshot(share, "new")
    entries = api.changes(share, new, base, **RELATIVE)
    assert facts(entries) >= {
        ("MODIFY", "FILE", "grows"),
        ("DELETE", "FILE", "goes"),
        ("RENAME", "FILE", "moved"),
        ("META_MODIFY", "FILE", "mode"),
        ("ADD", "DIRECTORY", "new"),
        ("ADD", "LINK", "link"),
    }
    assert not [each for each in entries if each["path"] == "same"]
    moved = next(each for each in entries if each["path"] == "moved")
    assert moved["oldPath"] == "moves"
    assert moved["sizeBytes"] == 5
    assert moved["inodeNumber"] == (live / "moved").stat().st_ino
    assert moved["$objectType"] == "files.v4.config.ChangedContent"
    full = api.changes(share, new, **RELATIVE)
    assert {each["operationType"] for each in full} == {"ADD"}
    assert {each["path"] for each in full} >= {"same", "grows", "moved", "mode", "new", "link", "archive"}


def test_names_that_are_not_utf8(api: Api, live: Path) -> None:
    share = api.share()
    base = api.snapshot(share, "base")
    hostile = [b"bad-\xff\xfe", b'quote"\\\n', "ünï".encode(), b"\x01\x7f"]
    for name in hostile:
        (Path(os.fsdecode(os.fsencode(live) + b"/" + name))).write_bytes(b"x")
    new = api.snapshot(share, "new")
    found = {os.fsencode(each["path"]) for each in api.changes(share, new, base, **RELATIVE)}
    assert set(hostile) <= found


@pytest.mark.parametrize(
    ("share_name", "form", "dfs", "path"),
    [
        ("projects", "by_protocol", True, "files1.example.com:/projects/dir/file"),
        ("projects", "by_protocol", False, "files1-vm1.example.com:/projects/dir/file"),
        ("homes", "by_protocol", True, "files1.example.com:/homes/dir/file"),
        ("smb", "by_protocol", True, "\\\\files1.example.com\\smb\\dir\\file"),
        ("projects", "smb", True, "\\\\files1.example.com\\projects\\dir\\file"),
        ("projects", "relative", True, "dir/file"),
    ],
)
def test_forms_of_paths(
    api: Api, simulator: SimulatorProcess, share_name: str, form: str, dfs: bool, path: str
) -> None:
    shares = "/file-servers/files1/shares"
    simulator.control("POST", shares, {"name": "smb", "protocol": "SMB"})
    simulator.control("PATCH", "/settings", {"cft_path_form": form, "cft_seconds": 0})
    live = Path(simulator.control("GET", f"{shares}/{share_name}")["live"])
    (live / "dir").mkdir()
    (live / "dir/file").touch()
    share = api.share(share_name)
    entries = api.changes(share, api.snapshot(share, "one"), shouldUseDFSNamespace=dfs)
    assert path in {each["path"] for each in entries}


def test_a_distributed_share_is_spread_over_vms(api: Api, simulator: SimulatorProcess) -> None:
    live = Path(simulator.control("GET", "/file-servers/files1/shares/homes")["live"])
    for number in range(12):
        (live / f"user{number}").mkdir()
        (live / f"user{number}/file").touch()
    share = api.share("homes")
    entries = api.changes(share, api.snapshot(share, "one"), shouldUseDFSNamespace=False)
    hosts = {each["path"].partition(":")[0] for each in entries}
    assert hosts == {f"files1-vm{number}.example.com" for number in (1, 2, 3)}
    for number in range(12):
        mine = [each["path"] for each in entries if f"/user{number}/" in each["path"] + "/"]
        assert len({path.partition(":")[0] for path in mine}) == 1


def test_pages_of_300_and_their_tokens(api: Api, live: Path) -> None:
    share = api.share()
    for number in range(700):
        (live / f"file-{number:04d}").touch()
    snapshot = api.snapshot(share, "one")
    content = api.compute(share, snapshot, **RELATIVE)
    pages = api.pages(content)
    assert [len(page) for page in pages] == [300, 300, 101]
    first = api.call("GET", content)
    token = first.headers["x-next-page-token"]
    extra = {each["name"]: each["value"] for each in first.json["metadata"]["extraInfo"]}
    assert extra == {"nextPageToken": token}
    again = [api.call("GET", content, headers={"X-Next-Page-Token": token}) for _ in range(2)]
    assert again[0].data["changedContents"] == again[1].data["changedContents"] == pages[1]
    for bad in ("nonsense", token[:-2] + "AA", "", "é"):
        reply = api.call("GET", content, headers={"X-Next-Page-Token": bad})
        assert reply.status == (200 if not bad else 400), bad
    other = api.compute(share, snapshot)
    assert other != content
    assert api.call("GET", other, headers={"X-Next-Page-Token": token}).code == "FILES-50402"
    assert api.compute(share, snapshot, **RELATIVE) == content


@pytest.mark.parametrize(("where", "header", "extra"), [("header", True, False), ("extra_info", False, True)])
def test_where_the_token_is(api: Api, simulator: SimulatorProcess, where: str, header: bool, extra: bool) -> None:
    made = simulator.control("POST", "/synthetic-diff", {"file_server": "files1", "share": "projects"})
    simulator.control("PATCH", "/settings", {"cft_next_token_in": where, "cft_seconds": 0})
    content = api.compute(api.share(), made["new"], made["base"])
    while not (reply := api.call("GET", content)).data["changedContents"]:
        time.sleep(0.01)
    assert ("x-next-page-token" in reply.headers, "extraInfo" in reply.json["metadata"]) == (header, extra)


def test_while_computing_pages_are_empty(api: Api, simulator: SimulatorProcess, live: Path) -> None:
    simulator.control("PATCH", "/settings", {"cft_seconds": 0.4})
    share = api.share()
    base = api.snapshot(share, "base")
    snapshot = api.snapshot(share, "one")
    content = api.compute(share, snapshot, base)
    first = api.call("GET", content)
    assert (first.data["changedContents"], first.data["hasMoreContent"]) == ([], True)
    token = {"X-Next-Page-Token": first.headers["x-next-page-token"]}
    second = api.call("GET", content, headers=token)
    assert second.headers["x-next-page-token"] == token["X-Next-Page-Token"]
    assert api.call("DELETE", f"{share}/snapshots/{base}").code == "FILES-40410"
    listed = api.get(f"{share}/snapshot-changed-contents", filter=f"snapshotExtId eq '{snapshot}'").data
    assert [each["baseSnapshotExtId"] for each in listed] == [base]
    assert api.pages(content) == []
    assert "x-next-page-token" not in api.call("GET", content, headers=token).headers


def test_deleting_the_base_ends_the_list(api: Api, live: Path) -> None:
    share = api.share()
    base = api.snapshot(share, "base")
    for number in range(400):
        (live / str(number)).touch()
    content = api.compute(share, api.snapshot(share, "new"), base)
    while not (reply := api.call("GET", content)).data["changedContents"]:
        time.sleep(0.01)
    api.wait(api.call("DELETE", f"{share}/snapshots/{base}"))
    token = {"X-Next-Page-Token": reply.headers["x-next-page-token"]}
    assert api.call("GET", content, headers=token).code == "FILES-50404"


def test_refusals(api: Api, simulator: SimulatorProcess) -> None:
    share = api.share()
    one, two = api.snapshot(share, "one"), api.snapshot(share, "two")
    other = api.snapshot(api.share("homes"), "other")

    def compute(where: str, **body: object) -> tuple[int, str]:
        reply = api.call("POST", f"{where}/$actions/compute-snapshot-change", body)
        schema = isinstance(reply.data["error"], dict)
        return reply.status, reply.complaints[0] if schema else reply.code

    assert compute(share) == (400, "snapshotExtId")
    assert compute(share, snapshotExtId="x") == (404, "FILES-40404")
    assert compute(share, snapshotExtId=two, baseSnapshotExtId="x") == (404, "FILES-40404")
    assert compute(share, snapshotExtId=one, baseSnapshotExtId=one) == (400, "FILES-50400")
    assert compute(share, snapshotExtId=one, baseSnapshotExtId=two) == (400, "FILES-50400")
    assert compute(share, snapshotExtId=two, baseSnapshotExtId=other) == (400, "FILES-50401")
    assert compute(api.share("archive"), snapshotExtId=two) == (400, "FILES-40401")
    assert api.call("GET", f"{share}/snapshot-changed-contents/x").status == 404


def test_renamed_directories_in_both_forms(api: Api, simulator: SimulatorProcess, live: Path) -> None:
    share = api.share()
    (live / "old").mkdir()
    (live / "old/child").touch()
    base = api.snapshot(share, "base")
    (live / "old").rename(live / "new")
    snapshot = api.snapshot(share, "new")
    brief = {each["path"] for each in api.changes(share, snapshot, base, **RELATIVE)}
    simulator.control("PATCH", "/settings", {"cft_lists_renamed_children": True})
    full = {each["path"] for each in api.changes(share, snapshot, base, shouldUseDFSNamespace=False, **RELATIVE)}
    assert "new" in brief
    assert "new/child" not in brief
    assert full == brief | {"new/child"}


def test_a_million_entries_cost_nothing_until_read(api: Api, simulator: SimulatorProcess) -> None:
    made = simulator.control(
        "POST", "/synthetic-diff", {"file_server": "files1", "share": "projects", "entries": 1_000_000}
    )
    simulator.control("PATCH", "/settings", {"cft_seconds": 0})
    content = api.compute(api.share(), made["new"], made["base"], **RELATIVE)
    seen = 0
    headers: dict[str, str] = {}
    begin = time.perf_counter()
    while seen < 30_000:
        reply = api.call("GET", content, headers=headers)
        entries = reply.data["changedContents"]
        assert all(each["path"].endswith(f"{seen + n:09d}.dat") for n, each in enumerate(entries))
        seen += len(entries)
        headers = {"X-Next-Page-Token": reply.headers["x-next-page-token"]}
    assert time.perf_counter() - begin < 10
