"""Passwords from the keyboard, without showing them, or from a file; never from the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from snapkeep.model.errors import InvalidInput


def get_password(file: Path | None, prompt: str, *, twice: bool = False, option: str = "--password-file") -> str:
    """Return the first line of a file, or what is typed; a new one is typed twice. Raises InvalidInput."""
    password = _typed(prompt, option) if file is None else first_line(file)
    if not password:
        raise InvalidInput("The password is empty")
    if twice and file is None and _typed("Once more: ", option) != password:
        raise InvalidInput("These were two different passwords", next_step="Try again.")
    return password


def first_line(file: Path) -> str:
    """Return the first line of a file. Raises InvalidInput when it cannot be read, or is empty."""
    return content(file).splitlines()[0]


def content(file: Path) -> str:
    """Return what a file with a secret holds. Raises InvalidInput when it cannot be read, or begins with no line."""
    try:
        text = file.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"No secret can be read from {str(file)!r:.200}: {reason}") from error
    if not text.splitlines() or not text.splitlines()[0].strip():
        raise InvalidInput(
            f"The first line of {str(file)!r:.200} is empty", next_step="Write the secret into its first line."
        )
    return text


def _typed(prompt: str, option: str) -> str:
    from getpass import getpass

    from snapkeep.cli import output

    if not sys.stdin.isatty():
        raise InvalidInput("There is no terminal at which to ask for a password", next_step=f"Give {option} FILE.")
    try:
        return getpass(output.printable(prompt))
    except EOFError:
        sys.stderr.write("\n")
        return ""
