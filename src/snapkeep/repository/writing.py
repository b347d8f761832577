"""The writing half of a repository: blobs that were sealed become packs, and packs an index."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from snapkeep.repository.backends import Backend, FileKind
from snapkeep.repository.blobs import BlobId, BlobType, SealedBlob
from snapkeep.repository.crypto import Key
from snapkeep.repository.index import INDEX_BLOBS, Index, index_document
from snapkeep.repository.packs import MAX_BLOBS, PACK_SIZE, Entry, pack_end
from snapkeep.repository.segments import Location
from snapkeep.repository.unpacked import save_unpacked

INDEX_SECONDS = 300.0
"""A long run writes an index file at least so often."""

_UPLOADS = 2


@dataclass
class Statistics:
    """What was added since the repository was opened."""

    blobs_new: int = 0
    blobs_known: int = 0
    bytes_added: int = 0
    """Of the new blobs, as they are stored."""
    packs: int = 0
    bytes_written: int = 0
    """Of all packs and index files."""


class _Pack:
    """A pack that grows, or is being uploaded."""

    def __init__(self, type: BlobType) -> None:
        self.type = type
        self.name = b""
        self.data = bytearray()
        self.entries: list[Entry] = []


class PackWriter:
    """Collects blobs in packs, one for each type, and uploads them in the background. Thread-safe.

    After an error it refuses to write more. `sure` is called before anything is stored, and raises where that must not
    be. `index_lock` is held while the index is added to.
    """

    def __init__(
        self, backend: Backend, key: Key, index: Index, index_lock: threading.Lock, sure: Callable[[], None]
    ) -> None:
        self.statistics = Statistics()
        self._backend = backend
        self._key = key
        self._index = index
        self._index_lock = index_lock
        self._sure = sure
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._pending: tuple[dict[BlobId, tuple[_Pack, Entry]], ...] = ({}, {})
        self._growing = [_Pack(kind) for kind in BlobType]
        self._uploading = 0
        self._damaged: set[tuple[BlobType, BlobId]] = set()
        self._packed: list[_Pack] = []
        self._packed_blobs = 0
        self._indexed_at = time.monotonic()
        self._failure: BaseException | None = None
        self._slots = threading.BoundedSemaphore(_UPLOADS + 1)
        self._uploads = ThreadPoolExecutor(_UPLOADS, "repository-upload")

    def has(self, type: BlobType, id: BlobId) -> bool:
        """Return whether a blob is stored, or will be by the next `flush`."""
        return id in self._pending[type] or ((type, id) not in self._damaged and self._index.has(type, id))

    def distrust(self, type: BlobType, id: BlobId) -> None:
        """Hold a blob to be absent although the index has it: it is damaged, and is stored again when it comes."""
        self._damaged.add((type, id))

    def add(self, blob: SealedBlob) -> bool:
        """Store a blob; False: it was there. May wait for uploads."""
        kind, name, sealed, plain_length = blob
        length = len(sealed)
        full = None
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self.has(kind, name):
                self.statistics.blobs_known += 1
                return False
            pack = self._growing[kind]
            entry = Entry(kind, name, len(pack.data), length, plain_length)
            pack.data += sealed
            pack.entries.append(entry)
            self._pending[kind][name] = (pack, entry)
            self._damaged.discard((kind, name))
            self.statistics.blobs_new += 1
            self.statistics.bytes_added += length
            if len(pack.data) >= PACK_SIZE or len(pack.entries) >= MAX_BLOBS:
                full = self._take(pack)
        if full:
            self._submit(full)
        return True

    def flush(self) -> None:
        """Store packs, then the index: afterwards everything that was added is durable and found by anybody."""
        with self._lock:
            taken = [self._take(pack) for pack in tuple(self._growing) if pack.entries]
        for pack in taken:
            self._submit(pack)
        with self._idle:
            self._idle.wait_for(lambda: not self._uploading)
        with self._index_lock, self._failing():
            self._write_index()
        if self._failure is not None:
            raise self._failure

    def waiting(self, type: BlobType, id: BlobId) -> SealedBlob | None:
        """Return a blob whose pack is not stored yet."""
        with self._lock:
            found = self._pending[type].get(id)
            if not found or found[0].name:
                return None
            pack, entry = found
            sealed = bytes(pack.data[entry.offset : entry.offset + entry.length])
            return SealedBlob(type, id, sealed, entry.uncompressed_length)

    def stored(self, type: BlobType, id: BlobId) -> Location | None:
        """Return where a blob is whose pack is stored, but in no index file yet."""
        with self._lock:
            found = self._pending[type].get(id)
            if not found or not found[0].name:
                return None
            pack, entry = found
            return Location(pack.name, entry.offset, entry.length, entry.uncompressed_length)

    def close(self) -> None:
        """End. What was not flushed is lost."""
        self._uploads.shutdown(cancel_futures=True)

    def _take(self, pack: _Pack) -> _Pack:
        """Take a pack out of growth, under the lock."""
        self._growing[pack.type] = _Pack(pack.type)
        self._uploading += 1
        return pack

    def _submit(self, pack: _Pack) -> None:
        self._slots.acquire()
        try:
            self._uploads.submit(self._upload, pack)
        except BaseException as error:
            self._uploaded(error)
            raise

    def _upload(self, pack: _Pack) -> None:
        failure: BaseException | None = None
        try:
            if self._failure is None:
                self._store(pack)
        except BaseException as error:  # noqa: BLE001  (it is raised where it is waited for)
            failure = error
        finally:
            self._uploaded(failure)

    def _uploaded(self, failure: BaseException | None) -> None:
        self._slots.release()
        with self._idle:
            self._failure = self._failure or failure
            self._uploading -= 1
            self._idle.notify_all()

    def _store(self, pack: _Pack) -> None:
        end, data = pack_end(self._key, pack.entries), pack.data
        with self._lock:
            data += end  # in place: a pack is large, and several wait
        digest = hashlib.sha256(data)
        self._sure()
        self._backend.save(FileKind.DATA, digest.hexdigest(), data)
        with self._lock:
            pack.name = digest.digest()
            pack.data = bytearray()
            self._packed.append(pack)
            self._packed_blobs += len(pack.entries)
            self.statistics.packs += 1
            self.statistics.bytes_written += len(data)
        if self._index_is_due():
            with self._index_lock:
                if self._index_is_due():  # nobody else did it meanwhile
                    self._write_index()

    def _index_is_due(self) -> bool:
        """What no index file names is lost by a crash: a long run writes one now and then."""
        with self._lock:
            return self._packed_blobs >= INDEX_BLOBS or time.monotonic() - self._indexed_at > INDEX_SECONDS

    def _write_index(self) -> None:
        """Write an index file for the packs that are stored; a long run does so now and then, to forget them itself."""
        with self._lock:
            packs, self._packed, self._packed_blobs = self._packed, [], 0
            self._indexed_at = time.monotonic()
        if not packs:
            return
        packed = [(pack.name, pack.entries) for pack in packs]
        self._sure()
        name, size = save_unpacked(self._backend, self._key, FileKind.INDEX, index_document(packed))
        self._index.add(name, packed)
        with self._lock:
            self.statistics.bytes_written += size
            for pack in packs:
                pending = self._pending[pack.type]
                for entry in pack.entries:
                    pending.pop(entry.id, None)

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or error
            raise
