"""`snapkeep audit`: what was done and tried; and whether the record of it is whole, without a server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.database import HERE, Where
from snapkeep.cli.moments import ago
from snapkeep.cli.options import DEFAULT, Common

app = App(name="audit", help="List, export and verify what was done and tried.")

Outcome = Literal["asked", "done", "refused", "failed"]
SecretKeyFile = Annotated[Path | None, Parameter(name="--secret-key-file", env_var="SNAPKEEP_SECRET_KEY_FILE")]


@app.command(name="list")
def list_lines(
    *,
    actor: str | None = None,
    action: str | None = None,
    outcome: Outcome | None = None,
    since: str | None = None,
    until: str | None = None,
    oldest_first: Annotated[bool, Parameter(negative="")] = False,
    limit: int = 30,
    common: Common = DEFAULT,
) -> None:
    """List what was done and tried, the newest first.

    Parameters
    ----------
    actor
        Only what this one did, or tried.
    action
        Only this action, such as snapshot.delete or operation.backup.
    outcome
        Only lines with this outcome.
    since
        Only from then on: 2026-11-28, 2026-11-28T18:00+01:00, or 7d or 12h ago.
    until
        Only before then, written in the same way.
    oldest_first
        Begin with the oldest.
    limit
        At most as many, 1 to 1000.
    """
    from snapkeep.cli import output

    wanted = {"actor": actor, "action": action, "outcome": outcome}
    times = {name: ago(text).isoformat() for name, text in (("since", since), ("until", until)) if text is not None}
    params = {**wanted, **times, "limit": limit, "sort": "seq" if oldest_first else "-seq"}
    rows = common.connect().request("GET", "/audit", params=params)["data"]
    if not common.json:
        rows = [{**row, "written_at": row["at"], "detail": _words(row["detail"])} for row in rows]
    columns = [
        ("seq", "LINE"),
        ("written_at", "TIME"),
        ("actor", "WHO"),
        ("source", "FROM"),
        ("action", "ACTION"),
        ("subject", "SUBJECT"),
        ("outcome", "OUTCOME"),
        ("detail", "DETAIL"),
    ]
    output.show(common, rows, columns, empty="There are no such lines.")


@app.command
def export(
    file: Path | None = None,
    /,
    *,
    first: Annotated[int, Parameter(name="--from")] = 1,
    force: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Write the audit log to a file, to be kept elsewhere: JSON lines, the oldest first.

    Parameters
    ----------
    file
        The file; otherwise the lines are printed.
    first
        Number of the line with which it begins: one more than the last export had.
    force
        Replace an older file of this name.
    """
    from snapkeep.cli import output
    from snapkeep.model.errors import Conflict

    rest = common.connect()
    pieces = rest.content("/audit/export", [("first", str(first))], accept="application/x-ndjson")
    if file is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    if file.exists() and not force:
        raise Conflict(f"{file} exists already", next_step="Choose another name, or replace it with --force.")
    last = rest.request("GET", "/audit/head")["seq"]
    lines = -1  # the first one says what follows
    part = file.with_name(f"{file.name}.part")
    with _progress(common, "Exporting") as seen:
        with part.open("wb") as written:
            for piece in pieces:
                written.write(piece)
                lines += piece.count(b"\n")
                seen(lines, last - first + 1)
        part.replace(file)
    if common.json:
        output.print_json({"file": str(file), "first": first, "last": first + lines - 1})
    elif lines:
        output.console.print(f"Wrote lines {first} to {first + lines - 1} to {file}.", markup=False, soft_wrap=True)
    else:
        output.console.print(f"There are no lines from {first} on: {file} has none.", markup=False, soft_wrap=True)


@app.command
def head(*, common: Common = DEFAULT) -> None:
    """Show the last line as SEQ:HASH: note it elsewhere, and give it to `verify` later."""
    from snapkeep.cli import output

    found = common.connect().request("GET", "/audit/head")
    if common.json:
        output.print_json(found)
    else:
        sys.stdout.write(f"{found['seq']}:{found['hash']}\n")


