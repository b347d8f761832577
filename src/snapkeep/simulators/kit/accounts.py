"""Who may do what: accounts with a password, an API key and permissions; sessions by cookie.

Secrets lie in clear text in a file of mode 0600: a simulator must be able to tell them to its user again.
"""

import base64
import binascii
import fnmatch
import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

import msgspec

from snapkeep.simulators.kit.certificates import write_private
from snapkeep.simulators.kit.web import Request


class Account(msgspec.Struct, kw_only=True):
    """One account. A permission may have wildcards: ``*`` permits everything, ``View_*`` all reading."""

    name: str
    password: str
    api_key: str
    permissions: list[str]

    def may(self, permission: str | None) -> bool:
        """Whether the account has this permission."""
        return permission is None or any(fnmatch.fnmatchcase(permission, given) for given in self.permissions)


class Accounts:
    """All accounts of a simulator, kept in one file."""

    def __init__(self, path: Path, api_key_header: str, cookie: str) -> None:
        self._path = path
        self._api_key_header = api_key_header.lower()
        self.cookie = cookie
        self._sessions: dict[str, str] = {}
        self._refuse_next = 0
        self.by_name: dict[str, Account] = {}
        if path.exists():
            stored = msgspec.json.decode(path.read_bytes(), type=list[Account])
            self.by_name = {account.name: account for account in stored}

    def ensure(self, name: str, permissions: list[str]) -> None:
        """Make an account with new secrets unless it exists."""
        if name not in self.by_name:
            self.put(
                Account(
                    name=name,
                    password=secrets.token_urlsafe(18),
                    api_key=secrets.token_hex(24),
                    permissions=permissions,
                )
            )

    def put(self, account: Account) -> None:
        """Make or replace an account."""
        self.by_name[account.name] = account
        write_private(self._path, msgspec.json.format(msgspec.json.encode(list(self.by_name.values()))))

    def expire_sessions(self, refuse: int = 1) -> int:
        """Forget all sessions; besides, the next ``refuse`` calls are 401, however they authenticate."""
        self._refuse_next = refuse
        return self.forget_sessions()

    def forget_sessions(self) -> int:
        """End all sessions; returns how many there were."""
        ended = len(self._sessions)
        self._sessions.clear()
        return ended

    def open_session(self, account: Account) -> str:
        """A new session's token."""
        token = secrets.token_urlsafe(24)
        self._sessions[token] = account.name
        return token

    def authenticate(self, request: Request) -> tuple[Account | None, bool]:
        """The account, and whether it came with a password (so that a session may be opened)."""
        if self._refuse_next:
            self._refuse_next -= 1
            return None, False
        key = request.headers.get(self._api_key_header)
        if key is not None:
            return self._by_key(key), False
        session = self._by_cookie(request.headers.get("cookie", ""))
        if session is not None:
            return session, False
        return self._by_password(request.headers.get("authorization", "")), True

    def _by_key(self, key: str) -> Account | None:
        for account in self.by_name.values():
            if hmac.compare_digest(account.api_key.encode(), key.encode()):
                return account
        return None

    def _by_cookie(self, header: str) -> Account | None:
        if self.cookie not in header:
            return None
        try:
            morsel = SimpleCookie(header).get(self.cookie)
        except CookieError:
            return None
        return self.by_name.get(self._sessions.get(morsel.value, "")) if morsel else None

    def _by_password(self, header: str) -> Account | None:
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return None
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        account = self.by_name.get(name)
        if account is None or not hmac.compare_digest(account.password.encode(), password.encode()):
            return None
        return account
