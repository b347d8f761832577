"""`snapkeep database`: the catalog's database itself, without a server."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from snapkeep.cli.options import Common, Output
from snapkeep.cli.recording import record

if TYPE_CHECKING:
    from snapkeep.catalog.backup import Copied
    from snapkeep.server.settings import ServerSettings

app = App(name="database", help="Back up, restore, upgrade and show the catalog's database.")


@Parameter(name="*", group="Database options")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Which database, and how to print the answer."""

    data_dir: Annotated[Path | None, Parameter(name="--data-dir", env_var="SNAPKEEP_DATA_DIR")] = None
    """Data directory of the server; the catalog is there, unless it is in PostgreSQL."""

    database_url_file: Annotated[
        Path | None, Parameter(name="--database-url-file", env_var="SNAPKEEP_DATABASE_URL_FILE")
    ] = None
    """File whose first line is the URL of a PostgreSQL database; or set SNAPKEEP_DATABASE_URL."""

    output: Annotated[Output, Parameter(name=["--output", "-o"], env_var="SNAPKEEP_OUTPUT")] = "table"
    """table for people, json for programs."""

    @property
    def common(self) -> Common:
        """How to print."""
        return Common(output=self.output)

    def settings(self) -> ServerSettings:
        """Return the settings that `snapkeep serve` would have."""
        from snapkeep.server.settings import ServerSettings

        os.umask(0o077)  # everything made here is for the owner alone
        return ServerSettings.read(data_dir=self.data_dir, database_url_file=self.database_url_file)

    @property
    def options(self) -> str:
        """The options that lead to the same database, as one would type them; the environment says the rest."""
        given = {
            "--data-dir": (self.data_dir, "SNAPKEEP_DATA_DIR"),
            "--database-url-file": (self.database_url_file, "SNAPKEEP_DATABASE_URL_FILE"),
        }
        return "".join(
            f" {name} {shlex.quote(str(value))}"
            for name, (value, variable) in given.items()
            if value is not None and str(value) != os.environ.get(variable)
        )


HERE = Where()


@app.command
def show(*, where: Where = HERE) -> None:
    """Show which database it is, and whether this program can use it. Nothing is changed."""
    from snapkeep.catalog.backup import describe
    from snapkeep.catalog.database import head_revision
    from snapkeep.cli import output

    found = asyncio.run(describe(where.settings().catalog_url()))
    value = {
        "kind": found.kind,
        "address": found.address,
        "state": found.schema.state,
        "revision": found.schema.revision,
        "program_revision": head_revision(),
        "size_bytes": found.size_bytes,
        "rows": found.rows,
    }
    output.show_one(where.common, value)


@app.command
def backup(file: Path, /, *, force: Annotated[bool, Parameter(negative="")] = False, where: Where = HERE) -> None:
    """Write the catalog to a file; a server may run meanwhile.

    Parameters
    ----------
    file
        The backup: one SQLite file, also when the catalog is in PostgreSQL.
    force
        Replace an older backup of this name.
    """
    from snapkeep.catalog.backup import back_up

    settings = where.settings()
    with _progress(where, "Backing up") as seen:
        made = asyncio.run(back_up(settings.catalog_url(), file, force=force, progress=seen))
    recorded = record(settings, "database.backup", str(file.absolute()))
    _tell(
        where,
        made,
        {"file": str(file), "secret_key": settings.keys().name, "recorded": recorded},
        f"Wrote {file}",
        f"Keep a copy of the secret key {settings.keys().name} too, in another place: without it nobody can open the "
        "passwords in this backup.",
    )


