"""Errors as `application/problem+json` (RFC 9457), with our stable code and the next step."""

from __future__ import annotations

import json
import math
import re
from functools import cache
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from sqlalchemy.exc import DataError, IntegrityError
from starlette.exceptions import HTTPException

from snapkeep.catalog.outages import DATABASE_OUTAGE, is_outage
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, SnapkeepError, Unavailable

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """Answer every error in one form."""
    app.add_exception_handler(SnapkeepError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(IntegrityError, _raced)
    app.add_exception_handler(DataError, _not_storable)
    for kind in DATABASE_OUTAGE:
        app.add_exception_handler(kind, _database)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    error: SnapkeepError,
    status: int | None = None,
    headers: dict[str, str] | None = None,
    *,
    request_id: str | None = None,
) -> Response:
    """Return the answer for an error. All of it is ASCII: it may repeat what has no UTF-8."""
    data: dict[str, Any] = {
        "type": f"urn:snapkeep:error:{error.code}",
        "title": error.code.replace("_", " "),
        "status": status or error.http_status,
        "detail": str(error),
        **error.to_dict(),
        "request_id": request_id,
    }
    headers = dict(headers or {})
    if data["status"] == 401:  # RFC 9110, section 15.5.2
        headers["WWW-Authenticate"] = "Bearer"
    if data["status"] == 429 and "retry_after" in error.details:
        headers["Retry-After"] = str(math.ceil(error.details["retry_after"]))
    return Response(json.dumps(data), data["status"], headers, media_type="application/problem+json")


def _id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


async def _known(request: Request, error: Exception) -> Response:
    if not isinstance(error, SnapkeepError):  # the signature of handlers is wider than what is registered
        raise error
    return problem(error, request_id=_id(request))


async def _invalid(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    invalid = InvalidInput("The request is not valid: " + "; ".join(fields), fields=fields)
    return problem(invalid, request_id=_id(request))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    kind = NotFound if error.status_code == 404 else InvalidInput
    headers = dict(error.headers) if error.headers else {}
    if error.status_code == 405:  # the framework names the methods of one route of several
        headers["Allow"] = ", ".join(_methods_of(request.app, request.url.path)) or headers.get("Allow", "")
    next_step = "See the REST reference for what exists."
    return problem(kind(str(error.detail), next_step=next_step), error.status_code, headers, request_id=_id(request))


def _methods_of(app: FastAPI, path: str) -> list[str]:
    """Return the methods that a path of the API has."""
    paths: dict[str, dict[str, Any]] = app.openapi()["paths"]
    if path in paths:  # it comes before those with a parameter in its place
        return sorted(map(str.upper, paths[path]))
    found = (set(methods) for template, methods in paths.items() if _pattern(template).fullmatch(path))
    return sorted(method.upper() for method in set[str]().union(*found))


@cache
def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)))


async def _raced(request: Request, error: Exception) -> Response:
    """Two did something in the same moment that cannot both be; the database took the first."""
    log.warning("a write was refused by the database", method=request.method, path=request.url.path, reason=str(error))
    raced = Conflict(
        "Somebody else changed this, or what it refers to, in the same moment", next_step="Look again, and repeat it."
    )
    return problem(raced, request_id=_id(request))


async def _not_storable(request: Request, error: Exception) -> Response:
    log.warning("a value was refused by the database", method=request.method, path=request.url.path, reason=str(error))
    return problem(InvalidInput("A value is outside of what can be stored"), request_id=_id(request))


async def _database(request: Request, error: Exception) -> Response:
    """A database that is away is no defect of ours: say so, and when to come back."""
    if not is_outage(error):
        return await _unexpected(request, error)
    log.warning("the database is away", method=request.method, path=request.url.path, reason=str(error))
    away = Unavailable(
        "The database of the catalog does not answer, or cannot write",
        next_step="Try again in a moment; if it stays so, look at the database, and at its disk.",
    )
    return problem(away, headers={"Retry-After": "2"}, request_id=_id(request))


async def _unexpected(request: Request, error: Exception) -> Response:
    log.error("request failed unexpectedly", method=request.method, path=request.url.path, exc_info=error)
    failed = SnapkeepError(f"The server failed on this request ({type(error).__name__}); see its log")
    return problem(failed, request_id=_id(request))
