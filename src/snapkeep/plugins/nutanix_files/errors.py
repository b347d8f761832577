"""From HTTP status and vendor code to our errors: by number, never by message text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from snapkeep.model.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    LimitExceeded,
    Locked,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
    VendorError,
)
from snapkeep.plugin.http import Answer
from snapkeep.plugins.nutanix_files.assumptions import ERROR_CODES

STATUS: Mapping[int, type[SnapkeepError]] = {
    400: InvalidInput,
    401: AuthenticationFailed,
    403: PermissionDenied,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    422: LimitExceeded,
    423: Locked,
    500: Unavailable,
}
"""What a status means; 408, 429, 502, 503 and 504 never come here (the HTTP session handles them)."""


def error_from_answer(answer: Answer, doing: str) -> SnapkeepError:
    """Return the error for an answer that is not 2xx. `doing`: what was tried, for the message."""
    code, message, arguments = _reason(answer)
    kind = ERROR_CODES.get(code or "", STATUS.get(answer.status, VendorError))
    details: dict[str, Any] = {"status": answer.status}
    if kind is PermissionDenied and arguments.get("permission"):
        details["needed"] = arguments["permission"]
    if kind is Unavailable:
        return Unavailable(f"{doing} failed inside the system", vendor_code=code, vendor_message=message, **details)
    return kind(f"{doing} was refused", vendor_code=code, vendor_message=message, **details)


def error_from_task(task: Mapping[str, Any], doing: str) -> SnapkeepError:
    """Return the error for a task that ended FAILED or CANCELED, with the vendor's reason."""
    code, message, _ = _first_message(_list(task.get("errorMessages")))
    message = message or str(task.get("legacyErrorMessage") or "") or f"task status {task.get('status')}"
    kind = ERROR_CODES.get(code or "", VendorError)
    return kind(f"{doing} failed", vendor_code=code, vendor_message=message, task=str(task.get("extId", "")))


def _reason(answer: Answer) -> tuple[str | None, str, Mapping[str, Any]]:
    """Return code, text and arguments from whatever form the error has: never fails."""
    try:
        body = answer.json()
    except VendorError:
        return str(answer.status), answer.excerpt, {}
    data = body.get("data") if isinstance(body, dict) else None
    error = data.get("error") if isinstance(data, dict) else None
    if isinstance(error, dict):  # SchemaValidationError
        messages = [
            str(item.get("message", ""))
            for item in _list(error.get("validationErrorMessages"))
            if isinstance(item, dict)
        ]
        return str(error.get("statusCode") or answer.status), "; ".join(messages) or str(error.get("error", "")), {}
    code, message, arguments = _first_message(error if isinstance(error, list) else ())
    return code or str(answer.status), message or answer.excerpt, arguments


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _first_message(messages: Iterable[Any]) -> tuple[str | None, str, Mapping[str, Any]]:
    """Return code, text and arguments of the first AppMessage; texts of all are joined."""
    known = [item for item in messages if isinstance(item, dict)]
    if not known:
        return None, "", {}
    arguments = known[0].get("argumentsMap")
    return (
        str(known[0]["code"]) if known[0].get("code") else None,
        "; ".join(str(item.get("message", "")) for item in known),
        arguments if isinstance(arguments, dict) else {},
    )