@app.command
def restore(file: Path, /, *, where: Where = HERE) -> None:
    """Fill a new data directory, or an empty PostgreSQL database, from a backup.

    So an installation also moves from SQLite to PostgreSQL and back. Operations that were open go on at the next start.

    Parameters
    ----------
    file
        The backup.
    """
    from snapkeep.catalog.backup import restore as run
    from snapkeep.catalog.database_url import address_of, parse_url
    from snapkeep.catalog.key_sources import KeyFile
    from snapkeep.model.errors import Conflict

    settings = where.settings()
    url = parse_url(settings.catalog_url())
    with _stopped(settings), _progress(where, "Restoring") as seen:
        engine = settings.directory.engine
        if url.get_backend_name() == "sqlite" and engine.exists():  # it tells of operations of another catalog
            raise Conflict(f"{engine} belongs to another catalog", next_step="Restore into a new data directory.")
        made = asyncio.run(run(file, settings.catalog_url(), progress=seen))
        recorded = record(settings, "database.restore", str(file.absolute()))
    key = settings.keys()
    present = not isinstance(key, KeyFile) or key.path.exists()
    _tell(
        where,
        made,
        {"address": address_of(url), "secret_key": key.name, "secret_key_present": present, "recorded": recorded},
        f"Restored {file} to {address_of(url)}",
        f"Next: snapkeep serve{where.options}"
        if present
        else f"Next: copy the secret key of that installation to {key.name}",
    )


@app.command
def upgrade(
    *, backup: Annotated[bool, Parameter(name="--backup", negative="--no-backup")] = True, where: Where = HERE
) -> None:
    """Bring a database that an older Snapkeep wrote to the revision of this program.

    Stop server and workers first. A backup is made before, in the data directory.

    Parameters
    ----------
    backup
        Make the backup.
    """
    from snapkeep.catalog.backup import describe
    from snapkeep.catalog.backup import upgrade as run
    from snapkeep.catalog.database import State, head_revision
    from snapkeep.cli import output

    settings = where.settings()
    url = settings.catalog_url()
    before = asyncio.run(describe(url)).schema

    def place(revision: str) -> Path:
        return settings.data_dir / f"catalog-{revision}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.sqlite"

    made: Path | None = None
    recorded = True
    if before.state not in {State.CURRENT, State.EMPTY}:
        with _stopped(settings), _progress(where, "Upgrading") as seen:
            made = asyncio.run(
                run(url, place if backup else None, living_seconds=settings.takeover_seconds, progress=seen)
            )
            recorded = record(settings, "database.upgrade", f"revision {before.revision} to {head_revision()}")
    if where.common.json:
        told = {"from": before.revision, "to": head_revision(), "backup": str(made) if made else None}
        output.print_json({**told, "recorded": recorded})
    elif before.state is State.EMPTY:
        output.console.print("The database is empty: the first start of the server makes what it needs.")
    elif before.state is State.CURRENT:
        output.console.print(f"The database has the newest revision already: {before.revision}.")
    else:
        output.console.print(f"Upgraded from revision {before.revision} to {head_revision()}.")
        if made:
            output.console.print(f"Backup from before: {made}", markup=False, soft_wrap=True)
        _tell_unrecorded(recorded=recorded)


@contextmanager
def _stopped(settings: ServerSettings) -> Iterator[None]:
    """Make sure that no server runs on the data directory, and that none starts meanwhile."""
    from snapkeep.model.errors import Busy
    from snapkeep.server.datadir import claim, is_claimed

    if is_claimed(settings.data_dir):
        raise Busy(f"A server runs on {settings.data_dir}", next_step="Stop it first.")
    with claim(settings.data_dir):
        yield


@contextmanager
def _progress(where: Where, title: str) -> Iterator[Callable[[int, int], None]]:
    from snapkeep.cli import output

    with output.progress(where.common, title) as seen:
        yield lambda done, total: seen(
            {"phase": f"{done / (total or 1):.0%}", "items": 0, "progress": done / (total or 1)}
        )


def _tell(where: Where, made: Copied, about: dict[str, object], what: str, then: str) -> None:
    from snapkeep.cli import output

    if where.common.json:
        output.print_json(about | {"revision": made.revision, "size_bytes": made.size_bytes, "rows": made.rows})
        return
    rows = f"{sum(made.rows.values()):,} rows"
    output.console.print(
        f"{what}: {output.size(made.size_bytes)}, {rows}, revision {made.revision}.", markup=False, soft_wrap=True
    )
    output.console.print(then, markup=False, soft_wrap=True)
    _tell_unrecorded(recorded=bool(about["recorded"]))


def _tell_unrecorded(*, recorded: bool) -> None:
    from snapkeep.cli import output

    if not recorded:
        output.errors.print("This is not in the audit log: it takes the secret key to write there.", markup=False)
