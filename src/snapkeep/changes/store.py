"""Writing a change list while it arrives, and reading it back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import ChangeListRecord, ChangeListState
from snapkeep.changes import blocks
from snapkeep.changes.renames import DirectoryRenames
from snapkeep.changes.summary import Summary
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete


class ChangeListWriter:
    """Collects batches into blocks; a block and the cursor behind it are stored in one transaction.

    After a crash, begin again with the stored cursor: nothing is lost and nothing is twice.
    """

    def __init__(self, catalog: Catalog, list_id: str) -> None:
        self._lists = catalog.change_lists
        self._id = list_id
        self._buffer: list[Change] = []
        self._cursor = ""

    async def add(self, changes: Sequence[Change], cursor: str) -> None:
        """Take a batch; `cursor` resumes behind it."""
        self._buffer.extend(changes)
        self._cursor = cursor
        if len(self._buffer) >= blocks.BLOCK:
            await self.flush()

    async def flush(self) -> None:
        """Store what was collected."""
        if self._buffer:
            await self._lists.append(self._id, blocks.encode(self._buffer), len(self._buffer), self._cursor)
            self._buffer = []

    async def complete(self, now: datetime) -> ChangeListRecord:
        """Normalise, summarise, and mark the list as complete."""
        await self.flush()
        renames, summary = DirectoryRenames(), Summary()
        async for _, data, _ in self._lists.blocks(self._id):
            changes = blocks.decode(data)
            renames.learn(changes)
            summary.add(changes)
        if renames:
            summary = await self._drop_implied(renames)
        await self._lists.finish(self._id, ChangeListState.COMPLETE, now, summary.entries, summary.to_dict())
        return await self._lists.get(self._id)

    async def _drop_implied(self, renames: DirectoryRenames) -> Summary:
        """Write the blocks again without what follows from the rename of a directory; safe to repeat."""
        summary = Summary()
        async for seq, data, count in self._lists.blocks(self._id):
            changes = [change for change in blocks.decode(data) if not renames.implied(change)]
            if len(changes) != count:
                await self._lists.replace(self._id, seq, blocks.encode(changes), len(changes))
            summary.add(changes)
        return summary


async def read_blocks(catalog: Catalog, record: ChangeListRecord) -> AsyncIterator[list[Change]]:
    """Yield the whole list, block by block. Raises Incomplete as `read_changes` does."""
    _require_complete(record)
    position = 0
    async for _, data, count in catalog.change_lists.blocks(record.id):
        position += count
        yield blocks.decode(data)
    _require_all(record, position)


async def read_changes(
    catalog: Catalog,
    record: ChangeListRecord,
    *,
    after: int = 0,
    operations: frozenset[ChangeOperation] = frozenset(),
    types: frozenset[ObjectType] = frozenset(),
    below: bytes = b"",
) -> AsyncIterator[tuple[int, Change]]:
    """Yield (position, change) behind position `after` (the first has position 1), filtered.

    `below`: only paths (old or new) that are this directory or lie in it. Raises Incomplete for a list that is not
    complete: it must not be mistaken for all that changed.
    """
    _require_complete(record)
    position = 0
    below = below.strip(b"/")
    async for _, data, count in catalog.change_lists.blocks(record.id):
        if position + count <= after:
            position += count
            continue
        for change in blocks.decode(data):
            position += 1
            if position > after and _wanted(change, operations, types, below):
                yield position, change
    _require_all(record, position)


def _require_complete(record: ChangeListRecord) -> None:
    if record.state is not ChangeListState.COMPLETE:
        raise Incomplete(f"Change list {record.id} is {record.state}; its entries are not all there")


def _require_all(record: ChangeListRecord, entries: int) -> None:
    if entries != record.entries:
        raise Incomplete(f"Change list {record.id} was removed while it was read")


def _wanted(change: Change, operations: frozenset[ChangeOperation], types: frozenset[ObjectType], below: bytes) -> bool:
    if operations and change.operation not in operations:
        return False
    if types and change.type not in types:
        return False
    return not below or _lies_below(change.path, below) or _lies_below(change.old_path, below)


def _lies_below(path: bytes | None, directory: bytes) -> bool:
    return path is not None and (path == directory or path.startswith(directory + b"/"))
