"""Creating snapshots by the thousand, beside bare DBOS workflows of the same steps in the same run.

    python -m benchmarks.operations [--operations 1000] [--runs 3] [--only TEXT] [--fsync on]

Every creation is one POST, five polls of 0.2 s that find the task pending, one that finds its end, and one GET of the
snapshot, on the simulator over HTTPS. Ours: submitted by REST, recorded in the catalog, run by `snapkeep serve` or by
workers beside it. Bare: `bare_dbos.py`, with the same plug-in, limits and number of processes. Both are started anew
for each run, on a new simulator and a new database, and take turns. Time runs from the first submission to the end of
the last operation.

Printed are medians: rates, their ratio, CPU of server and workers for each operation (PostgreSQL and the simulator
apart), their resident memory at its peak, and the most operations that the simulator saw at once on one system.
The load average (`load`) tells whether the machine was busy with other things: then only CPU and limits mean something.
At the end: how much longer operations on one system take beside another one that hangs in every call.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from benchmarks import steady
from benchmarks.bare_dbos import Item, Job
from tests.support.postgres import Postgres, running_postgres

from snapkeep.cli.trust import trust_here
from snapkeep.simulators.kit.process import SimulatorProcess

Json = dict[str, Any]
ROOT = Path(__file__).parent.parent
SHARES = 10
"""Shares of each file server."""
SUBMITTERS = 4
READY_SECONDS = 60.0
LOOK_SECONDS = 0.5
GOAL = 0.8


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared."""

    store: str
    workers: int
    systems: int
    per_system: int
    at_once: int

    def __str__(self) -> str:
        return f"{self.store}, {self.workers} worker{'s'[: self.workers != 1]}, {self.systems} x {self.per_system}"


@dataclass(slots=True)
class Run:
    """What was measured."""

    rate: float
    cpu: float
    """Milliseconds for each operation, in server and workers."""
    database: float
    simulator: float
    memory: list[int]
    at_once: int
    submitted: float
    """Seconds from the first submission to the last."""


CASES = [
    Case("sqlite", 1, 5, 8, 64),
    Case("postgresql", 1, 5, 8, 64),
    Case("postgresql", 3, 5, 8, 64),
    Case("sqlite", 1, 5, 32, 128),
    Case("postgresql", 1, 5, 32, 128),
    Case("postgresql", 3, 5, 32, 128),
]


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--operations", type=int, default=1000)
    arguments.add_argument("--runs", type=int, default=3)
    arguments.add_argument("--only", default="", help="only cases whose name holds this text; 'hanging' is one, too")
    arguments.add_argument("--side", choices=("ours", "bare"), help="only one side: for profiling")
    arguments.add_argument("--fsync", choices=("on", "off"), default="on", help="of PostgreSQL")
    given = arguments.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapkeep-bench-")))
        bench = Bench(root, stack.enter_context(running_postgres(fsync=given.fsync == "on")), given.operations)
        print(_HEAD, flush=True)
        for case in CASES:
            if given.only in str(case):
                bench.compare(case, given.runs, [given.side] if given.side else ["ours", "bare"])
        if given.only in "hanging" and not given.side:
            for store in ("sqlite", "postgresql"):
                bench.beside_a_hanging_system(store, given.runs)


