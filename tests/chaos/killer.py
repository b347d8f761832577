"""The killer: ends processes with SIGKILL at drawn moments, starts them again, and notes what was under way."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.plan import Strike
from tests.chaos.processes import SERVER, START_SECONDS, InFlight, World

WORKER = {SERVER: "serve"}
"""What victims are called as workers, if otherwise."""
FLIGHT_SECONDS = 2.0
"""How long the killer waits for an operation to be under way."""


@dataclass(slots=True)
class Kills:
    """What was killed, and what was under way at that moment."""

    victims: Counter[str] = field(default_factory=Counter)
    hits: int = 0
    """Kills while operations were in flight."""
    at_work: int = 0
    """Kills of a process that had operations in flight itself."""
    unknown: int = 0
    """Kills at which the catalog could not be read."""
    phases: Counter[tuple[str, str]] = field(default_factory=Counter)
    last_hit: dict[str, float] = field(default_factory=dict)
    """When each operation was in flight at a kill for the last time, by its id; seconds since the epoch."""

    moments: list[tuple[str, float]] = field(default_factory=list)
    """Who was killed when; seconds since the epoch."""

    @property
    def count(self) -> int:
        return self.victims.total()


class Killer:
    """Carries out strikes in a world. Runs in the thread that starts processes: they end with that thread."""

    def __init__(self, world: World, say: Callable[[str], None]) -> None:
        self.kills = Kills()
        self._world = world
        self._say = say
        self._starts: dict[str, float] = {}
        """When to start what is dead, by the monotonic clock."""

    def strike(self, strike: Strike) -> None:
        """Wait for the drawn moment, and kill."""
        if strike.settled:
            self.bring_up([*self._world.vital, *strike.victims])
        for name in strike.victims:
            if name in self._starts:
                self._sleep(self._starts[name] - time.monotonic())
        self._sleep(strike.after)
        flying = self._wait_for_work()
        for name, pause in zip(strike.victims, strike.pauses, strict=True):
            self._world.victims[name].kill()
            self._starts[name] = time.monotonic() + pause
            self._note(name, flying)
        self._world.tasks()
        if self.kills.count % 10 < len(strike.victims):
            self._say(f"{self.kills.count} kills, {self.kills.hits} with operations in flight")

    def bring_up(self, names: Sequence[str]) -> None:
        """Wait until these serve; whatever is due meanwhile is started, too."""
        self._sleep(max((self._starts.get(name, 0.0) for name in names), default=0.0) - time.monotonic())
        end = time.monotonic() + START_SECONDS
        while not self._world.are_ready(names):
            assert time.monotonic() < end, f"one of {', '.join(names)} does not come up: see the logs"
            self._sleep(0.05)

    def _sleep(self, seconds: float) -> None:
        """Sleep, and start what is due meanwhile."""
        end = time.monotonic() + max(0.0, seconds)
        while True:
            for name in [name for name, due in self._starts.items() if due <= time.monotonic()]:
                del self._starts[name]
                self._world.victims[name].start()
            if (left := end - time.monotonic()) <= 0 and not any(due <= end for due in self._starts.values()):
                return
            time.sleep(max(0.0, min(left, 0.02)))

    def _wait_for_work(self) -> list[InFlight] | None:
        end = time.monotonic() + FLIGHT_SECONDS
        while True:
            flying = self._world.in_flight()
            if flying is None or flying or time.monotonic() > end:
                return flying
            self._sleep(random.uniform(0.0, 0.05))

    def _note(self, name: str, flying: list[InFlight] | None) -> None:
        self.kills.victims[name] += 1
        self.kills.unknown += flying is None
        self.kills.hits += bool(flying)
        self.kills.at_work += any(operation.worker == WORKER.get(name, name) for operation in flying or ())
        now = time.time()
        self.kills.moments.append((name, now))
        for operation in flying or ():
            self.kills.phases[operation.kind, operation.phase] += 1
            self.kills.last_hit[operation.id] = now
