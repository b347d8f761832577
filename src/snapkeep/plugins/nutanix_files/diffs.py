"""Snapshot diff by Changed File Tracking (CFT)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from snapkeep.model.assets import Asset, Capability
from snapkeep.model.changes import Change
from snapkeep.model.errors import BaseMissing, Incomplete, InvalidInput, NotFound, VendorError
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import ChangeBatch, Pending, Ticket
from snapkeep.plugin.guards import require_older, require_same_asset
from snapkeep.plugin.http import Answer
from snapkeep.plugins.nutanix_files import mapping
from snapkeep.plugins.nutanix_files.assumptions import NEXT_PAGE_TOKEN_HEADER, PathForm, next_page_token
from snapkeep.plugins.nutanix_files.client import NutanixClient
from snapkeep.plugins.nutanix_files.settings import NutanixFilesSettings

COMPUTING_SECONDS = 0.5
"""How soon to ask again while the file server computes."""

_TOKEN, _END = "token:", "end"


class Diffs:
    """Plays the role `DiffFiles`."""

    def __init__(self, client: NutanixClient, settings: NutanixFilesSettings) -> None:
        self._client = client
        self._settings = settings

    async def start_diff(self, asset: Asset, base: Snapshot | None, new: Snapshot, request_id: str) -> Ticket:
        """Ask for the computation; asking again for the same pair finds it."""
        asset.require(Capability.DIFF_FILES)
        require_same_asset(asset, base, new)
        require_older(base, new)
        doing = f"Computing the changes of {asset.name!r}"
        relative = self._settings.change_paths == "relative"
        spec: dict[str, Any] = {
            "snapshotExtId": new.id,
            "shouldShowRelativePath": relative,
            "shouldUseDFSNamespace": True,
            "$objectType": "files.v4.config.ComputeSnapshotChangeSpec",
        }
        if base is not None:
            spec["baseSnapshotExtId"] = base.id
        path = f"{await self._client.share_path(asset.id)}/$actions/compute-snapshot-change"
        try:
            answer = await self._client.send("POST", path, doing=doing, json=spec, request_id=request_id)
        except (NotFound, InvalidInput) as error:
            await self._explain(asset, base, new, error)
            raise
        server = await self._client.file_server()
        return Ticket(
            {
                "content": _content_id(answer),
                "share": asset.id,
                "share_name": asset.name,
                "host": self._settings.file_server_fqdn or str(server["name"]),
                "base": base.id if base else "",
                "new": new.id,
                "form": self._settings.change_paths,
            }
        )

    async def read_diff(self, ticket: Ticket, cursor: str | None = None) -> AsyncIterator[ChangeBatch | Pending]:
        """Yield page after page. The cursor is the vendor's token for the next page, or that there is none."""
        if cursor == _END:
            yield ChangeBatch(cursor=_END, complete=True)
            return
        token = (cursor or "").removeprefix(_TOKEN)
        path = f"{await self._client.share_path(ticket['share'])}/snapshot-changed-contents/{ticket['content']}"
        while True:
            answer = await self._page(path, token, ticket)
            body = answer.json()
            data = body.get("data") if isinstance(body, dict) else None
            if not isinstance(data, dict):
                raise VendorError("A page of the change list has no data", vendor_message=answer.excerpt)
            _verify_identity(data, ticket)
            changes = _changes(data, ticket)
            more = data.get("hasMoreContent")
            if not isinstance(more, bool):
                raise Incomplete("A page of the change list does not say whether it is the last one")
            if not more:
                yield ChangeBatch(changes=changes, cursor=_END, complete=True)
                return
            following = next_page_token(answer.headers, body.get("metadata") or {})
            if not changes:
                # More is to come, but nothing is here yet: the file server still computes.
                if following and following != token:
                    yield ChangeBatch(cursor=_TOKEN + following)
                yield Pending(after=COMPUTING_SECONDS)
                return
            if not following or following == token:
                raise Incomplete("The change list says that there is more, but not where: it cannot be read to its end")
            yield ChangeBatch(changes=changes, cursor=_TOKEN + following)
            token = following

    async def _page(self, path: str, token: str, ticket: Ticket) -> Answer:
        headers = {NEXT_PAGE_TOKEN_HEADER: token} if token else {}
        try:
            return await self._client.send("GET", path, doing="Reading the change list", headers=headers)
        except NotFound as error:
            await self._require_base(ticket["share"], ticket["base"], error)
            raise Incomplete(
                "The change list is gone from the file server before it was read to its end",
                vendor_code=error.vendor_code,
                vendor_message=error.vendor_message,
                forgotten=True,
            ) from error

    async def _explain(
        self, asset: Asset, base: Snapshot | None, new: Snapshot, error: NotFound | InvalidInput
    ) -> None:
        """Turn a refused computation into its cause: share gone, base gone, or snapshot gone."""
        await self._client.entity(await self._client.share_path(asset.id), doing=f"Looking for share {asset.name!r}")
        if base is not None:
            await self._require_base(asset.id, base.id, error)
        if not await self._exists(asset.id, new.id):
            raise NotFound(
                f"Snapshot {new.name!r} of {asset.name!r} no longer exists on the file server",
                next_step="Run `snapkeep discover`, then choose a snapshot that exists.",
            ) from error

    async def _require_base(self, share_id: str, base_id: str, error: NotFound | InvalidInput) -> None:
        if base_id and not await self._exists(share_id, base_id):
            raise BaseMissing(
                "The base snapshot no longer exists on the file server: what changed since it cannot be computed",
                vendor_code=error.vendor_code,
                vendor_message=error.vendor_message,
            ) from error

    async def _exists(self, share_id: str, snapshot_id: str) -> bool:
        path = await self._client.snapshot_path(share_id, snapshot_id)
        try:
            await self._client.entity(path, doing="Looking for a snapshot")
        except NotFound:
            return False
        return True


def _content_id(answer: Answer) -> str:
    """Return the id of the computation: `data[0].argumentsMap.extId` (a list of AppMessage, no task)."""
    body = answer.json()
    messages = body.get("data") if isinstance(body, dict) else None
    for message in messages if isinstance(messages, list) else ():
        arguments = message.get("argumentsMap") if isinstance(message, dict) else None
        if isinstance(arguments, dict) and arguments.get("extId"):
            return str(arguments["extId"])
    raise VendorError("The system accepted the diff but did not say where it is", vendor_message=answer.excerpt)


def _verify_identity(data: Mapping[str, Any], ticket: Ticket) -> None:
    """Raise Incomplete when a page belongs to another pair of snapshots than was asked for."""
    if (
        data.get("snapshotExtId", ticket["new"]) != ticket["new"]
        or (data.get("baseSnapshotExtId") or "") != ticket["base"]
    ):
        raise Incomplete("The change list on the file server belongs to other snapshots than were asked for")


def _changes(data: Mapping[str, Any], ticket: Ticket) -> list[Change]:
    form: PathForm = "relative" if ticket["form"] == "relative" else "absolute"
    contents = data.get("changedContents") or []
    if not isinstance(contents, list) or not all(isinstance(item, dict) for item in contents):
        raise VendorError(
            "A page of the change list has something that is no entry", vendor_message=f"{contents!r:.200}"
        )
    found = (mapping.change(item, form, ticket["share_name"], ticket["host"]) for item in contents)
    return [change for change in found if change.path]  # the root itself is no entry
