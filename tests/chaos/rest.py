"""A client of the REST API that does not give up: what got no answer is asked again, with the same key."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2

Json = dict[str, Any]
PAUSE_SECONDS = 0.1
REPEATED = frozenset({502, 503, 504})


class LostAnswer(Exception):
    """The server went away in the middle: nobody knows whether it took the request."""


class GaveUp(Exception):
    """The server did not answer, or an operation did not end, in time."""


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.body = body


class Rest:
    """One client's connection. `keys`: the server knows the header Idempotency-Key, so that POSTs may be repeated."""

    def __init__(self, port: int, data_dir: Path, deadline: Deadline, *, keys: bool) -> None:
        self._client = httpx2.Client(
            base_url=f"https://127.0.0.1:{port}",
            verify=ssl.create_default_context(cafile=str(data_dir / "tls" / "ca.pem")),
            headers={"Authorization": f"Bearer {(data_dir / 'token').read_text().strip()}"},
            timeout=30.0,
            trust_env=False,
        )
        self.deadline = deadline
        self.keys = keys
        self.repeats = 0

    def close(self) -> None:
        self._client.close()

    def get(self, path: str, **parameters: Any) -> Any:
        return self._answer("GET", path, repeatable=True, parameters=parameters).json()

    def ask(self, method: str, path: str, key: str, body: Json | None = None) -> Json:
        """Ask for an operation. Raises LostAnswer where the server takes no key and went away in the middle."""
        return dict(
            self._answer(method, path, repeatable=self.keys, body=body, headers={"Idempotency-Key": key}).json()
        )

    def wait(self, operation: Json) -> Json:
        """Read an operation until it has ended; one that is paused is resumed."""
        while operation["ended_at"] is None:
            self.deadline.check(f"{operation['kind']} {operation['id']} is {operation['state']}: {operation['phase']}")
            if operation["state"] == "paused":
                self.tell(operation["id"], "resume")
            time.sleep(PAUSE_SECONDS)
            operation = self.get(f"/operations/{operation['id']}")
        return operation

    def tell(self, operation_id: str, wish: str) -> None:
        """Cancel, pause or resume an operation; that it is too late, or too early, for that is fine."""
        try:
            self._answer("POST", f"/operations/{operation_id}/{wish}", repeatable=True)
        except Refused as refused:
            if refused.status != 409:
                raise

    def pages(self, path: str, **parameters: Any) -> Iterator[Json]:
        after = None
        while True:
            page = self.get(path, **parameters, **({"after": after} if after is not None else {}))
            yield from page["data"]
            after = page["next"]
            if after is None:
                return

    def lines(self, path: str, **parameters: Any) -> list[Json]:
        """Return all entries of an NDJSON answer."""
        answer = self._answer(
            "GET", path, repeatable=True, parameters=parameters, headers={"Accept": "application/x-ndjson"}
        )
        return [json.loads(line) for line in answer.content.splitlines()]

    def _answer(
        self,
        method: str,
        path: str,
        *,
        repeatable: bool,
        body: Json | None = None,
        parameters: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        url = f"/v1{path}" + (f"?{urlencode(parameters, doseq=True)}" if parameters else "")
        while True:
            try:
                answer = self._client.request(method, url, json=body, headers=headers)
            except httpx2.HTTPError as error:
                if not repeatable and not isinstance(error, httpx2.ConnectError):
                    raise LostAnswer(f"{method} {path}: {error!r}") from error
                reason = repr(error)
            else:
                if answer.is_success:
                    return answer
                if answer.status_code not in REPEATED:
                    raise Refused(answer.status_code, answer.text)
                reason = f"{answer.status_code}: {answer.text}"
            self.deadline.check(f"{method} {path}: {reason}")
            self.repeats += 1
            time.sleep(PAUSE_SECONDS)


class Deadline:
    """When to give up; without seconds never, until `begin` is called."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = time.monotonic() + seconds if seconds is not None else None
        self.stopping = threading.Event()

    def begin(self, seconds: float) -> None:
        """Tell the clients to stop, within so many seconds."""
        self._end = time.monotonic() + seconds
        self.stopping.set()

    @property
    def over(self) -> bool:
        return self._end is not None and time.monotonic() > self._end

    def check(self, what: str) -> None:
        """Raise GaveUp when it is over."""
        if self.over:
            raise GaveUp(what)
