"""Metrics: what a scrape shows is what was done."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.server.test_health import hidden_table
from tests.support.installation import Installation, Json, installed, until
from tests.support.postgres import Postgres

from snapkeep import __version__
from snapkeep.model.errors import Conflict, VendorError
from snapkeep.operations import metrics
from snapkeep.server.metrics import KEPT_SECONDS, serve_metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture(scope="module")
def running_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("metrics")) as installation:
        yield installation


@pytest.fixture
def own(running_own: Installation) -> Installation:
    running_own.reset()
    return running_own


class Scrape:
    """What one scrape showed."""

    def __init__(self, text: str) -> None:
        self._samples: Samples = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                assert key not in self._samples, f"{key} is there twice"
                self._samples[key] = sample.value

    def value(self, name: str, **labels: str) -> float:
        """Return one value; 0 where nothing was counted yet."""
        return self._samples.get((f"snapkeep_{name}", tuple(sorted(labels.items()))), 0.0)

    def all(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return {labels: value for (found, labels), value in self._samples.items() if found == f"snapkeep_{name}"}


def scrape(installation: Installation) -> Scrape:
    token = (installation.server.data_dir / "token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    answer = httpx2.get(f"{installation.rest.url}/metrics", headers=headers, verify=installation.trust)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape(answer.text)


def restart(installation: Installation) -> None:
    """Begin without counts, and without figures of the catalog that were kept."""
    installation.server.end(signal.SIGTERM)
    installation.server.start()


def test_metrics_need_the_token(own: Installation) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        answer = httpx2.get(f"{own.rest.url}/metrics", headers=headers, verify=own.trust)
        assert (answer.status_code, answer.json()["code"]) == (401, "authentication_failed")


def test_ends_durations_and_waits_are_those_of_the_operations(own: Installation) -> None:
    before = scrape(own)
    own.simulator.control("PATCH", "/settings", {"task_seconds": 0.7})
    for name in ("one", "two"):
        own.snapshot(name)
    fault = {"action": "task", "task": "fail", "method": "POST", "route": "/snapshots"}
    own.simulator.control("POST", "/faults", fault)
    with pytest.raises(VendorError):
        own.snapshot("three")
    own.simulator.control("PATCH", "/settings", {"task_seconds": 2})
    cancelled = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(lambda: own.rest.request("GET", f"/operations/{cancelled['id']}")["phase"] == "taking the snapshot")
    own.rest.request("POST", f"/operations/{cancelled['id']}/cancel")
    own.rest.wait(cancelled)
    total = sum(before.all("operations_ended_total").values())
    after: Scrape = until(lambda: sum((now := scrape(own)).all("operations_ended_total").values()) >= total + 4 and now)

    def grown(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    ended = {"kind": "create", "code": ""}
    assert grown("operations_ended_total", **ended, end="succeeded") == 2
    assert grown("operations_ended_total", **ended, end="cancelled") == 1
    assert grown("operations_ended_total", kind="create", end="failed", code="vendor_error") == 1
    assert sum(after.all("operations_ended_total").values()) == total + 4
    creates = [item for item in own.rest.request("GET", "/operations")["data"] if item["kind"] == "create"][:4]
    assert grown("operation_duration_seconds_count", kind="create") == 4
    seconds = sum(_between(item["started_at"], item["ended_at"]) for item in creates)
    assert grown("operation_duration_seconds_sum", kind="create") == pytest.approx(seconds, abs=0.01)
    assert grown("operation_duration_seconds_bucket", kind="create", le="0.5") == 0
    assert grown("operation_duration_seconds_bucket", kind="create", le="21600.0") == 4
    assert grown("operation_wait_seconds_count", kind="create") == 4
    waited = sum(_between(item["created_at"], item["started_at"]) for item in creates)
    assert grown("operation_wait_seconds_sum", kind="create") == pytest.approx(waited, abs=0.01)
    assert after.value("build_info", version=__version__) == 1


def _between(begin: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


def test_open_operations_and_the_longest_wait_are_shown(own: Installation) -> None:
    one, two = own.snapshot("one"), own.snapshot("two")
    own.simulator.control("PATCH", "/settings", {"task_seconds": 4})
    restart(own)
    pair = [own.rest.request("DELETE", f"/snapshots/{item['id']}") for item in (one, two)]  # one runs, one waits

    def states() -> dict[str, Json]:
        now = [own.rest.request("GET", f"/operations/{item['id']}") for item in pair]
        return {item["state"]: item for item in now}

    until(lambda: "running" in states())
    time.sleep(1.0)
    shown = scrape(own)
    assert shown.value("operations", state="running", queue="default") == 1
    assert shown.value("operations", state="queued", queue="default") == 1
    assert 1.0 <= shown.value("oldest_queued_seconds") < 4.0
    both = states()
    own.rest.request("POST", f"/operations/{both['queued']['id']}/cancel")
    own.rest.wait(both["running"])
    again = scrape(own)  # figures of the catalog are kept for some seconds, what the process counts is not
    assert again.value("operations", state="running", queue="default") == 1
    assert again.value("operations_ended_total", kind="delete", end="cancelled", code="") == 1
    assert again.value("operation_duration_seconds_count", kind="delete") == 1  # what never began took no time
    restart(own)
    later = scrape(own)
    assert {value for _, value in later.all("operations").items()} == {0}
    assert later.value("oldest_queued_seconds") == 0


def test_rows_exports_and_size_are_those_of_the_catalog(own: Installation) -> None:
    snapshot = own.snapshot()
    host = {"host": {"name": "here", "address": "127.0.0.1"}}
    done = own.run("POST", f"/snapshots/{snapshot['id']}/exports", host)
    own.run("POST", "/change-lists", {"base_id": None, "new_id": snapshot["id"]})
    restart(own)
    shown = scrape(own)
    assert shown.value("catalog_up") == 1
    with closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite")) as catalog:
        for table in ("systems", "assets", "snapshots", "exports", "operations", "change_lists"):
            [(rows,)] = catalog.execute(f"SELECT count(*) FROM {table}")
            assert rows > 0
            assert shown.value("catalog_rows", table=table) == rows, table
        [(size,)] = catalog.execute("SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()")
    assert shown.value("catalog_bytes") == size
    assert shown.value("exports_in_force") == 1
    own.run("DELETE", f"/exports/{done['result']['export_id']}")
    restart(own)
    assert scrape(own).value("exports_in_force") == 0


def test_the_age_of_heartbeats_is_shown(own: Installation) -> None:
    with closing(sqlite3.connect(own.server.data_dir / "catalog.sqlite", timeout=30)) as catalog, catalog:
        columns = [row[1] for row in catalog.execute("PRAGMA table_info(workers)")]
        [row] = catalog.execute("SELECT * FROM workers WHERE name = 'serve'")
        catalog.execute("DELETE FROM workers WHERE name = 'silent'")
        values = dict(zip(columns, row, strict=True)) | {"name": "silent", "incarnation": "other"}
        catalog.execute(f"INSERT INTO workers VALUES ({', '.join('?' * len(columns))})", list(values.values()))
        shifted = "strftime('%Y-%m-%d %H:%M:%f', 'now', '-100 seconds') || '000'"
        catalog.execute(f"UPDATE workers SET heartbeat_at = {shifted} WHERE name = 'silent'")
    restart(own)
    ages = {dict(labels)["worker"]: age for labels, age in scrape(own).all("worker_heartbeat_age_seconds").items()}
    assert ages.keys() == {"serve", "silent"}
    assert 0 <= ages["serve"] < 10
    assert 100 <= ages["silent"] < 120


def test_retries_are_counted_by_reason(own: Installation) -> None:
    before = scrape(own)
    own.simulator.control("PATCH", "/settings", {"task_seconds": 1.5})
    operation = own.rest.request("POST", f"/assets/{own.asset()['id']}/snapshots", json={})
    until(lambda: "taking" in own.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    own.simulator.kill()
    until(lambda: "cannot be reached" in own.rest.request("GET", f"/operations/{operation['id']}")["phase"])
    during = scrape(own)
    own.simulator.start()
    assert own.rest.wait(operation)["state"] == "succeeded"
    for reason in ("system_unavailable", "request_repeated"):
        assert during.value("retries_total", reason=reason) > before.value("retries_total", reason=reason), reason
    assert during.value("retries_total", reason="database_away") == 0
    assert during.value("takeovers_total") == 0


def test_without_a_database_the_rest_is_still_shown(own: Installation) -> None:
    catalog = own.server.data_dir / "catalog.sqlite"
    counted = scrape(own).all("operations_ended_total")
    with hidden_table(catalog, "change_lists"):
        time.sleep(KEPT_SECONDS + 0.2)
        shown = scrape(own)
        assert shown.value("catalog_up") == 0
        assert shown.all("operations") == {}
        assert shown.all("operations_ended_total") == counted
    assert scrape(own).value("catalog_up") == 1  # a failure is not kept


@pytest.fixture
def on_postgres(tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installation]:
    """An installation on PostgreSQL whose workers die quickly."""
    url = postgres.create_database()
    monkeypatch.setenv("SNAPKEEP_DATABASE_URL", url)
    monkeypatch.setenv("SNAPKEEP_TAKEOVER_SECONDS", "3")
    with installed(tmp_path) as installation:
        installation.add_partner_server()
        yield installation
    postgres.drop_database(url)


@contextmanager
def worker(installation: Installation, name: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a worker of the queue `dmz`; yield it and the port of its metrics."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    command = [sys.executable, "-m", "snapkeep", "worker", "--name", name, "--queues", "dmz"]
    command += ["--data-dir", str(installation.server.data_dir), "--metrics-port", str(port), "--log-format", "json"]
    with log.open("ab") as file:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        until(lambda: '"ready"' in log.read_text(), 30)
        yield child, port
    finally:
        child.kill()
        child.wait(20)


def test_a_takeover_is_counted_and_told_once(on_postgres: Installation, tmp_path: Path) -> None:
    def counts(port: int) -> Scrape:
        return Scrape(httpx2.get(f"http://127.0.0.1:{port}/metrics").text)

    body = {"name": "files1", "plugin": "nutanix-files", "settings": on_postgres.settings(), "queue": "dmz"}
    on_postgres.rest.request("POST", "/systems", json=body)
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    with worker(on_postgres, "first", logs[0]) as (child, port):
        on_postgres.discover()
        assert counts(port).value("operations_ended_total", kind="discover", end="succeeded", code="") == 1
        on_postgres.simulator.control("PATCH", "/settings", {"task_seconds": 2})
        create = on_postgres.rest.request("POST", f"/assets/{on_postgres.asset()['id']}/snapshots", json={})
        until(lambda: "taking" in on_postgres.rest.request("GET", f"/operations/{create['id']}")["phase"])
        child.kill()
        with worker(on_postgres, "second", logs[1]) as (_, other):
            assert on_postgres.rest.wait(create)["state"] == "succeeded"
            ended = {"kind": "create", "end": "succeeded", "code": ""}
            until(lambda: counts(other).value("operations_ended_total", **ended) == 1)
            assert counts(other).value("operation_wait_seconds_count", kind="create") == 0  # the first one saw that
            assert counts(other).value("takeovers_total") + scrape(on_postgres).value("takeovers_total") == 1
            assert scrape(on_postgres).value("operations_ended_total", **ended) == 0
            restart(on_postgres)
            shown = scrape(on_postgres)
            ages = {dict(labels)["worker"]: age for labels, age in shown.all("worker_heartbeat_age_seconds").items()}
            assert ages.keys() == {"serve", "first", "second"}
            assert ages["second"] < 3 < ages["first"]
            assert shown.value("operations", state="queued", queue="dmz") == 0
            assert shown.value("catalog_bytes") > 100_000
    told = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    mine = [line for line in told if line.get("operation") == create["id"]]
    assert [(line["event"], line["worker"]) for line in mine if line["event"].startswith("operation begun")] == [
        ("operation begun", "first")
    ]
    assert [line["worker"] for line in mine if line["event"] == "operation ended"] == ["second"]


def test_a_worker_without_api_serves_its_counts_on_loopback() -> None:
    reason = {"reason": "database_away"}
    before = metrics.REGISTRY.get_sample_value("snapkeep_retries_total", reason)
    assert before is not None
    metrics.retried("database_away")
    with serve_metrics(0) as port:
        shown = Scrape(httpx2.get(f"http://127.0.0.1:{port}/metrics").text)
        assert shown.value("build_info", version=__version__) == 1
        assert shown.value("retries_total", **reason) == before + 1
        assert shown.all("retries_total").keys() == {
            (("reason", reason),) for reason in ("system_unavailable", "request_repeated", "database_away")
        }
        listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        assert f"0100007F:{port:04X}" in listening
        assert f"00000000:{port:04X}" not in listening
        with pytest.raises(Conflict, match="Cannot serve metrics"), serve_metrics(port):
            pass
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{port}/metrics")
