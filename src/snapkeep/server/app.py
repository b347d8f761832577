"""The ASGI application: who has not proved his identity is served nothing but whether the server works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from snapkeep import __version__
from snapkeep.model.access import Action
from snapkeep.operations.requester import Planned
from snapkeep.server import (
    health,
    metrics,
    problems,
    routes_approvals,
    routes_assets,
    routes_audit,
    routes_backups,
    routes_coverage,
    routes_drills,
    routes_identities,
    routes_keys,
    routes_notifications,
    routes_operations,
    routes_policies,
    routes_protection,
    routes_providers,
    routes_reports,
    routes_signals,
    routes_systems,
)
from snapkeep.server.access import actions_of, allow, for_anyone_known
from snapkeep.server.auditing import Auditing, Auditor, record_first
from snapkeep.server.authentication import authenticate
from snapkeep.server.context import Context
from snapkeep.server.datadir import token_digest
from snapkeep.server.openapi import PERMISSION, describe, name_of
from snapkeep.server.parameters import require_known
from snapkeep.server.requester import planned
from snapkeep.server.schemas import Problem

DESCRIPTION = """Protect data with the snapshots that storage already has.

Work that takes time answers `202` with an **operation**; read it, or follow its events, until its `state` is
`succeeded`, `failed` or `cancelled`. Errors are `application/problem+json` with a stable `code` and the `next_step`.

What nobody may do alone is answered with 403, `approval_required`, and the id of an approval. When others have approved
it, send the very same request again with this id in the header `Approval`.
"""


def create_app(token: str | None, open_context: Callable[[], AbstractAsyncContextManager[Context]]) -> FastAPI:
    """Return the application; `open_context` opens catalog and engine when it starts.

    `token` is the local one, which may do everything; None: there is none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            open_context() as context,
            Auditor(context.catalog.audit, context.clock, context.catalog.outbox) as auditor,
        ):
            app.state.context, app.state.auditor = context, auditor
            yield

    app = FastAPI(
        title="Snapkeep",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would go to whatever host the request has named
        generate_unique_id_function=name_of,
        responses={"default": {"model": Problem}},
    )
    app.state.changing = asyncio.Lock()
    app.state.token_digest = None if token is None else token_digest(token)
    problems.install(app)
    app.add_middleware(Auditing)
    app.add_exception_handler(Planned, planned)
    api = APIRouter(prefix="/v1", dependencies=[Depends(authenticate), Depends(require_known)])
    for part in (
        routes_systems.router,
        routes_assets.router,
        routes_operations.router,
        routes_backups.router,
        routes_drills.router,
        routes_protection.router,
        routes_policies.router,
        routes_coverage.router,
        routes_signals.router,
        routes_reports.router,
        routes_approvals.router,
        routes_identities.router,
        routes_providers.router,
        routes_audit.router,
        routes_keys.router,
        routes_notifications.router,
    ):
        declare_permissions(part)
        record_first(part)
        api.include_router(part)

    @api.get("/openapi.json", tags=["about"], dependencies=[for_anyone_known()])
    async def openapi() -> dict[str, object]:
        """Return the OpenAPI description of this API."""
        return describe(app)

    for part in (api, routes_identities.public, routes_providers.public):
        declare_permissions(part)
        record_first(part)
    app.webhooks.include_router(routes_notifications.webhooks)
    app.include_router(api)
    app.include_router(routes_identities.public, prefix="/v1")
    app.include_router(routes_providers.public, prefix="/v1")
    app.include_router(health.router)  # no token: who asks learns only whether it works
    app.include_router(metrics.router, dependencies=[allow(Action.METRICS_READ)])
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    return app


def declare_permissions(router: APIRouter) -> None:
    """Describe what each route needs. A route that has declared nothing would be open to all: a defect."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            actions = actions_of(route.dependant)
            if not actions:
                raise RuntimeError(f"{route.path} has declared no permission (snapkeep.server.access)")
            route.openapi_extra = {**(route.openapi_extra or {}), PERMISSION: sorted(actions)}
