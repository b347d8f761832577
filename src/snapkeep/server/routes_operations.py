"""Operations and change lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.responses import StreamingResponse

from snapkeep.catalog.change_lists import CHANGE_LIST_ORDERS
from snapkeep.catalog.operation_lists import OPERATION_ORDERS
from snapkeep.catalog.paging import Orders, Sort
from snapkeep.catalog.records import (
    ChangeListRecord,
    ChangeListState,
    OperationRecord,
    OperationState,
    WorkerRecord,
    WorkerState,
)
from snapkeep.changes.store import read_changes
from snapkeep.changes.wire import change_to_dict
from snapkeep.model.access import Action, Visible
from snapkeep.model.changes import ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete
from snapkeep.model.programs import Programs
from snapkeep.server.access import BY_KIND, Allowed, allow, listed, on_change_list, on_operation
from snapkeep.server.authentication import Again, Caller
from snapkeep.server.context import Parts
from snapkeep.server.events import Filter, Stream
from snapkeep.server.lists import Name, Since, Until, Wanted, wanted
from snapkeep.server.parameters import raw_parameter
from snapkeep.server.requester import Asker
from snapkeep.server.schemas import Page
from snapkeep.server.schemas_changes import ChangeListIn, ChangeListOut
from snapkeep.server.schemas_operations import OperationOut, WorkerOut

router = APIRouter(tags=["operations"])

NDJSON = "application/x-ndjson"

WORKER_ORDERS = Orders[WorkerRecord](
    "name",
    name=Sort((), lambda worker: (worker.name,)),
    started_at=Sort((), lambda worker: (worker.started_at.isoformat(), worker.name)),
)

Controlled = Annotated[OperationRecord, on_operation(Action.OPERATION_CONTROL)]


@router.get("/operations", response_model=Page[OperationOut])
async def list_operations(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.OPERATION_READ)],
    page: Annotated[Wanted, wanted(OperationOut, OPERATION_ORDERS, 100)],
    system: Name = None,
    kind: Annotated[list[str] | None, Query(max_length=100, description="Only these kinds.")] = None,
    state: Annotated[list[OperationState] | None, Query(max_length=100, description="Only in these states.")] = None,
    asset_id: Name = None,
    requester: Name = None,
    since: Since = None,
    until: Until = None,
) -> Response:
    """List operations; `since` and `until` go by when they were asked for."""
    found = await parts.catalog.operations.find(
        system=system,
        kinds=kind or (),
        states=state or (),
        asset_id=asset_id,
        requester=requester,
        since=since,
        until=until,
        paging=page.paging,
        visible=visible,
    )
    return page.answer([OperationOut.of(item) for item in found], found)


EVENTS = "text/event-stream"
Streamed: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            EVENTS: {
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"const": "operation"},
                        "id": {"type": "string"},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                    "required": ["event", "id", "data"],
                }
            }
        },
        "description": "Server-sent events, whose data is an OperationOut.",
    }
}
LastEventId = Annotated[
    str | None, Header(max_length=64, description="Id of the last event: only what is other than then is told.")
]


@router.get("/operations/events", response_class=StreamingResponse, responses=Streamed)
async def follow_operations(
    parts: Parts,
    principal: Caller,
    again: Again,
    _: Annotated[Visible, listed(Action.OPERATION_READ)],
    system: Name = None,
    kind: Annotated[list[str] | None, Query(max_length=100, description="Only these kinds.")] = None,
    state: Annotated[list[OperationState] | None, Query(max_length=100, description="Only in these states.")] = None,
    asset_id: Name = None,
    requester: Name = None,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Follow operations as server-sent events: first those under way, then whatever changes, without end."""
    wanted = Filter(system, frozenset(kind or ()), frozenset(state or ()), asset_id, requester)
    parts.feed.require_room(principal)
    return _streamed(parts.feed.follow(Stream(principal, filter=wanted), last_event_id, again))


