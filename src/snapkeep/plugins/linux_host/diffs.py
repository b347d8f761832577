"""Diff of files, of btrfs alone: what `btrfs send` would do to the base, as facts.

The list is computed anew whenever it is read, and is the same each time: both snapshots are read-only. So a cursor is
the number of facts that were read, and nothing is kept on the host.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import islice
from urllib.parse import quote, unquote_to_bytes
from uuid import UUID

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.changes import Change, ChangeOperation
from snapkeep.model.errors import BaseMissing, Incomplete, InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import ChangeBatch, Pending, Ticket
from snapkeep.plugin.guards import require_older, require_same_asset
from snapkeep.plugins.linux_host import mapping
from snapkeep.plugins.linux_host.btrfs import Btrfs, Status
from snapkeep.plugins.linux_host.errors import failure, is_interrupted
from snapkeep.plugins.linux_host.file_systems.btrfs import BtrfsKind
from snapkeep.plugins.linux_host.host import Host, persistent
from snapkeep.plugins.linux_host.places import shown
from snapkeep.plugins.linux_host.script import Found, Script
from snapkeep.plugins.linux_host.send_stream import SendStream, Verb

BATCH = 512
"""Changes in a batch."""
_MOST_ARGUMENTS = 64 << 10
"""Bytes of paths that are given to one program."""


class Diffs:
    """Plays the role `DiffFiles`."""

    def __init__(self, host: Host, btrfs: Btrfs, kind: BtrfsKind) -> None:
        self._host = host
        self._btrfs = btrfs
        self._kind = kind

    async def start_diff(self, asset: Asset, base: Snapshot | None, new: Snapshot, request_id: str) -> Ticket:
        """See that both are there. Nothing is begun: the list is computed when it is read."""
        asset.require(Capability.DIFF_FILES)
        require_same_asset(asset, base, new)
        require_older(base, new)
        path, shows = await self._path(asset, new, NotFound)
        ticket = {"new": new.id, "new_path": quote(path), "new_sent": _sent_as(shows)}
        if base is None:
            return Ticket({**ticket, "base": "", "base_path": "", "base_sent": ""})
        path, earlier = await self._path(asset, base, BaseMissing)
        _require_order(earlier, shows, base, new)
        return Ticket({**ticket, "base": base.id, "base_path": quote(path), "base_sent": _sent_as(earlier)})

    async def read_diff(self, ticket: Ticket, cursor: str | None = None) -> AsyncIterator[ChangeBatch | Pending]:
        """Play the stream, then yield what it came to."""
        read = _number(cursor)
        new, base = (unquote_to_bytes(ticket[f"{key}_path"]) for key in ("new", "base"))
        script = await self._played(ticket, base or None, new)
        facts = mapping.kept(script.facts())
        for _ in islice(facts, read):
            pass
        rest = list(islice(facts, BATCH))
        while True:
            following = list(islice(facts, BATCH))
            read += len(rest)
            changes = await self._changes(rest, base, new)
            yield ChangeBatch(changes=changes, cursor=str(read), complete=not following)
            if not following:
                return
            rest = following

    @persistent
    async def _played(self, ticket: Ticket, base: bytes | None, new: bytes) -> Script:
        stream, script = SendStream(), Script()
        async with self._btrfs.send(base, new) as sent:
            async for piece in sent:
                for step in stream.feed(piece):
                    if step.verb in {Verb.SNAPSHOT, Verb.SUBVOLUME}:
                        _require_identity(step.uuid, ticket["new_sent"])
                        _require_identity(step.parent, ticket["base_sent"])
                    script.play(step)
            done = await sent.end()
        if is_interrupted(done):
            raise failure(done, "Computing the diff", root=self._host.is_root)
        if self._host.by_sudo:
            await self._host.commands.require_allowed(done)
        if done.code or not stream.ended:
            if base is not None and not await self._kind.is_there(base, ticket["base"]):
                raise BaseMissing("The base snapshot no longer exists on the host")
            if not await self._kind.is_there(new, ticket["new"]):
                raise NotFound("The snapshot no longer exists on the host")
            raise Incomplete(
                f"btrfs send ended before its end (exit code {done.code})",
                vendor_code=str(done.code),
                vendor_message=done.reason,
                forgotten=True,
            )
        return script

    async def _changes(self, found: list[Found], base: bytes, new: bytes) -> list[Change]:
        """Ask the snapshots about what changed."""
        before = await self._status(base, filter(None, map(mapping.old_path, found)))
        after = await self._status(new, (item.path for item in found if item.operation is not ChangeOperation.DELETE))
        return [change for item in found for change in mapping.changes(item, before, after)]

    async def _status(self, top: bytes, paths: Iterable[bytes]) -> dict[bytes, Status]:
        found: dict[bytes, Status] = {}
        for lot in _lots(paths, len(top) + 1):
            found |= await self._btrfs.stat(top, lot)
        return found

    async def _path(
        self, asset: Asset, snapshot: Snapshot, error: type[NotFound | BaseMissing]
    ) -> tuple[bytes, dict[str, str]]:
        path = await self._kind.find(asset, snapshot)
        shows = await self._btrfs.show(path) if path is not None else None
        if path is None or shows is None or shows.get("UUID") != snapshot.id:
            raise error(f"Snapshot {snapshot.name!r} of {asset.name!r} no longer exists on the host")
        return path, shows


def _require_order(earlier: dict[str, str], later: dict[str, str], base: Snapshot, new: Snapshot) -> None:
    """Raise InvalidInput when the base is the newer one: times have seconds only, transactions are exact."""
    before, after = (int(shows.get("Gen at creation", "0")) for shows in (earlier, later))
    if before > after:
        raise InvalidInput(
            f"The base {base.name!r} is newer than the snapshot {new.name!r}",
            next_step="Give the older snapshot as the base.",
        )


def _sent_as(shows: dict[str, str]) -> str:
    """Return the UUID under which a snapshot is sent: that of its own source, when that was received once."""
    received = shows.get("Received UUID", "").strip("-")
    return received or shows.get("UUID", "")


def _require_identity(told: bytes, wanted: str) -> None:
    if told and (len(told) != 16 or str(UUID(bytes=told)) != wanted):
        raise Incomplete(f"btrfs sent another snapshot than {wanted}: {shown(told.hex().encode())}")


def _lots(paths: Iterable[bytes], prefix: int) -> Iterator[list[bytes]]:
    lot: list[bytes] = []
    size = 0
    for path in paths:
        length = prefix + len(path) + 8
        if lot and size + length > _MOST_ARGUMENTS:
            yield lot
            lot, size = [], 0
        lot.append(path)
        size += length
    if lot:
        yield lot


def _number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 15):
        raise InvalidInput(f"Not a cursor of this diff: {cursor!r}")
    return int(cursor)
