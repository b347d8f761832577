"""Repositories, recovery points, and what is in them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, status
from fastapi.responses import StreamingResponse

from snapkeep.backup.metadata import unix_mode
from snapkeep.backup.nodes import Node
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.catalog.records import BackupRecord, ChainRecord
from snapkeep.model.errors import Busy, Conflict, InvalidInput, SnapkeepError
from snapkeep.operations.kinds.recover import below_share
from snapkeep.operations.repositories import PASSWORD, PLACE_PASSWORD, access, make_or_open
from snapkeep.operations.requester import Requester
from snapkeep.server.context import Caller, Context, Parts
from snapkeep.server.parameters import raw_parameter
from snapkeep.server.schemas import OperationOut, Page
from snapkeep.server.schemas_backups import (
    BackupIn,
    BackupOut,
    CheckIn,
    EntryOut,
    RecoverIn,
    RepositoryIn,
    RepositoryOut,
)

router = APIRouter(tags=["backups"])

NDJSON = "application/x-ndjson"
_TOGETHER = 500


# -- repositories ------------------------------------------------------------------------------------------------------
@router.get("/repositories")
async def list_repositories(parts: Parts) -> Page[RepositoryOut]:
    """List the repositories."""
    return Page(data=[RepositoryOut.of(item) for item in await parts.catalog.repositories.find()])


@router.post("/repositories", status_code=status.HTTP_201_CREATED)
async def add_repository(body: RepositoryIn, parts: Parts) -> RepositoryOut:
    """Make a repository in restic's format, or take one that is there. The server must reach it, too."""
    secrets = {name: value.get_secret_value() for name, value in body.secrets.items()}
    if PASSWORD in secrets and not body.location.startswith("sftp:"):
        raise InvalidInput("The repository's password is no secret of its place: give it as password")
    place = {PLACE_PASSWORD if name == PASSWORD else name: value for name, value in secrets.items()}
    place[PASSWORD] = body.password.get_secret_value()
    for known in await parts.catalog.repositories.find():
        if body.name == known.name or body.location == known.location:  # before anything is made there
            raise Conflict(
                f"There is a repository {known.name!r} at {known.location} already",
                next_step="See `snapkeep repository list`; choose another name or location.",
            )
    restic_id = await asyncio.to_thread(make_or_open, body.location, place, create=body.create)
    for known in await parts.catalog.repositories.find():
        if restic_id == known.restic_id:  # a location can be written in several ways
            raise Conflict(
                f"The repository at {body.location} is known already: {known.name!r} at {known.location}",
                next_step=f"Use {known.name!r}; backups under two names would not know of each other.",
            )
    record = await parts.catalog.repositories.add(
        parts.clock.new_id(),
        name=body.name,
        location=body.location,
        restic_id=restic_id,
        secrets=place,
        queue=body.queue,
        now=parts.clock.now(),
    )
    return RepositoryOut.of(record)


@router.get("/repositories/{name}")
async def show_repository(name: str, parts: Parts) -> RepositoryOut:
    """Show one repository."""
    return RepositoryOut.of(await parts.catalog.repositories.get(name))


@router.delete("/repositories/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def remove_repository(
    name: str,
    parts: Parts,
    caller: Caller,
    force: bool = Query(default=False, description="Forget it although recovery points are known in it."),
) -> None:
    """Forget a repository. What lies in it is not touched."""
    record = await parts.catalog.repositories.get(name)
    left = await parts.catalog.repositories.dependents(record.id)
    if left["operations under way"] or (left["recovery points"] and not force):
        listed = ", ".join(f"{count} {what}" for what, count in left.items() if count)
        raise Busy(
            f"In {name!r} there are still {listed}",
            next_step="Wait for the operations to end, or cancel them; forget the recovery points, or use --force.",
            left=left,
        )
    chains = await parts.catalog.backups.chains_of(record.id)
    await parts.catalog.repositories.remove(record.id)
    for chain in chains:
        await _let_go(parts, chain, caller)


@router.post("/repositories/{name}/check", status_code=status.HTTP_202_ACCEPTED)
async def check_repository(name: str, body: CheckIn, parts: Parts, caller: Caller) -> OperationOut:
    """Check a repository: that all it refers to is there, and that the data are what was written."""
    record = await parts.catalog.repositories.get(name)
    return OperationOut.of(await parts.operations.check_repository(record, body.data, caller))


