"""A whole installation for tests: a simulator and a server, each a process of its own, and the command line."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapkeep.cli.options import Common
from snapkeep.cli.references import Reference
from snapkeep.cli.rest import Rest
from snapkeep.cli.trust import trust_here
from snapkeep.model.errors import SnapkeepError
from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.nutanix_files.testing import Api

Json = dict[str, Any]
QUICK = {"SNAPKEEP_STALL_SECONDS": "2", "SNAPKEEP_OUTAGE_SECONDS": "20", "SNAPKEEP_OPERATION_SECONDS": "60"}
QUICK |= {"SNAPKEEP_REQUESTS_PER_SECOND": "0"}  # tests are quicker than people; those of the limit set their own
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


class Process:
    """A process of ours that can be stopped, killed and started again; `env` may be changed in between."""

    def __init__(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.command = [sys.executable, "-m", "snapkeep", *command]
        self.log = log
        self.env = env or {}
        self._child: subprocess.Popen[bytes] | None = None
        self._said_before = 0

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def begin(self) -> None:
        """Start it; do not wait."""
        with self.log.open("ab") as log:
            self._said_before = log.tell()
            self._child = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | QUICK | self.env
            )

    def start(self) -> None:
        """Start it, and wait until it works."""
        self.begin()
        self.until_ready()

    def until_ready(self) -> None:
        end = time.monotonic() + 90
        while not self.is_ready():
            assert self.running, self.log.read_text()
            assert time.monotonic() < end, f"it is not ready: {self.log.read_text()}"
            time.sleep(0.02)

    def said(self) -> str:
        """What it has logged since its start."""
        return self.log.read_bytes()[self._said_before :].decode()

    def is_ready(self) -> bool:
        return "] ready " in self.said()

    def send(self, number: signal.Signals) -> None:
        assert self._child is not None
        self._child.send_signal(number)

    def wait(self, seconds: float = 20) -> int:
        """Wait for its end; return the exit status."""
        assert self._child is not None
        status = self._child.wait(seconds)
        self._child = None
        return status

    def end(self, how: signal.Signals) -> int:
        """Send a signal and wait; return the exit status."""
        self.send(how)
        return self.wait()

    def close(self) -> None:
        if self._child is not None:
            self.send(signal.SIGCONT)
            self.end(signal.SIGTERM)


class Server(Process):
    """`snapkeep serve`."""

    def __init__(self, data_dir: Path, env: dict[str, str] | None = None) -> None:
        command = ["serve", "--data-dir", str(data_dir), "--port", "0"]
        super().__init__(command, data_dir.parent / f"{data_dir.name}.log", env)
        self.data_dir = data_dir
        self._rest: Rest | None = None

    def until_ready(self) -> None:
        super().until_ready()
        self._rest = Common(data_dir=self.data_dir).connect()

    def is_ready(self) -> bool:
        try:
            address = json.loads((self.data_dir / "server.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(address["pid"] == self.pid)

    def wait(self, seconds: float = 20) -> int:
        if self._rest is not None:
            self._rest.close()
        return super().wait(seconds)

    @property
    def rest(self) -> Rest:
        assert self._rest is not None
        return self._rest

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """How clients know it; false: it serves plain HTTP."""
        return trust_here(json.loads((self.data_dir / "server.json").read_text())) or False

    def connect(self, token: str) -> Rest:
        """Return a client that has another token."""
        file = self.data_dir.parent / f"token-{hashlib.sha256(token.encode()).hexdigest()[:12]}"
        file.write_text(token or "nothing")
        return Common(data_dir=self.data_dir, token_file=file).connect()


class Worker(Process):
    """`snapkeep worker` beside a server, with its key and its database."""

    def __init__(self, server: Server, name: str, env: dict[str, str] | None = None) -> None:
        command = ["worker", "--name", name, "--data-dir", str(server.data_dir)]
        super().__init__(command, server.log.with_name(f"{name}.log"), server.env | (env or {}))
        self.name = name


class Installation:
    """Simulator, server, workers and command line, with one system `files1` added and discovered."""

    def __init__(self, simulator: SimulatorProcess, server: Server) -> None:
        self.simulator = simulator
        self.server = server
        self.workers: dict[str, Worker] = {}

    @property
    def rest(self) -> Rest:
        return self.server.rest

    @property
    def trust(self) -> ssl.SSLContext | bool:
        """How clients know the server."""
        return self.server.trust

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

    def add_system(self, name: str = "files1", queue: str = "default", **changed: Any) -> Json:
        body = {"name": name, "plugin": "nutanix-files", "settings": self.settings(**changed), "queue": queue}
        return dict(self.rest.request("POST", "/systems", json=body))

    def add_worker(self, name: str, **env: str) -> Worker:
        """Start one more worker; it ends with the installation."""
        worker = self.workers[name] = Worker(self.server, name, env)
        worker.start()
        return worker

    def worker(self, name: str) -> Json:
        """What the server knows of a worker."""
        return next(dict(item) for item in self.rest.request("GET", "/workers")["data"] if item["name"] == name)

    def reset(self) -> None:
        """Put the simulator back to its default content, with a partner server; forget all systems."""
        self.simulator.control("POST", "/reset")
        self.simulator.control("POST", "/sessions/expire", {"refuse": 0})
        states = {"state": ["queued", "running", "paused"]}

        def ended() -> bool:
            found = self.rest.request("GET", "/operations", params=states)["data"]
            for operation in found:
                with contextlib.suppress(SnapkeepError):  # a reconcile after a crash may begin even now
                    self.rest.request("POST", f"/operations/{operation['id']}/cancel")
            return not found

        until(ended, 30)
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

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """Start an operation; do not wait."""
        return dict(self.rest.request(method, path, json=body))

    def ask_create(self, name: str | None = None, asset: str = "projects", system: str = "files1") -> Json:
        return self.ask("POST", f"/assets/{self.asset(asset, system)['id']}/snapshots", {"name": name})

    def operation(self, operation: Json) -> Json:
        """Read an operation again."""
        return dict(self.rest.request("GET", f"/operations/{operation['id']}"))

    def wait(self, operation: Json, seconds: float = 45) -> Json:
        """Wait for the end of an operation, but not for ever; raises the error that it failed with."""
        until(lambda: self.operation(operation)["ended_at"], seconds)
        return self.rest.wait(self.operation(operation))

    def fault(self, action: str, **values: Any) -> None:
        """Script a fault of the simulator."""
        self.simulator.control("POST", "/faults", {"action": action, **values})

    def asset(self, name: str = "projects", system: str = "files1") -> Json:
        return self.rest.asset(Reference(system, name, ""))

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
def installed(root: Path, workers: int = 0, /, **env: str) -> Iterator[Installation]:
    """Run an installation below `root`; `env` goes to server and workers.

    Workers need SNAPKEEP_DATABASE_URL; with some, named w1, w2 and so on, the server itself runs no operations.
    """
    server = Server(root / "server", env)
    if workers:
        server.command.append("--no-work")
    with SimulatorProcess(root / "simulator") as simulator:
        installation = Installation(simulator, server)
        try:
            server.start()
            installation.rest.request("PUT", "/cooling", json={"limit": None})  # tests delete a lot
            for number in range(1, workers + 1):
                installation.add_worker(f"w{number}")
            yield installation
        finally:
            for process in (*installation.workers.values(), server):
                process.close()


def until(truth: Any, seconds: float = 10.0) -> Any:
    """Wait until `truth()` is true; return it."""
    end = time.monotonic() + seconds
    while not (found := truth()):
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.02)
    return found
