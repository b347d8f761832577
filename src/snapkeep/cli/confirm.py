"""Asking a person before something is lost."""

from __future__ import annotations

import sys

from snapkeep.model.errors import InvalidInput


def typed(question: str, expected: str) -> str:
    """Ask a person for a name. Raises InvalidInput where there is no person."""
    if not sys.stdin.isatty():
        raise InvalidInput("This must be confirmed", next_step=f"Add --confirm {expected!r}.")
    return _ask(f"{question}\nType the name of the asset ({expected}) to confirm: ")


def agree(question: str) -> None:
    """Ask a person yes or no; no ends the command. Raises InvalidInput where there is no person."""
    if not sys.stdin.isatty():
        raise InvalidInput("This must be confirmed", next_step="Add --yes.")
    if _ask(f"{question} [y/N] ").lower() not in {"y", "yes"}:
        raise SystemExit(1)


def _ask(question: str) -> str:
    """Ask on standard error: standard output may be read by a program."""
    from snapkeep.cli import output

    sys.stderr.write("\n".join(output.printable(line) for line in question.split("\n")))
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise
