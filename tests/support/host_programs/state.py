"""The state of the played programs: one JSON file, edited by one program at a time."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

State = dict[str, Any]


class Failed(Exception):
    """A program ends with a code and a complaint."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.code = code


@contextmanager
def edited(file: Path) -> Iterator[State]:
    """Give the state, and keep what was made of it, also of a program that failed."""
    with file.open("r+") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        state = {"datasets": {}, "volumes": {}, "mounts": [], "read_only": [], "next": 1000, **json.load(opened)}
        state["directory"] = str(file.parent)
        try:
            yield state
        finally:
            opened.seek(0)
            opened.truncate()
            json.dump(state, opened)


def fail(code: int, *lines: str) -> NoReturn:
    """End the program."""
    raise Failed(code, *lines)


def number(state: State) -> int:
    """Return another number each time."""
    state["next"] += 1
    return int(state["next"])


def copy(source: Path, target: Path, *besides: str) -> None:
    """Copy a tree; of directories `besides` only the place is copied."""
    left_out = {Path(path) for path in besides}

    def ignored(directory: str, names: list[str]) -> list[str]:
        return names if Path(directory) in left_out else []

    shutil.copytree(source, target, symlinks=True, ignore=ignored)


def options(
    arguments: list[str], flags: str = "", valued: str = "", words: tuple[str, ...] = ()
) -> tuple[Any, list[str]]:
    """Return options and operands. `flags`, `valued`: letters; `words`: long options that have a value.

    An option that may come again has a list; `-s` and the like may be written in one with their value.
    """
    found: dict[str, list[str]] = {}
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += waiting
            break
        if word.startswith("--") and word in words:
            found.setdefault(word, []).append(waiting.pop(0))
        elif word.startswith("--"):
            found.setdefault(word, [])
        elif word.startswith("-") and len(word) > 1:
            letters = word[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                if letter in valued:
                    found.setdefault(letter, []).append(letters or waiting.pop(0))
                    break
                assert letter in flags, f"an option that is not played: {word}"
                found.setdefault(letter, [])
        else:
            rest.append(word)
    return found, rest
