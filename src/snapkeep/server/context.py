"""What a request is given: the catalog, the operations, the caller. Deny by default."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from snapkeep.catalog.catalog import Catalog
from snapkeep.model.errors import AuthenticationFailed
from snapkeep.operations.clock import Clock
from snapkeep.operations.connections import Connections
from snapkeep.operations.service import Operations
from snapkeep.server.datadir import token_digest


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of a running server."""

    catalog: Catalog
    operations: Operations
    connections: Connections
    clock: Clock


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


Caller = Annotated[str, Depends(require_token)]
Parts = Annotated[Context, Depends(get_context)]