# -- recovery points ---------------------------------------------------------------------------------------------------
@router.post("/assets/{asset_id}/backups", status_code=status.HTTP_202_ACCEPTED)
async def back_up(asset_id: str, body: BackupIn, parts: Parts, caller: Caller) -> OperationOut:
    """Back up an asset: the first time all of it, then what has changed."""
    asset = await parts.catalog.inventory.asset(asset_id)
    repository = await parts.catalog.repositories.get(body.repository)
    operation = await parts.operations.back_up(asset, repository, caller, full=body.full, keep_base=body.keep_base)
    return OperationOut.of(operation)


@router.get("/backups")
async def list_backups(
    parts: Parts,
    asset_id: str | None = None,
    repository: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Most entries of one page.")] = 1000,
    after: Annotated[str, Query(max_length=36, description="Cursor: `next` of the page before.")] = "",
) -> Page[BackupOut]:
    """List recovery points, the newest first."""
    backups = parts.catalog.backups
    held = await parts.catalog.repositories.get(repository) if repository else None
    last = await backups.get(after) if after else None
    found = await backups.find(asset_id=asset_id, repository_id=held.id if held else None, limit=limit, after=last)
    return Page(data=[BackupOut.of(item) for item in found], next=found[-1].id if len(found) == limit else None)


@router.get("/backups/{backup_id}")
async def show_backup(backup_id: str, parts: Parts) -> BackupOut:
    """Show one recovery point; the beginning of its id, or of restic's, is enough when it is unique."""
    return BackupOut.of(await parts.catalog.backups.get(backup_id))


@router.delete("/backups/{backup_id}", status_code=status.HTTP_204_NO_CONTENT)
async def forget_backup(
    backup_id: str,
    parts: Parts,
    caller: Caller,
    force: bool = Query(default=False, description="Also the one from which the next incremental backup starts."),
) -> None:
    """Forget a recovery point, here and in the repository; `restic prune` gives its space back."""
    backup = await parts.catalog.backups.get(backup_id)
    chain = await parts.catalog.backups.chain(backup.asset_id, backup.repository_id)
    if chain is not None and chain.backup_id == backup.id and not force:
        raise Busy(
            f"The next incremental backup of {backup.system_name}/{backup.asset_name} starts from this recovery point",
            next_step="Back up again first; or use --force: the next backup then reads everything again.",
        )
    way = await access(parts.catalog, await parts.catalog.repositories.get(backup.repository_id), parts.host)

    def forget() -> None:
        with way.open() as repository, repository.locked(exclusive=True):
            repository.forget(backup.restic_id)

    await asyncio.to_thread(forget)
    await parts.catalog.backups.remove(backup.id)
    if chain is not None and chain.backup_id == backup.id:
        await _let_go(parts, chain, caller)


async def _let_go(parts: Context, chain: ChainRecord, caller: Requester) -> None:
    """Delete the snapshot that a chain has pinned: nothing starts from it any more."""
    with suppress(SnapkeepError):  # it may be exported, or gone
        snapshot = await parts.catalog.inventory.snapshot(chain.snapshot_id)
        if snapshot.snapshot.owned and snapshot.gone_at is None:
            await parts.operations.delete(snapshot, Requester(caller.name))


@router.post("/backups/{backup_id}/restore", status_code=status.HTTP_202_ACCEPTED)
async def restore_backup(backup_id: str, body: RecoverIn, parts: Parts, caller: Caller) -> OperationOut:
    """Restore all of a recovery point, or some paths: to a directory of the backup host, or back to the asset."""
    backup = await parts.catalog.backups.get(backup_id)
    if body.target is None:
        operation = await parts.operations.put_back(backup, body.paths, body.confirmation or "", caller)
    else:
        operation = await parts.operations.recover(backup, body.target, body.paths, caller, overwrite=body.overwrite)
    return OperationOut.of(operation)


