"""Repositories, recovery points, and what is in them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import SecretStr

from snapkeep.backup.metadata import unix_mode
from snapkeep.backup.nodes import Node
from snapkeep.backup.reader import RecoveryPoint
from snapkeep.catalog.backups import BACKUP_ORDERS
from snapkeep.catalog.records import AssetRecord, BackupRecord, RepositoryRecord
from snapkeep.catalog.repositories import REPOSITORY_ORDERS
from snapkeep.model.access import Action, Visible
from snapkeep.model.errors import Busy, Conflict, InvalidInput
from snapkeep.model.references import Reference
from snapkeep.operations.kinds.recover import below_share
from snapkeep.operations.repositories import PASSWORD, PLACE_PASSWORD, access, make_or_open
from snapkeep.operations.requester import Planned
from snapkeep.server.access import Allowed, allow, listed, on_asset, on_backup, on_repository
from snapkeep.server.conditional import Expected, Known, tag_of
from snapkeep.server.context import Context, Parts
from snapkeep.server.lists import Name, Part, Since, Until, Wanted, wanted
from snapkeep.server.once import Single
from snapkeep.server.parameters import raw_parameter
from snapkeep.server.requester import WOULD, Asker, Cautious
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_backups import (
    BackupIn,
    BackupOut,
    CheckIn,
    EntryOut,
    RecoverIn,
    RepositoryIn,
    RepositoryOut,
    SecretReference,
)
from snapkeep.server.schemas_operations import OperationOut
from snapkeep.server.schemas_snapshots import ProgramsIn

router = APIRouter(tags=["backups"])

NDJSON = "application/x-ndjson"
LINES: dict[int | str, dict[str, Any]] = {200: {"content": {NDJSON: {}}, "description": "One EntryOut a line."}}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The bytes of the file."}
}
_TOGETHER = 500

Content = Annotated[BackupRecord, on_backup(Action.BACKUP_CONTENT)]


# -- repositories ------------------------------------------------------------------------------------------------------
@router.get("/repositories", response_model=Page[RepositoryOut])
async def list_repositories(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.REPOSITORY_READ)],
    page: Annotated[Wanted, wanted(RepositoryOut, REPOSITORY_ORDERS)],
    q: Part = "",
    queue: Annotated[str | None, Query(max_length=63, description="Only those of this queue.")] = None,
) -> Response:
    """List the repositories."""
    found = await parts.catalog.repositories.find(visible, part=q, queue=queue, paging=page.paging)
    return page.answer([RepositoryOut.of(item) for item in found], found)


@router.post(
    "/repositories",
    status_code=status.HTTP_201_CREATED,
    dependencies=[allow(Action.REPOSITORY_ADD)],
    response_model=RepositoryOut,
)
async def add_repository(body: RepositoryIn, parts: Parts, once: Single) -> RepositoryOut | Response:
    """Make a repository in restic's format, or take one that is there. The server must reach it, too."""
    return await once.answer(lambda: _added(body, parts))


async def _added(body: RepositoryIn, parts: Context) -> RepositoryOut:
    secrets = {name: _given(value) for name, value in body.secrets.items()}
    if PASSWORD in secrets and not body.location.startswith("sftp:"):
        raise InvalidInput("The repository's password is no secret of its place: give it as password")
    place = {PLACE_PASSWORD if name == PASSWORD else name: value for name, value in secrets.items()}
    place[PASSWORD] = _given(body.password)
    for known in await parts.catalog.repositories.find():
        if body.name == known.name or body.location == known.location:  # before anything is made there
            raise Conflict(
                f"There is a repository {known.name!r} at {known.location} already",
                next_step="See `snapkeep repository list`; choose another name or location.",
            )
    resolved = await parts.host.references.resolve(place)
    restic_id = await asyncio.to_thread(make_or_open, body.location, resolved, create=body.create)
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


