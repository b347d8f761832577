"""The findings of `system check` that every plug-in has."""

from __future__ import annotations

from snapkeep.model.errors import SnapkeepError
from snapkeep.model.work import Finding, Outcome

CLOCK_SECONDS = 60.0
"""A difference of clocks that people should mend: expiry and schedules depend on it."""


def ok(check: str, message: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(check=check, outcome=Outcome.OK, message=message)


def failed(check: str, error: SnapkeepError) -> Finding:
    """Return an error as a finding."""
    return Finding(check=check, outcome=Outcome.FAILED, message=str(error), next_step=error.next_step)


def clock(skew: float, whose: str = "system") -> Finding:
    """Judge the difference of clocks: seconds by which theirs is ahead."""
    if abs(skew) > CLOCK_SECONDS:
        return Finding(
            check="clock",
            outcome=Outcome.WARNING,
            message=f"The {whose}'s clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} ours",
            next_step="Let both follow the same time server (NTP).",
        )
    return ok("clock", "The clocks agree")