class Bench:
    def __init__(self, root: Path, postgres: Postgres, operations: int) -> None:
        self._root = root
        self._postgres = postgres
        self._operations = operations
        self._python_path = f"{ROOT / 'src'}:{steady.installed(root / 'plugin')}"
        self._number = 0

    def compare(self, case: Case, runs: int, sides: list[str]) -> None:
        """Run both sides in turn and print their medians."""
        found: dict[str, list[Run]] = {side: [] for side in sides}
        for number in range(runs):
            for side in sides if number % 2 == 0 else reversed(sides):
                run = self._ours(case) if side == "ours" else self._bare(case)
                found[side].append(run)
                told = f"{run.rate:.1f}/s, submitted in {run.submitted:.1f} s, load {os.getloadavg()[0]:.1f}"
                print(f"    {case}, {side}: {told}", file=sys.stderr)
                if run.at_once > case.per_system:
                    raise SystemExit(f"{case}: {side} ran {run.at_once} operations at once on one system")
        _report(case, found)

    # -- ours ----------------------------------------------------------------------------------------------------
    def _ours(self, case: Case) -> Run:
        with ExitStack() as stack:
            simulator = stack.enter_context(self._simulator(case.systems))
            server = stack.enter_context(self._snapkeep(case))
            systems = [server.add(f"files{number}", simulator) for number in range(case.systems)]
            assets = _mixed([server.discovered(name) for name in systems])
            wanted = [assets[number % len(assets)] for number in range(self._operations)]
            with self._watched(simulator, server.processes, case) as watch:
                began, submitted = server.submit(wanted)
                ended = server.ended(len(wanted))
            return watch.run(self._operations, ended - began, submitted - began)

    @contextmanager
    def _snapkeep(self, case: Case, **settings: str) -> Iterator[Snapkeep]:
        """Run a server, with workers where they are more than the server itself."""
        directory = self._directory("server")
        environment = self._environment(case) | settings
        alone = case.store == "sqlite"
        if not alone:
            environment["SNAPKEEP_DATABASE_URL"] = self._postgres.create_database()
        common = ["-m", "snapkeep"]
        with ExitStack() as stack:
            command = [*common, "serve", "--port", "0", "--data-dir", str(directory), *([] if alone else ["--no-work"])]
            server = stack.enter_context(_child(command, environment, directory.with_suffix(".log")))
            _until((directory / "server.json").exists, server)
            workers = []
            for number in range(0 if alone else case.workers):
                command = [*common, "worker", "--data-dir", str(directory), "--name", f"worker{number}"]
                log = directory.with_suffix(f".worker{number}.log")
                workers.append(stack.enter_context(_child(command, environment, log)))
            snapkeep = Snapkeep(directory, [server.pid, *(worker.pid for worker in workers)])
            _until(lambda: len(snapkeep.request("GET", "/workers")["data"]) > len(workers), server, *workers)
            yield snapkeep

    def _environment(self, case: Case) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SNAPKEEP_")}
        return kept | {
            "PYTHONPATH": self._python_path,
            "SNAPKEEP_OPERATIONS_PER_SYSTEM": str(case.per_system),
            "SNAPKEEP_OPERATIONS_AT_ONCE": str(case.at_once),
        }

    # -- bare ----------------------------------------------------------------------------------------------------
    def _bare(self, case: Case) -> Run:
        directory = self._directory("bare")
        alone = case.store == "sqlite"
        database = f"sqlite:///{directory}/engine.sqlite" if alone else self._postgres.create_database()
        with ExitStack() as stack:
            simulator = stack.enter_context(self._simulator(case.systems))
            settings = {f"files{number}": _settings(simulator, f"files{number}") for number in range(case.systems)}
            common: Json = {
                "database": database,
                "systems": settings,
                "per_system": case.per_system,
                "at_once": case.at_once,
                "submitters": SUBMITTERS,
            }
            jobs = [Job(name="serve", works=alone, submit=self._items(simulator), **common)]
            jobs += [Job(name=f"worker{n}", works=True, **common) for n in range(0 if alone else case.workers)]
            children = []
            for job in jobs:
                file = directory / f"{job.name}.json"
                file.write_bytes(msgspec.json.encode(job))
                command = ["-m", "benchmarks.bare_dbos", str(file)]
                child = stack.enter_context(_child(command, self._environment(case), file.with_suffix(".log")))
                _line(child)
                children.append(child)
            with self._watched(simulator, [child.pid for child in children], case) as watch:
                told = json.loads(_line(children[0], "go"))
            return watch.run(self._operations, told["ended"] - told["began"], told["submitted"] - told["began"])

    def _items(self, simulator: SimulatorProcess) -> list[Item]:
        shares = _mixed(
            [
                [(server["name"], share) for share in server["shares"] if share["synthetic"]]
                for server in simulator.control("GET", "/")["file_servers"]
            ]
        )
        chosen = [shares[number % len(shares)] for number in range(self._operations)]
        return [
            Item(system, share["extId"], share["name"], f"bare-{number:06d}")
            for number, (system, share) in enumerate(chosen)
        ]

    # -- one system hangs --------------------------------------------------------------------------------------------
    def beside_a_hanging_system(self, store: str, runs: int) -> None:
        """Print how much longer operations take while those on another system hang in every call."""
        case = Case(store, 1, 1, 8, 64)
        count = max(1, self._operations // 10)
        usual, beside = [], []
        for _ in range(runs):
            with ExitStack() as stack:
                simulators = [stack.enter_context(self._simulator(1)) for _ in range(2)]
                server = stack.enter_context(self._snapkeep(case))
                names = [server.add(f"system{number}", simulator) for number, simulator in enumerate(simulators)]
                good, bad = ([server.discovered(name)[0]] * count for name in names)
                began, _ = server.submit(good)
                usual.append(server.ended(count) - began)
                simulators[1].control("POST", "/faults", {"action": "hang", "path": "^/api/", "times": None})
                server.submit(bad)
                time.sleep(2)  # until it hangs in as many as it may
                began, _ = server.submit(good)
                beside.append(server.ended(2 * count, "system0") - began)
        ratio = statistics.median(beside) / statistics.median(usual)
        print(
            f"{store}: {count} operations in {statistics.median(usual):.1f} s; beside {count} on a system that "
            f"hangs in every call {statistics.median(beside):.1f} s: ratio {ratio:.2f} (at most 1.50)",
            flush=True,
        )

    # -- what both have in common --------------------------------------------------------------------------------
    @contextmanager
    def _simulator(self, systems: int) -> Iterator[SimulatorProcess]:
        directory = self._directory("simulator")
        names = [f"files{number}" for number in range(systems)]
        configuration = {
            "settings": {"task_seconds": steady.TASK_SECONDS, "max_snapshots_per_share": 1_000_000},
            "file_servers": [{"name": name} for name in names],
        }
        file = directory.with_suffix(".json")
        file.write_text(json.dumps(configuration))
        with SimulatorProcess(directory, arguments=["--config", str(file)]) as simulator:
            for name in names:
                body = {"file_server": name, "shares": SHARES, "snapshots_per_share": 0}
                simulator.control("POST", "/synthetic", body)
            yield simulator

    def _directory(self, name: str) -> Path:
        self._number += 1
        directory = self._root / f"{self._number}-{name}"
        directory.mkdir()
        return directory

    @contextmanager
    def _watched(self, simulator: SimulatorProcess, pids: list[int], case: Case) -> Iterator[Watch]:
        file = self._postgres.directory / "data" / "postmaster.pid"
        postgres = int(file.read_text().splitlines()[0]) if case.store == "postgresql" else None
        watch = Watch(simulator, pids, postgres)
        with watch.running():
            yield watch


class Snapkeep:
    """A server and its REST API."""

    def __init__(self, directory: Path, processes: list[int]) -> None:
        self.processes = processes
        address = json.loads((directory / "server.json").read_text())
        self._host = address["url"].removeprefix("https://")
        self._trust = trust_here(address)
        self._headers = {
            "Authorization": f"Bearer {(directory / 'token').read_text().strip()}",
            "Content-Type": "application/json",
        }
        self._local = threading.local()

    def request(self, method: str, path: str, body: Json | None = None) -> Any:
        """Send on a connection of this thread; not with the HTTP client of the command line, which costs more CPU."""
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPSConnection(self._host, timeout=60, context=self._trust)
        content = None if body is None else json.dumps(body)
        try:
            self._local.connection.request(method, f"/v1{path}", content, self._headers)
            answer = self._local.connection.getresponse()
        except http.client.RemoteDisconnected:  # it was idle for too long
            del self._local.connection
            return self.request(method, path, body)
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data)

    def add(self, name: str, simulator: SimulatorProcess) -> str:
        """Add the file server of that name, or the only one, and discover it."""
        servers = [item["name"] for item in simulator.control("GET", "/")["file_servers"]]
        file_server = name if name in servers else "files0"
        body = {"name": name, "plugin": steady.NAME, "settings": _settings(simulator, file_server)}
        self.request("POST", "/systems", body)
        operation = self.request("POST", f"/systems/{name}/discover")
        while operation["state"] in {"queued", "running"}:
            time.sleep(0.05)
            operation = self.request("GET", f"/operations/{operation['id']}")
        if operation["state"] != "succeeded":
            raise SystemExit(f"{name} was not discovered: {operation['error']}")
        return name

    def discovered(self, system: str) -> list[str]:
        """Return the ids of the shares of a system."""
        found = self.request("GET", f"/assets?system={system}")["data"]
        return [item["id"] for item in found if item["name"].startswith("synthetic")]

    def submit(self, assets: list[str]) -> tuple[float, float]:
        """Ask for a snapshot of each; return when the first was asked for and the last was taken on."""
        items = iter(assets)
        lock = threading.Lock()

        def some() -> None:
            while True:
                with lock:
                    asset = next(items, None)
                if asset is None:
                    return
                self.request("POST", f"/assets/{asset}/snapshots", {})

        began = time.time()
        with ThreadPoolExecutor(SUBMITTERS) as pool:
            for future in [pool.submit(some) for _ in range(SUBMITTERS)]:
                future.result()
        return began, time.time()

    def ended(self, expected: int, system: str = "") -> float:
        """Wait for the end of all creations; return when the last one ended. They must have succeeded."""
        of = f"&system={system}" if system else ""
        while self.request("GET", f"/operations?limit=1&state=queued&state=running{of}")["data"]:
            time.sleep(LOOK_SECONDS)
        states: Counter[str] = Counter()
        last, after = 0.0, ""
        while True:
            page = self.request("GET", f"/operations?limit=1000{of}&after={after}")
            for item in page["data"]:
                if item["kind"] == "create":
                    states[item["state"]] += 1
                    last = max(last, datetime.fromisoformat(item["ended_at"]).timestamp())
            if (after := page["next"]) is None:
                break
        if states != {"succeeded": expected}:
            raise SystemExit(f"not all of {expected} operations succeeded: {dict(states)}")
        return last


