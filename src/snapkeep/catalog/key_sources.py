"""Where the keys of the stored secrets come from: a file, the environment, or a command of the operator's."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from snapkeep.model.errors import InvalidInput, PermissionDenied

KEY_BYTES = 32
COMMAND_SECONDS = 30.0
"""Longest time for the command."""
AGAIN_SECONDS = 60.0
"""After which the command is run again: its keys may be others."""


class KeySource(Protocol):
    """A place of keys, the first of which seals."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def is_quick(self) -> bool:
        """Whether it can be read at any moment."""

    def read(self) -> tuple[bytes, ...]:
        """Return the keys. Raises InvalidInput when there are none."""

    def stamp(self) -> Hashable:
        """Return something that is another when the keys may be others."""


@dataclass(frozen=True, slots=True)
class FixedKeys:
    """Keys that were given; they stay."""

    keys: tuple[bytes, ...]
    name: str = "the given key"
    is_quick: bool = True

    def read(self) -> tuple[bytes, ...]:
        """Return the keys. Raises InvalidInput."""
        return tuple(_checked(key, self.name) for key in self.keys)

    def stamp(self) -> Hashable:
        """Return always the same."""
        return 0


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file with a key in each line (base64), for its owner alone."""

    path: Path
    is_quick: bool = True

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.path)

    def read(self) -> tuple[bytes, ...]:
        """Return the keys. Raises InvalidInput."""
        try:
            text = self.path.read_text()
        except OSError as error:
            raise InvalidInput(
                f"The secret key cannot be read from {self.path}: {error.strerror}",
                next_step="Copy secret.key from the server's data directory, and name it by SNAPKEEP_SECRET_KEY_FILE.",
            ) from error
        except ValueError as error:
            raise InvalidInput(f"{self.path} does not hold a key", next_step="Restore it from its backup.") from error
        return parse_keys(text, self.name)

    def stamp(self) -> Hashable:
        """Return the state of the file; None: it cannot be seen."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size

    def make(self) -> bool:
        """Write a first key where there is no file; one that is there is never replaced. Say whether it was made."""
        temporary = _written(self.path, [new_key()])
        try:
            os.link(temporary, self.path)
            _sync(self.path.parent)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def write(self, keys: Sequence[bytes]) -> None:
        """Put other keys into the file: all of them, or none. Raises PermissionDenied."""
        path = self.path.resolve()
        try:
            _written(path, keys).replace(path)
            _sync(path.parent)
        except OSError as error:
            raise PermissionDenied(
                f"The secret keys cannot be written to {self.path}: {error.strerror}",
                next_step="Let the server write this file and its directory, or change the keys in it by hand.",
            ) from error


@dataclass(frozen=True, slots=True)
class KeyCommand:
    """A command that prints keys, one in each line. What it prints goes nowhere else."""

    arguments: tuple[str, ...]
    name: str = "SNAPKEEP_SECRET_KEY_COMMAND"
    is_quick: bool = False

    def read(self) -> tuple[bytes, ...]:
        """Run it, without a shell. Raises InvalidInput."""
        try:
            done = subprocess.run(  # noqa: S603 - the operator's own
                self.arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=COMMAND_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise self._failed(f"did not end within {COMMAND_SECONDS:g} s") from None
        except OSError as error:
            raise self._failed(f"cannot be run: {error.strerror}") from None
        if done.returncode:
            raise self._failed(f"failed with {done.returncode}")
        return parse_keys(done.stdout.decode("ascii", "replace"), self.name)

    def stamp(self) -> Hashable:
        """Return another from time to time."""
        return int(time.monotonic() / AGAIN_SECONDS)

    def _failed(self, how: str) -> InvalidInput:
        program = Path(self.arguments[0]).name
        return InvalidInput(
            f"The command {program!r} for the secret key {how}",
            next_step="Run it by hand, as the user of the server: it must print the key in base64 and end with 0.",
        )


def parse_keys(text: str, name: str) -> tuple[bytes, ...]:
    """Return the keys in a text, parted by spaces or lines. Raises InvalidInput, which shows nothing of the text."""
    try:
        keys = tuple(_checked(base64.b64decode(word, validate=True), name) for word in text.split())
    except ValueError:
        keys = ()
    if not keys:
        raise InvalidInput(f"{name} does not hold a key", next_step="Restore it from its backup.")
    return tuple(dict.fromkeys(keys))


def new_key() -> bytes:
    """Return a new key."""
    return secrets.token_bytes(KEY_BYTES)


def _checked(key: bytes, name: str) -> bytes:
    if len(key) != KEY_BYTES:
        raise InvalidInput(
            f"{name} holds something that is no secret key: those have {KEY_BYTES} bytes",
            next_step="Restore it from its backup.",
        )
    return key


def _sync(directory: Path) -> None:
    """See that a name in a directory outlives a loss of power: what is sealed by a key must not outlive the key."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, keys: Sequence[bytes]) -> Path:
    """Write a file beside another one, for the owner alone, and durably."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        for key in keys:
            file.write(base64.b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return temporary
