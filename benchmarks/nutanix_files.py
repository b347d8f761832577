"""Discovery and diff of a large file server, beside bare paging of the same bytes in the same run.

    python benchmarks/nutanix_files.py [--shares 2000] [--snapshots 10] [--entries 1000000] [--runs 3]

Starts a simulator and a server as processes of their own, over HTTPS on loopback. "Bare paging" asks the simulator
for exactly the same pages with the same HTTP library and throws them away: what no client could do without. Printed
are medians, ratios, and by how much the server's resident memory grew at its peak (VmHWM of /proc, reset before).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from snapkeep.cli.demo.processes import World, running

API = "/api/files/v4.0/config/file-servers"
CONCURRENT = 8


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--shares", type=int, default=2000)
    arguments.add_argument("--snapshots", type=int, default=10, help="for each share")
    arguments.add_argument("--entries", type=int, default=1_000_000)
    arguments.add_argument("--runs", type=int, default=3)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="snapkeep-bench-") as root, running(Path(root)) as world:
        bench = Bench(world, given.runs)
        bench.add_system()
        bench.discovery(given.shares, given.snapshots)
        bench.diff(given.entries)


class Bench:
    def __init__(self, world: World, runs: int) -> None:
        self._world = world
        self._runs = runs
        self._pid = _server_pid(world)
        verify = ssl.create_default_context(cafile=world.simulator["ca_file"])
        self._options: dict[str, Any] = {
            "base_url": world.simulator["url"],
            "verify": verify,
            "headers": {"X-ntnx-api-key": world.simulator["api_key"]},
            "timeout": 600.0,
        }
        self._client = httpx2.Client(**self._options)

    def add_system(self) -> None:
        simulator = self._world.simulator
        settings = {
            "host": "127.0.0.1",
            "port": int(simulator["url"].rpartition(":")[2]),
            "ca_file": simulator["ca_file"],
            "file_server": "files1",
            "api_key": simulator["api_key"],
        }
        body = {"name": "files1", "plugin": "nutanix-files", "settings": settings}
        self._world.rest.request("POST", "/systems", json=body)
        self._operation("/systems/files1/discover")  # connections and imports are not what is measured

    def discovery(self, shares: int, snapshots: int) -> None:
        self._control("/synthetic", {"file_server": "files1", "shares": shares, "snapshots_per_share": snapshots})
        bare = [self._timed(lambda: asyncio.run(self._page_shares())) for _ in range(self._runs)]
        grown = 0
        ours = []
        for _ in range(self._runs):
            seconds, growth = self._measured(lambda: self._operation("/systems/files1/discover"))
            ours.append(seconds)
            grown = max(grown, growth)
        result = self._world.rest.request("GET", "/operations?limit=1")["data"][0]["result"]
        _report(f"discover {result['assets']:,} assets, {result['snapshots']:,} snapshots", ours, bare, grown)

    def diff(self, entries: int) -> None:
        pair = self._control("/synthetic-diff", {"file_server": "files1", "share": "homes", "entries": entries})
        self._operation("/systems/files1/discover")
        snapshots = {item["vendor_id"]: item["id"] for item in self._world.rest.pages("/snapshots", system="files1")}
        body = {"base_id": snapshots[pair["base"]], "new_id": snapshots[pair["new"]]}
        bare = [self._timed(lambda: self._page_changes(pair["base"], pair["new"])) for _ in range(self._runs)]
        grown = 0
        ours = []
        for _ in range(self._runs):
            seconds, growth = self._measured(lambda: self._operation("/change-lists", body))
            ours.append(seconds)
            grown = max(grown, growth)
        found = self._world.rest.request("GET", "/operations?limit=1")["data"][0]["result"]
        _report(f"diff of {found['entries']:,} entries", ours, bare, grown)
        path = f"/change-lists/{found['change_list']}/entries"
        begin = time.monotonic()
        lines = sum(1 for _ in self._world.rest.stream(path, []))
        print(f"  read back as NDJSON: {lines:,} lines in {time.monotonic() - begin:.1f} s")

    # -- what is measured ----------------------------------------------------------------------------------------
    def _operation(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        operation = self._world.rest.request("POST", path, json=body)
        return self._world.rest.wait(operation)

    async def _page_shares(self) -> None:
        """Read all pages of shares and of their snapshots, as many at once as the plug-in does."""
        async with httpx2.AsyncClient(**self._options) as client:
            server = await self._server(client)
            gate = asyncio.Semaphore(CONCURRENT)

            async def pages(path: str) -> list[dict[str, Any]]:
                found: list[dict[str, Any]] = []
                page = 0
                while True:
                    async with gate:
                        answer = (await client.get(path, params={"$page": page, "$limit": 100})).json()
                    found += answer.get("data") or []
                    page += 1
                    if page * 100 >= answer["metadata"]["totalAvailableResults"]:
                        return found

            shares = await pages(f"{server}/mount-targets")
            top = [item["extId"] for item in shares if not item.get("parentMountTargetExtId")]
            await asyncio.gather(*(pages(f"{server}/mount-targets/{share}/snapshots") for share in top))

    async def _server(self, client: httpx2.AsyncClient) -> str:
        servers = (await client.get(API)).json()["data"]
        return f"{API}/{next(item['extId'] for item in servers if item['name'] == 'files1')}"

    def _page_changes(self, base: str, new: str) -> None:
        servers = self._client.get(API).json()["data"]
        server = f"{API}/{next(item['extId'] for item in servers if item['name'] == 'files1')}"
        query = {"$filter": "name eq 'homes'"}
        found = self._client.get(f"{server}/mount-targets", params=query).json()["data"]
        share = f"{server}/mount-targets/{found[0]['extId']}"
        spec = {"snapshotExtId": new, "baseSnapshotExtId": base, "shouldShowRelativePath": True}
        begun = self._client.post(f"{share}/$actions/compute-snapshot-change", json=spec).json()
        path = f"{share}/snapshot-changed-contents/{begun['data'][0]['argumentsMap']['extId']}"
        token = ""
        while True:
            answer = self._client.get(path, headers={"X-Next-Page-Token": token} if token else {})
            token = answer.headers.get("x-next-page-token", token)
            if b'"hasMoreContent":false' in answer.content:
                return
            if b'"changedContents":[]' in answer.content:
                time.sleep(0.05)

    # -- tools -------------------------------------------------------------------------------------------------------
    def _control(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._client.post(f"/simulator/v1{path}", json=body)
        answer.raise_for_status()
        return dict(answer.json())

    def _timed(self, work: Callable[[], object]) -> float:
        begin = time.monotonic()
        work()
        return time.monotonic() - begin

    def _measured(self, work: Callable[[], object]) -> tuple[float, int]:
        """Return seconds, and by how many bytes the server's resident memory grew at its peak."""
        Path(f"/proc/{self._pid}/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        before = _memory(self._pid, "VmRSS")
        seconds = self._timed(work)
        return seconds, _memory(self._pid, "VmHWM") - before


def _server_pid(world: World) -> int:
    return int(json.loads((world.server_dir / "server.json").read_text())["pid"])


def _memory(pid: int, field: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def _report(what: str, ours: list[float], bare: list[float], grown: int) -> None:
    mine, floor = statistics.median(ours), statistics.median(bare)
    print(
        f"{what}\n  Snapkeep {mine:.1f} s (runs: {', '.join(f'{value:.1f}' for value in ours)})\n"
        f"  bare paging {floor:.1f} s (runs: {', '.join(f'{value:.1f}' for value in bare)})\n"
        f"  ratio {mine / floor:.2f}; resident memory of the server grew by at most {grown / 2**20:.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
