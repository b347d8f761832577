"""Changed contents (CFT): computed in the background, kept as JSON lines on disk, read by page.

A list lives in ``DIR/cft`` until the simulator ends or nobody read it for ``cft_keep_seconds``. The same
specification always has the same identifier, so that computing again after a restart continues an old page token.
"""

import array
import asyncio
import base64
import hashlib
import hmac
import logging
import os
import secrets
import threading
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from snapkeep.simulators.nutanix_files import entries, synthetic
from snapkeep.simulators.nutanix_files.errors import ApiError
from snapkeep.simulators.nutanix_files.model import Share, Snapshot
from snapkeep.simulators.nutanix_files.state import State
from snapkeep.simulators.nutanix_files.volumes import Volumes

NAMESPACE = uuid.UUID("6f1f7f0e-6f5a-4c39-9d0b-3a1a3b2f6a55")
SEPARATOR = b",\n"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spec:
    """What is compared, and how paths are written."""

    share: Share
    snapshot: Snapshot
    base: Snapshot | None
    relative: bool
    dfs: bool

    @property
    def id(self) -> str:
        """The identifier of the content."""
        base = self.base.id if self.base else ""
        return str(uuid.uuid5(NAMESPACE, f"{self.snapshot.id}/{base}/{self.relative}/{self.dfs}"))


@dataclass(slots=True)
class Content:
    """One list. ``total`` is known once it is ready; ``synthetic`` ones have no file."""

    spec: Spec
    used: float
    status: Literal["COMPUTING", "READY", "FAILED"] = "COMPUTING"
    total: int = 0
    why: str = ""
    synthetic: bool = False
    stop: threading.Event = field(default_factory=threading.Event)
    writing: bool = False
    task: asyncio.Task[None] | None = None


class _StoppedError(Exception):
    """Nobody wants the list any more."""


