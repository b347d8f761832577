"""Scripted faults: what may go wrong on the way to a real system, on demand and always the same way.

A fault matches requests by method and by route template (or by a regular expression on the path), and acts from the
``nth`` matching request on, ``times`` times, or for ``lasting`` seconds from its first act on; or by chance with a
seed. The actions are listed at :data:`Action`.
"""

import random
import re
import time
from typing import Any, Literal

import msgspec

Action = Literal[
    "status",  # answer `status`, with the vendor's error envelope unless `envelope` is false
    "delay",  # wait `seconds`, then go on
    "reset",  # close the TCP connection without an answer
    "hang",  # never answer, until the client goes
    "truncate",  # the right answer, but only half of its body
    "garbage",  # 200 with HTML or with broken JSON (see `garbage`)
    "expired_session",  # 401, and all sessions are forgotten
    "precondition",  # 412
    "task",  # the task that this request makes gets stuck, or fails with `code` and `message` (see `task`)
    "lying_success",  # the task that this request makes ends as succeeded, and has done nothing
    "reword",  # all error messages have another text; the codes stay
    "unknown_enum",  # words of enumerations in the answer become unknown ones (`fields`: only these)
    "missing_field",  # the `fields` are left out of the answer
]

ENDING = frozenset({"status", "reset", "hang", "garbage", "expired_session", "precondition"})
"""Actions that take the place of the answer."""


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One scripted fault. ``after_effect``: the request acts first, and only its answer is lost."""

    action: Action
    id: int = 0
    method: str | None = None
    route: str | None = None
    path: str | None = None
    nth: int = 1
    times: int | None = 1
    lasting: float | None = None
    probability: float | None = None
    seed: int = 0
    status: int = 500
    envelope: bool = True
    code: str | None = None
    message: str | None = None
    retry_after: str | None = None
    seconds: float = 1.0
    after_effect: bool = False
    task: Literal["stuck", "fail"] = "fail"
    garbage: Literal["html", "json"] = "html"
    fields: list[str] = msgspec.field(default_factory=list)


class _Script:
    """A fault with what it remembers."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.seen = 0
        self.hits = 0
        self._over: float | None = None
        self._random = random.Random(fault.seed)
        self._path = re.compile(fault.path) if fault.path else None
        self._route = _normal(fault.route) if fault.route else None

    def strikes(self, method: str, route: str | None, path: str) -> bool:
        fault = self.fault
        if fault.method and fault.method.upper() != method:
            return False
        if self._route is not None and (route is None or not _normal(route).endswith(self._route)):
            return False
        if self._path is not None and not self._path.search(path):
            return False
        self.seen += 1
        if self.seen < fault.nth or self._is_over():
            return False
        if fault.probability is not None and self._random.random() >= fault.probability:
            return False
        if fault.lasting is not None and self._over is None:
            self._over = time.monotonic() + fault.lasting
        self.hits += 1
        return True

    def _is_over(self) -> bool:
        if self.fault.lasting is not None:
            return self._over is not None and time.monotonic() >= self._over
        return self.fault.times is not None and self.hits >= self.fault.times


def _normal(template: str) -> str:
    """Parameter names do not matter: ``/a/{fsId}`` is ``/a/{}``."""
    return re.sub(r"\{[^}]*\}", "{}", template).rstrip("/")


class Faults:
    """All faults of a simulator. They live until they are deleted or the simulator ends."""

    def __init__(self) -> None:
        self._scripts: list[_Script] = []
        self._last_id = 0

    def add(self, fault: Fault) -> int:
        """Add one; returns its id. Raises ``re.error`` when ``path`` is no regular expression."""
        self._last_id += 1
        fault.id = self._last_id
        self._scripts.append(_Script(fault))
        return fault.id

    def clear(self) -> None:
        """Remove all."""
        self._scripts.clear()

    def remove(self, identifier: int) -> None:
        """Remove one; an absent one is no error."""
        self._scripts = [script for script in self._scripts if script.fault.id != identifier]

    def strike(self, method: str, route: str | None, path: str) -> list[Fault]:
        """The faults that act on this request, in the order in which they were added. Counts the request."""
        return [script.fault for script in self._scripts if script.strikes(method, route, path)]

    def report(self) -> list[dict[str, Any]]:
        """All faults, with how many requests they matched (``seen``) and acted on (``hits``)."""
        return [
            {**msgspec.to_builtins(script.fault), "seen": script.seen, "hits": script.hits} for script in self._scripts
        ]
