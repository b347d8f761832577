"""Vault's HTTP API, as far as it is needed to read a secret: KV version 2, and the login by AppRole.

Sources: https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version and
https://developer.hashicorp.com/vault/api-docs/auth/approle#login-with-approle. OpenBao has the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from snapkeep.model.errors import AuthenticationFailed, InvalidInput, PermissionDenied, SnapkeepError, VendorError
from snapkeep.plugin.http import Answer, HttpSession, open_session
from snapkeep.plugin.settings import HttpsSettings

REQUEST_SECONDS = 10.0
RETRY_SECONDS = 5.0
"""How long a failing request is repeated; operations wait for longer outages themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSettings:
    """Where Vault is, and how to log in: by a token, or by AppRole."""

    connection: HttpsSettings
    namespace: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None
    """Read again each time: an agent may renew it."""
    role_id: str | None = None
    secret_id_file: Path | None = None


async def read_secrets(settings: VaultSettings, paths: set[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what lies at each mount and path. Raises what a failing system does, naming Vault."""
    try:
        async with open_session(settings.connection) as session:
            headers = {"X-Vault-Request": "true"}
            headers |= {"X-Vault-Namespace": settings.namespace} if settings.namespace else {}
            headers["X-Vault-Token"] = await _token(session, settings, headers)
            return {place: await _read(session, headers, *place) for place in sorted(paths)}
    except SnapkeepError as error:
        raise error.with_context("Vault") from error


async def _token(session: HttpSession, settings: VaultSettings, headers: Mapping[str, str]) -> str:
    if settings.role_id is None:
        token = settings.token or (_first_line(settings.token_file) if settings.token_file else "")
        if not token:
            raise InvalidInput(
                "There is no token", next_step="Set SNAPKEEP_VAULT_TOKEN_FILE, or SNAPKEEP_VAULT_ROLE_ID for AppRole."
            )
        return token
    body = {"role_id": settings.role_id}
    body |= {"secret_id": _first_line(settings.secret_id_file)} if settings.secret_id_file else {}
    answer = await session.request("POST", "/v1/auth/approle/login", headers=headers, json=body)
    if not answer.ok:
        raise AuthenticationFailed(
            "The login by AppRole is refused",
            next_step="Check SNAPKEEP_VAULT_ROLE_ID and the secret id in SNAPKEEP_VAULT_SECRET_ID_FILE.",
            vendor_code=str(answer.status),
            vendor_message=_errors(answer),
        )
    token = _part(_part(answer_json(answer), "auth"), "client_token")
    if not isinstance(token, str):
        raise VendorError("The login by AppRole gave no token")
    return token


async def _read(session: HttpSession, headers: Mapping[str, str], mount: str, path: str) -> dict[str, Any]:
    answer = await session.request("GET", f"/v1/{mount}/data/{path}", headers=headers)
    if answer.ok:
        data = _part(_part(answer_json(answer), "data"), "data")
        if isinstance(data, dict):
            return data
        raise VendorError(f"The answer about {mount}/{path} is not one of KV version 2")
    reason = {"vendor_code": str(answer.status), "vendor_message": _errors(answer)}
    if answer.status == 403:
        raise PermissionDenied(
            f"Reading {mount}/{path} is refused", **reason, needed=f"read on {mount}/data/{path}",
            next_step="Renew the token of Snapkeep, or allow this in its policy; in a namespace, set "
            "SNAPKEEP_VAULT_NAMESPACE.",
        )  # fmt: skip
    if answer.status == 404:
        raise InvalidInput(
            f"There is no secret {path} in the mount {mount}, or its last version was deleted",
            **reason,
            next_step="Check mount and path: vault:MOUNT/PATH#FIELD, for a KV engine of version 2.",
        )
    raise VendorError(f"Reading {mount}/{path} failed", **reason)


def answer_json(answer: Answer) -> Any:
    """Return the decoded body. Raises VendorError, which shows nothing of it: there may be a secret in it."""
    try:
        return msgspec.json.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise VendorError(f"The answer {answer.status} is not JSON") from None


def _part(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _errors(answer: Answer) -> str:
    """Return why it refuses; its errors are a list of texts."""
    try:
        found = _part(msgspec.json.decode(answer.body), "errors")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "; ".join(str(item) for item in found)[:500] if isinstance(found, list) else ""


def _first_line(path: Path) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {type(error).__name__}") from None
