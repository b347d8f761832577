"""`system check`: what is missing, before anything is tried.

Whether the account may do a thing is asked by doing it to a thing that cannot exist (a random id): 404 says that
it may, 403 that it may not; nothing can change.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from snapkeep.model.errors import NotFound, PermissionDenied, SnapkeepError, Unsupported
from snapkeep.model.work import Finding, Outcome
from snapkeep.plugin.findings import clock, failed, ok
from snapkeep.plugins.nutanix_files.client import FILES, PAGE, TASKS, NutanixClient, odata_string
from snapkeep.plugins.nutanix_files.exports import require_backup_type
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings


class Checks:
    """Plays the role `Check`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings

    async def check(self) -> AsyncIterator[Finding]:
        """Yield: connection, clock, file server, shares, rights, partner server."""
        try:
            answer = await self._client.send(
                "GET", f"{FILES}/config/file-servers", doing="Connecting", params={"$limit": "1"}
            )
        except SnapkeepError as error:
            yield failed("connection", error)
            return
        yield ok("connection", f"Connected to {self._settings.base_url}; the certificate is trusted, the login works")
        yield _clock(answer.date)
        try:
            server = await self._client.file_server()
        except SnapkeepError as error:
            yield failed("file server", error)
            return
        yield ok("file server", f"Found file server {server.get('name')!r}")
        yield await self._shares()
        async for finding in self._rights():
            yield finding
        yield await self._partner_server()

    async def _shares(self) -> Finding:
        try:
            path = f"{await self._client.base()}/mount-targets"
            answer = await self._client.send("GET", path, doing="Listing shares", params={"$limit": str(PAGE)})
        except SnapkeepError as error:
            return failed("shares", error)
        total = (answer.json().get("metadata") or {}).get("totalAvailableResults")
        if total == 0:
            return Finding(check="shares", outcome=Outcome.WARNING, message="The file server shows no share")
        return ok("shares", f"{total} shares are visible")

    async def _rights(self) -> AsyncIterator[Finding]:
        nobody, base = str(uuid.uuid4()), await self._client.base()
        share = f"{base}/mount-targets/{nobody}"
        for right, method, path in (
            ("list snapshots", "GET", f"{share}/snapshots"),
            ("read tasks", "GET", f"{TASKS}/{nobody}"),
            ("read changes", "GET", f"{share}/snapshot-changed-contents/{nobody}"),
            ("create snapshots", "POST", f"{share}/snapshots"),
            ("delete snapshots", "DELETE", f"{share}/snapshots/{nobody}"),
            ("restore snapshots", "POST", f"{share}/snapshots/{nobody}/$actions/restore"),
            ("clone shares", "POST", f"{share}/$actions/clone"),
            ("compute changes", "POST", f"{share}/$actions/compute-snapshot-change"),
            ("change partner servers", "PUT", f"{base}/partner-servers/{nobody}"),
        ):
            yield await self._right(right, method, path, nobody)

    async def _right(self, right: str, method: str, path: str, nobody: str) -> Finding:
        body = None if method in {"GET", "DELETE"} else {"name": "snapkeep-check", "snapshotExtId": nobody}
        headers = {"If-Match": nobody}
        try:
            await self._client.send(method, path, doing=f"Asking for the right to {right}", json=body, headers=headers)
        except PermissionDenied as error:
            return failed(f"right to {right}", error)
        except SnapkeepError as error:
            if isinstance(error, NotFound) or str(error.details.get("status", "")) in {"400", "412"}:
                return ok(f"right to {right}", "The account has it")
            return failed(f"right to {right}", error)
        return Finding(
            check=f"right to {right}",
            outcome=Outcome.WARNING,
            message="The system accepted a request for something that does not exist",
        )

    async def _partner_server(self) -> Finding:
        name = self._settings.partner_server
        path = f"{await self._client.base()}/partner-servers"
        where = f"name eq {odata_string(name)}"
        try:
            async for _, page in self._client.pages(path, doing="Listing partner servers", where=where):
                for item in page:
                    require_backup_type(item)
                    return ok("partner server", f"Partner server {name!r} is registered; exports are possible")
        except (SnapkeepError, Unsupported) as error:
            return failed("partner server", error)
        return Finding(
            check="partner server",
            outcome=Outcome.FAILED,
            message=f"There is no partner server {name!r}: snapshots cannot be exported to a backup host",
            next_step=f"Register a partner server {name!r} of type BACKUP, or set partner_server to another.",
        )


def _clock(theirs: datetime | None) -> Finding:
    if theirs is None:
        return Finding(check="clock", outcome=Outcome.WARNING, message="The system does not tell its time")
    return clock((theirs - datetime.now(UTC)).total_seconds())
