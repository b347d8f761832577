"""What a request is given: the catalog, the operations, the caller. Deny by default."""

from __future__ import annotations

import hmac
import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from snapkeep.catalog.catalog import Catalog
from snapkeep.model.errors import AuthenticationFailed
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.host import Host
from snapkeep.operations.requester import Requester
from snapkeep.operations.service import Operations
from snapkeep.server.datadir import token_digest
from snapkeep.server.health import Health
from snapkeep.server.metrics import CatalogMetrics


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running server."""

    catalog: Catalog
    operations: Operations
    connections: Connections
    clock: Clock
    host: Host
    health: Health
    catalog_metrics: CatalogMetrics


_bearer = HTTPBearer(auto_error=False, description="The token in the file `token` of the data directory.")


def require_token(
    request: Request, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> str:
    """Return who asks. Raises AuthenticationFailed."""
    expected: bytes = request.app.state.token_digest
    given = token_digest(credentials.credentials) if credentials else b""
    if not hmac.compare_digest(given, expected):
        raise AuthenticationFailed(
            "The request has no valid token",
            next_step="Give what is in the file 'token' of the server's data directory: as bearer token, or on the "
            "command line by --token-file or SNAPKEEP_TOKEN.",
        )
    return "administrator"


def get_context(request: Request) -> Context:
    """Return the parts of this server."""
    context: Context = request.app.state.context
    return context


_KEYS = uuid.UUID("d7f6a1c4-0a51-4a0c-8a3e-6f2f4d8b7c11")


def get_requester(
    request: Request,
    name: Annotated[str, Depends(require_token)],
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[ -~]+$",
            description="Who asks again with the same key gets the same operation: repeat a request whose answer was "
            "lost.",
        ),
    ] = None,
) -> Requester:
    """Return who asks for an operation, and under which id."""
    if idempotency_key is None:
        return Requester(name)
    return Requester(name, str(uuid.uuid5(_KEYS, f"{name} {request.url.path} {idempotency_key}")))


Caller = Annotated[Requester, Depends(get_requester)]
Parts = Annotated[Context, Depends(get_context)]