class Contents:
    """All lists."""

    def __init__(self, state: State, volumes: Volumes) -> None:
        self._state = state
        self._volumes = volumes
        self._directory = state.data_dir / "cft"
        self.by_id: dict[str, Content] = {}
        self._secret = state.store.get("meta", "token_secret", str) or ""

    def begin(self) -> None:
        """Start without lists: those of an earlier run are gone."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for old in self._directory.iterdir():
            old.unlink()
        if not self._secret:
            self._secret = secrets.token_hex(16)
            with self._state.store.transaction():
                self._state.store.put("meta", "token_secret", self._secret)

    async def end(self) -> None:
        """Forget all lists and stop computing."""
        every = list(self.by_id.values())
        for content in every:
            self._drop(content)
            if content.task is not None and not content.writing:
                content.task.cancel()
        await asyncio.gather(*(content.task for content in every if content.task), return_exceptions=True)

    def compute(self, spec: Spec) -> Content:
        """The list of a specification, begun unless it exists."""
        self._forget_unread()
        found = self.by_id.get(spec.id)
        if found is not None and found.status != "FAILED":
            found.used = self._state.clock()
            return found
        content = self.by_id[spec.id] = Content(spec, self._state.clock())
        content.task = asyncio.get_running_loop().create_task(self._run(content))
        return content

    def find(self, share: Share, identifier: str) -> Content:
        """A list of a share. Raises 404, and 500 when it could not be computed."""
        self._forget_unread()
        content = self.by_id.get(identifier)
        if content is None or content.spec.share.id != share.id:
            raise ApiError("change_not_found", id=identifier)
        if content.status == "FAILED":
            raise ApiError("change_failed", why=content.why)
        content.used = self._state.clock()
        return content

    def page(self, content: Content, offset: int) -> tuple[bytes, int | None]:
        """The entries from ``offset`` as JSON without brackets, and where the next page begins (None: the end)."""
        if content.status == "COMPUTING":
            return b"", offset
        end = min(content.total, offset + self._state.settings.cft_page_entries)
        if content.synthetic:
            page = SEPARATOR.join(synthetic.entries(offset, end, self._prefix(content.spec)))
        else:
            page = self._read(content.spec.id, offset, end)
        return page, end if end < content.total else None

    def token(self, content: Content, offset: int) -> str:
        """Opaque; bound to the content and the offset."""
        text = f"{offset}.{self._seal(content.spec.id, offset)}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def offset(self, content: Content, token: str) -> int:
        """The offset of a token. Raises 400."""
        try:
            text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
            number, _, seal = text.partition(".")
            offset = int(number)
        except ValueError:
            raise ApiError("change_token") from None
        if not hmac.compare_digest(seal.encode(), self._seal(content.spec.id, offset).encode()):
            raise ApiError("change_token")
        return offset

    def computing(self, snapshot: Snapshot) -> bool:
        """Whether a list that needs the snapshot is being computed."""
        return any(content.status == "COMPUTING" and snapshot.id in _needs(content) for content in self.by_id.values())

    def drop_snapshot(self, snapshot_id: str) -> None:
        """A snapshot is gone, and so are the lists that are about it."""
        for content in list(self.by_id.values()):
            if snapshot_id in _needs(content):
                self._drop(content)

    def _seal(self, identifier: str, offset: int) -> str:
        text = f"{identifier}/{offset}".encode()
        return hmac.new(self._secret.encode(), text, hashlib.sha256).hexdigest()[:20]

    def _prefix(self, spec: Spec) -> entries.PathForm:
        server = self._state.file_servers[spec.share.file_server]
        form = self._state.settings.cft_path_form
        return entries.PathForm.choose(server, spec.share, form, relative=spec.relative, dfs=spec.dfs)

    def _forget_unread(self) -> None:
        limit = self._state.clock() - self._state.settings.cft_keep_seconds
        for content in list(self.by_id.values()):
            if content.used < limit and content.status != "COMPUTING":
                self._drop(content)

    def _drop(self, content: Content) -> None:
        content.stop.set()
        self.by_id.pop(content.spec.id, None)
        for suffix in ("json", "idx"):
            self._path(content.spec.id, suffix).unlink(missing_ok=True)

    def _path(self, identifier: str, suffix: str) -> Path:
        return self._directory / f"{identifier}.{suffix}"

    async def _run(self, content: Content) -> None:
        spec = content.spec
        made_up = self._state.synthetic.get(synthetic.diff_id(spec.base.id, spec.snapshot.id)) if spec.base else None
        await asyncio.sleep(self._state.settings.cft_seconds)
        try:
            if made_up is not None:
                content.total, content.synthetic = made_up.entries, True
            elif not spec.share.synthetic:
                content.writing = True
                content.total = await asyncio.to_thread(self._write, content, self._lines(spec))
            else:
                content.synthetic = True
            content.status = "READY"
        except _StoppedError:
            return
        except Exception as error:
            logger.exception("changed content %s failed", spec.id)
            content.status, content.why = "FAILED", f"{type(error).__name__}: {error}"

    def _lines(self, spec: Spec) -> Iterator[bytes]:
        found = self._volumes.volume(spec.share).diff(
            spec.base.id if spec.base else None,
            spec.snapshot.id,
            list_renamed_children=self._state.settings.cft_lists_renamed_children,
        )
        form, skew = self._prefix(spec), self._state.settings.clock_skew_seconds
        return (entries.encode(entry, form, skew) for entry in found)

    def _write(self, content: Content, lines: Iterable[bytes]) -> int:
        """In a thread. The index has the place of each entry and of the end, 8 bytes each."""
        position = total = 0
        identifier = content.spec.id
        with self._path(identifier, "json").open("wb") as out, self._path(identifier, "idx").open("wb") as index:
            places = array.array("Q", [0])
            for line in lines:
                if content.stop.is_set():
                    raise _StoppedError
                position += out.write(line + SEPARATOR)
                total += 1
                places.append(position)
                if len(places) >= 8192:
                    places.tofile(index)
                    places = array.array("Q")
            places.tofile(index)
        return total

    def _read(self, identifier: str, begin: int, end: int) -> bytes:
        if begin >= end:
            return b""
        with self._path(identifier, "idx").open("rb") as index:
            first, last = (_place(index.fileno(), number) for number in (begin, end))
        with self._path(identifier, "json").open("rb") as stream:
            return os.pread(stream.fileno(), last - first - len(SEPARATOR), first)


def _needs(content: Content) -> set[str]:
    spec = content.spec
    return {spec.snapshot.id, spec.base.id} if spec.base else {spec.snapshot.id}


def _place(descriptor: int, number: int) -> int:
    return array.array("Q", os.pread(descriptor, 8, number * 8))[0]
