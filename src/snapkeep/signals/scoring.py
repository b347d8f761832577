"""One change list, held against those of the same asset before.

Two scores for each measure, both on the logarithm of its value (entropy: as it is):

* **z**, the modified z-score 0.6745 * (x - median) / MAD, where MAD is the median of the distances from the median
  (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993, who take 3.5 as the limit). It finds what is done at
  once. A MAD of less than the measure's least spread counts as that: so nothing is divided by 0, and a share on which
  nothing happens does not alarm when a little does.
* **drift**, a cumulative sum of z (CUSUM: Page, "Continuous Inspection Schemes", Biometrika 41, 1954):
  S = max(0, S + min(z, CLIP) - SLACK). It finds what is done slowly. Median and MAD are there those of the lists before
  the `RECENT` ones that are summed: else a drip would make itself usual.

Nothing is suspicious by z alone: it must also be a multiple of the most that there ever was, so that the end of a month
does not alarm each month, and enough, so that a small share does not. More of anything never scores less.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from snapkeep.model.changes import ChangeOperation
from snapkeep.signals.features import Features

WINDOW = 120
"""The history: so many lists at most, the latest that are not suspicious or were acknowledged."""
MINIMUM = 14
"""Lists that there must be, before anything is said."""
THRESHOLD = 3.5
"""Of z."""
MULTIPLE = 2.0
"""How many times the most in the history something must be."""
RECENT = 30
"""Lists over which drift is summed, with the one that is judged."""
SLACK = 1.0
"""What each list may be above the usual, in z, before it adds to the drift."""
CLIP = 3.0
"""What one list adds at most, before the slack is taken off: one burst is no drift."""
LIMIT = 12.0
"""Of the drift."""
ENTROPY_FILES = 16
"""Files in a sample that says something."""

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is measured on every list."""

    name: str
    what: str
    """In a sentence, behind the value."""
    value: Callable[[Features], float | None]
    """None: this list does not say."""
    floor: float
    """Less than that is never suspicious."""
    spread: float = 0.25
    """The least MAD, on the scale of the scores."""
    unit: float | None = 1.0
    """Of the logarithm, ln(1 + value / unit); None: the value as it is."""
    beyond: float = math.log(MULTIPLE)
    """How far above the most in the history it must be, on the scale of the scores."""
    alarms: bool = True
    """Whether it makes a list suspicious; else people are only shown it."""

    def scale(self, value: float) -> float:
        """Return a value on the scale of the scores."""
        return value if self.unit is None else math.log1p(value / self.unit)

    def text(self, value: float) -> str:
        """Return a value as people read it."""
        if self.unit is None:
            return f"{value:.1f}"
        return f"{value:,.0f}" if self.unit == 1 else _size(value)


def _entropy(features: Features) -> float | None:
    found = features.entropy
    return found.bits if found is not None and found.files >= ENTROPY_FILES else None


MEASURES = (
    Measure("modified", "objects modified", lambda one: one.count(ChangeOperation.MODIFY), 100),
    Measure(
        "modified_bytes", "in modified files", lambda one: one.size(ChangeOperation.MODIFY), 1024 * _MIB, unit=_MIB
    ),
    Measure("deleted", "objects deleted", lambda one: one.count(ChangeOperation.DELETE), 100),
    Measure("extension_renames", "files renamed to another extension", lambda one: one.extension_renames, 100),
    Measure(
        "entropy",
        "bits of entropy per byte of files that were there before",
        _entropy,
        6.0,
        spread=0.2,
        unit=None,
        beyond=0.25,
    ),
    Measure("added", "objects added", lambda one: one.count(ChangeOperation.ADD), 100, alarms=False),
    Measure(
        "added_bytes", "in added files", lambda one: one.size(ChangeOperation.ADD), 1024 * _MIB, unit=_MIB, alarms=False
    ),
)
"""All but `unknown_extensions`, which a list has only beside others."""

UNKNOWN = Measure("unknown_extensions", "files renamed to extensions never seen before", lambda _: None, 100)
"""Files with extensions that no other list of the history has, at most as many as were renamed to another extension:
new files alone are no attack."""


