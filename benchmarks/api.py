"""The REST API beside the same SQL: what a request costs that is no database.

    python -m benchmarks.api [--assets 100000] [--requests 300] [--streams 500] [--seconds 20] [--store sqlite] [--tls]

Three requests, one after another on one connection: 50 of so many assets with filters and an order, the start of an
operation (a queue that nobody serves: it is recorded, not run), and reading one. Their floors, in the same run and in
turn with them: the same SQL by the catalog's own methods, audit log included, through the same driver as in the server,
and of what only reads, the very statements by the bare driver (sqlite3, psycopg); and an answer of the same server that
needs neither database nor token (`/health/live`): HTTP alone. Medians, and ratios to the first two; `!` marks one of
more than 5. The CPU of the server for each request means something on a busy machine, too.

Then so many streams of events are open, half of them of one operation each and half of all, once while nothing happens
and once while ten operations a second begin: CPU of the server in percent of one core, and its resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import itertools
import json
import os
import signal
import sqlite3
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import event
from tests.support.postgres import running_postgres

from snapkeep.catalog.audit_chain import Entry, Outcome
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.database_url import sqlite_url
from snapkeep.catalog.paging import Paging
from snapkeep.model.assets import Asset, AssetKind, Capability

Json = dict[str, Any]
Statements = list[tuple[str, Any]]
GOAL = 5.0
ROOT = Path(__file__).parent.parent
SYSTEM = "files1"
BATCH = 5000
PAGE = f"/assets?system={SYSTEM}&kind=share&q=share-1&sort=-name&limit=50"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--assets", type=int, default=100_000)
    arguments.add_argument("--requests", type=int, default=300)
    arguments.add_argument("--streams", type=int, default=500)
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--store", choices=("sqlite", "postgresql"), action="append")
    arguments.add_argument("--tls", action="store_true", help="over HTTPS")
    given = arguments.parse_args()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapkeep-bench-")))
        for store in given.store or ("sqlite", "postgresql"):
            url = sqlite_url(root / store / "catalog.sqlite")
            env = {}
            if store == "postgresql":
                cluster = stack.enter_context(running_postgres(fsync=True))
                url = env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
            with serving(root / store, env, tls=given.tls) as server:
                print(
                    f"{store}, {given.assets:,} assets, {'HTTPS' if given.tls else 'HTTP'}, "
                    f"medians of {given.requests} requests, load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
                asyncio.run(compare(server, url, given.assets, given.requests))
                streams(server, given.streams, given.seconds)


# -- a server ----------------------------------------------------------------------------------------------------------
class Server:
    """A server, and one connection to it."""

    def __init__(self, directory: Path, pid: int) -> None:
        self.pid = pid
        self.key = base64.b64decode((directory / "secret.key").read_bytes())
        told = json.loads((directory / "server.json").read_text())
        scheme, _, self.host = told["url"].partition("://")
        self.trust = ssl.create_default_context(cafile=told["ca_file"]) if scheme == "https" else None
        self.token = (directory / "token").read_text().strip()
        self._connection = self.connect()

    def connect(self) -> http.client.HTTPConnection:
        """Return another connection."""
        if self.trust:
            return http.client.HTTPSConnection(self.host, timeout=60, context=self.trust)
        return http.client.HTTPConnection(self.host, timeout=60)

    def request(self, method: str, path: str, body: Json | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path if path.startswith("/health") else f"/v1{path}", content, headers)
            answer = self._connection.getresponse()
        except ConnectionError:  # it was idle for too long
            self._connection = self.connect()
            return self.request(method, path, body)
        data = answer.read()
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {data.decode()}")
        return json.loads(data)


@contextmanager
def serving(directory: Path, more: dict[str, str], *, tls: bool) -> Iterator[Server]:
    directory.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("SNAPKEEP_")} | more
    command = [sys.executable, "-m", "snapkeep", "serve", "--port", "0", "--data-dir", str(directory)]
    with directory.with_suffix(".log").open("w") as log:
        child = subprocess.Popen([*command, *([] if tls else ["--no-tls"])], env=env, stdout=log, stderr=log, cwd=ROOT)
    try:
        end = time.monotonic() + 60
        while not (directory / "server.json").exists():
            if child.poll() is not None or time.monotonic() > end:
                raise SystemExit(directory.with_suffix(".log").read_text())
            time.sleep(0.05)
        yield Server(directory, child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(20)


# -- requests beside statements ----------------------------------------------------------------------------------------
async def compare(server: Server, url: str, assets: int, requests: int) -> None:
    settings = {"host": "127.0.0.1", "file_server": "x", "api_key": "k"}
    body = {"name": SYSTEM, "plugin": "nutanix-files", "settings": settings, "queue": "nobody"}
    server.request("POST", "/systems", body)
    async with open_catalog(url, server.key) as catalog:
        await fill(catalog, assets)
        if url.startswith("postgresql"):
            async with catalog.database.engine.begin() as connection:
                await connection.exec_driver_sql("ANALYZE")
        page = server.request("GET", PAGE)["data"]
        if len(page) != 50:
            raise SystemExit(f"{len(page)} of 50 assets were found")
        asset = page[0]["id"]
        operation = server.request("POST", f"/assets/{asset}/snapshots", {})["id"]
        listed = await recorded(catalog, lambda: list_page(catalog))
        read = await recorded(catalog, lambda: catalog.operations.get(operation))
        with closing_driver(url) as run:
            measured = Measured(server.pid, requests, lambda: server.request("GET", "/health/live"))
            await measured.compare(
                "list 50, filter and sort",
                lambda: server.request("GET", PAGE),
                lambda: run(listed),
                lambda: list_page(catalog),
            )
            await measured.compare(
                "start an operation",
                lambda: server.request("POST", f"/assets/{asset}/snapshots", {}),
                None,
                lambda: start(catalog, asset),
            )
            path = f"/operations/{operation}"
            await measured.compare(
                "read an operation",
                lambda: server.request("GET", path),
                lambda: run(read),
                lambda: catalog.operations.get(operation),
            )


async def fill(catalog: Catalog, count: int) -> None:
    [system] = await catalog.systems.find()
    for begin in range(0, count, BATCH):
        batch = [
            Asset(
                id=f"{number:08}",
                kind=AssetKind.SHARE if number % 2 else AssetKind.FILE_SYSTEM,
                name=f"share-{number % 100}-{number:06}",
                capabilities=frozenset({Capability.CREATE, Capability.DELETE, Capability.EXPORT}),
            )
            for number in range(begin, min(begin + BATCH, count))
        ]
        await catalog.inventory.record_batch(system.id, batch, [], seen_by="benchmark")


async def list_page(catalog: Catalog) -> None:
    found = await catalog.inventory.assets(SYSTEM, part="share-1", kind=AssetKind.SHARE, paging=Paging("-name", "", 50))
    await catalog.identities.labels_of(item.id for item in found)


async def start(catalog: Catalog, asset_id: str) -> None:
    """Do to the catalog what the start of an operation does."""
    now, row = datetime.now(UTC), str(uuid.uuid4())
    entry = Entry(
        actor="benchmark", actor_kind="local", source="127.0.0.1", request_id=row, action="snapshot.create",
        subject="x", outcome=Outcome.ASKED, status=None, detail={},
    )  # fmt: skip
    await catalog.audit.append(entry)
    asset = await catalog.inventory.asset(asset_id)
    system = await catalog.systems.get(asset.system_id)
    await catalog.operations.add(
        operation_id=row, kind="create", system_id=system.id, system_name=system.name, queue="nobody", target="x",
        request={"asset_id": asset.id, "name": row}, requester="benchmark", exclusive=None, now=now, asset_id=asset.id,
    )  # fmt: skip
    await catalog.audit.append(entry)


async def recorded(catalog: Catalog, ask: Callable[[], Any]) -> Statements:
    """Return the statements that reading something makes, as the driver gets them."""
    found: Statements = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        found.append((statement, parameters))

    engine = catalog.database.connect().engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    await ask()
    event.remove(engine, "before_cursor_execute", note)
    return found


@contextmanager
def closing_driver(url: str) -> Iterator[Callable[[Statements], None]]:
    """Yield what runs statements on a connection of the bare driver."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.partition("///")[2], isolation_level=None)
    else:
        connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)

    def run(statements: Statements) -> None:
        for statement, parameters in statements:
            connection.execute(statement, parameters).fetchall()

    try:
        yield run
    finally:
        connection.close()


