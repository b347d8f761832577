"""Who asks is known by name and kind, whether with a key or for a dry run."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.types import Message

from snapkeep.model.access import IdentityKind, Principal
from snapkeep.server.requester import get_cautious


async def body() -> Message:
    return {"type": "http.request", "body": b"{}"}


@pytest.mark.parametrize(("key", "dry_run"), [(None, False), ("k", False), (None, True)])
async def test_what_he_is_goes_along(key: str | None, dry_run: bool) -> None:
    request = Request({"type": "http", "method": "POST", "path": "/v1/x", "query_string": b"", "headers": []}, body)
    by = await get_cautious(request, Principal("nightly", IdentityKind.SERVICE, ()), key, dry_run)
    assert (by.name, by.kind, by.dry_run, by.operation_id is None) == ("nightly", "service", dry_run, key is None)
