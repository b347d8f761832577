"""Policies as people write them: YAML, one document each, of which every mistake is told at once, with its line.

YAML is read as JSON is meant: only `true` and `false` are truth values, and `22:00`, `2026-12-24` and `on` are texts. A
key that comes twice is a mistake. The text of each policy is kept as it is, with its comments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple

import yaml
from pydantic import BaseModel, ValidationError

from snapkeep.policy.document import KeepRule, Policy, Selection, Step
from snapkeep.policy.retention import words

LONGEST_TEXT: Final = 1_000_000
"""Characters of one text."""
MOST: Final = 1000
"""Policies in one text."""
_DEEPEST: Final = 20
_FIRINGS: Final = 2000
"""So many moments of a schedule are looked at to find out how far apart they are."""

Place = tuple[str | int, ...]


class Mistake(NamedTuple):
    """What is wrong, or hardly meant."""

    line: int
    """Of the text, from 1 on."""
    where: str
    """Such as `steps.0.schedule`; empty: the whole."""
    message: str
    is_error: bool = True

    def __str__(self) -> str:
        return f"line {self.line}: {self.where}{': ' if self.where else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class Written:
    """A policy with the text in which it was written."""

    policy: Policy
    text: str
    line: int
    """Where it begins."""


def read_policies(text: str) -> tuple[list[Written], list[Mistake]]:
    """Read all policies of a text. With an error among the mistakes, none of them is to be used."""
    if len(text) > LONGEST_TEXT:
        return [], [Mistake(1, "", f"more than {LONGEST_TEXT:,} characters: divide it")]
    mistakes: list[Mistake] = []
    read: list[Written] = []
    try:
        nodes = [node for node in yaml.compose_all(text, Loader=_Loader) if not _is_nothing(node)]
    except yaml.YAMLError as error:
        return [], [_unreadable(error)]
    except RecursionError:
        return [], [Mistake(1, "", "it is nested too deeply")]
    if not nodes:
        mistakes.append(Mistake(1, "", "there is no policy in it: write `name`, `assets` and `steps`"))
    if len(nodes) > MOST:
        return [], [Mistake(1, "", f"more than {MOST} policies: divide it")]
    begins = _beginnings(text)
    for node in nodes:
        one = _One(node)
        value = one.value()
        mistakes += one.mistakes
        if one.mistakes:
            continue
        try:
            policy = Policy.model_validate(value)
        except ValidationError as error:
            mistakes += [one.mistake(item) for item in error.errors(include_url=False, include_context=False)]
            continue
        begin, end = _around(begins, node.start_mark.index, len(text))
        line = node.start_mark.line + 1
        read.append(Written(policy, text[begin:end].strip("\n") + "\n", line))
        mistakes += [Mistake(one.line(place), _dotted(place), message, False) for place, message in advice(policy)]
    seen: dict[str, int] = {}
    for written in read:
        first = seen.setdefault(written.policy.name, written.line)
        if first != written.line:
            message = f"the policy {written.policy.name!r} is in line {first} already: names are unique"
            mistakes.append(Mistake(written.line, "name", message))
    return read, sorted(mistakes)


def advice(policy: Policy) -> Iterator[tuple[Place, str]]:
    """Say what is allowed, but hardly meant."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    proofs = []
    for number, step in enumerate(policy.steps):
        due = list(islice(policy.schedule(step).after(start), _FIRINGS))
        gaps = [later - sooner for sooner, later in pairwise(due)]
        if not gaps:
            yield ("steps", number, "schedule"), "it comes less than twice: nothing is left when the black-out days are"
            continue
        if policy.rpo is not None and _is_recovery(policy, step) and (longest := max(gaps)) > policy.rpo:
            hours = words(timedelta(hours=-(-longest // timedelta(hours=1))))
            yield ("rpo",), f"{words(policy.rpo)} is promised, but {step.name!r} leaves up to {hours} between two"
        if step.before is not None and step.after is None:
            yield ("steps", number, "before"), f"no program goes on afterwards with what {step.before!r} has stopped"
        if step.keep is not None:
            yield from _unused(number, step.name, step.keep, min(gaps))
        if step.proves:
            proofs.append((max(gaps), step.name))
    if policy.prove_every is None:
        return
    promised = f"{words(policy.prove_every)} is promised"
    if not proofs:
        yield ("prove_every",), f"{promised}, but no step drills, or verifies with `data: all`"
    elif (longest := min(proofs)[0]) > policy.prove_every:
        days = words(timedelta(days=-(-longest // timedelta(days=1))))
        yield ("prove_every",), f"{promised}, but {min(proofs)[1]!r} leaves up to {days} between two"


def _is_recovery(policy: Policy, step: Step) -> bool:
    """Say whether the promise hangs on a step: of those that make recovery points, on that which comes most often."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    making = [one for one in policy.steps if one.keep is not None]
    first = {one.name: next(islice(policy.schedule(one).after(start), 50, None), None) for one in making}
    soonest = min((due for due in first.values() if due), default=None)
    return soonest is not None and first.get(step.name) == soonest


def _unused(number: int, name: str, keep: KeepRule, shortest: timedelta) -> Iterator[tuple[Place, str]]:
    """Say which parts of a rule keep no more than the coarser way in which the step comes."""
    for period, length in (("hourly", 1), ("daily", 24), ("weekly", 168)):
        count = getattr(keep, period)
        if count and shortest > timedelta(hours=length, minutes=90):
            what = f"{period} {count} keeps the newest {count} that there are, over a longer time"
            yield ("steps", number, "keep", period), f"{name!r} comes less often than that: {what}"


class _Loader(yaml.SafeLoader):
    """Reads scalars as YAML 1.2 does in its core schema, without those of 1.1 that surprise."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _form, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:0|[1-9][0-9]*)\.[0-9]+$", "-0123456789"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_form), list(_first))


class _One:
    """One document on its way to a value, with the line of everything in it."""

    def __init__(self, node: yaml.Node) -> None:
        self.mistakes: list[Mistake] = []
        self._node = node
        self._lines: dict[Place, int] = {}

    def value(self) -> Any:
        """Return what it says."""
        return self._value(self._node, (), 0)

    def line(self, place: Sequence[str | int]) -> int:
        """Return the line of something, or of what it would be in."""
        for length in range(len(place), -1, -1):
            if (found := self._lines.get(tuple(place[:length]))) is not None:
                return found
        return 1

    def _value(self, node: yaml.Node, place: Place, depth: int) -> Any:
        self._lines.setdefault(place, node.start_mark.line + 1)
        if depth > _DEEPEST:
            self._wrong(node, place, "it is nested too deeply, or in itself")
            return None
        if isinstance(node, yaml.MappingNode):
            found: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else ""
                if not key:
                    self._wrong(key_node, place, "a key must be a text")
                elif key in found:
                    self._wrong(key_node, (*place, key), f"{key!r:.80} is there twice")
                else:
                    self._lines[*place, key] = key_node.start_mark.line + 1
                    found[key] = self._value(value_node, (*place, key), depth + 1)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*place, number), depth + 1) for number, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        match kind:
            case "str":
                return text
            case "int":
                return int(text) if len(text) < 20 else text
            case "float":
                return float(text)
            case "bool":
                return text == "true"
            case "null":
                return None
        self._wrong(node, place, f"{kind!r:.80} is not for policies")
        return None

    def _wrong(self, node: yaml.Node, place: Place, message: str) -> None:
        self.mistakes.append(Mistake(node.start_mark.line + 1, _dotted(place), message))

    def mistake(self, error: Mapping[str, Any]) -> Mistake:
        """Say what pydantic has found, in words of ours."""
        place = tuple(part for part in error["loc"] if part != "[key]")  # pydantic's way to say: the key itself
        message = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = f"there is no {place[-1]!r:.80}" + _meant(place)
        elif error["type"] == "missing":
            message = "this is missing"
        elif error["type"] == "string_pattern_mismatch":
            message = "a name has lower-case letters, digits, dots, dashes and underscores, 63 at most"
        elif error["type"] == "too_short":
            message = "at least one is needed"
        elif not message.startswith(tuple("abcdefghijklmnopqrstuvwxyz'")):
            message = message[:1].lower() + message[1:]
        given = error.get("input")
        if isinstance(given, str | int | float) and error["type"] not in {"extra_forbidden", "missing", "value_error"}:
            message += f" (here: {given!r:.80})"
        return Mistake(self.line(place), _dotted(place), message)


def _meant(place: Place) -> str:
    """Return what may be meant by a field that there is not."""
    model: type[BaseModel] = Policy
    if place[0] == "steps" and len(place) > 1:
        model = KeepRule if "keep" in place[:-1] else Step
    elif place[0] in {"assets", "exclude"} and len(place) > 1:
        model = Selection
    known = sorted(model.model_fields)
    close = difflib.get_close_matches(str(place[-1]), known, 1)
    return f": do you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _dotted(place: Sequence[str | int]) -> str:
    return ".".join(map(str, place))


def _is_nothing(node: yaml.Node | None) -> bool:
    return node is None or (isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"))


def _unreadable(error: yaml.YAMLError) -> Mistake:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    said = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    message = ", ".join(str(part) for part in said if part) or "it cannot be read"
    return Mistake(mark.line + 1 if mark else 1, "", f"this is no YAML: {message}")


def _beginnings(text: str) -> list[tuple[int, int]]:
    """Return where documents may begin, behind lines of three dashes, and where those lines do."""
    return [(0, 0), *((found.end(), found.start()) for found in re.finditer(r"(?m)^---[ \t]*(?:#.*)?\n", text))]


def _around(begins: Sequence[tuple[int, int]], index: int, length: int) -> tuple[int, int]:
    """Return the part of a text in which a document stands, comments included."""
    begin = max(place for place, _ in begins if place <= index)
    after = [dashes for place, dashes in begins if place > index]
    return begin, (after[0] if after else length)
