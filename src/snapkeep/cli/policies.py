"""`snapkeep policy`: what is done when, and how long it is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.options import Common, Output
from snapkeep.model.errors import InvalidInput

if TYPE_CHECKING:
    from snapkeep.policy.reading import Mistake, Written

app = App(name="policy", help="Say which assets are protected when, and how long; see it before it happens.")

Json = dict[str, Any]
As = Annotated[Output, Parameter(name=["--output", "-o"], env_var="SNAPKEEP_OUTPUT")]
LONGEST_DAYS = 3660


@app.command
def validate(files: list[Path], /, *, output: As = "table") -> None:
    """Say all that is wrong in files of policies, with the line; no server is asked.

    Ends with the exit code of invalid input when anything is wrong. What is allowed, but hardly meant, is said as well.

    Parameters
    ----------
    files
        YAML; several policies in one file are separated by lines of three dashes. A single dash: standard input.
    output
        table for people, json for programs.
    """
    from snapkeep.cli.output import console, print_json, printable

    found = [(file, *_read(file)) for file in files]
    twice = _names_in_more_than_one(found)
    wrong = bool(twice) or any(mistake.is_error for _, _, mistakes in found for mistake in mistakes)
    if output == "json":
        print_json({"valid": not wrong, "files": [_file(*one) for one in found], "twice": twice})
    else:
        for file, policies, mistakes in found:
            for mistake in mistakes:
                kind = "" if mistake.is_error else "note: "
                where = f"{mistake.where}: " if mistake.where else ""
                line = f"{file}:{mistake.line}: {kind}{where}{mistake.message}"
                console.print(printable(line), markup=False, soft_wrap=True)
            if not any(mistake.is_error for mistake in mistakes):
                names = ", ".join(one.policy.name for one in policies)
                console.print(printable(f"{file}: ok: {names}"), markup=False, soft_wrap=True)
        for sentence in twice:
            console.print(printable(sentence), markup=False, soft_wrap=True)
    if wrong:
        raise SystemExit(InvalidInput.exit_code)


@app.command
def schema() -> None:
    """Print the JSON Schema of a policy, by which editors complete and check it."""
    from snapkeep.cli.output import print_json
    from snapkeep.policy.document import schema as of_policy

    print_json(of_policy())


@app.command
def simulate(
    file: Path,
    /,
    *,
    days: int = 400,
    start: str | None = None,
    size: str | None = None,
    changed: str | None = None,
    output: As = "table",
) -> None:
    """Show what policies would have made and kept after so many days, week by week; no server is asked.

    Every run is taken to succeed, on time. With a size, the storage is estimated for one asset: what holds all of it,
    and what has changed between the points that are kept.

    Parameters
    ----------
    file
        YAML; a single dash: standard input.
    days
        How many, 1 to 3660.
    start
        When it begins: 2027-01-01; default: now.
    size
        Of one asset: 500G, 1T.
    changed
        How much of it is written anew on a day: 10G; default: a hundredth of its size.
    output
        table for people, json for programs.
    """
    from snapkeep.cli import timeline
    from snapkeep.cli.moments import bytes_of, from_now

    if not 1 <= days <= LONGEST_DAYS:
        raise InvalidInput(f"{days} days cannot be shown", next_step=f"Give 1 to {LONGEST_DAYS}.")
    if changed is not None and size is None:
        raise InvalidInput("Without its size, nothing can be estimated of an asset", next_step="Give --size 1T, too.")
    whole = bytes_of(size) if size is not None else None
    a_day = bytes_of(changed) if changed is not None else (whole or 0) // 100
    begin = from_now(start or "0d")
    shown = [timeline.simulated(one.policy, begin, days, whole, a_day) for one in _valid(file)]
    timeline.show(Common(output=output), shown)


# -- inside ------------------------------------------------------------------------------------------------------------
def _text(file: Path) -> str:
    """Return what a file holds. Raises InvalidInput."""
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}", next_step="Give a file of policies.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is no text in UTF-8", next_step="Save it in UTF-8.") from error


def _read(file: Path) -> tuple[list[Written], list[Mistake]]:
    from snapkeep.policy.reading import read_policies

    return read_policies(_text(file))


def _valid(file: Path) -> list[Written]:
    """Return the policies of a file. Raises InvalidInput with the first mistakes."""
    found, mistakes = _read(file)
    wrong = [f"{file}:{one.line}: {one.where}{': ' if one.where else ''}{one.message}" for one in mistakes
             if one.is_error]  # fmt: skip
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InvalidInput("; ".join(wrong[:3]) + more, next_step=f"See all: `snapkeep policy validate {file}`.")
    return found


def _names_in_more_than_one(found: list[tuple[Path, list[Written], list[Mistake]]]) -> list[str]:
    files: dict[str, list[str]] = {}
    for file, policies, _ in found:
        for name in {one.policy.name for one in policies}:
            files.setdefault(name, []).append(str(file))
    return [f"The policy {name!r} is in {' and '.join(those)}: names are unique" for name, those in files.items()
            if len(those) > 1]  # fmt: skip


def _file(file: Path, policies: list[Written], mistakes: list[Mistake]) -> Json:
    told = [{"line": one.line, "where": one.where, "message": one.message, "error": one.is_error} for one in mistakes]
    return {"file": str(file), "policies": [one.policy.name for one in policies], "mistakes": told}