@dataclass(slots=True)
class Watch:
    """Looks at the processes, and at the simulator's log of requests, while the work goes on."""

    simulator: SimulatorProcess
    processes: list[int]
    postgres: int | None
    _log: list[Json] = field(default_factory=list)
    _read: int = 0
    _spent: dict[str, float] = field(default_factory=dict)
    _memory: list[int] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[None]:
        for pid in self.processes:
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
        ended = threading.Event()

        def follow() -> None:
            while not ended.wait(2.0):
                self._read_log()

        self._read = self.simulator.control("GET", "/requests?after=999999999")["count"]
        before = self._cpu()
        thread = threading.Thread(target=follow)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self._spent = {name: value - before[name] for name, value in self._cpu().items()}
        self._memory = [_memory(pid) for pid in self.processes]
        self._read_log()

    def run(self, operations: int, seconds: float, submitted: float) -> Run:
        each = {name: value * 1000 / operations for name, value in self._spent.items()}
        return Run(
            rate=operations / seconds,
            cpu=each["processes"],
            database=each["postgres"],
            simulator=each["simulator"],
            memory=self._memory,
            at_once=self._at_once(operations),
            submitted=submitted,
        )

    def _read_log(self) -> None:
        found = self.simulator.control("GET", f"/requests?after={self._read}")["requests"]
        self._log += found
        self._read = max([self._read, *(item["n"] for item in found)])

    def _at_once(self, operations: int) -> int:
        """Return the most operations at once on a system: from the POST of a snapshot to the GET that reads it."""
        now: Counter[str] = Counter()
        asked = most = 0
        for item in sorted(self._log, key=lambda item: float(item["time"])):
            path = item["path"].split("/")
            if "snapshots" not in path or item["status"] >= 300:
                continue
            system = path[path.index("file-servers") + 1]
            asked += item["method"] == "POST"
            now[system] += 1 if item["method"] == "POST" else -1
            most = max(most, now[system])
        if asked != operations or any(now.values()):
            raise SystemExit(f"the simulator took {asked} of {operations} snapshots, {sum(now.values())} not read")
        return most

    def _cpu(self) -> dict[str, float]:
        return {
            "processes": sum(_cpu(pid) for pid in self.processes),
            "simulator": _cpu(self.simulator.pid),
            "postgres": _cpu_with_children(self.postgres) if self.postgres else 0.0,
        }


