"""The data directory: one server at a time, files that only the owner reads."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snapkeep.model.errors import Busy, InvalidInput


def default_data_dir() -> Path:
    """Return where data is kept: `$XDG_DATA_HOME/snapkeep`, usually `~/.local/share/snapkeep`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "snapkeep"


@dataclass(frozen=True, slots=True)
class DataDir:
    """Names of the files in a data directory."""

    root: Path

    @property
    def catalog(self) -> Path:
        """The catalog (SQLite)."""
        return self.root / "catalog.sqlite"

    @property
    def engine(self) -> Path:
        """The engine's own state (SQLite)."""
        return self.root / "engine.sqlite"

    @property
    def key(self) -> Path:
        """The key of the stored secrets."""
        return self.root / "secret.key"

    @property
    def token(self) -> Path:
        """The token of the REST API."""
        return self.root / "token"

    @property
    def address(self) -> Path:
        """Where the running server listens."""
        return self.root / "server.json"

    def load_token(self) -> str:
        """Read the token, or make it at first start."""
        try:
            descriptor = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            token = self.token.read_text().strip()
            if len(token) < 32:
                raise InvalidInput(
                    f"{self.token} does not hold a token", next_step="Remove it: the next start makes a new one."
                ) from None
            return token
        token = secrets.token_urlsafe(32)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
        return token

    def write_address(self, url: str, **trust: str) -> None:
        """Leave a note for the command line: where the server is, and the file by which to know it."""
        temporary = self.address.with_suffix(".new")
        temporary.write_text(json.dumps({"url": url, "pid": os.getpid(), **trust}) + "\n")
        temporary.replace(self.address)


@contextmanager
def claim(root: Path) -> Iterator[DataDir]:
    """Make the directory if it is missing, and hold it. Raises Busy when another server does."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise InvalidInput(
            f"The data directory {root} cannot be used: {error.strerror}",
            next_step="Choose another one with --data-dir or SNAPKEEP_DATA_DIR.",
        ) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Busy(
                f"Another server uses {root}", next_step="Stop it first, or give this one its own --data-dir."
            ) from error
        directory = DataDir(root)
        try:
            yield directory
        finally:
            with contextlib.suppress(FileNotFoundError):
                directory.address.unlink()


def is_claimed(root: Path) -> bool:
    """Say whether a server holds the directory now."""
    try:
        with (root / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def token_digest(token: str) -> bytes:
    """Return what the server keeps in memory of a token."""
    return hashlib.sha256(token.encode()).digest()