@router.get("/operations/{operation_id}/events", response_class=StreamingResponse, responses=Streamed)
async def follow_operation(
    operation: Annotated[OperationRecord, on_operation(Action.OPERATION_READ)],
    parts: Parts,
    principal: Caller,
    again: Again,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """Follow an operation to its end as server-sent events."""
    parts.feed.require_room(principal)
    return _streamed(parts.feed.follow(Stream(principal, operation.id), last_event_id, again))


def _streamed(text: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(text, media_type=EVENTS, headers={"X-Accel-Buffering": "no"})


@router.get("/operations/{operation_id}")
async def show_operation(
    operation: Annotated[OperationRecord, on_operation(Action.OPERATION_READ)], parts: Parts
) -> OperationOut:
    """Show one operation; the beginning of an id is enough when it is unique."""
    return OperationOut.of(operation, await parts.operations.explain(operation))


@router.post("/operations/{operation_id}/cancel", status_code=status.HTTP_202_ACCEPTED)
async def cancel_operation(operation: Controlled, parts: Parts) -> OperationOut:
    """Ask for the end of an operation; what it made is undone."""
    return OperationOut.of(await parts.operations.cancel(operation))


@router.post("/operations/{operation_id}/pause", status_code=status.HTTP_202_ACCEPTED)
async def pause_operation(operation: Controlled, parts: Parts) -> OperationOut:
    """Hold an operation back: one that waits, or one whose work is ours (discover, diff)."""
    return OperationOut.of(await parts.operations.pause(operation))


@router.post("/operations/{operation_id}/resume", status_code=status.HTTP_202_ACCEPTED)
async def resume_operation(operation: Controlled, parts: Parts) -> OperationOut:
    """Let a paused operation go on."""
    return OperationOut.of(await parts.operations.resume(operation))


@router.post("/operations/{operation_id}/retry", status_code=status.HTTP_202_ACCEPTED)
async def retry_operation(
    operation: Annotated[OperationRecord, on_operation(Action.OPERATION_READ)],
    parts: Parts,
    access: Allowed,
    caller: Asker,
) -> OperationOut:
    """Ask once more for what failed or was cancelled, as a new operation; who may ask for it may do so."""
    action = BY_KIND[operation.kind]
    if operation.kind == "recover" and operation.request["target"] is None:
        action = Action.BACKUP_PUT_BACK
    await access.require_on(action, operation)
    await access.quiesced(operation.request.get("quiesce") or ())
    await access.programs(Programs(**operation.request.get("programs", {})))
    await access.program(operation.request.get("check"))
    if operation.kind == "backup":
        await access.repository(operation.request["repository_id"], Action.REPOSITORY_USE)
    return OperationOut.of(await parts.operations.retry(operation, caller))


@router.get("/workers", dependencies=[allow(Action.WORKER_READ)], response_model=Page[WorkerOut])
async def list_workers(
    parts: Parts,
    page: Annotated[Wanted, wanted(WorkerOut, WORKER_ORDERS)],
    state: WorkerState | None = None,
    queue: Annotated[str | None, Query(max_length=63, description="Only those that serve it.")] = None,
) -> Response:
    """List the processes that run operations."""
    limit = parts.operations.takeover_seconds
    workers = await parts.catalog.workers.find()
    fitting = (item for item in workers if state in {None, item.state(limit)} and queue in {None, *item.queues})
    found = WORKER_ORDERS.cut(fitting, page.paging)
    return page.answer([WorkerOut.of(item, limit) for item in found], found)


@router.post("/change-lists", status_code=status.HTTP_202_ACCEPTED)
async def diff(
    body: ChangeListIn,
    parts: Parts,
    access: Allowed,
    _: Annotated[Visible, listed(Action.CHANGE_LIST_CREATE)],
    caller: Asker,
) -> OperationOut:
    """Fetch what changed between two snapshots of one asset, or find it by reading both; `result` names the list."""
    new = await access.snapshot(body.new_id, Action.CHANGE_LIST_CREATE)
    base = await access.snapshot(body.base_id, Action.CHANGE_LIST_CREATE) if body.base_id else None
    asset = await parts.catalog.inventory.asset(new.asset_id)
    if body.source == "system" and body.verify == "none":
        return OperationOut.of(await parts.operations.diff(asset, base, new, caller))
    operation = await parts.operations.compare(asset, base, new, caller, source=body.source, verify=body.verify)
    return OperationOut.of(operation)


@router.get("/change-lists", response_model=Page[ChangeListOut])
async def list_change_lists(
    parts: Parts,
    visible: Annotated[Visible, listed(Action.CHANGE_LIST_READ)],
    page: Annotated[Wanted, wanted(ChangeListOut, CHANGE_LIST_ORDERS)],
    system: Name = None,
    asset_id: Name = None,
    new_id: Annotated[str | None, Query(max_length=4096, description="Only those that end with this snapshot.")] = None,
    base_id: Annotated[str | None, Query(max_length=4096, description="Only those with this base.")] = None,
    state: ChangeListState | None = None,
) -> Response:
    """List change lists."""
    found = await parts.catalog.change_lists.find(
        system=system,
        asset_id=asset_id,
        new_id=new_id,
        base_id=base_id,
        state=state,
        paging=page.paging,
        visible=visible,
    )
    return page.answer([ChangeListOut.of(item) for item in found], found)


@router.get("/change-lists/{list_id}")
async def show_change_list(
    record: Annotated[ChangeListRecord, on_change_list(Action.CHANGE_LIST_READ)],
) -> ChangeListOut:
    """Show the head of a change list: what it compares, whether it is complete, its summary."""
    return ChangeListOut.of(record)


class _Wanted:
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


Wanting = Annotated[_Wanted, Depends()]
After = Annotated[int, Query(ge=0, description="Position: `next` of the page before.")]


@router.get(
    "/change-lists/{list_id}/entries",
    responses={200: {"content": {NDJSON: {}}, "description": "Entries; all of them as NDJSON when that is accepted."}},
    response_model=Page[dict[str, Any]],
)
async def change_list_entries(
    record: Annotated[ChangeListRecord, on_change_list(Action.CHANGE_LIST_READ)],
    request: Request,
    parts: Parts,
    wanted: Wanting,
    after: After = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most entries of one page; NDJSON has no pages.")] = 1000,
) -> Any:
    """List the entries: a page as JSON, or all of them as a stream with `Accept: application/x-ndjson`.

    Paths that are not UTF-8 come with their exact bytes in `path_base64` (and `old_path_base64`).
    """
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
