"""What a policy says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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
from snapkeep.model.drills import MOST_FILES
from snapkeep.model.programs import MOST_SECONDS, NAME, SECONDS
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


def _files(value: Any) -> Any:
    if value != "all" and (isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_FILES):
        raise ValueError(f"write a number of files up to {MOST_FILES:,}, or all")
    return value


def _size(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = re.fullmatch(r"([1-9][0-9]{0,8})([KMGT])", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("write a number of bytes, or one with a unit, such as 500M, 10G or 1T")
    return int(found[1]) * 1024 ** " KMGT".index(found[2])


def _program(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("a program is named by letters, digits, dots, dashes and underscores, without a path")
    return name


Files = Annotated[
    int | Literal["all"],
    BeforeValidator(_files),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": MOST_FILES}, {"const": "all"}]}),
]
Size = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]{0,8}[KMGT]$"}]}
    ),
]
Program = Annotated[str, AfterValidator(_program), WithJsonSchema({"type": "string", "pattern": NAME})]
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
    do: Literal["snapshot", "backup", "diff", "verify", "drill"] = Field(
        description="diff: fetch what changed between the two newest snapshots; verify: read the newest recovery "
        "point; drill: restore some of one at random, compare it, and clean up."
    )
    schedule: Cron = Field(description="Five fields of cron: minute, hour, day, month, day of the week.")
    repository: Name | None = Field(default=None, description="Where a backup goes, or what is verified or drilled is.")
    quiesce: bool = Field(default=False, description="Hold the asset still meanwhile, where its system can.")
    before: Program | None = Field(
        default=None, description="A program of the worker that runs before the snapshot; when it fails, none is taken."
    )
    after: Program | None = Field(
        default=None, description="One that runs afterwards, also when no snapshot could be taken."
    )
    program_seconds: Annotated[int, Field(ge=1, le=MOST_SECONDS)] | None = Field(
        default=None, description=f"How long each of these two may take; default: {SECONDS}."
    )
    data: Literal["sample", "all"] | None = Field(
        default=None, description="Of a verification: how much of the content is read; default: sample."
    )
    files: Files | None = Field(default=None, description="Of a drill: how many are restored, or all; default: 20.")
    bytes: Size | None = Field(default=None, description="Of a drill: what these have at most in all; default: 1G.")
    check: Program | None = Field(
        default=None, description="Of a drill: a program of the worker that looks at what was restored."
    )
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
    keep: KeepRule | None = Field(default=None, description="Of a snapshot or a backup, which need it: how long.")

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        needs, takes = _FIELDS[self.do]
        wrong = [f"a {self.do} needs a {_SAID[field]}" for field in needs if getattr(self, field) is None]
        wrong += [
            f"a {self.do} has no {_SAID[field]}: take `{field}` away"
            for field in _SAID
            if field not in {*needs, *takes} and getattr(self, field) not in {None, False}
        ]
        if self.program_seconds is not None and not (self.before or self.after):
            wrong.append("`program_seconds` is for programs: name one as `before` or `after`, or take it away")
        if self.files == "all" and self.bytes is not None:
            wrong.append("all files are restored, however many bytes they have: take `bytes` or `files` away")
        if self.jitter is not None and self.jitter > LONGEST_JITTER:
            wrong.append(f"a jitter is at most {words(LONGEST_JITTER)}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    @property
    def programs(self) -> list[str]:
        """The programs of workers that it names."""
        return [name for name in (self.before, self.after, self.check) if name is not None]

    @property
    def proves(self) -> bool:
        """Whether it proves that a recovery point can be restored."""
        return self.do == "drill" or (self.do == "verify" and self.data == "all")


_AROUND: Final = ("before", "after", "program_seconds")
_FIELDS: Final[Mapping[str, tuple[Sequence[str], Sequence[str]]]] = {
    "snapshot": (["keep"], ["quiesce", *_AROUND]),
    "backup": (["repository", "keep"], ["quiesce", *_AROUND]),
    "diff": ([], []),
    "verify": (["repository"], ["data"]),
    "drill": (["repository"], ["files", "bytes", "check"]),
}
"""What a step of each kind needs, and may have, of the fields that not all have."""
_SAID: Final = {
    "repository": "repository", "keep": "rule of what to keep (`keep`)", "quiesce": "asset to hold still",
    "before": "program before a snapshot", "after": "program after a snapshot",
    "program_seconds": "time for programs around a snapshot",
    "data": "data to read", "files": "files to restore", "bytes": "bytes to restore", "check": "program that checks it",
}  # fmt: skip
"""How people call these."""


class Policy(Part):
    """One policy."""

    name: Name
    comment: str = Field(default="", max_length=2000)
    assets: list[Selection] = Field(min_length=1, max_length=100, description="Those that one of these holds.")
    exclude: list[Selection] = Field(default_factory=list, max_length=100, description="But none of these.")
    timezone: Zone = Field(default="UTC", description="For schedules, windows, days, and the periods of retention.")
    rpo: Duration | None = Field(default=None, description="A good recovery point is never older than this.")
    prove_every: Duration | None = Field(
        default=None, description="Within so much it is proved anew that a recovery point can be restored."
    )
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
    def programs(self) -> list[str]:
        """The programs of workers that its steps name."""
        return [name for step in self.steps for name in step.programs]

    @property
    def keeping(self) -> dict[str, KeepRule]:
        """How long is kept what a step makes, by its name; steps that are not in it make no recovery points."""
        return {step.name: step.keep for step in self.steps if step.keep is not None}

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
