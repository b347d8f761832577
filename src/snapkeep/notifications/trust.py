"""Trust in the other side, and what went wrong on the way to it."""

from __future__ import annotations

import ssl

from snapkeep.model.errors import InvalidInput
from snapkeep.notifications.message import Target


def trust(target: Target) -> ssl.SSLContext:
    """Return the context that knows the other side. Raises InvalidInput for a file that cannot be used."""
    file = target.text("ca_file") or None
    try:
        context = ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"The CA file {file!r:.300} cannot be used: {error}",
            next_step="Give the path of a readable PEM file with the certificate authority.",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def explained(error: BaseException) -> str:
    """Return why the other side was not reached; never an address, in which there may be a secret."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, InvalidInput):
            return cause.message
        if isinstance(cause, OSError) and cause.strerror:
            return f"it cannot be reached: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return f"it cannot be reached: {type(error).__name__}"
