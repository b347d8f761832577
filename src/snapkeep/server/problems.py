"""Errors as `application/problem+json` (RFC 9457), with our stable code and the next step."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from snapkeep.catalog.database import DATABASE_OUTAGE, is_outage
from snapkeep.model.errors import InvalidInput, NotFound, SnapkeepError, Unavailable

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error in one form."""
    app.add_exception_handler(SnapkeepError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    for kind in DATABASE_OUTAGE:
        app.add_exception_handler(kind, _database)
    app.add_exception_handler(Exception, _unexpected)


def problem(error: SnapkeepError, status: int | None = None, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer for an error."""
    data: dict[str, Any] = {
        "type": f"urn:snapkeep:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status or error.http_status,
        "detail": str(error),
        **error.to_dict(),
    }
    if data["status"] == 401:  # RFC 9110, section 15.5.2
        headers = {**(headers or {}), "WWW-Authenticate": "Bearer"}
    return JSONResponse(data, data["status"], headers, media_type="application/problem+json")


async def _known(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, SnapkeepError):  # the signature of handlers is wider than what is registered
        raise error
    return problem(error)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return problem(InvalidInput("The request is not valid: " + "; ".join(fields), fields=fields))


async def _http(_: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    kind = NotFound if error.status_code == 404 else InvalidInput
    headers = dict(error.headers) if error.headers else None
    next_step = "See the REST reference for what exists."
    return problem(kind(str(error.detail), next_step=next_step), error.status_code, headers)


async def _database(request: Request, error: Exception) -> JSONResponse:
    """A database that is away is no defect of ours: say so, and when to come back."""
    if not is_outage(error):
        return await _unexpected(request, error)
    log.warning("the database is away", method=request.method, path=request.url.path, reason=str(error))
    away = Unavailable(
        "The database of the catalog does not answer, or cannot write",
        next_step="Try again in a moment; if it stays so, look at the database, and at its disk.",
    )
    return problem(away, headers={"Retry-After": "2"})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed unexpectedly", method=request.method, path=request.url.path, exc_info=error)
    return problem(SnapkeepError(f"The server failed on this request ({type(error).__name__}); see its log"))
