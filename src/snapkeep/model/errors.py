"""The one error tree.

    SnapkeepError
    ├── Unavailable            retry later        the system cannot be reached or is failing
    │   └── RateLimited        retry after        the system asks us to slow down
    ├── Timeout                ask again          our own deadline passed
    ├── InvalidInput           ask the person     the request itself is wrong
    ├── Unsupported            ask the person     the asset or system cannot do this
    ├── AuthenticationFailed   ask the person     who we are, or who the system is, was not proved
    ├── PermissionDenied       ask the person     the account lacks a right (details: needed)
    ├── ApprovalRequired       ask another one    nobody may do this alone (details: approval_id)
    ├── NotFound               (success for delete)
    ├── Conflict               ask the person     a name is taken, or somebody changed it meanwhile
    ├── Busy                   wait, or free it   something still uses it (details: dependents)
    ├── Locked                 wait               retention forbids it (details: until)
    ├── LimitExceeded          free something     a quota or maximum is reached
    ├── BaseMissing            take a full        the base snapshot of a diff is gone
    ├── Incomplete             take a full        a list ended before its end
    ├── Damaged                repair, or restore stored data is not what was written
    └── VendorError            read the reason    the system failed and said why

The class says what the engine does next; `code` is stable and used by REST (problem+json), by the exit
code of the command line and as a metric label. A message names what was wrong; `next_step` says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self


class SnapkeepError(Exception):
    """Base of every error that Snapkeep reports on purpose.

    `vendor_code` and `vendor_message` keep the system's own reason, unchanged. `details` is JSON-safe.
    """

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    default_next_step: ClassVar[str] = "This is a defect of Snapkeep: report it with the operation's id and the log."

    def __init__(
        self,
        message: str,
        *,
        next_step: str | None = None,
        vendor_code: str | None = None,
        vendor_message: str | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step or self.default_next_step
        self.vendor_code = vendor_code
        self.vendor_message = vendor_message
        self.details = details

    def __str__(self) -> str:
        reason = " ".join(part for part in (self.vendor_code, self.vendor_message) if part)
        return f"{self.message} ({reason})" if reason else self.message

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form from which `from_dict` makes the same error again."""
        return {
            "code": self.code,
            "message": self.message,
            "next_step": self.next_step,
            "vendor_code": self.vendor_code,
            "vendor_message": self.vendor_message,
            "details": self.details,
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> SnapkeepError:
        """Make the error again; an unknown code (of a newer version) becomes a plain `SnapkeepError`."""
        return ERRORS.get(str(data.get("code")), SnapkeepError)(
            str(data.get("message", "unknown error")),
            next_step=data.get("next_step"),
            vendor_code=data.get("vendor_code"),
            vendor_message=data.get("vendor_message"),
            **(data.get("details") or {}),
        )

    def with_context(self, prefix: str) -> Self:
        """Return the same error with `prefix` before its message."""
        error = type(self)(
            f"{prefix}: {self.message}",
            next_step=self.next_step,
            vendor_code=self.vendor_code,
            vendor_message=self.vendor_message,
            **self.details,
        )
        error.__cause__ = self
        return error


class Unavailable(SnapkeepError):
    """The system cannot be reached, or answers that it cannot serve now. Retried with back-off."""

    code = "unavailable"
    http_status = 503
    exit_code = 13
    retryable = True
    default_next_step = "Check address, port and network, and that the system is up; then try again."


class RateLimited(Unavailable):
    """The system asks us to slow down. `details['retry_after']`: seconds, when it said so."""

    code = "rate_limited"
    http_status = 429
    exit_code = 14
    default_next_step = "Wait and try again; lower the number of concurrent operations for this system."


class Timeout(SnapkeepError):
    """Our own deadline passed before the system came to an end."""

    code = "timeout"
    http_status = 504
    exit_code = 15
    default_next_step = "Look at the task on the system itself; raise the deadline if the system is merely slow."


class InvalidInput(SnapkeepError):
    """The request is wrong in itself; nothing was changed."""

    code = "invalid_input"
    http_status = 422
    exit_code = 2
    default_next_step = "Correct the value and try again."


class Unsupported(SnapkeepError):
    """The asset, or its system, cannot do this. Raised before any network call."""

    code = "unsupported"
    http_status = 422
    exit_code = 10
    default_next_step = "See `snapkeep asset show` for what this asset can do."


class AuthenticationFailed(SnapkeepError):
    """The system refused our credentials, or could not prove its own identity (TLS)."""

    code = "authentication_failed"
    http_status = 401
    exit_code = 8
    default_next_step = "Check user name, password or API key, and that the account is not locked."


class PermissionDenied(SnapkeepError):
    """The account is known but may not do this. `details['needed']`: the missing right, when known."""

    code = "permission_denied"
    http_status = 403
    exit_code = 9
    default_next_step = "Give the account the right that is named, then run `snapkeep system check`."


class ApprovalRequired(SnapkeepError):
    """Nobody may do this alone. `details['approval_id']`: what others have to approve before it is sent again."""

    code = "approval_required"
    http_status = 403
    exit_code = 21
    default_next_step = "Let others approve it with `snapkeep approval approve`, then repeat it with --approval."


class NotFound(SnapkeepError):
    """There is no such thing (any more). For a delete this is success."""

    code = "not_found"
    http_status = 404
    exit_code = 3
    default_next_step = "Check the name; run `snapkeep discover` if it was made or removed outside Snapkeep."


class Conflict(SnapkeepError):
    """The name is taken, or the thing was changed by somebody else in the meantime."""

    code = "conflict"
    http_status = 409
    exit_code = 4
    default_next_step = "Choose another name, or look at what exists under this one."


class Busy(SnapkeepError):
    """Something still uses it. `details['dependents']`: what, when known."""

    code = "busy"
    http_status = 409
    exit_code = 5
    default_next_step = "Wait until the other work has ended, or remove what depends on it; then try again."


class Locked(SnapkeepError):
    """A retention lock or hold forbids it. `details['until']`: when it ends, RFC 3339."""

    code = "locked"
    http_status = 423
    exit_code = 6
    default_next_step = "Wait until the lock ends."


class LimitExceeded(SnapkeepError):
    """A quota or a maximum of the system is reached."""

    code = "limit_exceeded"
    http_status = 409
    exit_code = 7
    default_next_step = "Delete what is no longer needed, or raise the limit on the system."


class BaseMissing(SnapkeepError):
    """The base snapshot of a diff is gone: what changed since then cannot be known."""

    code = "base_missing"
    http_status = 409
    exit_code = 11
    default_next_step = "Take a full (a diff without base), and keep its snapshot until the next one succeeded."


class Incomplete(SnapkeepError):
    """A list ended before its end, or does not belong to what was asked; it must not be trusted."""

    code = "incomplete"
    http_status = 502
    exit_code = 12
    default_next_step = "Compute the diff again; take a full if it fails again."


class Damaged(SnapkeepError):
    """What was stored is not what was written: a repository's file does not match its checksum, or is missing."""

    code = "damaged"
    http_status = 500
    exit_code = 19
    default_next_step = (
        "Check the repository with `snapkeep repository check NAME --data all`, and the storage below it."
    )


class VendorError(SnapkeepError):
    """The system failed, or answered outside its own contract; its reason is kept."""

    code = "vendor_error"
    http_status = 502
    exit_code = 16
    default_next_step = "Read the system's own reason; look for the task or alert on the system."


ERRORS: Mapping[str, type[SnapkeepError]] = {
    error.code: error
    for error in (
        SnapkeepError, Unavailable, RateLimited, Timeout, InvalidInput, Unsupported, AuthenticationFailed,
        PermissionDenied, ApprovalRequired, NotFound, Conflict, Busy, Locked, LimitExceeded, BaseMissing, Incomplete,
        Damaged, VendorError,
    )
}  # fmt: skip
"""Every error by its stable code."""
