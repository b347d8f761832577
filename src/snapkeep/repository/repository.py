"""A repository: blobs go in, become packs and an index, and come out again."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

from snapkeep.model.errors import AuthenticationFailed, Conflict, Damaged, InvalidInput, NotFound, SnapkeepError
from snapkeep.repository.backends import NAME, Backend, FileKind
from snapkeep.repository.blobs import BlobId, BlobType, SealedBlob, open_blob, seal_blob
from snapkeep.repository.config import Config
from snapkeep.repository.crypto import Key, make_key_file, open_key_file
from snapkeep.repository.index import INDEX_BLOBS, Index, index_document
from snapkeep.repository.locks import RepositoryLock
from snapkeep.repository.packs import MAX_BLOBS, PACK_SIZE, Entry, finish_pack, read_header, verify_pack
from snapkeep.repository.segments import Location
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.repository.unpacked import load_unpacked, save_unpacked

INDEX_SECONDS = 300.0
"""A long run writes an index file at least so often."""

_UPLOADS = 2
_READS = 4
_READ_AT_ONCE = 10_000  # blobs that `load_many` sorts by pack
_READ_SIZE = 8 << 20
_READ_GAP = 128 << 10  # it is quicker to read so much in vain than to ask once more
_MOST_KEYS = 20
_TAIL = 64 << 10


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
        self.data: bytearray | bytes = bytearray()
        self.entries: list[Entry] = []


class Repository:
    """Made by `create` or `open`. Thread-safe.

    After an error while writing it refuses to write more: open it again. A crash leaves packs that nothing refers to;
    `restic prune` removes them.
    """

    def __init__(self, backend: Backend, key: Key, config: Config, cache: Path | None) -> None:
        """Use `create` or `open`."""
        self.id = config.id
        self.polynomial = config.polynomial
        self.key = key
        self.statistics = Statistics()
        self.backend = backend
        self._temporary = Path(tempfile.mkdtemp(prefix="snapkeep-index-")) if cache is None else None
        self.cache = cache or self._temporary or Path()
        self._index = Index(self.cache / config.id / "index", self._load_index)
        self._locks: list[RepositoryLock] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._pending: tuple[dict[BlobId, tuple[_Pack, Entry]], ...] = ({}, {})
        self._growing = [_Pack(kind) for kind in BlobType]
        self._uploading = 0
        self._packed: list[_Pack] = []
        self._packed_blobs = 0
        self._indexed_at = time.monotonic()
        self._failure: BaseException | None = None
        self._index_lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(_UPLOADS + 1)
        self._uploads = ThreadPoolExecutor(_UPLOADS, "repository-upload")
        self._reads = ThreadPoolExecutor(_READS, "repository-read")

    @classmethod
    def create(cls, backend: Backend, password: str, cache: Path | None = None) -> Self:
        """Make a repository. Raises Conflict when there is one, or what is left of one."""
        if not password:
            raise InvalidInput("A repository needs a password")
        backend.create()
        for kind in (FileKind.SNAPSHOT, FileKind.INDEX, FileKind.DATA):
            if any(True for _ in backend.list(kind)):
                raise Conflict(f"{backend.location} holds data of a repository whose configuration is gone")
        for name, _ in list(backend.list(FileKind.KEY)):  # of a creation that did not come to its end
            backend.remove(FileKind.KEY, name)
        key = Key.random()
        config = Config.random()
        content = make_key_file(key, password)
        backend.save(FileKind.KEY, hashlib.sha256(content).hexdigest(), content)
        backend.save(FileKind.CONFIG, "", key.seal(config.to_json()))
        return cls(backend, key, config, cache)

    @classmethod
    def open(cls, backend: Backend, password: str, cache: Path | None = None, *, key: Key | None = None) -> Self:
        """Open a repository. Raises NotFound, AuthenticationFailed, Damaged.

        `cache`: where segments of the index are kept, so that only the first time takes long. `key`: of a repository
        that was opened before; the password, from which it takes half a second to derive it, is not used then.
        """
        try:
            sealed = backend.load(FileKind.CONFIG, "")
        except NotFound as error:
            raise NotFound(
                f"There is no repository in {backend.location}", next_step="Check the place; or make one there."
            ) from error
        found = key or _find_key(backend, password)
        try:
            config = Config.from_json(found.open(sealed))
        except Damaged as error:
            raise error.with_context(f"Configuration of the repository {backend.location}") from error
        repository = cls(backend, found, config, cache)
        try:
            repository.refresh()
        except BaseException:
            repository._let_go()
            raise
        return repository

    @property
    def location(self) -> str:
        """Return where the repository is, for people."""
        return self.backend.location

    # What goes in

    def has(self, type: BlobType, id: BlobId) -> bool:
        """Return whether a blob is stored, or will be by the next `flush`."""
        return id in self._pending[type] or self._index.has(type, id)

    def add(self, blob: SealedBlob) -> bool:
        """Store a blob; False: it was there. May wait for uploads."""
        kind, name, sealed, plain_length = blob
        length = len(sealed)
        full = None
        with self._lock:
            if self._failure is not None:
                raise self._failure
            pending = self._pending[kind]
            if name in pending or self._index.has(kind, name):
                self.statistics.blobs_known += 1
                return False
            pack = self._growing[kind]
            entry = Entry(kind, name, len(pack.data), length, plain_length)
            pack.data += sealed
            pack.entries.append(entry)
            pending[name] = (pack, entry)
            self.statistics.blobs_new += 1
            self.statistics.bytes_added += length
            if len(pack.data) >= PACK_SIZE or len(pack.entries) >= MAX_BLOBS:
                full = self._take(pack)
        if full:
            self._submit(full)
        return True

    def add_plain(self, type: BlobType, plain: bytes) -> BlobId:
        """Seal and store a blob; return its id."""
        name = hashlib.sha256(plain).digest()
        if not self.has(type, name):
            self.add(seal_blob(self.key, type, plain, name))
        return name

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

    def save_snapshot(self, snapshot: SnapshotFile) -> str:
        """Store a recovery point; return its id. What was added before is flushed first."""
        self.flush()
        self._sure()
        name, _ = save_unpacked(self.backend, self.key, FileKind.SNAPSHOT, snapshot.to_json())
        return name

    # What comes out

    def load(self, type: BlobType, id: BlobId) -> bytes:
        """Return a blob, also one that is not flushed yet. Raises Damaged when it is damaged or missing."""
        with self._lock:
            found = self._pending[type].get(id)
            if found and not found[0].name:
                pack, entry = found
                sealed = bytes(pack.data[entry.offset : entry.offset + entry.length])
            else:
                entry, sealed = None, b""
        if entry:
            return open_blob(self.key, id, sealed, entry.uncompressed_length)
        try:
            return self._load_stored(type, id)
        except (Damaged, NotFound):
            if not self._index.drop_unsound():
                raise
            self.refresh()
            return self._load_stored(type, id)

    def load_many(self, type: BlobType, ids: Iterable[BlobId]) -> Iterator[tuple[BlobId, bytes]]:
        """Yield blobs in an order that is quick to read; each once. Raises Damaged."""
        remaining = iter(ids)
        while batch := dict.fromkeys(islice(remaining, _READ_AT_ONCE)):
            groups = self._read_groups(type, batch)
            waiting: deque[Future[list[tuple[BlobId, bytes]]]] = deque()
            try:
                for group in groups:
                    if len(waiting) == _READS:
                        yield from waiting.popleft().result()
                    waiting.append(self._reads.submit(self._load_group, type, group))
                while waiting:
                    yield from waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def snapshots(self) -> list[SnapshotFile]:
        """Return all recovery points, the oldest first."""
        found = []
        for name, _ in self.backend.list(FileKind.SNAPSHOT):
            with suppress(NotFound):  # removed since it was listed
                found.append(self._load_snapshot(name))
        return sorted(found, key=lambda snapshot: (snapshot.time, snapshot.id))

    def snapshot(self, id: str) -> SnapshotFile:
        """Return a recovery point by its id, or by the beginning of it that no other has."""
        names = [id]
        if not NAME.fullmatch(id):
            names = [name for name, _ in self.backend.list(FileKind.SNAPSHOT) if id and name.startswith(id)]
        if not names:
            raise NotFound(f"There is no recovery point {id!r} in the repository {self.location}")
        if len(names) > 1:
            raise InvalidInput(f"More than one recovery point begins with {id!r}", next_step="Give more of its id.")
        try:
            return self._load_snapshot(names[0])
        except NotFound as error:
            raise NotFound(f"There is no recovery point {id!r} in the repository {self.location}") from error

    def forget(self, id: str) -> None:
        """Remove a recovery point, given its whole id; its data stay until `restic prune`."""
        if not NAME.fullmatch(id):
            raise InvalidInput(f"{id!r} is not the whole id of a recovery point")
        self._sure()
        self.backend.remove(FileKind.SNAPSHOT, id)

    # What the repository is

    @contextmanager
    def locked(self, *, exclusive: bool = False) -> Iterator[RepositoryLock]:
        """Hold a lock, and know the index as it is under it. Raises Busy. Long work calls `check` of the lock.

        Busy may also be raised by the first writing: only then is it sure that nobody came at the same time.
        """
        with RepositoryLock(self.backend, self.key, exclusive=exclusive) as lock:
            self._locks.append(lock)
            try:
                self.refresh()
                yield lock
            finally:
                self._locks.remove(lock)

    def refresh(self) -> None:
        """Take in index files that others wrote, and forget those that are gone."""
        with self._index_lock:
            self._index.refresh(name for name, _ in self.backend.list(FileKind.INDEX))

    def packs(self) -> Iterator[tuple[str, int]]:
        """Yield name and size of each pack that is there."""
        return self.backend.list(FileKind.DATA)

    def indexed_packs(self) -> set[bytes]:
        """Return the names (32 bytes each) of all packs that the index knows."""
        return self._index.packs()

    def pack_entries(self, name: str, size: int) -> list[Entry]:
        """Return what the header of a pack says. Raises Damaged, NotFound."""
        wanted = min(size, _TAIL)
        while True:
            tail = self.backend.load(FileKind.DATA, name, size - wanted, wanted)
            try:
                found = read_header(self.key, tail, size)
            except Damaged as error:
                raise error.with_context(f"Pack {name}") from error
            if not isinstance(found, int):
                return found
            if found <= wanted:
                raise Damaged(f"Pack {name} is shorter than it was")
            wanted = found

    def verify_pack(self, name: str) -> list[Entry]:
        """Read a whole pack and check every blob in it; return what it holds. Raises Damaged, NotFound."""
        try:
            return verify_pack(self.key, name, self.backend.load(FileKind.DATA, name))
        except Damaged as error:
            raise error.with_context(f"Pack {name}") from error

    def names(self, kind: FileKind) -> list[str]:
        """Return the names of all files of a kind."""
        return [name for name, _ in self.backend.list(kind)]

    def verify_index(self, name: str) -> None:
        """Read an index file. Raises Damaged, NotFound."""
        self._load_index(name)

    def index_rows(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield pack, length and uncompressed length of all blobs that the index knows."""
        return self._index.rows()

    def locations(self, type: BlobType, id: BlobId) -> list[Location]:
        """Return where the index says that a blob is."""
        return list(self._index.locations(type, id))

    def close(self) -> None:
        """End. What was not flushed is lost."""
        self._let_go()
        self.backend.close()

    def _let_go(self) -> None:
        self._uploads.shutdown(cancel_futures=True)
        self._reads.shutdown(cancel_futures=True)
        self._index.close()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    # Writing

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
        data = finish_pack(self.key, pack.data, pack.entries)
        with self._lock:
            pack.data = data
        digest = hashlib.sha256(data)
        self._sure()
        self.backend.save(FileKind.DATA, digest.hexdigest(), data)
        with self._lock:
            pack.name = digest.digest()
            pack.data = b""
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
        name, size = save_unpacked(self.backend, self.key, FileKind.INDEX, index_document(packed))
        self._index.add(name, packed)
        with self._lock:
            self.statistics.bytes_written += size
            for pack in packs:
                pending = self._pending[pack.type]
                for entry in pack.entries:
                    pending.pop(entry.id, None)

    def _sure(self) -> None:
        """Write under locks that hold. Raises Busy."""
        for lock in tuple(self._locks):
            lock.sure()

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._failure = self._failure or error
            raise

    # Reading

    def _load_index(self, name: str) -> bytes:
        return load_unpacked(self.backend, self.key, FileKind.INDEX, name)

    def _load_snapshot(self, name: str) -> SnapshotFile:
        return SnapshotFile.from_json(load_unpacked(self.backend, self.key, FileKind.SNAPSHOT, name), name)

    def _places(self, kind: BlobType, name: BlobId) -> list[Location]:
        with self._lock:
            found = self._pending[kind].get(name)
            if found and found[0].name:
                pack, entry = found
                return [Location(pack.name, entry.offset, entry.length, entry.uncompressed_length)]
        return list(self._index.locations(kind, name))

    def _load_stored(self, kind: BlobType, name: BlobId) -> bytes:
        """Return a blob from the first pack that has it undamaged."""
        failure: SnapkeepError | None = None
        for place in self._places(kind, name):
            pack = place.pack.hex()
            try:
                sealed = self.backend.load(FileKind.DATA, pack, place.offset, place.length)
                return open_blob(self.key, name, sealed, place.uncompressed_length)
            except NotFound as error:
                failure = Damaged(f"Pack {pack} is missing in the repository {self.location}")
                failure.__cause__ = error
            except Damaged as error:
                failure = error.with_context(f"Pack {pack}")
        raise failure or Damaged(
            f"{kind.name.capitalize()} blob {name.hex()} is missing in the repository {self.location}",
            next_step="If packs are there that the index does not know: `restic repair index`.",
        )

    def _read_groups(self, kind: BlobType, names: Iterable[BlobId]) -> Iterator[list[tuple[BlobId, Location | None]]]:
        """Yield blobs that one read brings; those without a place of their own are alone."""
        placed = []
        for name in names:
            places = self._places(kind, name)
            if places:
                placed.append((places[0], name))
            else:
                yield [(name, None)]
        placed.sort()
        group: list[tuple[BlobId, Location | None]] = []
        start = end = 0
        pack = b""
        for place, name in placed:
            far = place.offset > end + _READ_GAP or place.offset + place.length - start > _READ_SIZE
            if group and (place.pack != pack or far):
                yield group
                group = []
            if not group:
                pack, start = place.pack, place.offset
            end = place.offset + place.length
            group.append((name, place))
        if group:
            yield group

    def _load_group(self, kind: BlobType, group: list[tuple[BlobId, Location | None]]) -> list[tuple[BlobId, bytes]]:
        first, last = group[0][1], group[-1][1]
        data = b""
        if first and last and len(group) > 1:
            with suppress(NotFound):
                data = self.backend.load(
                    FileKind.DATA, first.pack.hex(), first.offset, last.offset + last.length - first.offset
                )
        found = []
        for name, place in group:
            if data and first and place:
                begin = place.offset - first.offset
                with suppress(Damaged):  # another pack may have it
                    sealed = data[begin : begin + place.length]
                    found.append((name, open_blob(self.key, name, sealed, place.uncompressed_length)))
                    continue
            found.append((name, self.load(kind, name)))
        return found


def _find_key(backend: Backend, password: str) -> Key:
    """Return the keys of the repository; each password has a key file. Raises AuthenticationFailed, Damaged."""
    damage: Damaged | None = None
    names = [name for name, _ in islice(backend.list(FileKind.KEY), _MOST_KEYS)]
    if not names:
        raise Damaged(f"The repository {backend.location} has no key file: nothing in it can be read")
    for name in names:
        try:
            content = backend.load(FileKind.KEY, name)
            if hashlib.sha256(content).hexdigest() != name:
                raise Damaged(f"Key file {name} does not match its checksum")
            if key := open_key_file(content, password):
                return key
        except NotFound:
            continue
        except Damaged as error:
            damage = error
    if damage:
        raise damage
    raise AuthenticationFailed(
        f"The password is not one of the repository {backend.location}", next_step="Check the repository's password."
    )
