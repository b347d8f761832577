"""The sessions of `snapkeep login`, by server: in a file that only their owner reads."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec

from snapkeep.model.errors import AuthenticationFailed, InvalidInput

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's session at a server; `provider`: with which identity provider he has logged in, if with one."""

    name: str
    token: str
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)]
    provider: str | None = None

    def require_time(self, url: str) -> None:
        """Raise AuthenticationFailed when it is over."""
        if self.expires_at <= datetime.now(UTC):
            how = self.name if self.provider is None else f"--browser --provider {self.provider}"
            raise AuthenticationFailed(
                f"The session of {self.name!r} at {url} is over", next_step=f"Log in: `snapkeep login {how}`."
            )


def credentials_file() -> Path:
    """Return where sessions are kept: `$XDG_CONFIG_HOME/snapkeep/credentials.json`, usually below `~/.config`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "snapkeep" / "credentials.json"


def find(url: str) -> Session | None:
    """Return the session at a server. Raises InvalidInput for a file that others can read, or that cannot be read."""
    return _read(credentials_file()).get(_server(url))


def keep(url: str, session: Session) -> None:
    """Keep the session at a server, instead of the one before. Raises InvalidInput."""
    with _changing() as sessions:
        sessions[_server(url)] = session


def forget(url: str) -> None:
    """Forget the session at a server. Raises InvalidInput."""
    with _changing() as sessions:
        sessions.pop(_server(url), None)


def _server(url: str) -> str:
    """Return one spelling for all those of a server's address. Raises InvalidInput."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError as error:
        raise _no_address(url) from error
    if not host or not port:
        raise _no_address(url)
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"


def _read(file: Path) -> dict[str, Session]:
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_mode & 0o077:
                raise InvalidInput(
                    f"Others can read {file}, and log in with the tokens in it",
                    next_step=f"Run `chmod 600 {file}`, then `snapkeep logout` to make them worthless.",
                )
            sessions = msgspec.json.decode(opened.read(), type=dict[str, Session])
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(file, error) from error
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInput(
            f"{file} is not what `snapkeep login` writes", next_step="Remove it, and log in again."
        ) from error
    return sessions


@contextmanager
def _changing() -> Iterator[dict[str, Session]]:
    """Hold the directory, give what is there, and write it anew; who reads meanwhile sees the old or the new."""
    file = credentials_file()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        held = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _unusable(file, error) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        sessions = _read(file)
        yield sessions
        _write(file, msgspec.json.format(msgspec.json.encode(dict(sorted(sessions.items())))) + b"\n")
    except OSError as error:
        raise _unusable(file, error) from error
    finally:
        os.close(held)


def _write(file: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".credentials-")  # mode 0600 from the beginning
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink()
        raise


def _unusable(file: Path, error: OSError) -> InvalidInput:
    return InvalidInput(
        f"Sessions cannot be kept in {file}: {error.strerror}",
        next_step="Make it possible, or set XDG_CONFIG_HOME to another directory.",
    )


def _no_address(url: str) -> InvalidInput:
    return InvalidInput(f"{url!r:.200} is no address of a server", next_step="Write https://HOST:PORT.")
