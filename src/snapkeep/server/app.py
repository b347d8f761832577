"""The ASGI application: without the token nothing is served but whether the server works."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import APIRouter, Depends, FastAPI

from snapkeep import __version__
from snapkeep.server import health, metrics, problems, routes_assets, routes_backups, routes_operations, routes_systems
from snapkeep.server.context import Context, require_token
from snapkeep.server.datadir import token_digest
from snapkeep.server.schemas import Problem

DESCRIPTION = """Protect data with the snapshots that storage already has.

Work that takes time answers `202` with an **operation**; read it until its `state` is `succeeded`, `failed` or
`cancelled`. Errors are `application/problem+json` with a stable `code` and the `next_step`.
"""


def create_app(token: str, open_context: Callable[[], AbstractAsyncContextManager[Context]]) -> FastAPI:
    """Return the application; `open_context` opens catalog and engine when it starts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_context() as context:
            app.state.context = context
            yield

    app = FastAPI(
        title="Snapkeep",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        responses={"default": {"model": Problem, "description": "An error, as `application/problem+json`."}},
    )
    app.state.token_digest = token_digest(token)
    problems.install(app)
    api = APIRouter(prefix="/v1", dependencies=[Depends(require_token)])
    for part in (routes_systems.router, routes_assets.router, routes_operations.router, routes_backups.router):
        api.include_router(part)

    @api.get("/openapi.json", tags=["about"])
    async def openapi() -> dict[str, object]:
        """Return the OpenAPI description of this API."""
        return app.openapi()

    app.include_router(api)
    app.include_router(health.router)  # no token: who asks learns only whether it works
    app.include_router(metrics.router, dependencies=[Depends(require_token)])
    return app
