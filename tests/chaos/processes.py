"""What can be killed: simulator, server, workers and PostgreSQL, each a process that starts again as it was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy as sa
from tests.chaos.plan import Options
from tests.support.postgres import Postgres, require_binaries

from snapkeep.simulators.kit.process import ControlFailedError, SimulatorProcess

START_SECONDS = 90.0
SHARES = ("chaos-1", "chaos-2", "chaos-3")
SERVER, SIMULATOR, POSTGRESQL = "server", "simulator", "postgresql"

# Half of all changes are answered late: whoever dies meanwhile has had the effect, and does not know it.
SLOW_ANSWERS = [
    {"method": method, "action": "delay", "seconds": 0.5, "after_effect": True, "times": None, "probability": 0.5}
    for method in ("POST", "PUT", "DELETE")
]

# Nothing that the killer does lasts longer than these: so an operation has no excuse to fail.
LIMITS = {
    "SNAPKEEP_OPERATION_SECONDS": "900",
    "SNAPKEEP_STALL_SECONDS": "300",
    "SNAPKEEP_OUTAGE_SECONDS": "300",
    "SNAPKEEP_CALL_SECONDS": "120",
    "SNAPKEEP_TAKEOVER_SECONDS": "3",
    "SNAPKEEP_LOG_LEVEL": "INFO",
}


class Victim(Protocol):
    """A process of the world."""

    @property
    def running(self) -> bool: ...

    def start(self) -> None: ...

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is dead."""

    def is_ready(self) -> bool:
        """Say whether it serves. Raises AssertionError when it ended by itself."""


class Process:
    """A command of ours. It ends with the harness, whatever happens to that."""

    def __init__(self, command: list[str], log: Path, env: dict[str, str], answers: Callable[[int], bool]) -> None:
        self._command = ["setpriv", "--pdeathsig=KILL", sys.executable, "-m", *command]
        self.log = log
        self._env = env
        self._answers = answers
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | self._env
            )

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def is_ready(self) -> bool:
        if self._child is None:
            return False
        ended = self._child.poll()
        assert ended is None, f"{' '.join(self._command[3:6])} ended by itself with {ended}: see {self.log}"
        return self._answers(self._child.pid)


