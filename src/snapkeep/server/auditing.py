"""The audit log of requests: what may change something is on record before it runs, and its outcome before the answer.

One place for all routes: a middleware knows what was answered, and each handler that may change something is wrapped,
so that the line is written after its caller was let in, and before anything is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from snapkeep.catalog.audit import Audit
from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
from snapkeep.catalog.outbox import Outbox
from snapkeep.model.errors import Damaged, Unavailable
from snapkeep.model.notifications import Event, Notice
from snapkeep.operations.clock import Clock
from snapkeep.server.access import ANYBODY, ANYONE_KNOWN, actions_of
from snapkeep.server.problems import problem

Handler = Callable[..., Awaitable[Any]]

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
ON_RECORD = frozenset({
    "/backups/{backup_id}/entries", "/backups/{backup_id}/find", "/backups/{backup_id}/content", "/audit/export",
    "/change-lists/{list_id}/entries",
})  # fmt: skip
"""What is recorded although it only reads: it hands out data, or names of files."""
NOBODY = ("", "unknown")
"""Actor and kind, where no identity was proved."""
REFUSALS = 100
"""Refused tries of one who is known, or of one address, that are recorded in a minute; of more, only their number."""
REFUSALS_IN_ALL = 1000
MINUTE = 60.0
TOLD_AGAIN = timedelta(hours=1)
"""After so long, people are told of the same suspicion again."""
_MOST_FIELDS = 50

log = structlog.get_logger(__name__)


class _Who(NamedTuple):
    """Who has tried: somebody by name, or an address from which nobody was known."""

    actor: str
    kind: str
    source: str


OTHERS = _Who(*NOBODY, "*")


class Auditor:
    """Writes lines about requests, and counts refused tries: a flood of them must not fill the disk."""

    def __init__(self, audit: Audit, clock: Clock, outbox: Outbox | None = None, *, minute: float = MINUTE) -> None:
        self.clock = clock
        self._audit = audit
        self._outbox = outbox
        self._minute = minute
        self._recorded: Counter[_Who] = Counter()
        self._suppressed: Counter[_Who] = Counter()
        self._ends = 0.0
        self._counting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Auditor:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Record what was counted, as long as the catalog is there."""
        if self._counting is not None:
            self._counting.cancel()
        with contextlib.suppress(Unavailable):
            await self._record_suppressed()

    async def record(self, entry: Entry) -> None:
        """Append a line. Raises Unavailable: without a record nothing is done, and nothing handed out."""
        try:
            await self._audit.append(entry)
        except Exception as error:
            reason = str(error) or type(error).__name__
            log.warning("the audit log cannot be written", action=entry.action, outcome=entry.outcome, reason=reason)
            if isinstance(error, Damaged):
                await self._tell(Notice(event=Event.AUDIT_DAMAGED, message=error.message, next_step=error.next_step))
            raise Unavailable(
                "The audit log cannot be written, and without a record nothing is done",
                next_step="Look at the database and at its disk, run `snapkeep audit verify`, and try again.",
            ) from error

    async def refuse(self, entry: Entry) -> None:
        """Append the line of a refused try, or count it. Raises Unavailable."""
        now = self.clock.monotonic()
        if now >= self._ends:
            self._recorded.clear()
            self._ends = now + self._minute
        who = _Who(entry.actor, entry.actor_kind, "" if entry.actor else entry.source)
        if who not in self._recorded and self._recorded.total() >= REFUSALS_IN_ALL:
            who = OTHERS
        if self._recorded[who] < REFUSALS and self._recorded.total() < REFUSALS_IN_ALL:
            self._recorded[who] += 1
            await self.record(entry)
            return
        if not self._suppressed[who]:
            await self._tell(_too_many(entry))
        self._suppressed[who] += 1
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count())

    async def _tell(self, notice: Notice) -> None:
        """Tell who wants to know, once an hour; that it cannot be told changes nothing for the caller."""
        if self._outbox is not None:
            try:
                await self._outbox.tell(notice, quiet=TOLD_AGAIN)
            except Exception as error:  # noqa: BLE001
                log.warning("an event cannot be told", notice=notice.event.value, reason=type(error).__name__)

    async def _count(self) -> None:
        while self._suppressed:
            await self.clock.sleep(self._minute)
            with contextlib.suppress(Unavailable):  # it is tried again
                await self._record_suppressed()

    async def _record_suppressed(self) -> None:
        """Append one line for each of those who tried, with the number of their tries that have none."""
        for who, number in list(self._suppressed.items()):
            entry = Entry(
                actor=who.actor,
                actor_kind=who.kind,
                source=who.source,
                action="suppressed",
                subject="",
                outcome=Outcome.REFUSED,
                detail={"count": number},
            )
            await self.record(entry)
            self._suppressed[who] -= number
            self._suppressed = +self._suppressed


