"""The wire of the Nutanix Files API v4.0 (dialect "v4"): paths, headers, envelopes, pages. Nothing else.

Source: SDK `ntnx-files-py-client` 4.0.1 and `ntnx-prism-py-client`. The dialect v3 of the file server itself would
be another class with the same methods.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from snapkeep.model.errors import AuthenticationFailed, Incomplete, NotFound, VendorError
from snapkeep.plugin.http import Answer, HttpSession
from snapkeep.plugins.nutanix_files.errors import error_from_answer
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings

FILES = "/api/files/v4.0"
TASKS = "/api/prism/v4.0/config/tasks"
PAGE = 100
"""Most entries that a list gives at once."""
READ_AGAIN = 3
"""How often a list that changes while it is read is read again."""

Json = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity, the ETag that a change of it must present, and the system's clock when it was read."""

    data: Json
    etag: str
    date: datetime


class NutanixClient:
    """One file server of one Prism Central."""

    def __init__(self, session: HttpSession, settings: NutanixFilesSettings) -> None:
        self._session = session
        self._settings = settings
        self._login = _login_headers(settings)
        self._file_server: Json | None = None

    # -- requests ------------------------------------------------------------------------------------------------
    async def send(
        self,
        method: str,
        path: str,
        *,
        doing: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        request_id: str | None = None,
    ) -> Answer:
        """Send with login and request id; after 401 log in again once. Raises for every status but 2xx."""
        all_headers = {"NTNX-Request-Id": request_id or str(uuid.uuid4()), **self._login, **(headers or {})}
        answer = await self._session.request(method, path, params=params, headers=all_headers, json=json)
        if answer.status == 401:
            self._session.forget_cookies()
            answer = await self._session.request(method, path, params=params, headers=all_headers, json=json)
        if not answer.ok:
            raise error_from_answer(answer, doing)
        return answer

    async def entity(self, path: str, *, doing: str) -> Entity:
        """Read one entity."""
        answer = await self.send("GET", path, doing=doing)
        date = answer.date or datetime.now(UTC)
        return Entity(_data(answer, dict), answer.headers.get("etag", ""), date)

    async def pages(
        self, path: str, *, doing: str, where: str = "", order: str = "", first: int = 0
    ) -> AsyncIterator[tuple[int, list[Json]]]:
        """Yield (page number, entities that were not there before) until the list is complete.

        Entities that come and go meanwhile move others from page to page, past us: when the announced total changes
        on the way, the list is read again for those, a few times. Raises Incomplete when it does not move on.
        """
        seen: set[str] = set()
        for begin in (first, *[0] * READ_AGAIN):
            totals: set[int | None] = set()
            async for number, items, total in self._one_pass(path, doing, where, order, begin):
                totals.add(total)
                if begin and number == begin and total is not None and len(items) != _full_page(total, begin):
                    totals.add(None)  # this page does not begin where we thought: begin again
                fresh = [item for item in items if item.get("extId") not in seen]
                seen.update(str(item.get("extId")) for item in items)
                if fresh:
                    yield number, fresh
            if len(totals) <= 1:
                return

    async def _one_pass(
        self, path: str, doing: str, where: str, order: str, number: int
    ) -> AsyncIterator[tuple[int, list[Json], int | None]]:
        """Yield (page number, entities, announced total) from page `number` to the last one."""
        seen: set[str] = set()
        read = number * PAGE
        while True:
            params = {"$page": str(number), "$limit": str(PAGE)}
            params |= {"$filter": where} if where else {}
            params |= {"$orderby": order} if order else {}
            answer = await self.send("GET", path, doing=doing, params=params)
            items = _items(answer)
            total = _metadata(answer).get("totalAvailableResults")
            total = total if isinstance(total, int) else None
            ids = {str(item.get("extId")) for item in items}
            if items and ids <= seen:
                raise Incomplete(f"{doing}: page {number} of the list repeats what came before")
            seen |= ids
            yield number, items, total
            number += 1
            read += len(items)  # a system may give smaller pages than it was asked for
            if not items if total is None else read >= total:
                return
            if not items:
                raise Incomplete(f"{doing}: the list of {total} ended after {read}")

    async def start(
        self, method: str, path: str, *, doing: str, request_id: str, json: Any = None, etag: str | None = None
    ) -> str:
        """Begin asynchronous work; return the id of its task."""
        headers = {"If-Match": etag} if etag is not None else None
        answer = await self.send(method, path, doing=doing, json=json, headers=headers, request_id=request_id)
        task = _data(answer, dict).get("extId")
        if not task:
            raise VendorError(f"{doing}: the system answered without a task", vendor_message=answer.excerpt)
        return str(task)

    async def task(self, task_id: str) -> Entity:
        """Read a task."""
        return await self.entity(f"{TASKS}/{task_id}", doing="Reading the task")

    # -- file servers and paths --------------------------------------------------------------------------------
    async def file_servers(self) -> list[Json]:
        """List the file servers that the account may see."""
        return [
            item
            async for _, page in self.pages(f"{FILES}/config/file-servers", doing="Listing file servers")
            for item in page
        ]

    async def file_server(self) -> Json:
        """Return the configured file server, found by name or id. Raises NotFound naming those that exist."""
        if self._file_server is None:
            wanted = self._settings.file_server
            servers = await self.file_servers()
            for server in servers:
                if wanted in {server.get("name"), server.get("extId")}:
                    self._file_server = server
                    break
            else:
                names = ", ".join(sorted(str(server.get("name")) for server in servers)) or "none"
                raise NotFound(
                    f"{self._settings.host} has no file server {wanted!r}",
                    next_step=f"Set file_server to one of: {names}.",
                )
        return self._file_server

    async def base(self) -> str:
        """Return the path of the configured file server."""
        return f"{FILES}/config/file-servers/{(await self.file_server())['extId']}"

    async def share_path(self, share_id: str) -> str:
        """Return the path of a share (mount target)."""
        return f"{await self.base()}/mount-targets/{share_id}"

    async def snapshot_path(self, share_id: str, snapshot_id: str) -> str:
        """Return the path of a snapshot."""
        return f"{await self.share_path(share_id)}/snapshots/{snapshot_id}"


