"""Who asks: the holder of a token, at this moment."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from snapkeep.identity.service import LOCAL
from snapkeep.model.access import IdentityKind, Principal
from snapkeep.model.errors import AuthenticationFailed
from snapkeep.server.context import Context, Parts
from snapkeep.server.datadir import token_digest

_bearer = HTTPBearer(auto_error=False, description="A token: of a login, of `snapkeep token create`, or the local one.")


async def authenticate(
    request: Request, parts: Parts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Principal:
    """Return who asks. Raises AuthenticationFailed."""
    principal = await _holder(request, parts, credentials)
    if principal is None:
        parts.rates.take(f"address {address_of(request)}")  # nobody else is held up by it
        raise AuthenticationFailed(
            "The request has no valid token",
            next_step="Log in with `snapkeep login`; or give a token as bearer token, or on the command line by "
            "--token-file or SNAPKEEP_TOKEN. On the server's machine, it is in the file 'token' of the data directory.",
        )
    request.state.principal = principal
    if principal.kind is not IdentityKind.LOCAL:
        parts.rates.take(f"identity {principal.name}")
    return principal


async def _holder(
    request: Request, parts: Context, credentials: HTTPAuthorizationCredentials | None
) -> Principal | None:
    """Return whose token it is at this moment; None: nobody's."""
    expected: bytes | None = request.app.state.token_digest
    given = token_digest(credentials.credentials) if credentials else b""
    if expected is not None and hmac.compare_digest(given, expected):
        return LOCAL
    return await parts.identities.authenticate(credentials.credentials) if credentials else None


async def get_again(
    request: Request, parts: Parts, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Callable[[], Awaitable[Principal | None]]:
    """Return what tells later on, while an answer goes on and on, who the caller is: None when he is let in no more."""
    return lambda: _holder(request, parts, credentials)


Again = Annotated[Callable[[], Awaitable[Principal | None]], Depends(get_again)]


def address_of(request: Request) -> str:
    """Return from where a request comes."""
    return request.client.host if request.client else ""


Caller = Annotated[Principal, Depends(authenticate)]