class Measured:
    """Times requests and their floors in turn, and prints medians."""

    def __init__(self, pid: int, count: int, empty: Callable[[], Any]) -> None:
        self._pid = pid
        self._count = count
        self._empty = empty

    async def compare(
        self, what: str, request: Callable[[], Any], bare: Callable[[], Any] | None, own: Callable[[], Awaitable[Any]]
    ) -> None:
        """`bare`: the statements by the bare driver; `own`: by the catalog's methods, as the server sends them."""
        times: dict[str, list[float]] = {"request": [], "bare": [], "own": [], "empty": []}
        spent = 0.0
        for _ in range(self._count):
            before, began = cpu(self._pid), time.perf_counter()
            request()
            times["request"].append(time.perf_counter() - began)
            spent += cpu(self._pid) - before
            began = time.perf_counter()
            self._empty()
            times["empty"].append(time.perf_counter() - began)
            began = time.perf_counter()
            await own()
            times["own"].append(time.perf_counter() - began)
            if bare is not None:
                began = time.perf_counter()
                bare()
                times["bare"].append(time.perf_counter() - began)
        found = {name: statistics.median(values) * 1000 for name, values in times.items() if values}
        text = f"  {what:<25} {found['request']:>7.2f} ms, server CPU {spent * 1000 / self._count:>6.2f} ms"
        for name, title in (("own", "catalog"), ("bare", "bare SQL")):
            if name in found:
                ratio = found["request"] / found[name]
                text += f"; {title} {found[name]:>7.2f} ms, ratio {ratio:>5.1f}{' ' if ratio <= GOAL else '!'}"
        print(f"{text}; HTTP alone {found['empty']:>5.2f} ms", flush=True)