def _full_page(total: int, number: int) -> int:
    """Return how many entities page `number` of a list has, when every page before it was full."""
    return min(PAGE, max(total - number * PAGE, 0))


def odata_string(value: str) -> str:
    """Return `value` as an OData string literal."""
    return "'" + value.replace("'", "''") + "'"


def _login_headers(settings: NutanixFilesSettings) -> dict[str, str]:
    if settings.api_key is not None:
        return {"X-ntnx-api-key": settings.api_key.get_secret_value()}
    if settings.username is None or settings.password is None:
        raise AuthenticationFailed("Neither an account nor an API key is configured")
    pair = f"{settings.username}:{settings.password.get_secret_value()}".encode()
    return {"Authorization": "Basic " + base64.b64encode(pair).decode("ascii")}


def _data(answer: Answer, kind: type[T], empty: T | None = None) -> T:
    body = answer.json()
    data = body.get("data") if isinstance(body, dict) else None
    if data is None and empty is not None:
        return empty
    if not isinstance(data, kind):
        raise VendorError(
            f"The system answered {answer.status} without the documented data", vendor_message=answer.excerpt
        )
    return data


def _items(answer: Answer) -> list[Json]:
    items = _data(answer, list, empty=[])
    if not all(isinstance(item, dict) for item in items):
        raise VendorError("The system listed something that is no entity", vendor_message=answer.excerpt)
    return items


def _metadata(answer: Answer) -> Json:
    metadata = answer.json().get("metadata")
    return metadata if isinstance(metadata, dict) else {}
