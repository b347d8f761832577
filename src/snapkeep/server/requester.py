"""Who asks for an operation, under which id, and whether it is meant."""

from __future__ import annotations

import hashlib
import uuid
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response

from snapkeep.model.access import Principal
from snapkeep.operations.requester import Planned, Requester
from snapkeep.server.authentication import Caller
from snapkeep.server.schemas import WouldOut

_KEYS = uuid.UUID("d7f6a1c4-0a51-4a0c-8a3e-6f2f4d8b7c11")

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[ -~]+$",
        description="Who asks again with the same key gets the same answer: repeat a request whose answer was lost. "
        "Another request under the same key is refused.",
    ),
]
DryRun = Annotated[
    bool, Query(description="Check everything as for real, do nothing, and answer with what would be done.")
]


def key_id(request: Request, principal: Principal, key: str) -> str:
    """Return the id of a key: every caller has his own, for every path."""
    return str(uuid.uuid5(_KEYS, f"{principal.name} {request.scope['path']} {key}"))


async def content_of(request: Request) -> bytes:
    """Return what makes a request the same as another one on its path."""
    query: bytes = request.scope["query_string"]
    return query + b"\n" + await request.body()


async def get_requester(request: Request, principal: Caller, idempotency_key: Key = None) -> Requester:
    """Return who asks for an operation, and under which id."""
    if idempotency_key is None:
        return Requester(principal.name, kind=principal.kind.value)
    digest = hashlib.sha256(await content_of(request)).digest()
    key = key_id(request, principal, idempotency_key)
    return Requester(principal.name, key, digest, kind=principal.kind.value)


async def get_cautious(
    request: Request, principal: Caller, idempotency_key: Key = None, dry_run: DryRun = False
) -> Requester:
    """Return who asks for an operation that destroys something; a dry run has no key."""
    if dry_run:
        return Requester(principal.name, dry_run=True, kind=principal.kind.value)
    return await get_requester(request, principal, idempotency_key)


WOULD: dict[int | str, dict[str, Any]] = {200: {"model": WouldOut, "description": "Of a dry run: what would be done."}}
"""What routes with a dry run may answer, too."""


async def planned(_: Request, error: Exception) -> Response:
    """Answer a dry run."""
    if not isinstance(error, Planned):
        raise error
    found = WouldOut(would=error.would, affected=error.affected)
    return Response(found.model_dump_json(), media_type="application/json")


Asker = Annotated[Requester, Depends(get_requester)]
Cautious = Annotated[Requester, Depends(get_cautious)]
"""Of what can be asked for as a dry run."""
