"""The ASGI application: from a request to its answer.

Order: fault, authentication, permission, repeated request id, handler. A handler is synchronous and runs in one
transaction together with the note of its answer, so that a request acts wholly or not at all.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from http.cookies import SimpleCookie
from typing import Any

from snapkeep.simulators.kit.accounts import Account
from snapkeep.simulators.kit.control import Control
from snapkeep.simulators.kit.faultplay import ConnectionFault, play
from snapkeep.simulators.kit.faults import Fault
from snapkeep.simulators.kit.requestlog import LoggedRequest
from snapkeep.simulators.kit.server import reset_connection
from snapkeep.simulators.kit.web import MAX_BODY, Answer, Request, Route, Router
from snapkeep.simulators.nutanix_files import (
    envelope,
    routes_changes,
    routes_operations,
    routes_partners,
    routes_schedules,
    routes_shares,
    routes_snapshots,
)
from snapkeep.simulators.nutanix_files.errors import ApiError, SchemaError
from snapkeep.simulators.nutanix_files.guards import Handler
from snapkeep.simulators.nutanix_files.world import COOKIE, Call, World

MODULES = (
    routes_shares,
    routes_snapshots,
    routes_changes,
    routes_partners,
    routes_schedules,
    routes_operations,
)
REQUEST_ID = "ntnx-request-id"

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

logger = logging.getLogger(__name__)


def all_routes() -> Router[Handler]:
    """The vendor's routes that the simulator serves. Raises RuntimeError for one without a permission."""
    router: Router[Handler] = Router()
    for module in MODULES:
        for route in module.router.routes:
            if not route.permission:
                raise RuntimeError(f"{route.method} {route.template} has declared no permission")
            router.add(route.method, route.template, route.handler, route.permission)
    return router


class App:
    """Serves the vendor's API and the control API."""

    def __init__(self, world: World, control: Control | None) -> None:
        self._world = world
        self._control = control
        self._router = all_routes()
        self._repeats = world.repeats

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """One request."""
        request = await _read(scope, receive)
        if self._control is not None and self._control.serves(request.path):
            await self._send(await self._control.answer(request), send, scope)
            return
        try:
            answer = await self._vendor(request)
        except ConnectionFault as fault:
            await _without_answer(fault, scope, receive)
            return
        await self._send(answer, send, scope)

    async def _vendor(self, request: Request) -> Answer:
        number = self._world.log.next_number()
        route, parameters, known = self._router.find(request.method, request.path)
        faults = self._world.faults.strike(request.method, route.template if route else None, request.path)
        who: list[Account] = []
        status = 0
        try:
            answer = await play(
                faults,
                lambda: self._guarded(request, route, parameters, known, faults, who),
                self._fault_answer,
                self._world.accounts.forget_sessions,
            )
            status = answer.status
            return answer
        finally:
            self._world.log.add(
                LoggedRequest(
                    n=number,
                    time=self._world.state.clock(),
                    method=request.method,
                    path=request.path,
                    query=request.query_string,
                    status=status,
                    account=who[0].name if who else None,
                    request_id=request.headers.get(REQUEST_ID),
                    faults=[fault.action for fault in faults],
                )
            )

    def _guarded(
        self,
        request: Request,
        route: Route[Handler] | None,
        parameters: dict[str, str],
        known: bool,
        faults: list[Fault],
        who: list[Account],
    ) -> Answer:
        """Act, and turn refusals into answers."""
        settings = self._world.state.settings
        try:
            account, by_password = self._world.accounts.authenticate(request)
            if account is None:
                raise ApiError("unauthenticated")
            who.append(account)
            if len(request.body) > MAX_BODY:
                raise ApiError("too_large")
            if route is None and known:
                raise ApiError("no_method", method=request.method, path=request.path)
            if route is None:
                raise ApiError("no_route", path=request.path)
            if not account.may(route.permission):
                raise ApiError("not_permitted", permission=route.permission)
            answer = self._act(Call(self._world, request, parameters, account, faults), route)
            if by_password and settings.session_cookie:
                answer.headers["Set-Cookie"] = self._session(account)
            return answer
        except ApiError as error:
            return envelope.refusal(error, settings.error_codes)
        except SchemaError as error:
            return envelope.schema_refusal(request.path, self._world.state.now(), error.complaints)
        except Exception:
            logger.exception("internal error of the simulator")
            return envelope.refusal(ApiError("internal"), settings.error_codes)

    def _act(self, call: Call, route: Route[Handler]) -> Answer:
        if call.request.method == "GET":
            return route.handler(call)
        key = self._repeats.key(call.account.name, call.request)
        before = self._repeats.find(key)
        if before is not None:
            return before
        with self._world.store.transaction():
            answer = route.handler(call)
            self._repeats.keep(key, answer)
        return answer

    def _session(self, account: Account) -> str:
        cookie: SimpleCookie = SimpleCookie()
        cookie[COOKIE] = self._world.accounts.open_session(account)
        cookie[COOKIE]["path"] = "/"
        cookie[COOKIE]["httponly"] = True
        cookie[COOKIE]["secure"] = self._world.options.tls
        return cookie[COOKIE].OutputString()

    @staticmethod
    def _fault_answer(status: int, code: str | None, message: str | None, enveloped: bool) -> Answer:
        text = message or f"Simulated fault {status}."
        if not enveloped:
            return Answer(status, text.encode(), content_type="text/plain")
        return envelope.custom_refusal(status, code or f"FILES-9{status:04d}", text)

    async def _send(self, answer: Answer, send: Send, scope: dict[str, Any]) -> None:
        truncated = answer.headers.pop("x-simulator-truncate", None) is not None
        headers = [
            (b"date", formatdate(self._world.state.now(), usegmt=True).encode()),
            *((name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()),
        ]
        if answer.status != 204:
            headers.append((b"content-type", answer.content_type.encode()))
            headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if truncated:
            half = answer.body[: len(answer.body) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            scope["state"]["transport"].close()
            return
        await send({"type": "http.response.body", "body": answer.body})


async def _read(scope: dict[str, Any], receive: Receive) -> Request:
    body = b""
    while True:
        message = await receive()
        if len(body) <= MAX_BODY:
            body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            break
    client = scope.get("client")
    return Request(
        method=scope["method"],
        path=scope["path"],
        query_string=scope["query_string"].decode("latin-1"),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
        client=client[0] if client else None,
        scheme=scope["scheme"],
    )


async def _without_answer(fault: ConnectionFault, scope: dict[str, Any], receive: Receive) -> None:
    """End without an answer. The server would send a 500 on its own, were the connection not closed."""
    if fault.kind == "hang":
        while (await receive())["type"] != "http.disconnect":
            pass
    reset_connection(scope["state"]["transport"])
    await asyncio.sleep(0.01)  # the server notices before it could complain about the missing answer
