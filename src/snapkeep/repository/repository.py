"""A repository: blobs go in and come out again; recovery points; what lies there, for those who check it."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Self

from snapkeep.model.errors import Conflict, Damaged, InvalidInput, NotFound, SnapkeepError
from snapkeep.repository.backends import NAME, Backend, FileKind
from snapkeep.repository.blobs import BlobId, BlobType, SealedBlob, open_blob, seal_blob
from snapkeep.repository.config import Config
from snapkeep.repository.crypto import Key, make_key_file
from snapkeep.repository.index import Index
from snapkeep.repository.keyring import KeyRing
from snapkeep.repository.keys import find_key
from snapkeep.repository.locks import RepositoryLock
from snapkeep.repository.packs import Entry, read_header, verify_pack
from snapkeep.repository.segments import Location
from snapkeep.repository.snapshots import SnapshotFile
from snapkeep.repository.unpacked import load_unpacked, save_unpacked
from snapkeep.repository.writing import PackWriter

_READS = 4
_READ_AT_ONCE = 10_000  # blobs that `load_many` sorts by pack
_READ_SIZE = 8 << 20
_READ_GAP = 128 << 10  # it is quicker to read so much in vain than to ask once more
_TAIL = 64 << 10


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
        self.backend = backend
        self._temporary = Path(tempfile.mkdtemp(prefix="snapkeep-index-")) if cache is None else None
        self.cache = cache or self._temporary or Path()
        self._index = Index(self.cache / config.id / "index", self._load_index)
        self._locks: list[RepositoryLock] = []
        self._index_lock = threading.Lock()
        self._writer = PackWriter(backend, key, self._index, self._index_lock, self._sure)
        self.statistics = self._writer.statistics
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
    def open(
        cls,
        backend: Backend,
        password: str,
        cache: Path | None = None,
        *,
        key: Key | None = None,
        keys: KeyRing | None = None,
    ) -> Self:
        """Open a repository. Raises NotFound, AuthenticationFailed, Damaged.

        `cache`: where segments of the index are kept, so that only the first time takes long. `key`: of a repository
        that was opened before; the password, from which it takes half a second to derive it, is not used then.
        `keys`: where keys are remembered for the next time.
        """
        try:
            sealed = backend.load(FileKind.CONFIG, "")
        except NotFound as error:
            raise NotFound(
                f"There is no repository in {backend.location}", next_step="Check the place; or make one there."
            ) from error
        found = key or (keys.key(backend, password) if keys else find_key(backend, password)[1])
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
        return self._writer.has(type, id)

    def add(self, blob: SealedBlob) -> bool:
        """Store a blob; False: it was there. May wait for uploads."""
        return self._writer.add(blob)

    def add_plain(self, type: BlobType, plain: bytes) -> BlobId:
        """Seal and store a blob; return its id."""
        name = hashlib.sha256(plain).digest()
        if not self.has(type, name):
            self.add(seal_blob(self.key, type, plain, name))
        return name

    def flush(self) -> None:
        """Store packs, then the index: afterwards everything that was added is durable and found by anybody."""
        self._writer.flush()

    def save_snapshot(self, snapshot: SnapshotFile) -> str:
        """Store a recovery point; return its id. What was added before is flushed first."""
        self.flush()
        self._sure()
        name, _ = save_unpacked(self.backend, self.key, FileKind.SNAPSHOT, snapshot.to_json())
        return name

    # What comes out

    def load(self, type: BlobType, id: BlobId) -> bytes:
        """Return a blob, also one that is not flushed yet.

        Raises Damaged when it is damaged or missing: it is then stored again, should it be added.
        """
        waiting = self._writer.waiting(type, id)
        if waiting:
            return open_blob(self.key, id, waiting.sealed, waiting.uncompressed_length)
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

    def load_in_order(self, type: BlobType, ids: Iterable[BlobId]) -> Iterator[bytes]:
        """Yield the content of blobs in the order of their ids, some being read ahead. Raises Damaged.

        For big ones: each is a read of its own.
        """
        waiting: deque[Future[bytes]] = deque()
        try:
            for id in ids:
                if len(waiting) == _READS:
                    yield waiting.popleft().result()
                waiting.append(self._reads.submit(self.load, type, id))
            while waiting:
                yield waiting.popleft().result()
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
        self._writer.close()
        self._reads.shutdown(cancel_futures=True)
        self._index.close()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _sure(self) -> None:
        """Write under locks that hold. Raises Busy, Unavailable."""
        for lock in tuple(self._locks):
            lock.sure()

    # Reading

    def _load_index(self, name: str) -> bytes:
        return load_unpacked(self.backend, self.key, FileKind.INDEX, name)

    def _load_snapshot(self, name: str) -> SnapshotFile:
        return SnapshotFile.from_json(load_unpacked(self.backend, self.key, FileKind.SNAPSHOT, name), name)

    def _places(self, kind: BlobType, name: BlobId) -> list[Location]:
        stored = self._writer.stored(kind, name)
        if stored:
            return [stored]
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
        self._writer.distrust(kind, name)
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