def _given(secret: SecretStr | SecretReference) -> Any:
    """Return a secret, or the reference to one, as it is stored. Raises InvalidInput."""
    if isinstance(secret, SecretReference):
        return Reference.parse(secret.reference).json
    return secret.get_secret_value()


@router.get("/repositories/{name}", response_model=RepositoryOut)
async def show_repository(
    record: Annotated[RepositoryRecord, on_repository(Action.REPOSITORY_READ)], known: Known
) -> Response:
    """Show one repository."""
    shown = RepositoryOut.of(record)
    return known.answer(shown, tag_of(shown))


@router.delete("/repositories/{name}", status_code=status.HTTP_204_NO_CONTENT, responses=WOULD)
async def remove_repository(
    expected: Expected,
    record: Annotated[RepositoryRecord, on_repository(Action.REPOSITORY_REMOVE)],
    parts: Parts,
    caller: Cautious,
    force: bool = Query(default=False, description="Forget it although recovery points are known in it."),
) -> None:
    """Forget a repository. What lies in it is not touched."""
    expected.require(tag_of(RepositoryOut.of(record)))
    left = await parts.catalog.repositories.dependents(record.id)
    if left["operations under way"] or (left["recovery points"] and not force):
        listed = ", ".join(f"{count} {what}" for what, count in left.items() if count)
        raise Busy(
            f"In {record.name!r} there are still {listed}",
            next_step="Wait for the operations to end, or cancel them; forget the recovery points, or use --force.",
            left=left,
        )
    await parts.catalog.protections.require_none_of(repository_id=record.id)
    if caller.dry_run:
        affected = [f"{count} {what}" for what, count in left.items() if count]
        raise Planned(f"forget the repository {record.name}", [record.name, *affected])
    chains = await parts.catalog.backups.chains_of(record.id)
    await parts.catalog.repositories.remove(record.id)
    for chain in chains:
        await parts.forgetting.let_go(chain, caller)


@router.post("/repositories/{name}/check", status_code=status.HTTP_202_ACCEPTED)
async def check_repository(
    record: Annotated[RepositoryRecord, on_repository(Action.REPOSITORY_CHECK)],
    body: CheckIn,
    parts: Parts,
    caller: Asker,
) -> OperationOut:
    """Check a repository: that all it refers to is there, and that the data are what was written."""
    return OperationOut.of(await parts.operations.check_repository(record, body.data, caller))


# -- recovery points ---------------------------------------------------------------------------------------------------
@router.post("/assets/{asset_id}/backups", status_code=status.HTTP_202_ACCEPTED)
async def back_up(
    asset: Annotated[AssetRecord, on_asset(Action.BACKUP_CREATE)],
    body: BackupIn,
    parts: Parts,
    access: Allowed,
    caller: Asker,
) -> OperationOut:
    """Back up an asset: the first time all of it, then what has changed."""
    repository = await access.repository(body.repository, Action.REPOSITORY_USE)
    operation = await parts.operations.back_up(
        asset,
        repository,
        caller,
        full=body.full,
        keep_base=body.keep_base,
        quiesce=await access.quiesced(body.quiesce),
        quiesce_seconds=body.quiesce_seconds,
        programs=await access.programs(ProgramsIn.named(body.programs)),
    )
    return OperationOut.of(operation)