class Database:
    """PostgreSQL as a victim; its start waits until it takes connections."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    @property
    def running(self) -> bool:
        return self._postgres.running

    def start(self) -> None:
        self._postgres.start()

    def kill(self) -> None:
        self._postgres.kill()

    def is_ready(self) -> bool:
        return self._postgres.running


@dataclass(frozen=True, slots=True)
class InFlight:
    """An operation that had not ended, as the catalog said at one moment."""

    id: str
    kind: str
    phase: str
    worker: str | None
    """Who works on it, or did last."""


class World:
    """A whole installation whose every process may die."""

    def __init__(self, root: Path, options: Options, postgres: Postgres | None) -> None:
        self.root = root
        self.data_dir = root / "server"
        self.port = _free_port()
        self.simulator = SimulatorProcess(root / "simulator", arguments=["--partner-server", "snapkeep"])
        self._postgres = postgres
        database = postgres.create_database() if postgres else None
        self._env = LIMITS | ({"SNAPKEEP_DATABASE_URL": database} if database else {})
        self._engine = sa.create_engine(
            database or f"sqlite:///file:{self.data_dir / 'catalog.sqlite'}?mode=ro&uri=true",
            poolclass=sa.NullPool,
            connect_args={"connect_timeout": 2} if database else {"timeout": 2},
        )
        self._tasks: dict[str, dict[str, Any]] = {}
        self.victims: dict[str, Victim] = {}
        self._prepare(options)

    def _prepare(self, options: Options) -> None:
        """Let the simulator make its directory and choose its port, then put up the processes to come."""
        with self.simulator as simulator:
            for share in SHARES:
                simulator.control("POST", "/file-servers/files1/shares", {"name": share})
        port = simulator.url.rpartition(":")[2]
        module = "snapkeep.simulators.nutanix_files"
        config = self.root / "simulator.json"
        config.write_text(json.dumps({"faults": SLOW_ANSWERS}))
        command = [module, "--data-dir", str(simulator.data_dir), "--port", port, "--config", str(config)]
        self.victims[SIMULATOR] = Process(command, self.root / "simulator.log", {}, lambda _: self._simulator_answers())
        serve = ["snapkeep", "serve", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        workers = options.workers if self._postgres else 0
        serve += ["--no-work"] if workers else []
        self.victims[SERVER] = Process(serve, self.root / "server.log", self._env, self._server_answers)
        for number in range(1, workers + 1):
            name = f"worker{number}"
            work = ["snapkeep", "worker", "--name", name, "--data-dir", str(self.data_dir)]
            self.victims[name] = Process(work, self.root / f"{name}.log", self._env, self._worker_answers(name))
        if self._postgres:
            self.victims[POSTGRESQL] = Database(self._postgres)
        self.vital = [name for name in (SIMULATOR, POSTGRESQL, SERVER) if name in self.victims]
        """Without these nothing goes on; of the workers one is enough."""

    def start(self) -> None:
        """Start everything; the server first makes catalog and key, which the workers need."""
        for name in (SIMULATOR, SERVER, *self.victims):
            if not self.victims[name].running:
                self.victims[name].start()
                if name == SERVER:
                    self.wait_ready([SERVER])
        self.wait_ready(list(self.victims))

    def wait_ready(self, names: Sequence[str]) -> None:
        """Wait until all serve. Raises AssertionError for one that does not come up."""
        end = time.monotonic() + START_SECONDS
        while not self.are_ready(names):
            assert time.monotonic() < end, f"one of {', '.join(names)} does not come up: see the logs"
            time.sleep(0.05)

    def are_ready(self, names: Sequence[str]) -> bool:
        """Say whether all serve. Raises AssertionError when one ended by itself."""
        return all(self.victims[name].is_ready() for name in names)

    def end(self) -> None:
        """Kill what runs: nothing here needs a clean end."""
        for victim in self.victims.values():
            if victim.running:
                victim.kill()
        self._engine.dispose()

    def in_flight(self) -> list[InFlight] | None:
        """Return the operations that have not ended, read from the catalog itself; None when it cannot be read."""
        query = sa.text("SELECT id, kind, phase, worker FROM operations WHERE ended_at IS NULL ORDER BY created_at")
        try:
            with self._engine.connect() as connection:
                return [InFlight(*row) for row in connection.execute(query)]
        except sa.exc.DBAPIError:
            return None

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Return all tasks that the simulated system ever had, from its own store.

        It forgets the oldest ones in time, so this must be called now and then.
        """
        path = self.simulator.data_dir / "state.sqlite"
        with contextlib.suppress(sqlite3.OperationalError):
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=2)) as connection:
                rows = connection.execute("SELECT id, body FROM documents WHERE kind = 'task'").fetchall()
            self._tasks |= {key: json.loads(body) for key, body in rows}
        return self._tasks

    def settings(self) -> dict[str, Any]:
        """Return the settings of the system to add; its requests are repeated for as long as an outage may last."""
        return {
            "host": "127.0.0.1",
            "port": int(self.simulator.url.rpartition(":")[2]),
            "ca_file": self.simulator.ca_file,
            "file_server": "files1",
            "username": self.simulator.username,
            "password": self.simulator.password,
            "local_exports": str(self.simulator.data_dir / "access"),
            "retry_seconds": 60.0,
            "request_seconds": 10.0,
        }

    def _simulator_answers(self) -> bool:
        try:
            self.simulator.control("GET", "/settings")
        except (OSError, ControlFailedError):
            return False
        return True

    def _server_answers(self, pid: int) -> bool:
        try:
            return bool(json.loads((self.data_dir / "server.json").read_text())["pid"] == pid)
        except (OSError, ValueError):
            return False

    def _worker_answers(self, name: str) -> Callable[[int], bool]:
        query = sa.text("SELECT pid FROM workers WHERE name = :name").bindparams(name=name)

        def answers(pid: int) -> bool:
            try:
                with self._engine.connect() as connection:
                    return bool(connection.execute(query).scalar() == pid)
            except sa.exc.DBAPIError:
                return False

        return answers


@contextmanager
def running_world(options: Options) -> Iterator[World]:
    """Make a world in a directory of its own, and start it; the caller removes the directory."""
    root = options.keep or Path(tempfile.mkdtemp(prefix="snapkeep-chaos-"))
    root.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        postgres = None
        if options.store == "postgresql":
            require_binaries()
            postgres = Postgres(Path(tempfile.mkdtemp(prefix="snapkeep-chaos-postgres-", dir="/tmp")))
            stack.callback(postgres.close)
            stack.callback(_keep_log, postgres, root)
            postgres.start()
        world = World(root, options, postgres)
        stack.callback(world.end)
        try:
            world.start()
            yield world
        except BaseException as error:
            error.add_note(f"Data and logs: {root}")
            raise


def _keep_log(postgres: Postgres, root: Path) -> None:
    with contextlib.suppress(OSError):
        shutil.copy(postgres.directory / "log", root / "postgresql.log")


def _free_port() -> int:
    """Return a port below those that the kernel gives to outgoing connections: it is not lost over a restart."""
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