_HEAD = (
    f"{'store, workers, systems x limit':<32} {'ours':>7} {'bare':>7} {'ratio':>6}  "
    f"{'CPU ms/op':>13}  {'PostgreSQL':>12}  {'simulator':>11}  {'most at once':>12}  memory MiB: ours; bare"
)


def _report(case: Case, found: dict[str, list[Run]]) -> None:
    def median(name: str) -> list[float]:
        return [statistics.median(getattr(run, name) for run in runs) for runs in found.values()]

    rates = median("rate")
    ratio = f"{rates[0] / rates[-1]:.2f}" + (" " if rates[0] / rates[-1] >= GOAL else "!")
    print(
        f"{case!s:<32} {rates[0]:>5.1f}/s {rates[-1]:>5.1f}/s {ratio:>7} "
        f"{_pair(median('cpu')):>13}  {_pair(median('database')):>12}  {_pair(median('simulator')):>11}  "
        f"{' / '.join(str(max(run.at_once for run in runs)) for runs in found.values()):>12}  "
        + "; ".join(" + ".join(str(size // 2**20) for size in runs[-1].memory) for runs in found.values()),
        flush=True,
    )


def _pair(values: list[float]) -> str:
    return " / ".join(f"{value:.1f}" for value in values)


def _mixed(groups: list[list[Any]]) -> list[Any]:
    """Return the items of all groups in turn."""
    return [item for items in zip(*groups, strict=True) for item in items]


def _settings(simulator: SimulatorProcess, file_server: str) -> Json:
    return {
        "host": "127.0.0.1",
        "port": int(simulator.url.rpartition(":")[2]),
        "ca_file": simulator.ca_file,
        "file_server": file_server,
        "api_key": simulator.api_key,
    }


@contextmanager
def _child(arguments: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as errors:
        child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield child
    except BaseException:
        print(f"--- {' '.join(arguments[:4])}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)
        child.kill()
        child.communicate()


def _line(child: subprocess.Popen[str], ask: str = "") -> str:
    """Return the next line that a child writes, after asking for it."""
    if child.stdin is None or child.stdout is None:
        raise RuntimeError("the child was started without pipes")
    if ask:
        child.stdin.write(f"{ask}\n")
        child.stdin.flush()
    if not (line := child.stdout.readline()):
        raise SystemExit("a child ended early")
    return line


def _until(truth: Any, *children: subprocess.Popen[str]) -> None:
    end = time.monotonic() + READY_SECONDS
    while not truth():
        if time.monotonic() > end or any(child.poll() is not None for child in children):
            raise SystemExit("a child is not ready")
        time.sleep(0.05)


# -- what the kernel says ----------------------------------------------------------------------------------------------
def _times(pid: int) -> list[float]:
    """Return the CPU seconds of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, child_user, child_system = (int(value) / os.sysconf("SC_CLK_TCK") for value in fields[11:15])
    return [user + system, child_user + child_system]


def _cpu(pid: int) -> float:
    return _times(pid)[0]


def _cpu_with_children(pid: int) -> float:
    total = sum(_times(pid))
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError):
            total += _cpu(int(child))
    return total


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmHWM")


if __name__ == "__main__":
    main()