# -- streams -----------------------------------------------------------------------------------------------------------
def streams(server: Server, count: int, seconds: float) -> None:
    before, without = memory(server.pid), share(server.pid, seconds, lambda: None, 1.0)
    page = server.request("GET", "/assets?limit=1")["data"]
    path = f"/assets/{page[0]['id']}/snapshots"
    own = itertools.cycle([server.request("POST", path, {})["id"] for _ in range(min(count, 50))])
    opened, told = [], [0]
    ended = threading.Event()
    for number in range(count):
        connection = server.connect()
        wanted = f"/v1/operations/{next(own)}/events" if number % 2 else "/v1/operations/events?kind=create"
        connection.request("GET", wanted, headers={"Authorization": f"Bearer {server.token}"})
        opened.append(connection)

    def listen(connection: http.client.HTTPConnection) -> None:
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            answer = connection.getresponse()
            while not ended.is_set() and (line := answer.readline()):
                told[0] += line.startswith(b"data")

    threads = [threading.Thread(target=listen, args=(connection,), daemon=True) for connection in opened]
    for thread in threads:
        thread.start()
    while told[0] < count:  # each is told at once how things stand
        time.sleep(0.1)
    time.sleep(5)
    quiet = share(server.pid, seconds, lambda: None, 1.0)
    first = told[0]
    busy = share(server.pid, seconds, lambda: server.request("POST", path, {}), 0.1)
    after = memory(server.pid)
    print(
        f"  {count} streams: {quiet:.1f} % CPU while nothing happens ({without:.1f} % without them), "
        f"{busy:.1f} % while ten operations a second begin "
        f"({(told[0] - first) / seconds:,.0f} events/s); memory {before / 2**20:.0f} -> {after / 2**20:.0f} MiB "
        f"({(after - before) / count / 1024:.0f} KiB a stream)",
        flush=True,
    )
    ended.set()
    for connection in opened:
        with contextlib.suppress(OSError):
            if connection.sock:
                connection.sock.close()


def share(pid: int, seconds: float, do: Callable[[], Any], pause: float) -> float:
    """Return the CPU of a process in percent of one core, while `do` is done again and again."""
    before, began = cpu(pid), time.monotonic()
    while time.monotonic() - began < seconds:
        do()
        time.sleep(pause)
    return 100 * (cpu(pid) - before) / (time.monotonic() - began)


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmRSS")


if __name__ == "__main__":
    main()
