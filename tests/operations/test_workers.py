"""Several workers on one PostgreSQL: work is shared out, taken over, and done once; names, keys and queues."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation, Ran, Worker, installed, until
from tests.support.postgres import Postgres

from snapkeep.cli.serve import run_worker
from snapkeep.model.errors import InvalidInput
from snapkeep.simulators.kit.process import SimulatorProcess

Json = dict[str, Any]
TAKEOVER = 3.0
NAMES = ("w1", "w2", "w3")
PER_SYSTEM, AT_ONCE = 3, 2


@pytest.fixture(scope="module")
def running(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(
        tmp_path_factory.mktemp("workers"),
        len(NAMES),
        SNAPKEEP_DATABASE_URL=postgres.create_database(),
        SNAPKEEP_TAKEOVER_SECONDS=str(TAKEOVER),
        SNAPKEEP_OPERATIONS_PER_SYSTEM=str(PER_SYSTEM),
        SNAPKEEP_OPERATIONS_AT_ONCE=str(AT_ONCE),
    ) as installation:
        yield installation


@pytest.fixture
def several(running: Installation) -> Installation:
    """Three living workers; the file server is there under two names, `files1` and `again`."""
    for name in NAMES:
        if not running.workers[name].running:
            running.workers[name].start()
    until(lambda: all(running.worker(name)["state"] == "alive" for name in NAMES), 20)
    running.reset()
    running.add_system("again")
    running.discover("again")
    return running


def slow(installation: Installation, seconds: float) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": seconds})


def creates(installation: Installation, count: int, *systems: str) -> list[Json]:
    return [installation.ask_create(system=name) for name in systems or ["files1"] for _ in range(count)]


def all_run(installation: Installation, begun: list[Json]) -> list[Json]:
    """Return the operations, once each waits for its task on the system."""

    def running() -> list[Json]:
        found = [installation.operation(item) for item in begun]
        return found if all(item["phase"] == "taking the snapshot" for item in found) else []

    return list(until(running, 20))


def made_once(installation: Installation, begun: list[Json]) -> list[Json]:
    """Wait for the end of creates; each has made one snapshot. Return the operations as they ended."""
    done = [installation.wait(item) for item in begun]
    names = [item["result"]["snapshot"].partition("@")[2] for item in done]
    assert sorted(item["name"] for item in installation.vendor_snapshots()) == sorted(names)
    return done


# -- shared out ------------------------------------------------------------------------------------------------------
def test_work_is_shared_out_within_both_limits(several: Installation) -> None:
    slow(several, 1.0)
    begun = creates(several, 6, "files1", "again")
    most: dict[str, Counter[str]] = {"system": Counter(), "worker": Counter()}

    def ended() -> bool:
        found = list(several.rest.request("GET", "/operations", params={"limit": 100})["data"])
        for key, seen in most.items():
            now = Counter(str(item[key]) for item in found if item["state"] == "running")
            seen |= now  # noqa: PLW2901
            most[key] = seen
        return all(item["ended_at"] for item in found)

    until(ended, 40)
    made_once(several, begun)
    assert most["system"] == {"files1": PER_SYSTEM, "again": PER_SYSTEM}
    assert most["worker"] == dict.fromkeys(NAMES, AT_ONCE)


def test_a_system_that_hangs_holds_up_no_other(several: Installation, tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path / "second") as second:
        port, ca = int(second.url.rpartition(":")[2]), second.ca_file
        several.add_system("hanging", port=port, ca_file=ca, username=second.username, password=second.password)
        several.discover("hanging")
        usual = time.monotonic()
        made_once(several, creates(several, 3))
        usual = time.monotonic() - usual
        second.control("POST", "/faults", {"action": "hang", "times": None})
        hanging = creates(several, PER_SYSTEM, "hanging")
        until(lambda: all(several.operation(item)["state"] == "running" for item in hanging))
        begin = time.monotonic()
        for item in creates(several, 3):
            several.wait(item)
        assert time.monotonic() - begin < 1.5 * usual + 1.0
        assert all(several.operation(item)["ended_at"] is None for item in hanging)
        second.control("DELETE", "/faults")
        assert {several.wait(item)["state"] for item in hanging} == {"succeeded"}


# -- taken over ------------------------------------------------------------------------------------------------------
def test_what_a_killed_worker_did_is_taken_over_and_made_once(several: Installation) -> None:
    slow(several, 2.0)
    begun = creates(several, 3)
    victim = all_run(several, begun)[0]["worker"]
    several.workers[victim].end(signal.SIGKILL)
    begin = time.monotonic()
    until(lambda: all(several.operation(item)["worker"] != victim for item in begun), TAKEOVER + 5)
    assert time.monotonic() - begin > TAKEOVER / 2, "taken over while nobody could know that it is dead"
    assert {item["attempt"] for item in made_once(several, begun)} <= {2, 3}
    assert several.worker(victim)["state"] == "dead"


@pytest.mark.parametrize("moment", ["while it asks", "while it polls"])
def test_a_worker_that_slept_too_long_doubles_nothing_and_works_on(several: Installation, moment: str) -> None:
    slow(several, 1.0)
    if moment == "while it asks":
        several.fault("delay", method="POST", route="/snapshots", seconds=2.0, after_effect=True)
        begun = creates(several, 1)
        until(several.vendor_snapshots)
    else:
        slow(several, 8.0)
        begun = creates(several, 3)
        all_run(several, begun)
    sleeper = several.operation(begun[0])["worker"]
    several.workers[sleeper].send(signal.SIGSTOP)
    until(lambda: all(several.operation(item)["worker"] != sleeper for item in begun), TAKEOVER + 8)
    several.workers[sleeper].send(signal.SIGCONT)
    until(lambda: several.worker(sleeper)["state"] == "alive")
    if moment == "while it polls":
        until(lambda: "another worker runs the operation" in several.workers[sleeper].said(), 3)
    done = made_once(several, begun)
    assert all(item["worker"] != sleeper for item in done)
    slow(several, 1.0)
    later = [several.wait(item) for item in creates(several, 3, "files1", "again")]
    assert sleeper in {item["worker"] for item in later}, "it does not work any more"
    assert several.workers[sleeper].running


def test_a_worker_that_is_told_to_end_hands_over_at_once_although_every_call_hangs(several: Installation) -> None:
    slow(several, 2.0)
    begun = creates(several, 3)
    leaving = all_run(several, begun)[0]["worker"]
    several.fault("hang", times=None)
    time.sleep(1.0)  # its polls hang now
    begin = time.monotonic()
    assert several.workers[leaving].end(signal.SIGTERM) == 0
    assert time.monotonic() - begin < 10
    assert several.worker(leaving)["state"] == "left"
    until(lambda: all(several.operation(item)["worker"] != leaving for item in begun), TAKEOVER)
    several.simulator.control("DELETE", "/faults")
    made_once(several, begun)


# -- names, keys, queues ---------------------------------------------------------------------------------------------
def test_a_name_is_taken_while_its_worker_lives_and_free_at_once_when_it_was_killed(several: Installation) -> None:
    second = Worker(several.server, "w1")
    second.log = several.server.log.with_name("second.log")
    second.begin()
    assert second.wait() == 4
    assert "A worker named 'w1' is alive" in second.said()
    assert "Traceback" not in second.said()
    slow(several, 4.0)
    begun = creates(several, 3, "files1", "again")
    all_run(several, begun)
    several.workers["w1"].end(signal.SIGKILL)
    several.workers["w1"].start()
    assert "waiting whether" not in several.workers["w1"].said()
    made_once(several, begun)
    assert several.worker("w1")["state"] == "alive"


def test_a_queue_that_nobody_serves_is_said_and_served_when_a_worker_joins(several: Installation) -> None:
    several.add_system("far", queue="dmz")
    waiting = several.ask("POST", "/systems/far/discover")
    phase = "queued: no living worker serves the queue 'dmz'"
    until(lambda: several.operation(waiting)["phase"] == phase)
    assert phase in several.cli("operation", "show", waiting["id"]).out
    assert several.snapshot()["owned"], "the other queue goes on"
    worker = several.add_worker("d1", SNAPKEEP_QUEUES="dmz")
    done = several.wait(waiting)
    assert (done["queue"], done["worker"]) == ("dmz", "d1")
    near = [several.wait(item) for item in creates(several, 2)]
    assert {item["worker"] for item in near} <= set(NAMES)
    assert worker.end(signal.SIGTERM) == 0
    del several.workers["d1"]


def test_an_operation_waits_for_its_own_queue_when_its_only_worker_dies(several: Installation) -> None:
    several.add_system("far", queue="dmz")
    worker = several.add_worker("d2", SNAPKEEP_QUEUES="dmz")
    several.discover("far")
    slow(several, 1.0)
    operation = several.ask_create(system="far")
    all_run(several, [operation])
    worker.end(signal.SIGKILL)
    until(lambda: several.worker("d2")["state"] == "dead", TAKEOVER + 5)
    several.add_worker("d3", SNAPKEEP_QUEUES="dmz,default")
    assert several.wait(operation)["worker"] == "d3"
    assert len(several.vendor_snapshots()) == 1

    def looked_at_after_the_crash() -> bool:
        found = several.rest.request("GET", "/operations", params={"system": "far"})["data"]
        return any(item["kind"] == "reconcile" and item["ended_at"] for item in found)

    until(looked_at_after_the_crash, 20)
    assert several.workers.pop("d3").end(signal.SIGTERM) == 0
    del several.workers["d2"]


def refused(installation: Installation, drop: str = "", **env: str) -> Ran:
    """Run a worker that must not start."""
    given = os.environ | installation.server.env | env
    given.pop(drop, None)
    command = Worker(installation.server, "new").command
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_worker_needs_the_key_of_the_installation(several: Installation, tmp_path: Path) -> None:
    key = tmp_path / "secret.key"
    missing = refused(several, SNAPKEEP_SECRET_KEY_FILE=str(key))
    assert (missing.code, "SNAPKEEP_SECRET_KEY_FILE" in missing.err) == (2, True)
    key.write_bytes(base64.b64encode(bytes(32)))
    wrong = refused(several, SNAPKEEP_SECRET_KEY_FILE=str(key))
    assert (wrong.code, "key" in wrong.err) == (2, True)


def test_a_worker_needs_postgresql_a_name_and_queues(several: Installation) -> None:
    ran = refused(several, drop="SNAPKEEP_DATABASE_URL")
    assert (ran.code, "Workers share a catalog on PostgreSQL" in ran.err) == (2, True)
    with pytest.raises(InvalidInput, match="needs a name"):
        run_worker()
    with pytest.raises(InvalidInput, match="not valid: name"):
        run_worker(name="No Name")
    ran = refused(several, SNAPKEEP_QUEUES="")
    assert (ran.code, "without queues" in ran.err) == (2, True)
