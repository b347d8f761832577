"""What is to be done now about one step of one asset: pure, so that a year of it is tried out in seconds.

A position says which due moment was dealt with last. Only moments behind that count, so a clock that is set back a
little makes nothing run twice; and only the latest of them does, so a time in which nothing ran is made up for once, at
most. A clock that is set back by more than three hours was wrong: then the new time counts at once, as with Debian's
cron(8), and positions that lie ahead of it begin anew. Else nothing would be protected before it has caught up.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Final

from snapkeep.policy.document import Step
from snapkeep.policy.schedule import Schedule

GRACE: Final = timedelta(minutes=15)
"""What begins so much later than it could counts as missed."""
AGAIN: Final = timedelta(seconds=30)
"""After so long it is looked again whether the run before has ended."""
AHEAD: Final = timedelta(hours=3)
"""A clock that is set back by more than that was wrong, and so is what lies further in the future."""
_SPANS: Final = tuple(timedelta(days=days) for days in (1, 40, 400, 5000))
_MARGIN: Final = timedelta(days=1)


class Calendar:
    """The due moments of a schedule; those around the last question are at hand, for all assets together."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self._begin: datetime | None = None
        self._end: datetime | None = None
        self._dues: list[datetime] = []
        self._following: datetime | None = None

    def latest(self, after: datetime, until: datetime) -> datetime | None:
        """Return the last due moment that is after one moment and not after another."""
        if after >= until:
            return None
        for span in _SPANS:
            begin = max(after, until - span)
            dues = self._around(begin, until) if span is _SPANS[0] else list(self.schedule.between(begin, until))
            index = bisect_right(dues, until)
            if index and dues[index - 1] > after:
                return dues[index - 1]
            if begin == after:
                return None
        return None

    def next(self, after: datetime) -> datetime | None:
        """Return the first due moment after another; None: none comes."""
        dues = self._around(after, after)
        index = bisect_right(dues, after)
        return dues[index] if index < len(dues) else self._following

    def _around(self, begin: datetime, until: datetime) -> list[datetime]:
        if self._begin is None or self._end is None or not self._begin <= begin <= until <= self._end:
            self._begin, self._end = begin - _MARGIN, until + _MARGIN
            self._dues = list(self.schedule.between(self._begin, self._end))
            self._following = next(islice(self.schedule.after(self._end), 1), None)
        return self._dues


class Verdict(StrEnum):
    """What happens."""

    WAIT = "wait"
    RUN = "run"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens now."""

    verdict: Verdict
    due_at: datetime
    """The last moment that is dealt with after this: of a run, the one for which it is."""
    look_at: datetime | None
    """When to look again; None: never, as long as the policy stays the same."""
    reason: str = ""
    """Why one is left out."""


def first_look(calendar: Calendar, delay: timedelta, begins: datetime) -> datetime | None:
    """Return when to look for the first time, at a step that begins at a moment."""
    return _look(calendar, calendar.next(begins), delay)


def decide(
    calendar: Calendar, step: Step, delay: timedelta, dealt_with: datetime, *, still_runs: bool, now: datetime
) -> Decision:
    """Say what happens now.

    `delay`: of this asset, within the jitter of the step. `dealt_with`: the last due moment that was. `still_runs`:
    the run before has not ended.
    """
    due = calendar.latest(dealt_with, now - delay)
    if due is None:
        following = calendar.next(max(dealt_with, now - delay))
        return Decision(Verdict.WAIT, dealt_with, _look(calendar, following, delay))
    begin = calendar.schedule.begin(now)
    if begin != now:
        return Decision(Verdict.WAIT, dealt_with, begin)
    look_at = _look(calendar, calendar.next(due), delay)
    could = calendar.schedule.begin(due + delay)
    if step.when_missed == "skip" and could is not None and now - could > GRACE:
        return Decision(Verdict.SKIP, due, look_at, "nothing could run at its time")
    if still_runs and step.overlap == "queue":
        return Decision(Verdict.WAIT, dealt_with, now + AGAIN)
    if still_runs:
        return Decision(Verdict.SKIP, due, look_at, "the run before has not ended")
    return Decision(Verdict.RUN, due, look_at)


def _look(calendar: Calendar, due: datetime | None, delay: timedelta) -> datetime | None:
    return calendar.schedule.begin(due + delay) if due is not None else None