@router.get("/backups", response_model=Page[BackupOut])
async def list_backups(
    parts: Parts,
    access: Allowed,
    visible: Annotated[Visible, listed(Action.BACKUP_READ)],
    page: Annotated[Wanted, wanted(BackupOut, BACKUP_ORDERS)],
    system: Name = None,
    asset_id: Name = None,
    repository: Name = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """List recovery points; `since` and `until` go by when they were made."""
    held = await access.repository(repository, Action.REPOSITORY_READ) if repository is not None else None
    found = await parts.catalog.backups.find(
        system=system,
        asset_id=asset_id,
        repository_id=held.id if held else None,
        since=since,
        until=until,
        paging=page.paging,
        visible=visible,
    )
    return page.answer([BackupOut.of(item) for item in found], found)


@router.get("/backups/{backup_id}")
async def show_backup(backup: Annotated[BackupRecord, on_backup(Action.BACKUP_READ)]) -> BackupOut:
    """Show one recovery point; the beginning of its id, or of restic's, is enough when it is unique."""
    return BackupOut.of(backup)


@router.delete("/backups/{backup_id}", status_code=status.HTTP_204_NO_CONTENT, responses=WOULD)
async def forget_backup(
    backup: Annotated[BackupRecord, on_backup(Action.BACKUP_FORGET)],
    parts: Parts,
    caller: Cautious,
    force: bool = Query(default=False, description="Also the one from which the next incremental backup starts."),
) -> None:
    """Forget a recovery point, here and in the repository; `restic prune` gives its space back."""
    await parts.forgetting.forget(backup, caller, force=force)


@router.post("/backups/{backup_id}/restore", status_code=status.HTTP_202_ACCEPTED, responses=WOULD)
async def restore_backup(
    backup: Annotated[BackupRecord, on_backup(Action.BACKUP_RESTORE, Action.BACKUP_PUT_BACK)],
    body: RecoverIn,
    parts: Parts,
    access: Allowed,
    caller: Cautious,
) -> OperationOut:
    """Restore all of a recovery point, or some paths: to a directory of the backup host, or back to the asset."""
    await access.require_on(Action.BACKUP_PUT_BACK if body.target is None else Action.BACKUP_RESTORE, backup)
    if body.target is None:
        operation = await parts.operations.put_back(backup, body.paths, body.confirmation or "", caller)
    else:
        operation = await parts.operations.recover(backup, body.target, body.paths, caller, overwrite=body.overwrite)
    return OperationOut.of(operation)


# -- what is in them ---------------------------------------------------------------------------------------------------
@router.get("/backups/{backup_id}/entries", response_class=StreamingResponse, responses=LINES)
async def list_entries(
    backup: Content,
    request: Request,
    parts: Parts,
    path: Annotated[str, Query(description="A directory below the asset, percent-encoded bytes.")] = "",
) -> StreamingResponse:
    """List a directory of a recovery point, as NDJSON of entries."""
    below = raw_parameter(request, "path") if path else b""
    top = below_share(backup, below)

    def entries(point: RecoveryPoint) -> Iterator[EntryOut]:
        for name, node in point.list(top):
            yield _entry(name, node)

    return StreamingResponse(await _ndjson(parts, backup, entries), media_type=NDJSON)


@router.get("/backups/{backup_id}/find", response_class=StreamingResponse, responses=LINES)
async def find_entries(
    backup: Content,
    request: Request,
    parts: Parts,
    pattern: Annotated[str, Query(min_length=1, description="A name such as *.txt; with a slash, a path.")],  # noqa: ARG001 - read as bytes
    path: Annotated[str, Query(description="Only below this directory.")] = "",
) -> StreamingResponse:
    """Search a recovery point by name, as NDJSON of entries."""
    top = below_share(backup, raw_parameter(request, "path") if path else b"")
    wanted = raw_parameter(request, "pattern")
    share = len(below_share(backup, b""))
    if b"/" in wanted:
        wanted = below_share(backup, wanted)

    def entries(point: RecoveryPoint) -> Iterator[EntryOut]:
        for found, node in point.find(wanted, top):
            yield _entry(found[share:].strip(b"/"), node)

    return StreamingResponse(await _ndjson(parts, backup, entries), media_type=NDJSON)


@router.get("/backups/{backup_id}/content", response_class=StreamingResponse, responses=BYTES)
async def read_content(
    backup: Content,
    request: Request,
    parts: Parts,
    path: Annotated[str, Query(min_length=1, description="A file below the asset, as bytes.")],  # noqa: ARG001
) -> StreamingResponse:
    """Return the content of one file."""
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
