"""The second person: asked for where an action has been found to be allowed, before anything is done."""

from __future__ import annotations

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from snapkeep.identity.approvals import Asked
from snapkeep.model.access import Action, Principal
from snapkeep.server.context import Context

HEADER = "Approval"
"""The id of an approval, sent with the request that was approved."""


async def require_approval(
    request: Request, parts: Context, principal: Principal, action: Action, subject: str
) -> bool:
    """Let a request pass that needs no approval, or has one; say whether it was used up. Raises ApprovalRequired."""
    if action.value.endswith(".read") or _is_dry_run(request):
        return False
    query = request.scope["query_string"].decode("latin-1")
    asked = Asked(request.method, request.scope["path"], query, await request.body())
    return await parts.approvals.require(principal, action, subject, asked, request.headers.get(HEADER) or None)


def _is_dry_run(request: Request) -> bool:
    """Say whether nothing will be done: of a route that knows the parameter, when it is given."""
    route = request.scope.get("route")
    asked = (request.query_params.get("dry_run") or "").lower() in {"true", "1"}
    return asked and isinstance(route, APIRoute) and _takes(route.dependant, "dry_run")


def _takes(dependant: Dependant, parameter: str) -> bool:
    own = any(field.alias == parameter for field in dependant.query_params)
    return own or any(_takes(below, parameter) for below in dependant.dependencies)
