"""A simulator's own API, for those who set the stage: faults, requests, sessions, accounts.

It is not the vendor's. It asks for no login, and answers clients on the loopback interface only. A simulator adds
routes of its own to :attr:`Control.router`.
"""

import ipaddress
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from snapkeep.simulators.kit.accounts import Account, Accounts
from snapkeep.simulators.kit.faults import Fault, Faults
from snapkeep.simulators.kit.requestlog import RequestLog
from snapkeep.simulators.kit.web import Answer, Request, Router, json_answer

Handler = Callable[[Request, dict[str, str]], Awaitable[Any]]
T = TypeVar("T")

logger = logging.getLogger(__name__)


class ControlError(Exception):
    """A refusal: HTTP status and text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class NewAccount(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An account to make or replace."""

    name: str
    password: str
    api_key: str = ""
    permissions: list[str] = msgspec.field(default_factory=lambda: ["*"])


class Expire(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How many calls are answered with 401 besides those with an old session."""

    refuse: int = 1


def decode(request: Request, kind: type[T]) -> T:
    """The body as a ``kind``; an empty one is an empty object. Raises :class:`ControlError` (400)."""
    try:
        return msgspec.json.decode(request.body.strip() or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlError(400, str(error)) from None


class Control:
    """The routes that every simulator has."""

    def __init__(self, prefix: str, accounts: Accounts, faults: Faults, log: RequestLog) -> None:
        self._prefix = prefix
        self._accounts = accounts
        self._faults = faults
        self._log = log
        self.router: Router[Handler] = Router()
        for method, path, handler in (
            ("GET", "/faults", self._list_faults),
            ("POST", "/faults", self._add_fault),
            ("DELETE", "/faults", self._clear_faults),
            ("DELETE", "/faults/{id}", self._remove_fault),
            ("GET", "/requests", self._requests),
            ("POST", "/sessions/expire", self._expire),
            ("POST", "/accounts", self._put_account),
        ):
            self.router.add(method, path, handler)

    def serves(self, path: str) -> bool:
        """Whether a path belongs to this API."""
        return path == self._prefix or path.startswith(self._prefix + "/")

    async def answer(self, request: Request) -> Answer:
        """Answer one request; ``{"error": ...}`` when it is refused."""
        if not _loopback(request.client):
            return json_answer(403, {"error": "the control API answers loopback clients only"})
        path = request.path[len(self._prefix) :] or "/"
        route, parameters, known = self.router.find(request.method, path)
        if route is None:
            return json_answer(405 if known else 404, {"error": f"no {request.method} {request.path}"})
        try:
            return json_answer(200, await route.handler(request, parameters))
        except ControlError as error:
            return json_answer(error.status, {"error": str(error)})
        except ValueError as error:
            return json_answer(400, {"error": str(error)})
        except Exception as error:
            logger.exception("control API: %s %s", request.method, request.path)
            return json_answer(500, {"error": f"{type(error).__name__}: {error}"})

    async def _list_faults(self, _request: Request, _parameters: dict[str, str]) -> Any:
        return {"faults": self._faults.report()}

    async def _add_fault(self, request: Request, _parameters: dict[str, str]) -> Any:
        try:
            return {"id": self._faults.add(decode(request, Fault))}
        except re.error as error:
            raise ControlError(400, f"path is no regular expression: {error}") from None

    async def _clear_faults(self, _request: Request, _parameters: dict[str, str]) -> Any:
        self._faults.clear()
        return {}

    async def _remove_fault(self, _request: Request, parameters: dict[str, str]) -> Any:
        self._faults.remove(int(parameters["id"]))
        return {}

    async def _requests(self, request: Request, _parameters: dict[str, str]) -> Any:
        entries = self._log.after(int(request.query.get("after", "0")))
        return {"count": self._log.count, "requests": entries}

    async def _expire(self, request: Request, _parameters: dict[str, str]) -> Any:
        return {"ended": self._accounts.expire_sessions(decode(request, Expire).refuse)}

    async def _put_account(self, request: Request, _parameters: dict[str, str]) -> Any:
        new = decode(request, NewAccount)
        self._accounts.put(Account(**msgspec.structs.asdict(new)))
        return {"name": new.name}


def _loopback(client: str | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client).is_loopback
    except ValueError:
        return False
