"""The audit log in the database: one chain whoever appends, and nothing that was done to it goes unseen."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from snapkeep.catalog.audit import HEAD
from snapkeep.catalog.audit_chain import Entry, Fault, Line, Outcome, export_header, export_line
from snapkeep.catalog.audit_verification import Noted, Verified, read_key, verify_database, verify_files
from snapkeep.catalog.catalog import Catalog, open_catalog
from snapkeep.catalog.fencing import Fence, Superseded
from snapkeep.catalog.operation_ends import ended
from snapkeep.catalog.records import OperationState
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.tables import audit, notes
from snapkeep.model.errors import Damaged, InvalidInput, NotFound, SnapkeepError, VendorError

KEY = b"k" * 32
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
APPENDER = """
import asyncio, sys
from tests.catalog.test_audit import KEY, entry
from snapkeep.catalog.catalog import open_catalog

async def main(url, name, number, together):
    async with open_catalog(url, KEY) as catalog:
        for turn in range(number):
            lines = (entry(f"{turn}.{item}", actor=name) for item in range(together))
            await asyncio.gather(*map(catalog.audit.append, lines))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
"""


def entry(subject: str = "s", **values: Any) -> Entry:
    given = {"actor": "a", "actor_kind": "user", "source": "192.0.2.1", "action": "x", "outcome": Outcome.DONE}
    return Entry(subject=subject, **(given | values))


@pytest.fixture
async def catalog(database_url: str) -> AsyncIterator[Catalog]:
    async with open_catalog(database_url, KEY) as opened:
        yield opened


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """The database as somebody has it who is not Snapkeep."""
    engine = sa.create_engine(database_url.replace("+aiosqlite", ""))
    yield engine
    engine.dispose()


async def append(catalog: Catalog, number: int) -> list[Line]:
    await asyncio.gather(*(catalog.audit.append(entry(str(item), detail={"n": item})) for item in range(number)))
    return await catalog.audit.find(newest_first=False, limit=1000)


async def verify(url: str, noted: Noted | None = None) -> Verified:
    return await verify_database(url, await read_key(url, SecretBox(KEY)), noted)


async def fault(url: str, noted: Noted | None = None) -> str:
    with pytest.raises(SnapkeepError) as caught:
        await verify(url, noted)
    return str(caught.value.details["fault"])


# -- appending ---------------------------------------------------------------------------------------------------------
async def test_what_is_appended_is_there_as_it_was(catalog: Catalog, database_url: str) -> None:
    texts = ["plain", "äß", "a\nb\r\x1b[31m\0", "not UTF-8 \udcff", "\U0010ffff", "'\"\\", "x" * 5000]
    for text in texts:
        await catalog.audit.append(entry(text, actor=text, source=text, action=text, detail={text: [text, 1, None]}))
    lines = [line async for line in catalog.audit.lines(1, len(texts))]
    assert [line.entry.subject for line in lines] == texts
    assert [dict(line.entry.detail) for line in lines] == [{text: [text, 1, None]} for text in texts]
    assert [line.seq for line in lines] == list(range(1, len(texts) + 1))
    assert all(abs(line.at - datetime.now(UTC)) < timedelta(minutes=10) for line in lines)
    done = await verify(database_url)
    assert (done.first, done.last, done.hash) == (1, len(texts), lines[-1].hash)


async def test_an_empty_log_verifies(catalog: Catalog, database_url: str) -> None:
    assert (await verify(database_url)).last == 0
    assert (await catalog.audit.head()).seq == 0


def test_several_processes_append_to_one_chain(database_url: str) -> None:
    asyncio.run(_touch(database_url))
    children = [
        subprocess.Popen([sys.executable, "-c", APPENDER, database_url, name, "8", str(together)], stderr=-1, text=True)
        for name, together in (("one", 1), ("two", 1), ("many", 7))
    ]
    ended = [(child.communicate(timeout=100)[1], child.returncode) for child in children]
    assert ended == [("", 0)] * len(children)
    lines = asyncio.run(_all(database_url))
    assert [line.seq for line in lines] == list(range(1, 8 * 9 + 1))
    for name, together in (("one", 1), ("two", 1), ("many", 7)):
        turns = [int(line.entry.subject.partition(".")[0]) for line in lines if line.entry.actor == name]
        assert turns == sorted(turns)  # nobody's lines overtake each other
        assert len(turns) == 8 * together
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert asyncio.run(verify(database_url)).last == len(lines)


def test_a_process_that_is_killed_leaves_a_chain(database_url: str) -> None:
    asyncio.run(_touch(database_url))
    command = [sys.executable, "-c", APPENDER, database_url, "endless", "1000000", "3"]
    with subprocess.Popen(command) as child:
        while len(asyncio.run(_all(database_url))) < 10:
            assert child.poll() is None
        child.send_signal(signal.SIGKILL)
    lines = asyncio.run(_all(database_url))
    assert asyncio.run(verify(database_url)).last == len(lines)
    asyncio.run(_touch(database_url))
    assert asyncio.run(verify(database_url)).last == len(lines)


async def _touch(url: str) -> None:
    async with open_catalog(url, KEY):
        pass


async def _all(url: str) -> list[Line]:
    async with open_catalog(url, KEY) as catalog:
        return [line async for line in catalog.audit.lines(1, (await catalog.audit.head()).seq)]


async def test_who_gives_up_waiting_takes_nobody_with_him(catalog: Catalog, database_url: str) -> None:
    waiting = [asyncio.create_task(catalog.audit.append(entry(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[1::2] == [None] * 10
    await catalog.audit.append(entry("later"))
    assert (await verify(database_url)).last == 21


# -- ends of operations ------------------------------------------------------------------------------------------------
async def begin(catalog: Catalog, operation_id: str, kind: str = "create") -> None:
    await catalog.operations.add(
        operation_id=operation_id,
        kind=kind,
        system_id="id",
        system_name="files1",
        queue="default",
        exclusive=None,
        target="files1/projects",
        request={"password": "CANARY"},
        requester="alice",
        now=NOW,
    )


async def ends(catalog: Catalog) -> list[tuple[str, str, str, str, dict[str, Any]]]:
    return [
        (line.entry.actor, line.entry.action, line.entry.subject, line.entry.outcome, dict(line.entry.detail))
        for line in await catalog.audit.find(newest_first=False)
    ]


async def test_each_end_of_an_operation_is_on_record_once(catalog: Catalog) -> None:
    ids = [str(number) * 36 for number in range(4)]
    for operation_id in ids:
        await begin(catalog, operation_id)
    for operation_id in ids[:2]:
        assert await catalog.operations.claim(operation_id, 0, "w1", NOW, phase="starting")
    error = VendorError("it broke", vendor_message="CANARY").to_dict()
    one = catalog.behind(Fence(ids[0], 1)).operations
    await one.update(ids[0], **ended(OperationState.SUCCEEDED, NOW, result={}))
    await catalog.behind(Fence(ids[1], 1)).operations.update(ids[1], **ended(OperationState.FAILED, NOW, error=error))
    cancelled = ended(OperationState.CANCELLED, NOW)
    assert await catalog.operations.change(ids[2], [OperationState.QUEUED], 0, unbegun=True, **cancelled)
    whole = [
        ("alice", "operation.create", "files1/projects", "done", {"operation": ids[0]}),
        (
            "alice",
            "operation.create",
            "files1/projects",
            "failed",
            {"operation": ids[1], "state": "failed", "code": "vendor_error"},
        ),
        (
            "alice",
            "operation.create",
            "files1/projects",
            "failed",
            {"operation": ids[2], "state": "cancelled", "code": None},
        ),
    ]
    assert await ends(catalog) == whole

    with pytest.raises(Superseded):  # what has ended ends no more
        await one.update(ids[0], **ended(OperationState.FAILED, NOW, error=error))
    assert not await catalog.operations.change(ids[2], [OperationState.QUEUED], 0, **cancelled)
    await catalog.operations.update(ids[2], **cancelled)
    with pytest.raises(Superseded):  # nor what another worker runs
        await catalog.behind(Fence(ids[3], 7)).operations.update(ids[3], **cancelled)
    await catalog.operations.update(ids[3], phase="nothing that ends it")
    assert await ends(catalog) == whole


async def test_without_a_line_no_operation_ends(catalog: Catalog, engine: sa.Engine) -> None:
    await append(catalog, 1)
    await begin(catalog, "1" * 36)
    with engine.begin() as connection:
        connection.execute(notes.update().where(notes.c.key == HEAD).values(value=b"{}"))
    with pytest.raises(Damaged):
        await catalog.operations.update("1" * 36, **ended(OperationState.SUCCEEDED, NOW))
    assert (await catalog.operations.get("1" * 36)).state is OperationState.QUEUED


async def test_many_ends_and_many_lines_are_one_chain(catalog: Catalog, database_url: str) -> None:
    ids = [f"{number:036}" for number in range(12)]
    for operation_id in ids:
        await begin(catalog, operation_id)
    finished = ended(OperationState.SUCCEEDED, NOW)
    await asyncio.gather(
        *(catalog.operations.update(operation_id, **finished) for operation_id in ids),
        *(catalog.audit.append(entry(operation_id)) for operation_id in ids),
    )
    assert (await verify(database_url)).last == 24


# -- tampering ---------------------------------------------------------------------------------------------------------
async def test_every_column_of_every_line_counts(catalog: Catalog, engine: sa.Engine, database_url: str) -> None:
    await append(catalog, 3)
    for column in audit.c:
        for seq in (1, 2, 3):
            with engine.begin() as connection:
                row = connection.execute(sa.select(audit).where(audit.c.seq == seq)).one()._mapping
                was = row[column.name]
                connection.execute(audit.update().where(audit.c.seq == seq).values({column.name: _other(was)}))
            assert await fault(database_url) in {Fault.ALTERED, Fault.MISSING}, column.name
            with engine.begin() as connection:
                now = _other(was) if column is audit.c.seq else seq
                connection.execute(audit.update().where(audit.c.seq == now).values({column.name: was}))
    assert (await verify(database_url)).last == 3


def _other(value: Any) -> Any:
    match value:
        case str():
            return "failed" if value == "done" else f"{value}x"[-16:]
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1])
        case int():
            return value + 100
        case datetime():
            return value + timedelta(microseconds=1)
        case dict():
            return {**value, "n": 77}
        case None:
            return 200
    raise AssertionError(value)


async def test_what_was_removed_moved_or_added_is_found(catalog: Catalog, engine: sa.Engine, database_url: str) -> None:
    lines = await append(catalog, 5)
    noted = Noted(5, lines[-1].hash)

    async def after(*statements: Any) -> str:
        """What is found after these; then all is as it was."""
        with engine.begin() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(audit)).mappings()]
            kept = connection.scalar(sa.select(notes.c.value).where(notes.c.key == HEAD))
            for statement in statements:
                connection.execute(statement)
        found = await fault(database_url, noted)
        with engine.begin() as connection:
            connection.execute(audit.delete())
            connection.execute(audit.insert(), rows)
            connection.execute(notes.delete().where(notes.c.key == HEAD))
            connection.execute(notes.insert().values(key=HEAD, value=kept))
        return found

    def number(old: int, new: int) -> Any:
        return audit.update().where(audit.c.seq == old).values(seq=new)

    head = notes.update().where(notes.c.key == HEAD)
    early = {"seq": 4, "hash": lines[3].hash.hex(), "signature": lines[3].hash.hex()}
    copied = sa.select(audit.c.seq + 1, *list(audit.c)[1:]).where(audit.c.seq == 5)
    assert await after(audit.delete().where(audit.c.seq == 2)) == Fault.MISSING
    assert await after(audit.delete().where(audit.c.seq == 1)) == Fault.MISSING
    assert await after(audit.delete().where(audit.c.seq == 5)) == Fault.CUT
    assert await after(number(2, 9), number(3, 2), number(9, 3)) == Fault.ALTERED
    assert await after(audit.insert().from_select(list(audit.c), copied)) == Fault.ALTERED
    assert await after(audit.delete().where(audit.c.seq == 5), head.values(value=json.dumps(early).encode())) == (
        Fault.ALTERED
    )
    assert await after(head.values(value=b"")) == Fault.ALTERED
    assert await after(notes.delete().where(notes.c.key == HEAD)) == Fault.ALTERED
    assert (
        await after(audit.delete(), notes.delete().where(notes.c.key == HEAD)) == Fault.CUT
    )  # by the noted head alone
    assert (await verify(database_url, noted)).last == 5


async def test_a_log_that_was_set_back_is_found_by_a_noted_head(
    catalog: Catalog, engine: sa.Engine, database_url: str
) -> None:
    await append(catalog, 2)
    with engine.begin() as connection:
        old = connection.scalar(sa.select(notes.c.value).where(notes.c.key == HEAD))
    lines = await append(catalog, 2)
    noted = Noted(4, lines[-1].hash)
    with engine.begin() as connection:
        connection.execute(audit.delete().where(audit.c.seq > 2))
        connection.execute(notes.update().where(notes.c.key == HEAD).values(value=old))
    assert (await verify(database_url)).last == 2  # a copy of the past is as good as ever
    assert await fault(database_url, noted) == Fault.CUT
    await append(catalog, 5)
    assert await fault(database_url, noted) == Fault.REORDERED


async def test_nothing_is_written_behind_what_was_tampered_with(
    catalog: Catalog, engine: sa.Engine, database_url: str
) -> None:
    """Signed anew, a head that somebody made would hide what he cut off."""
    lines = await append(catalog, 3)
    with engine.begin() as connection:
        connection.execute(audit.delete().where(audit.c.seq == 3))
        kept = connection.scalar(sa.select(notes.c.value).where(notes.c.key == HEAD))
        forged = json.dumps({"seq": 2, "hash": lines[1].hash.hex(), "signature": "00" * 32}).encode()
        connection.execute(notes.update().where(notes.c.key == HEAD).values(value=forged))
    with pytest.raises(Damaged, match="head"):
        await catalog.audit.append(entry())
    with engine.begin() as connection:
        connection.execute(notes.delete().where(notes.c.key == HEAD))
    with pytest.raises(Damaged, match="lost its head"):
        await catalog.audit.append(entry())
    with engine.begin() as connection:
        connection.execute(notes.insert().values(key=HEAD, value=kept))
        copied = sa.select(sa.literal(4), *list(audit.c)[1:]).where(audit.c.seq == 2)
        connection.execute(audit.insert().from_select(list(audit.c), copied))
    with pytest.raises(Damaged, match="did not write"):
        await catalog.audit.append(entry())
    assert await fault(database_url) == Fault.ALTERED


# -- keys and exports --------------------------------------------------------------------------------------------------
async def test_the_audit_key_verifies_and_opens_nothing(catalog: Catalog, database_url: str, tmp_path: Path) -> None:
    lines = await append(catalog, 3)
    key = await read_key(database_url, SecretBox(KEY))
    assert (await verify_database(database_url, key)).last == 3
    head = await catalog.audit.head()
    file = tmp_path / "export"
    file.write_bytes(export_header(1, head) + b"".join(map(export_line, lines)))
    assert verify_files([file], key).last == 3
    with pytest.raises(InvalidInput) as caught:
        await verify_database(database_url, KEY)
    assert caught.value.details["fault"] == Fault.WRONG_KEY
    with pytest.raises(SnapkeepError, match="key"):
        await read_key(database_url, SecretBox(b"x" * 32))


async def test_verifying_changes_nothing_and_makes_nothing(
    database_url: str, engine: sa.Engine, tmp_path: Path
) -> None:
    with pytest.raises((InvalidInput, NotFound, SnapkeepError)):
        await verify_database(database_url, b"x" * 32)
    assert not (tmp_path / "catalog.sqlite").exists()
    with engine.connect() as connection:
        assert sa.inspect(connection).get_table_names() == []


# -- reading -----------------------------------------------------------------------------------------------------------
async def test_lines_are_found_by_who_what_and_when(catalog: Catalog) -> None:
    for number in range(12):
        actor, action = f"a{number % 2}", f"x{number % 3}"
        outcome = Outcome.REFUSED if number % 4 == 3 else Outcome.DONE
        await catalog.audit.append(entry(str(number), actor=actor, action=action, outcome=outcome))

    async def found(**wanted: Any) -> list[int]:
        return [int(line.entry.subject) for line in await catalog.audit.find(**wanted)]

    assert await found() == list(range(11, -1, -1))
    assert await found(newest_first=False) == list(range(12))
    assert await found(actor="a1", action="x1") == [7, 1]
    assert await found(outcome=Outcome.REFUSED, newest_first=False) == [3, 7, 11]
    times = [line.at for line in await catalog.audit.find(newest_first=False)]
    assert times == sorted(times)
    for moment in times:
        before = await found(until=moment)
        assert before == [n for n in range(11, -1, -1) if times[n] < moment]
        assert sorted([*before, *await found(since=moment)]) == list(range(12))
    for newest_first in (True, False):
        after, pages = None, []
        while page := await catalog.audit.find(newest_first=newest_first, after=after, limit=5):
            pages += [line.seq for line in page]
            after = page[-1].seq
        assert pages == (list(range(12, 0, -1)) if newest_first else list(range(1, 13)))
    assert [line.seq async for line in catalog.audit.lines(3, 5)] == [3, 4, 5]
    assert [line async for line in catalog.audit.lines(13, 20)] == []