@app.command
def verify(
    *files: Path,
    audit_key_file: Path | None = None,
    secret_key_file: SecretKeyFile = None,
    first: Annotated[int, Parameter(name="--from")] = 1,
    head: str | None = None,
    where: Where = HERE,
) -> None:
    """Verify that no line was altered, removed, added or moved. Needs no server; one may run meanwhile.

    Parameters
    ----------
    files
        Exports that follow each other; otherwise the database itself is read.
    audit_key_file
        File with the audit key that `snapkeep audit key` has printed; otherwise it is taken from the catalog.
    secret_key_file
        File with the secret key that opens the catalog, where it is not in the data directory.
    first
        Number of the line with which the first file begins; what stands before it is taken on trust.
    head
        SEQ:HASH that `snapkeep audit head` has printed earlier: finds a log that was cut, or set back to an older one.
    """
    from snapkeep.catalog.audit_verification import Noted, verify_database, verify_files
    from snapkeep.cli import output
    from snapkeep.model.errors import InvalidInput

    if first != 1 and not files:
        raise InvalidInput("The database is verified from its first line on", next_step="Leave --from away.")
    noted = None if head is None else Noted.parse(head)
    own = _key_of_catalog(where, secret_key_file) if audit_key_file is None else _read_key(audit_key_file)
    with _progress(where.common, "Verifying") as seen:
        if files:
            found = verify_files(files, own, first=first, noted=noted, progress=seen)
        else:
            found = asyncio.run(verify_database(where.settings().catalog_url(), own, noted, seen))
    if where.common.json:
        times = {name: at and at.isoformat() for name, at in (("from", found.first_at), ("to", found.last_at))}
        output.print_json({"ok": True, "first": found.first, "last": found.last, "hash": found.hash.hex(), **times})
    elif found.first_at and found.last_at:
        lines = f"lines {found.first:,} to {found.last:,}"
        when = f"{found.first_at:%Y-%m-%d %H:%M:%S} to {found.last_at:%Y-%m-%d %H:%M:%S} UTC"
        output.console.print(f"Whole: {lines}, from {when}.", markup=False, soft_wrap=True)
        sys.stdout.write(f"Head:  {found.last}:{found.hash.hex()}\n")
    else:
        output.console.print("Whole: there are no lines.", markup=False)


@app.command
def key(*, secret_key_file: SecretKeyFile = None, where: Where = HERE) -> None:
    """Print the audit key, for who verifies exports elsewhere. It opens no secret; who has it could forge lines.

    Parameters
    ----------
    secret_key_file
        File with the secret key that opens the catalog, where it is not in the data directory.
    """
    import base64

    from snapkeep.cli import output

    found = base64.b64encode(_key_of_catalog(where, secret_key_file)).decode("ascii")
    if where.common.json:
        output.print_json({"audit_key": found})
    else:
        sys.stdout.write(f"{found}\n")


def _key_of_catalog(where: Where, secret_key_file: Path | None) -> bytes:
    from snapkeep.catalog.audit_verification import read_key
    from snapkeep.catalog.key_sources import KeyFile
    from snapkeep.catalog.secrets import SecretBox
    from snapkeep.model.errors import InvalidInput, NotFound

    settings = where.settings()
    keys = settings.keys() if secret_key_file is None else KeyFile(secret_key_file)
    try:
        return asyncio.run(read_key(settings.catalog_url(), SecretBox(keys)))
    except (NotFound, InvalidInput) as error:
        raise InvalidInput(
            f"The audit key cannot be taken from the catalog: {error.message}",
            next_step="Name its data directory and its secret key, or, to verify an export, give --audit-key-file with "
            "what `snapkeep audit key` printed there.",
        ) from error


def _read_key(file: Path) -> bytes:
    from snapkeep.catalog.key_sources import parse_keys
    from snapkeep.model.errors import InvalidInput

    try:
        return parse_keys(file.read_text(), str(file))[0]
    except (OSError, ValueError, InvalidInput) as error:
        raise InvalidInput(
            f"The audit key cannot be read from {file}",
            next_step="Give a file that holds what `snapkeep audit key` prints.",
        ) from error


def _words(detail: dict[str, Any]) -> str:
    """Return details in one line."""
    return "; ".join(
        f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in detail.items()
    )


@contextmanager
def _progress(common: Common, title: str) -> Iterator[Callable[[int, int], None]]:
    from snapkeep.cli import output

    with output.progress(common, title) as seen:

        def told(done: int, total: int) -> None:
            values: dict[str, Any] = {"items": 0, "progress": min(done / (total or 1), 1.0)}
            seen({"phase": f"{done:,} of {max(done, total):,} lines", **values})

        yield told
