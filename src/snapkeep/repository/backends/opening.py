"""Open a backend by its URL, in restic's own spellings.

/srv/backup   local:/srv/backup   file:///srv/backup
s3:https://host[:port]/bucket[/prefix]   s3:s3.amazonaws.com/bucket[/prefix]
sftp:[user@]host:/path   sftp://[user@]host[:port]//path      (one slash less: from the user's home)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from snapkeep.model.errors import InvalidInput
from snapkeep.repository.backends import Backend
from snapkeep.repository.backends.local import LocalBackend

_NEXT_STEP = "Write /path, s3:https://host/bucket/prefix or sftp:user@host:/path."
_NAMES = {
    "s3": frozenset({"access_key", "secret_key", "session_token", "region", "ca_file"}),
    "sftp": frozenset({"password", "private_key", "passphrase", "host_key", "known_hosts"}),
    "local": frozenset[str](),
}


def open_backend(url: str, secrets: Mapping[str, str] | None = None) -> Backend:
    """Return the backend; it connects when it is first used. Raises InvalidInput, also where an extra is missing.

    Secrets of S3: access_key, secret_key; session_token, region, ca_file (a path) where needed.
    Of SFTP: password, or private_key (the text, with its passphrase), or neither for the agent and the user's own keys;
    host_key (a line such as `ssh-ed25519 AAAA...`) or known_hosts (a path), or neither for ~/.ssh/known_hosts.
    """
    kind, colon, rest = url.partition(":")
    if not colon or url.startswith("/"):
        kind, rest = "local", url
    elif kind == "file" and rest.startswith("///"):
        kind, rest = "local", unquote(rest[2:])
    if kind not in _NAMES:
        raise InvalidInput("The repository's URL names no known kind of storage", next_step=_NEXT_STEP)
    given: dict[str, Any] = dict(secrets or {})
    if unknown := given.keys() - _NAMES[kind]:
        known = ", ".join(sorted(_NAMES[kind])) or "none"
        raise InvalidInput(f"Unknown secrets for a repository of kind {kind}: {', '.join(sorted(unknown))}",
                           next_step=f"Those that it knows: {known}.")  # fmt: skip
    if kind == "s3":
        return _open_s3(rest, given)
    if kind == "sftp":
        return _open_sftp(rest, given)
    if not rest.startswith("/"):
        raise InvalidInput("The path of the repository must begin with /", next_step=_NEXT_STEP)
    return LocalBackend(Path(rest))


def _open_s3(rest: str, secrets: dict[str, Any]) -> Backend:
    from snapkeep.repository.backends.s3 import S3Backend  # noqa: PLC0415  (an extra)

    address = rest if "://" in rest else f"https://{rest.removeprefix('//')}"
    parts = urlsplit(address)
    bucket, _, prefix = parts.path.strip("/").partition("/")
    _refuse_password(parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not bucket or parts.query:
        raise InvalidInput("The URL of an S3 repository needs host and bucket", next_step=_NEXT_STEP)
    for name in ("access_key", "secret_key"):
        if not secrets.get(name):
            raise InvalidInput(f"An S3 repository needs the secret {name}", next_step="Give access_key and secret_key.")
    return S3Backend(f"{parts.scheme}://{parts.netloc}", bucket, prefix, **secrets)


def _open_sftp(rest: str, secrets: dict[str, Any]) -> Backend:
    from snapkeep.repository.backends.sftp import SftpBackend  # noqa: PLC0415  (an extra)

    if rest.startswith("//"):
        parts = urlsplit(f"sftp:{rest}")
        _refuse_password(parts.password)
        try:
            port = parts.port or 22
        except ValueError as error:
            raise InvalidInput("The port in the repository's URL is wrong", next_step=_NEXT_STEP) from error
        user, host, path = parts.username, parts.hostname or "", unquote(parts.path[1:])
    else:
        before, _, path = rest.partition(":/") if ":/" in rest else rest.rpartition(":")
        path = f"/{path}" if ":/" in rest else path
        name, _, host = before.rpartition("@")
        user, host, port = name or None, host.strip("[]"), 22
        _refuse_password(":" in name)
    if not host or not path:
        raise InvalidInput("The URL of an SFTP repository needs host and path", next_step=_NEXT_STEP)
    return SftpBackend(host, path, user=user, port=port, **secrets)


def _refuse_password(password: object) -> None:
    if password:
        raise InvalidInput("The repository's URL contains a password", next_step="Give it as a secret.")