def _too_many(entry: Entry) -> Notice:
    who = entry.actor or entry.source
    return Notice(
        event=Event.ACCESS_REFUSED,
        message=f"Requests of {who} were refused so often within a minute that further ones are only counted",
        next_step="See what was tried: `snapkeep audit list --outcome refused`.",
        subject=who,
        actor=entry.actor,
        details={"source": entry.source},
    )


class AuditedRequest:
    """One request, on its way through the routes."""

    def __init__(self, scope: Scope, auditor: Auditor) -> None:
        self._scope = scope
        self._auditor = auditor
        self._state: dict[str, Any] = scope.setdefault("state", {})
        self._id = str(self._state.get("request_id") or auditor.clock.new_id())
        self._runs = False

    async def ask(self, arguments: Iterable[Any]) -> None:
        """Record that a handler is about to run; with the names in its body, never their values. Raises Unavailable.

        Whoever has not proved who he is gets only the line of the outcome: he could write as many as he likes.
        """
        if self._is_known:
            fields = _names(arguments)
            detail = {"fields": fields} if fields else {}
            await self._auditor.record(self._entry(Outcome.ASKED, None, {}, detail))
        self._runs = True

    def outcome(self, status: int) -> Outcome | None:
        """Return what an answer says about this request; None when that is not on record."""
        if not isinstance(self._scope.get("route"), APIRoute) or status == 405:  # nothing of ours was asked for
            return None
        if self._state.get("unfinished", False):  # a login that goes on elsewhere: its end is on record
            return None
        hidden = status == 404 and self._state.get("hidden", False)
        too_fast = status == 429 and self._changes and not self._runs
        if status in {401, 403} or hidden or too_fast or (self._changes and 400 <= status < 500 and not self._is_known):
            return Outcome.REFUSED
        if not self._changes:
            return Outcome.DONE if status < 400 and self._template in ON_RECORD else None
        if status < 400:
            return Outcome.DONE
        return Outcome.FAILED if self._runs or status < 500 else None  # we failed before anything was tried

    async def answer(self, outcome: Outcome, status: int, body: bytes) -> None:
        """Record an outcome. Raises Unavailable."""
        content = _json(body) if self._changes or status >= 400 else {}
        if outcome is Outcome.DONE:
            detail = _about_success(status, content) if self._changes else self._about_reading()
        else:
            detail = _about_error(content)
        entry = self._entry(outcome, status, content, detail)
        is_flood = status >= 400 and not (self._runs and self._is_known)
        await (self._auditor.refuse(entry) if is_flood else self._auditor.record(entry))

    @property
    def _is_known(self) -> bool:
        return "principal" in self._state

    @property
    def _changes(self) -> bool:
        return self._scope["method"] not in SAFE

    @property
    def _template(self) -> str:
        return str(self._scope["route"].path)

    def _entry(
        self, outcome: Outcome, status: int | None, content: Mapping[str, Any], detail: Mapping[str, Any]
    ) -> Entry:
        action, subject = self._what(content if status == 201 else {})
        actor, kind = self._who(action, subject, status)
        return Entry(
            actor=shortened(actor),
            actor_kind=kind,
            source=(self._scope.get("client") or ("",))[0],
            request_id=self._id,
            action=shortened(action),
            subject=shortened(subject),
            outcome=outcome,
            status=status,
            detail=detail,
        )

    def _what(self, made: Mapping[str, Any]) -> tuple[str, str]:
        """Return action and subject: those that the routes have left, else what they need and the path."""
        action = self._state.get("action") or self._declared()
        subject = self._state.get("subject") or self._scope["path"].removeprefix("/v1")
        name = made.get("name")
        return action, f"{subject}/{name}" if isinstance(name, str) and not self._state.get("subject") else subject

    def _declared(self) -> str:
        """Return the action that the route needs, if it is one, else how it was called."""
        declared = actions_of(self._scope["route"].dependant) - {ANYBODY, ANYONE_KNOWN}
        return str(next(iter(declared))) if len(declared) == 1 else f"{self._scope['method']} {self._template}"

    def _who(self, action: str, subject: str, status: int | None) -> tuple[str, str]:
        principal = self._state.get("principal")
        if principal is not None:
            return principal.name, str(principal.kind)
        proved = action == "login" and status is not None and status < 400
        return (subject, "user") if proved else NOBODY

    def _about_reading(self) -> dict[str, Any]:
        """Return what of the data was wanted."""
        query = self._scope["query_string"].decode("ascii", "replace")
        given = dict(parse_qsl(query, errors="backslashreplace"))
        return {name: shortened(given[name]) for name in ("path", "pattern", "first") if name in given}


