"""The typed client of the REST API: answers as plain JSON values, errors as our own."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator
from json import loads as decoded
from typing import Any

import httpx2

from snapkeep.cli.references import Reference, part
from snapkeep.cli.trust import refused_certificate, refused_us, require_private
from snapkeep.model.errors import (
    AuthenticationFailed,
    InvalidInput,
    NotFound,
    SnapkeepError,
    Unavailable,
    VendorError,
)

Json = dict[str, Any]
POLL_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5)
"""How often a running operation is read: soon at first, then every half second."""
OPEN = frozenset({"queued", "running", "paused"})
"""States of operations that have not ended."""


class ServerUnavailable(Unavailable):
    """Snapkeep's own server does not answer (not a system behind it)."""


class ServerUntrusted(AuthenticationFailed):
    """Snapkeep's own server did not prove who it is; nothing was sent to it."""


class Rest:
    """A server of Snapkeep."""

    def __init__(self, url: str, token: str, trust: ssl.SSLContext | None, approval: str | None = None) -> None:
        """`trust`: how to know the server. Without it, it must be on this machine. `approval`: sent with all."""
        self.url = url
        require_private(url, trust)
        given = {"Authorization": f"Bearer {token}" if token else "", "Approval": approval or ""}
        self._client = httpx2.Client(
            base_url=url,
            headers={name: value for name, value in given.items() if value},
            timeout=60.0,
            trust_env=False,
            verify=trust or False,
        )

    def close(self) -> None:
        """End the connections."""
        self._client.close()

    def read(self, path: str) -> tuple[Json, str]:
        """Return something with its ETag, for a change under the condition that nobody else changes it meanwhile."""
        answer = self._send("GET", path)
        return answer.json(), answer.headers.get("etag", "*")

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """Send; return the decoded answer. Raises the error that the server names, or Unavailable."""
        answer = self._send(method, path, json=json, params=params, headers=headers)
        return answer.json() if answer.content else None

    def _send(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Json | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        wanted = {key: value for key, value in (params or {}).items() if value is not None}
        try:
            answer = self._client.request(method, f"/v1{path}", json=json, params=wanted or None, headers=headers)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except httpx2.InvalidURL as error:
            raise InvalidInput(f"This cannot be asked of a server: {error}") from error
        if answer.is_success:
            return answer
        raise _error(answer)

    def repeat(self, method: str, path: str, query: str, body: str, *, approval: str) -> Any:
        """Send a request that was approved once more, byte by byte. Raises as `request`."""
        headers = {"Approval": approval} | ({"Content-Type": "application/json"} if body else {})
        try:
            answer = self._client.request(
                method, f"{path}?{query}" if query else path, content=body.encode(), headers=headers
            )
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
        found = self.request("GET", "/assets", params={"system": reference.system, "name": reference.asset})["data"]
        if len(found) == 1:
            return dict(found[0])
        if not found:
            self.request("GET", f"/systems/{part(reference.system)}")  # says so when that is the name that is wrong
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
        """Follow an operation until it has ended; `seen` gets each state. Raises the error that it failed with.

        The server tells what changes; where it does not, or now and then anyway, the operation is read.
        """
        reading = 0
        while operation["state"] in OPEN:
            seen(operation)
            for told in self._told(operation["id"]):
                operation = told
                seen(operation)
            if operation["state"] not in OPEN:
                break
            time.sleep(POLL_SECONDS[min(reading, len(POLL_SECONDS) - 1)])
            reading += 1
            operation = self.request("GET", f"/operations/{operation['id']}")
        seen(operation)
        if operation["state"] == "failed":
            raise SnapkeepError.from_dict(operation["error"] or {})
        return operation

    def _told(self, operation_id: str) -> Iterator[Json]:
        """Yield the states of an operation that the server tells, until it only says that nothing happens."""
        path = f"/v1/operations/{operation_id}/events"
        with (
            contextlib.suppress(httpx2.HTTPError, ValueError),
            self._client.stream("GET", path, headers={"Accept": "text/event-stream"}) as answer,
        ):
            if answer.is_success:
                for line in answer.iter_lines():
                    if line.startswith("data: "):
                        yield decoded(line[6:])
                    elif line == ":":
                        return

    def _unreachable(self, error: Exception) -> SnapkeepError:
        if (untrusted := refused_certificate(error)) is not None:
            return ServerUntrusted(
                f"The certificate of the server at {self.url} is not trusted: {untrusted}",
                next_step="Give its authority with --ca-file (tls/ca.pem of its data directory), or --fingerprint.",
            )
        if (refused := refused_us(error)) is not None:
            return AuthenticationFailed(
                f"The server at {self.url} ended the connection: {refused}",
                next_step="Give your own certificate with --client-cert and --client-key: it must be valid now, and of "
                "an authority that the server trusts (SNAPKEEP_TLS_CLIENT_CA_FILE).",
            )
        hint = ""
        if isinstance(error, httpx2.RemoteProtocolError) and self.url.startswith("https:"):
            hint = (
                " One that demands certificates of its clients (SNAPKEEP_TLS_CLIENT_CA_FILE) ends connections so: give "
                "yours with --client-cert and --client-key, valid now and of its authority."
            )
        return ServerUnavailable(
            f"The server at {self.url} does not answer: {error}",
            next_step=f"Start it with `snapkeep serve`, or give the right address with --url.{hint}",
        )


def _error(answer: httpx2.Response) -> SnapkeepError:
    try:
        return SnapkeepError.from_dict(answer.json())
    except (ValueError, AttributeError):
        return VendorError(
            f"Something that is not Snapkeep answered with {answer.status_code}", next_step="Check --url."
        )
