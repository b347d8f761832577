"""The typed client of the REST API: answers as plain JSON values, errors as our own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2

from snapkeep.cli.references import Reference
from snapkeep.model.errors import NotFound, SnapkeepError, Unavailable, VendorError

Json = dict[str, Any]
POLL_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""How often a running operation is read: soon at first, then every half second."""


class ServerUnavailable(Unavailable):
    """Snapkeep's own server does not answer (not a system behind it)."""


class Rest:
    """A server of Snapkeep."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._client = httpx2.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60.0, trust_env=False
        )

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def request(self, method: str, path: str, *, json: Any = None, params: Json | None = None) -> Any:
        """Send; return the decoded answer. Raises the error that the server names, or Unavailable."""
        wanted = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            answer = self._client.request(method, f"/v1{path}", json=json, params=wanted or None)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _error(answer)

    def pages(self, path: str, **params: Any) -> Iterator[Json]:
        """Yield the entries of all pages."""
        after: Any = None
        while True:
            page = self.request("GET", path, params={**params, "after": after})
            yield from page["data"]
            after = page["next"]
            if after is None:
                return

    def stream(self, path: str, params: list[tuple[str, str | bytes]]) -> Iterator[bytes]:
        """Yield the lines of an NDJSON answer."""
        pending = b""
        for chunk in self.content(path, params, accept="application/x-ndjson"):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from lines
        if pending:
            raise VendorError("The list ended in the middle of an entry", next_step="Try again.")

    def content(self, path: str, params: list[tuple[str, str | bytes]], *, accept: str = "*/*") -> Iterator[bytes]:
        """Yield an answer in pieces, as they arrive. Raises the error that the server names, or Unavailable."""
        from urllib.parse import urlencode

        try:
            with self._client.stream(
                "GET", f"/v1{path}?{urlencode(params)}", headers={"Accept": accept}, timeout=None
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _error(answer)
                yield from answer.iter_bytes()
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    # -- names to entities -------------------------------------------------------------------------------------------
    def asset(self, reference: Reference) -> Json:
        """Return the one asset of that name. Raises NotFound."""
        self.request("GET", f"/systems/{reference.system}")
        found = self.request("GET", "/assets", params={"system": reference.system, "name": reference.asset})["data"]
        if len(found) == 1:
            return dict(found[0])
        if not found:
            raise NotFound(
                f"System {reference.system!r} has no asset {reference.asset!r}",
                next_step=f"See `snapkeep asset list {reference.system}`; run `snapkeep discover {reference.system}` "
                "if it is new.",
            )
        raise NotFound(f"System {reference.system!r} has several assets {reference.asset!r}")

    def snapshot(self, reference: Reference, *, gone: bool = False) -> Json:
        """Return the one snapshot of that name; with `gone`, else the one that went last. Raises NotFound."""
        asset = self.asset(reference)
        params = {"asset_id": asset["id"], "name": reference.snapshot}
        found = self.request("GET", "/snapshots", params=params)["data"]
        if not found and gone:
            past = self.request("GET", "/snapshots", params={**params, "gone": True})["data"]
            found = sorted(past, key=lambda item: str(item["gone_at"]))[-1:]
        if len(found) == 1:
            return dict(found[0])
        raise NotFound(
            f"{asset['reference']} has {'several snapshots' if found else 'no snapshot'} {reference.snapshot!r}",
            next_step=f"See `snapkeep snapshot list {asset['reference']}`.",
        )

    # -- operations --------------------------------------------------------------------------------------------------
    def wait(self, operation: Json, seen: Callable[[Json], None] = lambda _: None) -> Json:
        """Read an operation until it has ended; `seen` gets each reading. Raises the error that it failed with."""
        reading = 0
        while operation["state"] in {"queued", "running", "paused"}:
            seen(operation)
            time.sleep(POLL_SECONDS[min(reading, len(POLL_SECONDS) - 1)])
            reading += 1
            operation = self.request("GET", f"/operations/{operation['id']}")
        seen(operation)
        if operation["state"] == "failed":
            raise SnapkeepError.from_dict(operation["error"] or {})
        return operation

    def _unreachable(self, error: Exception) -> ServerUnavailable:
        return ServerUnavailable(
            f"The server at {self.url} does not answer: {error}",
            next_step="Start it with `snapkeep serve`, or give the right address with --url.",
        )


def _error(answer: httpx2.Response) -> SnapkeepError:
    try:
        return SnapkeepError.from_dict(answer.json())
    except (ValueError, AttributeError):
        return VendorError(
            f"Something that is not Snapkeep answered with {answer.status_code}", next_step="Check --url."
        )
