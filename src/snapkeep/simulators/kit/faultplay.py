"""Carries out the faults that struck a request: round the handler, and on the answer."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from snapkeep.simulators.kit.faults import ENDING, Fault
from snapkeep.simulators.kit.web import Answer

OTHER_WORDS = "The wording of this message was changed."
UNKNOWN_WORD = "$UNKNOWN"
NEW_WORD = "BRAND_NEW_VALUE"
_ENUM_WORD = re.compile(r"^[A-Z][A-Z_]{2,}$")


class ConnectionFault(Exception):
    """No answer is sent: ``kind`` is ``reset`` or ``hang``."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


ErrorMaker = Callable[[int, str | None, str | None, bool], Answer]
"""(status, code, message, with the vendor's envelope) -> answer"""


async def play(
    faults: list[Fault],
    act: Callable[[], Answer],
    make_error: ErrorMaker,
    expire_sessions: Callable[[], object],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Answer:
    """Answer one request with its faults. Raises :class:`ConnectionFault`."""
    ending = next((fault for fault in faults if fault.action in ENDING), None)
    for fault in faults:
        if fault.action == "delay" and not fault.after_effect:
            await sleep(fault.seconds)
    if ending is not None and not ending.after_effect:
        return _end(ending, make_error, expire_sessions)
    answer = act()
    for fault in faults:
        if fault.action == "delay" and fault.after_effect:
            await sleep(fault.seconds)
    if ending is not None:
        return _end(ending, make_error, expire_sessions)
    for fault in faults:
        answer = _transform(fault, answer)
    return answer


def _end(fault: Fault, make_error: ErrorMaker, expire_sessions: Callable[[], object]) -> Answer:
    if fault.action in {"reset", "hang"}:
        raise ConnectionFault(fault.action)
    if fault.action == "garbage":
        if fault.garbage == "json":
            return Answer(200, b'{"data": [{"extId": ')
        return Answer(200, b"<html><body>Service starting</body></html>", content_type="text/html")
    status = fault.status
    if fault.action == "expired_session":
        expire_sessions()
        status = 401
    elif fault.action == "precondition":
        status = 412
    answer = make_error(status, fault.code, fault.message, fault.envelope)
    if fault.retry_after is not None:
        answer.headers["Retry-After"] = fault.retry_after
    return answer


def _transform(fault: Fault, answer: Answer) -> Answer:
    if fault.action == "truncate":
        answer.headers["x-simulator-truncate"] = "1"
        return answer
    if fault.action not in {"reword", "unknown_enum", "missing_field"} or not answer.body:
        return answer
    body = json.loads(answer.body)
    wanted = frozenset(fault.fields)
    if fault.action == "reword":
        changed = _each(body, lambda key, value: OTHER_WORDS if key == "message" else value)
    elif fault.action == "missing_field":
        changed = _without(body, wanted)
    else:
        changed = _each(body, lambda key, value: _other_word(key, value, wanted))
    answer.body = json.dumps(changed).encode()
    return answer


def _other_word(key: str, value: Any, wanted: frozenset[str]) -> Any:
    if key.startswith("$") or not isinstance(value, str) or not _ENUM_WORD.match(value):
        return value
    if wanted:
        return NEW_WORD if key in wanted else value
    return UNKNOWN_WORD


def _each(value: Any, change: Callable[[str, Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _each(change(key, inner), change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_each(inner, change) for inner in value]
    return value


def _without(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner, names) for key, inner in value.items() if key not in names}
    if isinstance(value, list):
        return [_without(inner, names) for inner in value]
    return value
