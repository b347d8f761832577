"""``NTNX-Request-Id``: a repeated request gets the first answer again and does not act twice.

Documented: idempotence by this header. Assumed: the scope (a setting), how long, and that only answers of requests
that acted are remembered, so that a refused request may be tried again with the same id.
"""

from snapkeep.simulators.kit.web import Answer, Request
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.model import StoredAnswer
from snapkeep.simulators.nutanix_files.state import State

HEADER = "ntnx-request-id"
KIND = "answer"
KEPT = 20_000


class Repeats:
    """The answers of the last requests, in memory and in the store."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._answers = {each.key: each for each in state.store.all(KIND, StoredAnswer)}

    def key(self, account: str, request: Request) -> str | None:
        """What makes this request unique; None when nothing is remembered. Raises 400 when an id is needed."""
        settings = self._state.settings
        identifier = request.headers.get(HEADER)
        if identifier is None and settings.request_id_required:
            raise ApiError("request_id_missing")
        if identifier is None or settings.request_id_scope == "off":
            return None
        if settings.request_id_scope == "account":
            return f"{account} {identifier}"
        return f"{account} {request.method} {request.path} {identifier}"

    def find(self, key: str | None) -> Answer | None:
        """The first answer, unless it is too old."""
        stored = self._answers.get(key) if key is not None else None
        if stored is None or stored.time < self._state.clock() - self._state.settings.request_id_keep_seconds:
            return None
        return Answer(stored.status, stored.body.encode(), dict(stored.headers))

    def keep(self, key: str | None, answer: Answer) -> None:
        """Remember an answer, in the caller's transaction."""
        if key is None or answer.status >= 300:
            return
        stored = StoredAnswer(
            key=key,
            time=self._state.clock(),
            status=answer.status,
            headers=dict(answer.headers),
            body=answer.body.decode(),
        )
        self._answers[key] = stored
        self._state.store.put(KIND, key, stored)
        if len(self._answers) > KEPT:
            for old in list(self._answers)[: KEPT // 10]:
                del self._answers[old]
                self._state.store.delete(KIND, old)

    def forget(self) -> None:
        """For a reset; the store is cleared by :meth:`State.clear`."""
        self._answers.clear()
