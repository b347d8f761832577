"""One run: start, let clients work while the killer kills, wait, judge, tell."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.clients import Client, share_of
from tests.chaos.judge import SYSTEM, Judge, Verdict
from tests.chaos.killer import Killer, Kills
from tests.chaos.plan import Options, strikes
from tests.chaos.processes import SHARES, World, running_world
from tests.chaos.rest import Deadline, Json, Rest

DRAIN_SECONDS = 120.0
"""After the last kill: what has not ended by then hangs."""


JUDGE_SECONDS = 300.0
PREPARE_SECONDS = 60.0
WARM_UP_SECONDS = 2.0


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    options: Options
    kills: Kills
    verdict: Verdict
    rounds: int
    repeats: int
    seconds: float
    root: Path


def run(options: Options, say: Callable[[str], None] = print) -> Outcome:
    """Run. Data and logs are kept when something is wrong, or on wish."""
    began = time.monotonic()
    with running_world(options) as world:
        killer = Killer(world, say)
        rest, assets = _prepare(world)
        before = {item["id"] for item in rest.pages("/operations")}
        deadline = Deadline()
        clients = [
            Client(
                number,
                options.seed,
                world,
                Rest(world.port, world.data_dir, deadline, keys=rest.keys),
                deadline,
                assets[share_of(number)],
            )
            for number in range(1, options.clients + 1)
        ]
        for client in clients:
            client.start()
        time.sleep(WARM_UP_SECONDS)
        for strike in strikes(options, options.victims or tuple(world.victims)):
            killer.strike(strike)
        killer.bring_up(list(world.victims))
        deadline.begin(DRAIN_SECONDS)
        for client in clients:
            client.join(DRAIN_SECONDS + 60)
        _wait_for_the_rest(world, deadline)
        rest.deadline = Deadline(JUDGE_SECONDS)
        verdict = Judge(world, rest, clients, before).judge(killer.kills)
        verdict.hangs += [f"{client.name} does not stop" for client in clients if client.is_alive()]
        repeats = sum(client.repeats for client in clients)
        rest.close()
    outcome = Outcome(
        options,
        killer.kills,
        verdict,
        sum(client.rounds for client in clients),
        repeats,
        time.monotonic() - began,
        world.root,
    )
    if verdict.passed and options.keep is None:
        shutil.rmtree(world.root)
    return outcome


def _prepare(world: World) -> tuple[Rest, dict[str, Json]]:
    """Add and discover the system; learn whether a repeated POST is known by its key."""
    rest = Rest(world.port, world.data_dir, Deadline(PREPARE_SECONDS), keys=False)
    rest.ask("PUT", "/cooling", "cooling", {"limit": None})
    rest.ask("POST", "/systems", "system", {"name": SYSTEM, "plugin": "nutanix-files", "settings": world.settings()})
    discovered = rest.wait(rest.ask("POST", f"/systems/{SYSTEM}/discover", "discover"))
    assert discovered["state"] == "succeeded", discovered
    assets = {item["name"]: item for item in rest.pages("/assets", system=SYSTEM)}
    key = str(uuid.uuid4())
    probes = [rest.ask("POST", f"/assets/{assets[SHARES[0]]['id']}/snapshots", key, {}) for _ in range(2)]
    for probe in probes:
        rest.wait(probe)
    rest.keys = probes[0]["id"] == probes[1]["id"]
    return rest, assets


def _wait_for_the_rest(world: World, deadline: Deadline) -> None:
    """Wait until nothing is under way, also what no client waits for, until the time is over."""
    while world.in_flight() != [] and not deadline.over:
        time.sleep(0.1)
