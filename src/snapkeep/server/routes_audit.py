"""The audit log: read, and exported to be kept and verified elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.audit_chain import Head, Line, Outcome, export_header, export_line
from snapkeep.model.access import Action
from snapkeep.model.errors import InvalidInput
from snapkeep.server.access import allow
from snapkeep.server.context import Parts
from snapkeep.server.lists import Moment
from snapkeep.server.schemas import Out, Page

router = APIRouter(tags=["audit"], dependencies=[allow(Action.AUDIT_READ)])

NDJSON = "application/x-ndjson"


class AuditLineOut(Out):
    """A line of the audit log."""

    seq: int = Field(description="1, 2, 3 and so on, without a gap.")
    at: datetime = Field(description="By the clock of the database.")
    actor: str = Field(description="Who; empty for somebody whose identity was not proved.")
    actor_kind: str = Field(
        description="user, service, local or unknown; operation: who asked for it; shell: a user of the machine."
    )
    source: str = Field(description="Address of the client; of an operation, its worker; of a shell, its host.")
    request_id: str = Field(description="The same in all lines about one request.")
    action: str
    subject: str
    outcome: Outcome
    status: int | None = Field(description="HTTP status of the answer.")
    detail: dict[str, Any] = Field(
        description="Code of an error, id of an operation or of what was made, names of what was given. No values."
    )
    previous: str = Field(description="Hash of the line before, hexadecimal.")
    hash: str = Field(description="Hash of this line, hexadecimal.")

    @classmethod
    def of(cls, line: Line) -> AuditLineOut:
        """Map the line."""
        return cls.model_validate(line.to_dict())


class AuditHeadOut(Out):
    """The last line of the audit log, and the signature of who wrote it."""

    seq: int
    hash: str
    signature: str

    @classmethod
    def of(cls, head: Head) -> AuditHeadOut:
        """Map the head."""
        return cls.model_validate(head.to_dict())


@router.get("/audit")
async def list_audit(
    parts: Parts,
    actor: Annotated[str | None, Query(description="Only what this one did, or tried.")] = None,
    action: Annotated[str | None, Query(description="Only this action, such as snapshot.delete.")] = None,
    outcome: Annotated[Outcome | None, Query(description="Only lines with this outcome.")] = None,
    since: Annotated[Moment | None, Query(description="Only from then on.")] = None,
    until: Annotated[Moment | None, Query(description="Only before then.")] = None,
    sort: Annotated[Literal["seq", "-seq"], Query(description="seq: the oldest first.")] = "-seq",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int | None, Query(ge=0, description="Cursor: `next` of the page before.")] = None,
) -> Page[AuditLineOut]:
    """List lines of the audit log, the newest first."""
    found = await parts.catalog.audit.find(
        actor=actor,
        action=action,
        outcome=outcome,
        since=since,
        until=until,
        newest_first=sort == "-seq",
        after=after,
        limit=limit,
    )
    following = str(found[-1].seq) if len(found) == limit else None
    return Page(data=[AuditLineOut.of(line) for line in found], next=following)


@router.get("/audit/head")
async def show_audit_head(parts: Parts) -> AuditHeadOut:
    """Show the last line: noted elsewhere, it shows later whether the log was cut, or set back to an older state."""
    return AuditHeadOut.of(await parts.catalog.audit.head())


@router.get(
    "/audit/export",
    responses={200: {"content": {NDJSON: {}}, "description": "A line that says what follows, and the lines."}},
    response_class=StreamingResponse,
)
async def export_audit(
    parts: Parts, first: Annotated[int, Query(ge=1, description="Number of the line with which it begins.")] = 1
) -> StreamingResponse:
    """Export lines, the oldest first, up to the last one of now: as NDJSON that `snapkeep audit verify` reads."""
    head = await parts.catalog.audit.head()
    if first > head.seq + 1:
        raise InvalidInput(
            f"The audit log ends with line {head.seq}", next_step=f"Begin with line {head.seq + 1} or an earlier one."
        )
    return StreamingResponse(_export(parts.catalog.audit, first, head), media_type=NDJSON)


async def _export(audit: Audit, first: int, head: Head) -> AsyncIterator[bytes]:
    """Yield NDJSON in pieces of some 64 KiB."""
    buffer = bytearray(export_header(first, head))
    async for line in audit.lines(first, head.seq):
        buffer += export_line(line)
        if len(buffer) >= 65536:
            yield bytes(buffer)
            buffer.clear()
    yield bytes(buffer)
