"""Operations and change lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, status
from fastapi.responses import StreamingResponse

from snapkeep.catalog.records import OperationState
from snapkeep.changes.store import read_changes
from snapkeep.changes.wire import change_to_dict
from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete
from snapkeep.server.context import Caller, Parts
from snapkeep.server.parameters import raw_parameter
from snapkeep.server.schemas import ChangeListIn, ChangeListOut, OperationOut, Page, WorkerOut

router = APIRouter(tags=["operations"])

NDJSON = "application/x-ndjson"


@router.get("/operations")
async def list_operations(
    parts: Parts,
    system: str | None = None,
    state: Annotated[list[OperationState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str, Query(max_length=36, description="Cursor: `next` of the page before.")] = "",
) -> Page[OperationOut]:
    """List operations, the newest first."""
    found = await parts.catalog.operations.find(system=system, states=state or (), limit=limit, before=after)
    return Page(data=[OperationOut.of(item) for item in found], next=found[-1].id if len(found) == limit else None)


@router.get("/operations/{operation_id}")
async def show_operation(operation_id: str, parts: Parts) -> OperationOut:
    """Show one operation; the beginning of an id is enough when it is unique."""
    operation = await parts.catalog.operations.get(operation_id)
    return OperationOut.of(operation, await parts.operations.explain(operation))


@router.post("/operations/{operation_id}/cancel", status_code=status.HTTP_202_ACCEPTED)
async def cancel_operation(operation_id: str, parts: Parts) -> OperationOut:
    """Ask for the end of an operation; what it made is undone."""
    operation = await parts.catalog.operations.get(operation_id)
    return OperationOut.of(await parts.operations.cancel(operation))


@router.post("/operations/{operation_id}/pause", status_code=status.HTTP_202_ACCEPTED)
async def pause_operation(operation_id: str, parts: Parts) -> OperationOut:
    """Hold an operation back: one that waits, or one whose work is ours (discover, diff)."""
    return OperationOut.of(await parts.operations.pause(await parts.catalog.operations.get(operation_id)))


@router.post("/operations/{operation_id}/resume", status_code=status.HTTP_202_ACCEPTED)
async def resume_operation(operation_id: str, parts: Parts) -> OperationOut:
    """Let a paused operation go on."""
    return OperationOut.of(await parts.operations.resume(await parts.catalog.operations.get(operation_id)))


@router.post("/operations/{operation_id}/retry", status_code=status.HTTP_202_ACCEPTED)
async def retry_operation(operation_id: str, parts: Parts, caller: Caller) -> OperationOut:
    """Ask once more for what failed or was cancelled, as a new operation."""
    return OperationOut.of(await parts.operations.retry(await parts.catalog.operations.get(operation_id), caller))


@router.get("/workers")
async def list_workers(parts: Parts) -> Page[WorkerOut]:
    """List the processes that run operations."""
    limit = parts.operations.takeover_seconds
    return Page(data=[WorkerOut.of(item, limit) for item in await parts.catalog.workers.find()])


@router.post("/change-lists", status_code=status.HTTP_202_ACCEPTED)
async def diff(body: ChangeListIn, parts: Parts, caller: Caller) -> OperationOut:
    """Fetch what changed between two snapshots of one asset, or find it by reading both; `result` names the list."""
    new = await parts.catalog.inventory.snapshot(body.new_id)
    base = await parts.catalog.inventory.snapshot(body.base_id) if body.base_id else None
    asset = await parts.catalog.inventory.asset(new.asset_id)
    if body.source == "system" and body.verify == "none":
        return OperationOut.of(await parts.operations.diff(asset, base, new, caller))
    operation = await parts.operations.compare(asset, base, new, caller, source=body.source, verify=body.verify)
    return OperationOut.of(operation)


@router.get("/change-lists")
async def list_change_lists(
    parts: Parts, new_id: str, base_id: Annotated[str | None, Query(description="Only those with this base.")] = None
) -> Page[ChangeListOut]:
    """List the change lists that end with a snapshot, the newest first."""
    found = await parts.catalog.change_lists.find(new_id=new_id, base_id=base_id)
    return Page(data=[ChangeListOut.of(item) for item in found])


@router.get("/change-lists/{list_id}")
async def show_change_list(list_id: str, parts: Parts) -> ChangeListOut:
    """Show the head of a change list: what it compares, whether it is complete, its summary."""
    return ChangeListOut.of(await parts.catalog.change_lists.get(list_id))


class _Filter:
    """The filters of the entries of a change list."""

    def __init__(
        self,
        request: Request,
        operation: Annotated[list[ChangeOperation] | None, Query(description="Only these operations.")] = None,
        type: Annotated[list[ObjectType] | None, Query(description="Only these types.")] = None,
        path: Annotated[
            str,
            Query(
                description="Only this path and what lies below it; percent-encoded bytes, so any name can be given."
            ),
        ] = "",
    ) -> None:
        self.operations = frozenset(operation or ())
        self.types = frozenset(type or ())
        self.below = raw_parameter(request, "path") if path else b""


Filter = Annotated[_Filter, Depends()]
After = Annotated[int, Query(ge=0, description="Position: `next` of the page before.")]


@router.get(
    "/change-lists/{list_id}/entries",
    responses={200: {"content": {NDJSON: {}}, "description": "Entries; all of them as NDJSON when that is accepted."}},
    response_model=Page[dict[str, Any]],
)
async def change_list_entries(
    list_id: str,
    request: Request,
    parts: Parts,
    wanted: Filter,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most entries of one page; NDJSON has no pages.")] = 1000,
) -> Any:
    """List the entries: a page as JSON, or all of them as a stream with `Accept: application/x-ndjson`.

    Paths that are not UTF-8 come with their exact bytes in `path_base64` (and `old_path_base64`).
    """
    record = await parts.catalog.change_lists.get(list_id)
    entries = read_changes(
        parts.catalog,
        record,
        after=after,
        operations=wanted.operations,
        types=wanted.types,
        below=wanted.below,
    )
    if NDJSON in request.headers.get("accept", ""):
        if record.state != "complete":
            raise Incomplete(f"Change list {record.id} is {record.state}; its entries are not all there")
        return StreamingResponse(_lines(entries), media_type=NDJSON)
    data: list[dict[str, Any]] = []
    following = None
    async for position, change in entries:
        data.append({"position": position, **change_to_dict(change)})
        if len(data) == limit:
            following = str(position)
            break
    return Page(data=data, next=following)


async def _lines(entries: AsyncIterator[tuple[int, Any]]) -> AsyncIterator[bytes]:
    """Yield NDJSON in pieces of some 64 KiB."""
    encoder = msgspec.json.Encoder()
    buffer = bytearray()
    async for _, change in entries:
        buffer += encoder.encode(change_to_dict(change)) + b"\n"
        if len(buffer) >= 65536:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