# -- what is in them ---------------------------------------------------------------------------------------------------
@router.get("/backups/{backup_id}/entries")
async def list_entries(
    backup_id: str,
    request: Request,
    parts: Parts,
    path: Annotated[str, Query(description="A directory below the asset, percent-encoded bytes.")] = "",
) -> StreamingResponse:
    """List a directory of a recovery point, as NDJSON of entries."""
    backup = await parts.catalog.backups.get(backup_id)
    below = raw_parameter(request, "path") if path else b""
    top = below_share(backup, below)

    def entries(point: RecoveryPoint) -> Iterator[EntryOut]:
        for name, node in point.list(top):
            yield _entry(name, node)

    return StreamingResponse(await _ndjson(parts, backup, entries), media_type=NDJSON)


@router.get("/backups/{backup_id}/find")
async def find_entries(
    backup_id: str,
    request: Request,
    parts: Parts,
    pattern: Annotated[str, Query(min_length=1, description="A name such as *.txt; with a slash, a path.")],  # noqa: ARG001 - read as bytes
    path: Annotated[str, Query(description="Only below this directory.")] = "",
) -> StreamingResponse:
    """Search a recovery point by name, as NDJSON of entries."""
    backup = await parts.catalog.backups.get(backup_id)
    top = below_share(backup, raw_parameter(request, "path") if path else b"")
    wanted = raw_parameter(request, "pattern")
    share = len(below_share(backup, b""))
    if b"/" in wanted:
        wanted = below_share(backup, wanted)

    def entries(point: RecoveryPoint) -> Iterator[EntryOut]:
        for found, node in point.find(wanted, top):
            yield _entry(found[share:].strip(b"/"), node)

    return StreamingResponse(await _ndjson(parts, backup, entries), media_type=NDJSON)


@router.get("/backups/{backup_id}/content")
async def read_content(
    backup_id: str,
    request: Request,
    parts: Parts,
    path: Annotated[str, Query(min_length=1, description="A file below the asset, as bytes.")],  # noqa: ARG001
) -> StreamingResponse:
    """Return the content of one file."""
    backup = await parts.catalog.backups.get(backup_id)
    top = below_share(backup, raw_parameter(request, "path"))

    def pieces(point: RecoveryPoint) -> Iterator[bytes]:
        return point.read(point.node(top))

    return StreamingResponse(await _stream(parts, backup, pieces), media_type="application/octet-stream")


def _entry(path: bytes, node: Node) -> EntryOut:
    return EntryOut(
        path=path.decode("utf-8", "replace"),
        path_base64=None if _is_text(path) else base64.b64encode(path).decode("ascii"),
        type=node.type,
        size=node.size if node.type == "file" else None,
        mode=unix_mode(node.mode),
        uid=node.uid,
        gid=node.gid,
        modified_at=node.mtime,
        link_target=node.linktarget or None,
    )


def _is_text(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


async def _ndjson(
    parts: Context, backup: BackupRecord, entries: Callable[[RecoveryPoint], Iterator[EntryOut]]
) -> AsyncIterator[bytes]:
    def lines(point: RecoveryPoint) -> Iterator[bytes]:
        buffer = bytearray()
        for number, entry in enumerate(entries(point), 1):
            buffer += entry.model_dump_json(exclude_none=True).encode() + b"\n"
            if number % _TOGETHER == 0:
                yield bytes(buffer)
                buffer.clear()
        yield bytes(buffer)

    return await _stream(parts, backup, lines)


async def _stream(
    parts: Context, backup: BackupRecord, pieces: Callable[[RecoveryPoint], Iterator[bytes]]
) -> AsyncIterator[bytes]:
    """Open the recovery point in a thread and stream pieces of it; what is wrong at once is an answer of its own."""
    way = await access(parts.catalog, await parts.catalog.repositories.get(backup.repository_id), parts.host)

    @contextmanager
    def opened() -> Iterator[Iterator[bytes]]:
        with way.open() as repository:
            yield pieces(RecoveryPoint(repository, repository.snapshot(backup.restic_id)))

    async with AsyncExitStack() as stack:
        context = opened()
        found = await asyncio.to_thread(context.__enter__)
        stack.push_async_callback(asyncio.to_thread, context.__exit__, None, None, None)
        first = await asyncio.to_thread(next, found, None)
        closing = stack.pop_all()

    async def stream() -> AsyncIterator[bytes]:
        async with closing:
            piece = first
            while piece is not None:
                yield piece
                piece = await asyncio.to_thread(next, found, None)

    return stream()
