"""A whole installation for tests: a simulator and a server, each a process of its own, and the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapkeep.cli.options import Common
from snapkeep.cli.references import Reference
from snapkeep.cli.rest import Rest
from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

Json = dict[str, Any]
QUICK = {"SNAPKEEP_STALL_SECONDS": "2", "SNAPKEEP_OUTAGE_SECONDS": "20", "SNAPKEEP_OPERATION_SECONDS": "60"}
API = "/config/file-servers"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def error(self) -> Json:
        """The error that `--output json` prints on standard error."""
        return dict(json.loads(self.err.strip().splitlines()[-1])["error"])


class Server:
    """`snapkeep serve` as a process that can be killed and started again."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / f"{data_dir.name}.log"
        self._child: subprocess.Popen[bytes] | None = None
        self._rest: Rest | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "snapkeep", "serve", "--data-dir", str(self.data_dir), "--port", "0"]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | QUICK
            )
        end = time.monotonic() + 30
        while not self._is_ready():
            assert self._child.poll() is None, self.log.read_text()
            assert time.monotonic() < end, "the server is not ready"
            time.sleep(0.02)
        self._rest = Common(data_dir=self.data_dir).connect()

    def _is_ready(self) -> bool:
        try:
            address = json.loads((self.data_dir / "server.json").read_text())
        except (OSError, ValueError):
            return False
        return self._child is not None and address["pid"] == self._child.pid

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait; return the exit status."""
        assert self._child is not None
        self.rest.close()
        self._child.send_signal(how)
        status = self._child.wait(20)
        self._child = None
        return status

    def close(self) -> None:
        if self._child is not None:
            self.end(signal.SIGTERM)

    @property
    def rest(self) -> Rest:
        assert self._rest is not None
        return self._rest


class Installation:
    """Simulator, server and command line, with one system `files1` added and discovered."""

    def __init__(self, simulator: SimulatorProcess, server: Server) -> None:
        self.simulator = simulator
        self.server = server

    @property
    def rest(self) -> Rest:
        return self.server.rest

    def settings(self, **changed: Any) -> Json:
        values: Json = {
            "host": "127.0.0.1",
            "port": int(self.simulator.url.rpartition(":")[2]),
            "ca_file": self.simulator.ca_file,
            "file_server": "files1",
            "username": self.simulator.username,
            "password": self.simulator.password,
            "local_exports": str(self.simulator.data_dir / "access"),
            "retry_seconds": 1.0,
            "request_seconds": 3.0,
            **changed,
        }
        return {key: value for key, value in values.items() if value is not None}

    def add_system(self, name: str = "files1", **changed: Any) -> Json:
        body = {"name": name, "plugin": "nutanix-files", "settings": self.settings(**changed)}
        return dict(self.rest.request("POST", "/systems", json=body))

    def reset(self) -> None:
        """Put the simulator back to its default content, with a partner server; forget all systems."""
        self.simulator.control("POST", "/reset")
        self.simulator.control("POST", "/sessions/expire", {"refuse": 0})
        for system in self.rest.request("GET", "/systems")["data"]:
            self.rest.request("DELETE", f"/systems/{system['name']}", params={"force": True})
        self.add_partner_server()
        self.add_system()
        self.discover()

    def add_partner_server(self, name: str = "snapkeep", kind: str = "BACKUP") -> None:
        api = Api(self.simulator)
        body = {"name": name, "vendorName": "Snapkeep", "partnerType": kind}
        reply = api.call("POST", f"{self.vendor_path(api)}/partner-servers", body)
        assert reply.status == 202, reply.raw
        api.wait(reply)
        api.close()

    def vendor_path(self, api: Api, server: str = "files1") -> str:
        servers = api.call("GET", f"/api/files/v4.0{API}").data
        found = next(item["extId"] for item in servers if item["name"] == server)
        return f"/api/files/v4.0{API}/{found}"

    def discover(self, name: str = "files1") -> Json:
        return self.run("POST", f"/systems/{name}/discover")

    def run(self, method: str, path: str, body: Json | None = None) -> Json:
        """Start an operation and wait for its end; raises the error that it failed with."""
        return self.rest.wait(self.rest.request(method, path, json=body))

    def asset(self, name: str = "projects") -> Json:
        return self.rest.asset(Reference("files1", name, ""))

    def snapshot(self, name: str | None = None, asset: str = "projects") -> Json:
        """Take a snapshot; return it."""
        done = self.run("POST", f"/assets/{self.asset(asset)['id']}/snapshots", {"name": name})
        return dict(self.rest.request("GET", f"/snapshots/{done['result']['snapshot_id']}"))

    def live(self, share: str = "projects", server: str = "files1") -> Path:
        return Path(self.simulator.control("GET", f"/file-servers/{server}/shares/{share}")["live"])

    def vendor_snapshots(self, share: str = "projects") -> list[Json]:
        return list(self.simulator.control("GET", f"/file-servers/files1/shares/{share}")["snapshots"])

    def delete_behind_our_back(self, snapshot: str, share: str = "projects") -> None:
        """Delete a snapshot on the system itself, as somebody else would."""
        api = Api(self.simulator)
        path = api.share(share)
        found = next(item["extId"] for item in self.vendor_snapshots(share) if item["name"] == snapshot)
        api.wait(api.call("DELETE", f"{path}/snapshots/{found}"))
        api.close()

    def cli(self, *arguments: str | bytes, env: dict[str, str] | None = None) -> Ran:
        """Run `snapkeep` as a person would, with this server's data directory."""
        done = subprocess.run(
            [sys.executable, "-m", "snapkeep", *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"SNAPKEEP_DATA_DIR": str(self.server.data_dir)} | (env or {}),
            timeout=60,
            check=False,
        )
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def installed(root: Path) -> Iterator[Installation]:
    """Run an installation below `root`."""
    server = Server(root / "server")
    with SimulatorProcess(root / "simulator") as simulator:
        server.start()
        try:
            yield Installation(simulator, server)
        finally:
            server.close()


def until(truth: Any, seconds: float = 10.0) -> Any:
    """Wait until `truth()` is true; return it."""
    end = time.monotonic() + seconds
    while not (found := truth()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return found
