"""What a policy says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, time, timedelta
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

from snapkeep.model.assets import AssetKind
from snapkeep.policy.retention import PERIODS, Keep, words
from snapkeep.policy.schedule import LONGEST_JITTER, Schedule, Window

LONGEST: Final = timedelta(days=36_600)
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    found = re.fullmatch(r"([1-9][0-9]{0,6})([mhdw])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a number with a unit, such as 90m, 36h, 14d or 8w")
    time = timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if time > LONGEST:
        raise ValueError("that is more than a hundred years")
    return time


Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    PlainSerializer(words, return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[1-9][0-9]{0,6}[mhdw]$", "examples": ["90m", "36h", "14d", "8w"]}),
]


def _window(value: Any) -> Any:
    if isinstance(value, Window):
        return value
    found = re.fullmatch(r"(\d\d:\d\d)-(\d\d:\d\d)", value) if isinstance(value, str) else None
    try:
        begin, end = (time.fromisoformat(found[1]), time.fromisoformat(found[2])) if found else (None, None)
    except ValueError:
        begin = end = None
    if begin is None or end is None or begin == end:
        raise ValueError('write two times, such as "22:00-06:00"')
    return Window(begin, end)


Hours = Annotated[
    Window,
    BeforeValidator(_window),
    PlainSerializer(lambda it: f"{it.begin:%H:%M}-{it.end:%H:%M}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$"}),
]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"there is no time zone {name!r:.80}: write one of the tz database, such as Europe/Berlin or "
                         "UTC") from None  # fmt: skip
    return name


def _cron(text: str) -> str:
    Schedule(text, ZoneInfo("UTC"))
    return text


Zone = Annotated[str, AfterValidator(_zone), Field(min_length=1, max_length=80)]
Cron = Annotated[str, AfterValidator(_cron), Field(max_length=200, examples=["0 * * * *", "30 22 * * MON-FRI"])]
Name = Annotated[str, Field(pattern=_NAME, description="Lower-case letters, digits, dots, dashes and underscores.")]
Glob = Annotated[str, Field(min_length=1, max_length=300)]
Count = Annotated[int, Field(ge=1, le=100_000)]


class Part(BaseModel):
    """A part of a policy: knows no other fields than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Selection(Part):
    """Which assets: those that fulfil all of these."""

    system: Glob = Field(default="*", description="Name of the system, with * and ? for others.")
    kind: AssetKind | None = None
    name: Glob = Field(default="*", description="Name of the asset, with * and ? for others.")
    labels: dict[Annotated[str, Field(min_length=1, max_length=63)], Annotated[str, Field(max_length=255)]] = Field(
        default_factory=dict, max_length=32, description="Labels of the asset, or of its system."
    )

    def holds(self, system: str, kind: AssetKind, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether an asset is one of these. `labels`: its own over those of its system."""
        return (
            fnmatchcase(system, self.system)
            and self.kind in {None, kind}
            and fnmatchcase(name, self.name)
            and all(labels.get(key) == value for key, value in self.labels.items())
        )


class KeepRule(Part):
    """How long: a point stays as long as one of these keeps it; each counts the newest of every period that has one."""

    last: Count | None = None
    hourly: Count | None = None
    daily: Count | None = None
    weekly: Count | None = None
    monthly: Count | None = None
    yearly: Count | None = None
    within: Duration | None = Field(default=None, description="All that are so much older than the newest at most.")
    forever: bool = Field(default=False, description="Nothing is ever deleted; then there is nothing else.")

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.forever and self.rule.keeps_something:
            raise ValueError("what is kept forever needs no other rule: take `forever` away, or the rest")
        if not self.forever and not self.rule.keeps_something:
            raise ValueError(f"this keeps nothing: give one of last, {', '.join(PERIODS)}, within, or `forever: true`")
        return self

    @property
    def summary(self) -> str:
        """The same in words: `hourly 24, daily 7`."""
        counts = [f"{name} {count}" for name in ("last", *PERIODS) if (count := getattr(self, name))]
        return ", ".join([*counts, *([f"within {words(self.within)}"] if self.within else [])]) or "forever"

    @property
    def rule(self) -> Keep:
        """The same as retention takes it."""
        counts = {name: getattr(self, name) or 0 for name in ("last", *PERIODS)}
        return Keep(**counts, within=self.within)


class Step(Part):
    """What is done on a schedule, and how long that is kept."""

    name: Name = Field(description="Stays the same when the rest changes: what it has made goes by it.")
    do: Literal["snapshot", "backup"]
    schedule: Cron = Field(description="Five fields of cron: minute, hour, day, month, day of the week.")
    repository: Name | None = Field(default=None, description="Of a backup: where it goes.")
    quiesce: bool = Field(default=False, description="Hold the asset still meanwhile, where its system can.")
    jitter: Duration | None = Field(
        default=None, description="Begin later by up to so much, always the same per asset."
    )
    window: Hours | None = Field(default=None, description="Local hours in which it may begin: 22:00-06:00.")
    when_missed: Literal["run", "skip"] = Field(
        default="run", description="After a time in which nothing could run: once, as soon as possible, or not at all."
    )
    overlap: Literal["skip", "queue"] = Field(
        default="skip", description="When the one before still runs: leave this one out, or let it wait."
    )
    keep: KeepRule

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if (self.do == "backup") != (self.repository is not None):
            raise ValueError("a backup needs a repository" if self.do == "backup" else "only a backup has a repository")
        if self.jitter is not None and self.jitter > LONGEST_JITTER:
            raise ValueError(f"a jitter is at most {words(LONGEST_JITTER)}")
        return self


class Policy(Part):
    """One policy."""

    name: Name
    comment: str = Field(default="", max_length=2000)
    assets: list[Selection] = Field(min_length=1, max_length=100, description="Those that one of these holds.")
    exclude: list[Selection] = Field(default_factory=list, max_length=100, description="But none of these.")
    timezone: Zone = Field(default="UTC", description="For schedules, windows, days, and the periods of retention.")
    rpo: Duration | None = Field(default=None, description="A good recovery point is never older than this.")
    blackout: list[date] = Field(default_factory=list, max_length=1000, description="Days on which nothing begins.")
    delete_at_most: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=50,
        description="Of one asset and step in one run; when more are due, none goes before a person applies it.",
    )
    steps: list[Step] = Field(min_length=1, max_length=20)

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        names = [step.name for step in self.steps]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"more than one step is named {', '.join(twice)}")
        if any(selection == Selection() for selection in self.exclude):
            raise ValueError("this excludes everything")
        return self

    def holds(self, system: str, kind: AssetKind, name: str, labels: Mapping[str, str]) -> bool:
        """Say whether an asset is under this policy."""
        return any(one.holds(system, kind, name, labels) for one in self.assets) and not any(
            one.holds(system, kind, name, labels) for one in self.exclude
        )

    @property
    def zone(self) -> ZoneInfo:
        """The time zone."""
        return ZoneInfo(self.timezone)

    def schedule(self, step: Step) -> Schedule:
        """Return when a step is due."""
        return Schedule(
            step.schedule,
            self.zone,
            jitter=step.jitter or timedelta(0),
            window=step.window,
            blackout=frozenset(self.blackout),
        )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a policy, for editors."""
    return Policy.model_json_schema() | {"$schema": "https://json-schema.org/draft/2020-12/schema"}