@dataclass(frozen=True, slots=True)
class Score:
    """One measure of one list."""

    value: float
    usual: tuple[float, float]
    """The 10th and the 90th percentile of the history, for the time that this list spans."""
    z: float
    drift: float | None
    """None: the history is too short for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is thought of a list."""

    suspicious: bool
    reasons: tuple[str, ...]
    """In words, with figures; empty when it is not suspicious."""
    lists: int
    """In the history; with less than `MINIMUM` nothing is said."""
    began_at: datetime | None
    """The older snapshot of the list with which it began: of a drift, of its first list; else of the list itself. What
    was there then is clean, as far as can be told."""
    scores: dict[str, Score]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form."""
        return {
            "suspicious": self.suspicious,
            "reasons": list(self.reasons),
            "lists": self.lists,
            "began_at": self.began_at.isoformat() if self.began_at else None,
            "scores": {
                name: {
                    "value": round(one.value, 3),
                    "usual": [round(value, 3) for value in one.usual],
                    "z": round(one.z, 2),
                    "drift": None if one.drift is None else round(one.drift, 2),
                }
                for name, one in self.scores.items()
            },
        }


def judge(features: Features, history: Sequence[Features]) -> Verdict:
    """Hold a list against those before it, in whatever order they come; at most `WINDOW`, none of them suspicious.

    What spans a longer time than usual is held against so much more.
    """
    history = sorted(history, key=lambda one: one.at)[-WINDOW:]
    if len(history) < MINIMUM:
        return Verdict(False, (), len(history), None, {})
    usual_hours = _usual_hours(history)
    longer = [_longer(one, usual_hours) for one in (*history, features)]
    scores: dict[str, Score] = {}
    reasons: list[str] = []
    began: list[datetime] = []
    for measure, values in _values(features, history):
        known = [
            (value if measure.unit is None else value / times, one)
            for value, times, one in zip(values, longer, (*history, features), strict=True)
            if value is not None
        ]
        if values[-1] is None or len(known) <= MINIMUM:
            continue
        judged = _Judged(measure, known, longer[-1] if measure.unit is not None else 1.0)
        scores[measure.name] = judged.score
        if measure.alarms and (said := judged.reason()):
            reasons.append(said[0])
            began.append(said[1])
    return Verdict(bool(reasons), tuple(reasons), len(history), min(began, default=None), scores)


def _values(features: Features, history: Sequence[Features]) -> list[tuple[Measure, list[float | None]]]:
    """Return each measure with its value of each list, the one that is judged last."""
    every = [*history, features]
    found = [(measure, [measure.value(one) for one in every]) for measure in MEASURES]
    lists = Counter(extension for one in history for extension in one.extensions or ())
    unknown: list[float | None] = []
    for one in every:
        if one.extensions is None:
            unknown.append(None)
            continue
        known_by = 0 if one is features else 1  # itself
        new = sum(count for extension, count in one.extensions.items() if lists[extension] <= known_by)
        unknown.append(min(new, one.extension_renames or 0))
    return [*found, (UNKNOWN, unknown)]


class _Reference:
    """The usual, from the values of lists on the scale of the scores."""

    def __init__(self, values: Sequence[float], spread: float) -> None:
        self.median = _median(values)
        self._mad = max(_median([abs(value - self.median) for value in values]), spread)

    def z(self, value: float) -> float:
        """Return the modified z-score of a value."""
        return 0.6745 * (value - self.median) / self._mad


class _Judged:
    """One measure of a list, beside its history."""

    def __init__(self, measure: Measure, known: Sequence[tuple[float, Features]], longer: float) -> None:
        """`known`: value and list, the one that is judged last; for the usual time. It spans `longer` times that."""
        self._measure = measure
        self._value, self._features = known[-1]
        self._longer = longer
        self._known = known
        self._scaled = [measure.scale(value) for value, _ in known]
        self._most = max(self._scaled[:-1])
        self._z = _Reference(self._scaled[:-1], measure.spread).z(self._scaled[-1])
        self._drift, self._since, self._excess = self._summed()
        before = sorted(value for value, _ in known[:-1])
        self._usual = before[len(before) // 10] * longer, before[-1 - len(before) // 10] * longer

    @property
    def score(self) -> Score:
        return Score(self._value * self._longer, self._usual, self._z, self._drift)

    def reason(self) -> tuple[str, datetime] | None:
        """Return why it is suspicious, and since when; None: it is not."""
        measure, value = self._measure, self._value * self._longer
        low, high = (measure.text(bound) for bound in self._usual)
        usually = f"usually {low} to {high}" if low != high else f"usually {low}"
        spans = f" in {self._longer:.1f} times the usual time" if self._longer > 1.5 else ""
        said = f"{measure.text(value)} {measure.what}{spans}; {usually}"
        at_once = self._z > THRESHOLD and self._scaled[-1] > self._most + measure.beyond
        if at_once and value >= measure.floor:
            return said, self._features.since or self._features.at
        if self._drift is None or self._drift <= LIMIT or self._z <= SLACK or self._excess < measure.floor:
            return None
        return f"{said}, and more than that again and again since {self._since:%Y-%m-%d %H:%M} UTC", self._since

    def _summed(self) -> tuple[float | None, datetime, float]:
        """Return the drift, when it began, and what there was since then above the median; of entropy, the value."""
        since, excess, drift = self._features.since or self._features.at, 0.0, 0.0
        split = max(MINIMUM, len(self._known) - RECENT)
        if split >= len(self._known):
            return None, since, excess
        reference = _Reference(self._scaled[:split], self._measure.spread)
        median = _median([value for value, _ in self._known[:split]])
        for (value, one), scaled in zip(self._known[split:], self._scaled[split:], strict=True):
            if drift <= 0:
                since, excess = one.since or one.at, 0.0
            drift = 0.0 if one.acknowledged else max(0.0, drift + min(reference.z(scaled), CLIP) - SLACK)
            excess = value if self._measure.unit is None else excess + max(0.0, value - median)
        return drift, since, excess


def _median(values: Sequence[float]) -> float:
    found = sorted(values)  # statistics.median takes ten times as long
    return (found[(len(found) - 1) // 2] + found[len(found) // 2]) / 2


def _usual_hours(history: Sequence[Features]) -> float | None:
    hours = [one.hours for one in history if one.hours]
    return _median(hours) if hours else None


def _longer(features: Features, usual_hours: float | None) -> float:
    """Return how many times the usual time a list spans, at least 1; less than an hour counts as one."""
    return max(1.0, features.hours / max(usual_hours, 1.0)) if usual_hours and features.hours else 1.0


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.0f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
