"""Verifying the audit log without a server: the table as it is at one moment, or files that were exported."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from snapkeep.catalog.audit import HEAD, line_of
from snapkeep.catalog.audit_chain import (
    Chain,
    Fault,
    Head,
    Line,
    Verifier,
    broken,
    derive_key,
    read_header,
    read_lines,
)
from snapkeep.catalog.backup import open_file
from snapkeep.catalog.database import connect_database, require_ours, schema_of
from snapkeep.catalog.database_url import address_of, parse_url
from snapkeep.catalog.notes import ROOT
from snapkeep.catalog.outages import explained
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import audit, notes
from snapkeep.model.errors import Conflict, InvalidInput, NotFound

Progress = Callable[[int, int], None]
"""Is told how many lines were verified, and how many there are."""

T = TypeVar("T")
_AT_ONCE = 1000


def _ignore(_done: int, _total: int) -> None:
    """Nobody looks on."""


@dataclass(frozen=True, slots=True)
class Noted:
    """A head that was noted elsewhere: where the log has that line, it must be this one."""

    seq: int
    hash: bytes

    @classmethod
    def parse(cls, text: str) -> Noted:
        """Read one from SEQ:HASH. Raises InvalidInput."""
        seq, _, known = text.partition(":")
        try:
            found = cls(int(seq), bytes.fromhex(known))
            if found.seq < 0 or len(found.hash) != 32:
                raise ValueError("out of range")
        except ValueError as error:
            raise InvalidInput(
                f"{text!r:.120} is no head", next_step="Give SEQ:HASH, as `snapkeep audit head` prints it."
            ) from error
        return found


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found in order."""

    first: int
    last: int
    hash: bytes
    """Of the last line."""
    first_at: datetime | None
    last_at: datetime | None


class _Walk:
    """Takes lines, and remembers what is to be told about them."""

    def __init__(self, key: bytes, first: int, noted: Noted | None, progress: Progress) -> None:
        self.verifier = Verifier(key, first=first)
        self._first = first
        self._noted = noted
        self._progress = progress
        self._first_at: datetime | None = None
        self._last_at: datetime | None = None

    def take(self, lines: Iterator[Line], head: Head) -> None:
        """Take the lines of a table or a file, which ends with a head."""
        self.verifier.expect(head)
        for line in lines:
            self.verifier.take(line)
            self._meet()
            self._first_at, self._last_at = self._first_at or line.at, line.at
            if line.seq % _AT_ONCE == 0:
                self._progress(line.seq - self._first + 1, head.seq - self._first + 1)
        self.verifier.end(head)

    def verified(self) -> Verified:
        """Return the result. Raises Damaged when what was noted elsewhere is not there."""
        last, noted = self.verifier.seq, self._noted
        if noted is not None and noted.seq > last:
            raise broken(
                Fault.CUT,
                last + 1,
                f"The log ends with line {last}, although line {noted.seq} was noted: it was cut, or set back to an "
                "older state",
            )
        return Verified(self._first, last, self.verifier.hash or bytes(32), self._first_at, self._last_at)

    def _meet(self) -> None:
        if self._noted is not None:
            self.verifier.meets(self._noted.seq, self._noted.hash)


# -- the table ---------------------------------------------------------------------------------------------------------
async def verify_database(url: str, key: bytes, noted: Noted | None = None, progress: Progress = _ignore) -> Verified:
    """Verify the log of a catalog, while others go on writing to it. Nothing is changed.

    Raises Damaged for the first line that is wrong, InvalidInput for another key.
    """

    def look(connection: Connection) -> Verified:
        walk = _Walk(key, 1, noted, progress)
        with closing(_rows(connection)) as rows:
            walk.take(rows, _head(connection, key))
        return walk.verified()

    return await _read(url, look)


async def read_key(url: str, box: SecretBox) -> bytes:
    """Return the audit key of a catalog. Raises InvalidInput when its secrets cannot be opened."""

    def look(connection: Connection) -> bytes:
        sealed = connection.scalar(select(notes.c.value).where(notes.c.key == ROOT))
        if sealed is None:
            raise NotFound("The catalog has no audit key yet", next_step="Start the server: it makes one.")
        return derive_key(bytes.fromhex(box.open(ROOT, sealed)["root"]))

    return await _read(url, look)


async def _read(url: str, look: Callable[[Connection], T]) -> T:
    """Look at one moment of a catalog."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        with open_file(Path(str(parsed.database)), "catalog") as connection:
            _require_log(connection, address_of(parsed))
            return look(connection)
    engine = connect_database(url)
    try:
        async with engine.connect() as found:
            await found.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            await found.run_sync(_require_log, address_of(parsed))
            return await found.run_sync(look)
    except SQLAlchemyError as error:
        raise await explained(error, parsed) from error
    finally:
        await engine.dispose()


def _require_log(connection: Connection, address: str) -> None:
    schema = schema_of(connection)
    require_ours(schema, address)
    if not inspect(connection).has_table(audit.name):
        raise Conflict(
            f"The database {address} has no audit log yet",
            next_step="Start the server, or run `snapkeep database upgrade`: from then on there is one.",
        )


def _head(connection: Connection, key: bytes) -> Head:
    noted = connection.scalar(select(notes.c.value).where(notes.c.key == HEAD))
    if noted is None:
        if connection.scalar(select(func.count()).select_from(audit)):
            raise broken(Fault.ALTERED, None, "The audit log has lost its head")
        return Chain(key).head()
    head = Head.from_bytes(noted)
    if head is None:
        raise broken(Fault.ALTERED, None, "The head of the audit log was altered")
    return head


def _rows(connection: Connection) -> Generator[Line]:
    query = select(audit).order_by(audit.c.seq)
    with connection.execution_options(yield_per=_AT_ONCE).execute(query) as rows:
        for position in itertools.count(1):
            try:
                row = next(rows, None)
                line = None if row is None else line_of(row)
            except (ValueError, TypeError, OverflowError, MemoryError) as error:  # it has not the form of a line
                message = f"The row in place of line {position} is not what was written"
                raise broken(Fault.ALTERED, None, message) from error
            if line is None:
                return
            yield line


# -- files -------------------------------------------------------------------------------------------------------------
def verify_files(
    files: Sequence[Path], key: bytes, *, first: int = 1, noted: Noted | None = None, progress: Progress = _ignore
) -> Verified:
    """Verify exports that follow each other; the first one begins with line `first`.

    Raises Damaged for the first line that is wrong, InvalidInput for another key, and for what is no export.
    """
    walk = _Walk(key, first, noted, progress)
    for file in files:
        try:
            with file.open("rb") as raws:
                begins, head = read_header(raws.readline(), str(file))
                if begins != walk.verifier.seq + 1:
                    raise broken(
                        Fault.MISSING if begins > walk.verifier.seq else Fault.REORDERED,
                        walk.verifier.seq + 1,
                        f"{file} begins with line {begins}, and not with line {walk.verifier.seq + 1}",
                    )
                walk.take(read_lines(raws, begins), head)
        except OSError as error:
            raise InvalidInput(f"{file} cannot be read: {error.strerror}", next_step="Check the path.") from error
    return walk.verified()
