"""The envelope round every answer: ``data`` and ``metadata`` with flags, links and totals."""

from typing import Any
from urllib.parse import quote, urlencode

from snapkeep.simulators.kit.web import Answer, Request, json_answer
from snapkeep.simulators.nutanix_files import wire
from snapkeep.simulators.nutanix_files.errors import ApiError, Invalid
from snapkeep.simulators.nutanix_files.query import Page

Json = dict[str, Any]


def metadata(
    *, error: bool = False, paginated: bool = False, total: int | None = None, links: list[Json] | None = None
) -> Json:
    """``common.v1.response.ApiResponseMetadata``."""
    flags = [("hasError", error), ("isPaginated", paginated), ("isTruncated", False)]
    body: Json = {
        "flags": [
            {"name": name, "value": value, "$objectType": "common.v1.config.Flag", "$reserved": wire.RESERVED}
            for name, value in flags
        ],
        "links": links or [],
        "$objectType": "common.v1.response.ApiResponseMetadata",
        "$reserved": wire.RESERVED,
    }
    if total is not None:
        body["totalAvailableResults"] = total
    return body


def link(rel: str, href: str) -> Json:
    """``common.v1.response.ApiLink``."""
    return {
        "rel": rel,
        "href": href,
        "$objectType": "common.v1.response.ApiLink",
        "$reserved": wire.RESERVED,
    }


def one(request: Request, kind: str, data: Json, *, etag: str | None = None, status: int = 200) -> Answer:
    """One object. ``kind`` is the type of the response, for instance ``files.v4.config.GetSnapshotApiResponse``."""
    body = {
        "data": data,
        "metadata": metadata(links=[link("self", href(request))]),
        "$objectType": kind,
        "$reserved": wire.RESERVED,
        "$dataItemDiscriminator": data["$objectType"],
    }
    return json_answer(status, body, {"ETag": etag} if etag is not None else None)


def task(request: Request, kind: str, identifier: str) -> Answer:
    """202: work has begun."""
    return one(request, kind, wire.task_reference(identifier), status=202)


def many(request: Request, kind: str, item_kind: str, page: Page) -> Answer:
    """One page of a list."""
    body = {
        "data": page.items,
        "metadata": metadata(paginated=True, total=page.total, links=_links(request, page)),
        "$objectType": kind,
        "$reserved": wire.RESERVED,
        "$dataItemDiscriminator": f"List<{item_kind}>" if page.items else "EMPTY_LIST",
    }
    return json_answer(200, body)


def refusal(error: ApiError, codes: dict[str, str]) -> Answer:
    """``files.v4.error.ErrorResponse`` with a list of AppMessages."""
    row = error.row
    code = codes.get(error.kind, row.code)
    namespace = "prism" if row.code.startswith("PRISM") else "files"
    message = wire.app_message(code, str(error), row.group, arguments=error.values, namespace=namespace)
    return _error(row.status, [message], namespace)


def custom_refusal(status: int, code: str, message: str) -> Answer:
    """An error that a fault asked for."""
    return _error(status, [wire.app_message(code, message, "SIMULATED")], "files")


def schema_refusal(path: str, moment: float, complaints: tuple[Invalid, ...]) -> Answer:
    """400 with ``files.v4.error.SchemaValidationError``."""
    error = {
        "timestamp": wire.timestamp(moment),
        "statusCode": 400,
        "error": "Bad Request",
        "path": path,
        "validationErrorMessages": [
            {
                "location": complaint.location,
                "attributePath": complaint.attribute,
                "message": complaint.message,
                "$objectType": "files.v4.error.SchemaValidationErrorMessage",
                "$reserved": wire.RESERVED,
            }
            for complaint in complaints
        ],
        "$objectType": "files.v4.error.SchemaValidationError",
        "$reserved": wire.RESERVED,
    }
    return _error(400, error, "files")


def _error(status: int, error: Any, namespace: str) -> Answer:
    kind = f"{namespace}.v4.error.ErrorResponse"
    item = "SchemaValidationError" if isinstance(error, dict) else "AppMessage"
    discriminator = f"{namespace}.v4.error.{item}"
    body = {
        "data": {
            "error": error,
            "$errorItemDiscriminator": discriminator if isinstance(error, dict) else f"List<{discriminator}>",
            "$objectType": kind,
            "$reserved": wire.RESERVED,
        },
        "metadata": metadata(error=True),
        "$reserved": wire.RESERVED,
        "$dataItemDiscriminator": kind,
    }
    return json_answer(status, body)


def href(request: Request, **changes: int) -> str:
    """The address of this request, perhaps with another page."""
    host = request.headers.get("host", "localhost")
    query = request.query | {f"${name}": str(value) for name, value in changes.items()}
    text = f"?{urlencode(query, safe='$,')}" if query else ""
    return f"{request.scheme}://{host}{quote(request.path, safe='/$:=')}{text}"


def _links(request: Request, page: Page) -> list[Json]:
    last = max(0, (page.total - 1) // page.limit)
    links = [link("self", href(request)), link("first", href(request, page=0, limit=page.limit))]
    if page.number > 0:
        links.append(link("prev", href(request, page=page.number - 1, limit=page.limit)))
    if page.number < last:
        links.append(link("next", href(request, page=page.number + 1, limit=page.limit)))
    links.append(link("last", href(request, page=last, limit=page.limit)))
    return links
