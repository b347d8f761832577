"""Applications for tests, by their hooks, and who holds them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support import installation


class Application:
    """Notes what its hooks do, in order; they can be told to misbehave."""

    def __init__(
        self, directory: Path, name: str = "app", *, log: Path | None = None, program: Path | None = None
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = log or directory / "log"
        self.log.touch()
        self.log.chmod(0o666)
        self.program = program or directory / f"{name}.sh"
        self.behave()

    def behave(self, *, freeze: str = "", thaw: str = "") -> None:
        """Write the hook; `freeze` and `thaw` run before what is noted."""
        self.program.write_text(
            f"#!/bin/sh\ncase $1 in\nfreeze)\n{freeze or ':'}\n;;\nthaw)\n{thaw or ':'}\n;;\nesac\n"
            f"echo $1 {self.name} >>{self.log}\n"
        )
        self.program.chmod(0o755)

    @property
    def hook(self) -> dict[str, list[str]]:
        return {"freeze": [str(self.program), "freeze"], "thaw": [str(self.program), "thaw"]}

    @property
    def noted(self) -> list[str]:
        """What was done, of this one."""
        return [line.split()[0] for line in self.log.read_text().splitlines() if line.split()[1] == self.name]

    @property
    def is_held(self) -> bool:
        return self.noted[-1:] == ["freeze"]


def holders(mark: str, *, guards: bool = False) -> list[int]:
    """Return the processes that hold something, or their guards; `mark`: the request, or a part of their words."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_text(errors="replace").split("\0")
        except OSError:
            continue
        called = words[3] if words[:2] == ["sh", "-c"] and len(words) > 3 else ""
        ours = called.startswith("snapkeep-quiesce-") and called.endswith("-guard") == guards
        if ours and any(mark in word for word in words):
            found.append(int(place.parent.name))
    return found


def kill_holders(mark: str) -> None:
    found = holders(mark)
    assert found
    for pid in found:
        os.kill(pid, signal.SIGKILL)


def until(truth: Callable[[], Any], seconds: float = 15.0) -> None:
    """Wait as elsewhere, but longer: who lets go of something tries again only after seconds."""
    installation.until(truth, seconds)