_CURRENT: ContextVar[AuditedRequest] = ContextVar("audited_request")


def record_first(router: APIRouter) -> None:
    """Have a line written before each handler of a router runs that may change something."""
    for route in router.routes:
        if isinstance(route, APIRoute) and not set(route.methods or ()) <= SAFE and route.endpoint not in _RECORDING:
            route.endpoint = _recording(route.endpoint)


def _recording(handler: Handler) -> Handler:
    @functools.wraps(handler)
    async def record_and_run(**arguments: Any) -> Any:
        await _CURRENT.get().ask(arguments.values())
        return await handler(**arguments)

    _RECORDING.add(record_and_run)
    return record_and_run


_RECORDING: set[Handler] = set()
"""Handlers that are wrapped: routers belong to the module, and applications are made of them more than once."""


class Auditing:
    """The middleware: it holds an answer back until its line is written."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = AuditedRequest(scope, scope["app"].state.auditor)
        answer = _Answer(request, scope, receive, send)
        token = _CURRENT.set(request)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            await answer.broke_off()
            raise
        finally:
            _CURRENT.reset(token)


class _Answer:
    """What is sent in answer to a request."""

    def __init__(self, request: AuditedRequest, scope: Scope, receive: Receive, send: Send) -> None:
        self._request = request
        self._scope = scope
        self._receive = receive
        self._send = send
        self._begun = False
        self._held: Message | None = None
        self._withheld = False

    async def send(self, message: Message) -> None:
        """Send on; the beginning only together with the first of the body, when its line is written."""
        if message["type"] == "http.response.start":
            self._begun = True
            if self._request.outcome(message["status"]) is not None:
                self._held = message
                return
        elif self._held is not None:
            held, self._held = self._held, None
            await self._release(held, message.get("body", b""))
        if not self._withheld:
            await self._send(message)

    async def _release(self, start: Message, body: bytes) -> None:
        status = start["status"]
        try:
            if (outcome := self._request.outcome(status)) is not None:
                await self._request.answer(outcome, status, body)
        except Unavailable as error:
            if status < 400:  # else it tells of a failure anyway
                self._withheld = True
                await problem(_unrecorded(error))(self._scope, self._receive, self._send)
                return
        await self._send(start)

    async def broke_off(self) -> None:
        """Record that a request failed before it was answered."""
        if not self._begun and (outcome := self._request.outcome(500)) is not None:
            with contextlib.suppress(Unavailable):
                await self._request.answer(outcome, 500, b'{"code": "internal"}')


def _unrecorded(error: Unavailable) -> Unavailable:
    return Unavailable(
        "The outcome cannot be recorded in the audit log, and is not told without",
        next_step="Look whether it was done before you ask again; and look at the database and at its disk.",
        reason=error.message,
    )


def _names(arguments: Iterable[Any]) -> list[str]:
    """Return the names of the fields that a body sets, with those of settings and labels within it."""
    names: list[str] = []
    for body in arguments:
        if isinstance(body, BaseModel):
            for name in sorted(body.model_fields_set):
                value = getattr(body, name)
                inner = sorted(map(str, value)) if isinstance(value, dict) else []
                names += [f"{name}.{key}" for key in inner] or [name]
    return [shortened(name, 100) for name in names[:_MOST_FIELDS]]


def _json(body: bytes) -> Mapping[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _about_error(content: Mapping[str, Any]) -> dict[str, Any]:
    code = content.get("code")
    return {"code": code} if isinstance(code, str) else {}


def _about_success(status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the operation that began, or of what was made its id; of a grant, the role and where; or a dry run."""
    if status == 200 and "would" in content:
        return {"dry_run": True}
    names = {202: {"operation": "id"}, 201: {"id": "id", "role": "role", "scope": "scope"}}.get(status, {})
    return {key: content[name] for key, name in names.items() if isinstance(content.get(name), str)}
