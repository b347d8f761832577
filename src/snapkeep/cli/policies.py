"""`snapkeep policy`: what is done when, and how long it is kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common, Output
from snapkeep.cli.references import part
from snapkeep.model.errors import InvalidInput, NotFound

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


# -- on the server -----------------------------------------------------------------------------------------------------
@app.command
def apply(files: list[Path], /, *, dry_run: DryRun = False, common: Common = DEFAULT) -> None:
    """Store policies as they are in files: new ones, and changes. All are looked at before the first is stored.

    A new policy begins with what is due after that. After a change, its retention deletes nothing until the cooling
    time has passed.

    Parameters
    ----------
    files
        YAML; a single dash: standard input.
    dry_run
        Only say what would be done.
    """
    from snapkeep.cli.output import console, print_json, printable

    written = [one for file in files for one in _valid(file)]
    names = [one.policy.name for one in written]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InvalidInput(f"The policy {twice[0]!r} is there twice: names are unique")
    rest = common.connect()
    planned = [rest.request("PUT", f"/policies/{one.policy.name}", json={"text": one.text}, params={"dry_run": True})
             for one in written]  # fmt: skip
    stored = [] if dry_run else [_store(rest, one) for one in written]
    if common.json:
        print_json(planned if dry_run else stored)
        return
    for number, found in enumerate(planned):
        said = f"Would {found['would']}" if dry_run else f"Applied {written[number].policy.name}"
        lines = [f"{said}: {found['affected'][0]}", *(f"  note: {note}" for note in found["affected"][1:])]
        for line in lines:
            console.print(printable(line), markup=False, soft_wrap=True)


@app.command(name="list")
def list_policies(*, common: Common = DEFAULT) -> None:
    """List the policies."""
    from snapkeep.cli import output

    rows = list(common.connect().pages("/policies"))
    if not common.json:
        rows = [{**row, "deletes_from_at": row["deletes_from"]} for row in rows]
    columns = [("name", "NAME"), ("enabled", "ENABLED"), ("steps", "STEPS"), ("rpo", "RPO"), ("timezone", "ZONE"),
               ("changed_at", "CHANGED"), ("deletes_from_at", "DELETES FROM"), ("comment", "COMMENT")]  # fmt: skip
    output.show(common, rows, columns, empty="There are no policies. Write one, and `snapkeep policy apply FILE`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show one policy.

    Parameters
    ----------
    name
        Its name.
    """
    from snapkeep.cli import output

    found = common.connect().request("GET", f"/policies/{part(name)}")
    output.show_one(common, found, hide=() if common.json else ("document", "text"))
    if not common.json:
        output.console.print()
        sys.stdout.write("\n".join(output.printable(line) for line in found["text"].split("\n")))


@app.command
def export(name: str, /, *, common: Common = DEFAULT) -> None:
    """Print a policy as it was written, with its comments.

    Parameters
    ----------
    name
        Its name.
    """
    sys.stdout.write(common.connect().request("GET", f"/policies/{part(name)}")["text"])


@app.command
def enable(name: str, /, *, common: Common = DEFAULT) -> None:
    """Let a policy run again, beginning with what is due then.

    Parameters
    ----------
    name
        Its name.
    """
    _switch(common, name, "enable")


@app.command
def disable(name: str, /, *, common: Common = DEFAULT) -> None:
    """Let a policy neither run nor delete anything. What runs already goes on.

    Parameters
    ----------
    name
        Its name.
    """
    _switch(common, name, "disable")


@app.command
def remove(name: str, /, *, dry_run: DryRun = False, common: Common = DEFAULT) -> None:
    """Remove a policy. What it has made stays, and no policy deletes it any more.

    Parameters
    ----------
    name
        Its name.
    dry_run
        Only say what would be done.
    """
    from snapkeep.cli.output import console, print_json, printable

    rest = common.connect()
    if dry_run:
        would(common, rest, "DELETE", f"/policies/{part(name)}")
        return
    rest.request("DELETE", f"/policies/{part(name)}")
    if common.json:
        print_json({"removed": name})
    else:
        console.print(printable(f"Removed the policy {name}; what it has made stays."), markup=False, soft_wrap=True)


app.command("snapkeep.cli.policy_plans:plan", name="plan", help="Say what retention would delete, keep, and why.")
app.command("snapkeep.cli.policy_plans:prune", name="prune", help="Delete exactly what a plan says.")


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


def _store(rest: Any, one: Written) -> Json:
    """Store a policy; what somebody else changes at this moment is not lost."""
    path = f"/policies/{one.policy.name}"
    try:
        _, tag = rest.read(path)
        headers = {"If-Match": tag}
    except NotFound:
        headers = {}
    return dict(rest.request("PUT", path, json={"text": one.text}, headers=headers))


def _switch(common: Common, name: str, verb: str) -> None:
    from snapkeep.cli import output

    found = common.connect().request("POST", f"/policies/{part(name)}/{verb}")
    if common.json:
        output.print_json(found)
    else:
        output.console.print(output.printable(f"{found['name']} is {verb}d"), markup=False, soft_wrap=True)
