"""The index: which blob lies where. Index files as restic writes them, and what they say, in segments."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from snapkeep.model.errors import Damaged, LimitExceeded, NotFound, Unavailable
from snapkeep.repository.blobs import BlobId, BlobType
from snapkeep.repository.packs import Entry, type_name
from snapkeep.repository.segments import ROW, SUFFIX, BadSegment, Location, Segment, merge_segments, write_segment

INDEX_BLOBS = 25_000
"""An index file is written when there are so many blobs for it."""

_MOST_SEGMENTS = 12  # each costs a look-up of a missing blob some 0.5 microseconds
_SEGMENTS_AFTER_MERGE = 6
_BATCH = 200_000  # blobs that are held in memory to make a segment
_PARALLEL = 4

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Packed = tuple[bytes, Sequence[Entry]]
"""The name of a pack, and what it holds."""


class Index:
    """All blobs of a repository. Thread-safe; look-ups take no lock."""

    def __init__(self, directory: Path, load: Callable[[str], bytes]) -> None:
        """`directory`: for segments. `load` returns the document in an index file."""
        self._directory = directory
        with self._errors():
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load = load
        self._lock = threading.RLock()
        self._segments: tuple[Segment, ...] = ()

    def has(self, blob_type: int, blob: BlobId) -> bool:
        """Return whether a blob is stored."""
        for segment in self._segments:  # noqa: SIM110  (a generator would cost more than the search)
            if segment.find(blob_type, blob) != -1:
                return True
        return False

    def locations(self, blob_type: int, blob: BlobId) -> Iterator[Location]:
        """Yield all places where a blob is stored."""
        for segment in self._segments:
            yield from segment.locations(blob_type, blob)

    def rows(self) -> Iterator[tuple[bytes, int, int]]:
        """Yield pack, length and uncompressed length of all blobs."""
        for segment in self._segments:
            packs = list(segment.packs())
            for kind in BlobType:
                for row in segment.sorted_rows(kind):
                    _, number, _, length, plain = ROW.unpack(row)
                    yield packs[number], length, plain

    def add(self, name: str, packs: Iterable[Packed]) -> None:
        """Take in an index file that was just written."""
        rows: tuple[list[bytes], list[bytes]] = ([], [])
        names = []
        for number, (pack, entries) in enumerate(packs):
            names.append(pack)
            for kind, blob, offset, length, plain in entries:
                rows[kind].append(ROW.pack(blob, number, offset, length, plain))
        with self._lock:
            segment = self._write([bytes.fromhex(name)], [], names, rows)
            self._segments = (*self._segments, segment)
            self._merge()

    def refresh(self, names: Iterable[str]) -> None:
        """Know exactly these index files: take in new ones, forget those that are gone. Raises Damaged."""
        with self._lock:
            wanted = {bytes.fromhex(name) for name in names}
            candidates = self._open_segments()
            while True:
                usable = [segment for segment in candidates if segment.sources <= wanted]
                dead = {name for segment in usable for name in segment.superseded} & wanted
                chosen, covered = _choose(usable, dead)
                missing = wanted - covered - dead
                if not missing:
                    break
                candidates += self._read(sorted(missing), wanted)
            self._segments = tuple(chosen)
            keep = {segment.path for segment in chosen}
            for segment in candidates:
                if segment.path not in keep:
                    segment.path.unlink(missing_ok=True)
            self._merge()

    def drop_unsound(self) -> bool:
        """Throw away segments that were damaged since they were written; return whether there were any.

        They are not read as a whole when they are opened. Somebody who misses a blob asks for this, then for a refresh.
        """
        with self._lock:
            bad = [segment for segment in self._segments if not segment.is_sound()]
            for segment in bad:
                segment.path.unlink(missing_ok=True)
            self._segments = tuple(segment for segment in self._segments if segment not in bad)
            return bool(bad)

    def close(self) -> None:
        """Forget everything; nothing is written here."""
        self._segments = ()

    def _open_segments(self) -> list[Segment]:
        """Return those that are open, and those that lie in the directory; remove the damaged ones."""
        found = list(self._segments)
        known = {segment.path for segment in found}
        for path in self._directory.glob("*" + SUFFIX):
            if path not in known:
                try:
                    found.append(Segment(path))
                except BadSegment:
                    path.unlink(missing_ok=True)
        return found

    def _read(self, missing: Sequence[bytes], wanted: set[bytes]) -> list[Segment]:
        """Make segments of index files. One that vanished meanwhile is taken out of `wanted`."""
        segments = []
        batch = _Batch()
        with ThreadPoolExecutor(_PARALLEL) as threads:
            for start in range(0, len(missing), _PARALLEL):
                names = missing[start : start + _PARALLEL]
                for name, text in zip(names, threads.map(self._load_or_none, names), strict=True):
                    if text is None:
                        wanted.discard(name)
                        continue
                    batch.add(name, text)
                    if batch.blobs >= _BATCH:
                        segments.append(batch.write(self._write))
                        batch = _Batch()
        if batch.sources:
            segments.append(batch.write(self._write))
        return segments

    def _load_or_none(self, name: bytes) -> bytes | None:
        with suppress(NotFound):
            return self._load(name.hex())
        return None

    def _write(
        self,
        sources: Sequence[bytes],
        superseded: Sequence[bytes],
        packs: Sequence[bytes],
        rows: tuple[list[bytes], list[bytes]],
    ) -> Segment:
        for section in rows:
            section.sort()
        with self._errors():
            return write_segment(
                self._directory, sources, superseded, packs, [(len(section), section) for section in rows]
            )

    def _merge(self) -> None:
        """Make one of the smallest segments when there are too many: each blob is merged a few times in its life."""
        while len(self._segments) > _MOST_SEGMENTS:
            ordered = sorted(self._segments, key=lambda segment: segment.rows)
            count = len(ordered) - _SEGMENTS_AFTER_MERGE + 1
            small, large = ordered[:count], ordered[count:]
            with self._errors():
                merged = merge_segments(self._directory, small)
            self._segments = (*large, merged)
            for segment in small:
                if segment.path != merged.path:
                    segment.path.unlink(missing_ok=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, BadSegment) as error:
            kind = LimitExceeded if isinstance(error, OSError) and error.errno in _FULL else Unavailable
            raise kind(
                f"The cache of the repository's index in {self._directory} cannot be written: {error}",
                next_step="Check the directory and the room on its file system.",
            ) from error


class _Batch:
    """Index files that become one segment."""

    def __init__(self) -> None:
        self.sources: list[bytes] = []
        self.blobs = 0
        self._superseded: set[bytes] = set()
        self._packs: dict[bytes, int] = {}
        self._rows: tuple[list[bytes], list[bytes]] = ([], [])

    def add(self, name: bytes, text: bytes) -> None:
        try:
            document = msgspec.json.decode(text, type=_Document)
            self._superseded.update(map(_id, document.supersedes or ()))
            for pack in document.packs or ():
                number = self._packs.setdefault(_id(pack.id), len(self._packs))
                for blob in pack.blobs or ():
                    rows = self._rows_of(blob.type)
                    if rows is not None:
                        plain = blob.uncompressed_length
                        rows.append(ROW.pack(_id(blob.id), number, blob.offset, blob.length, plain))
        except (msgspec.DecodeError, ValueError, struct.error) as error:
            raise Damaged(
                f"Index file {name.hex()} cannot be read: {error}",
                next_step="Make the index again by `restic repair index`.",
            ) from error
        self.sources.append(name)
        self.blobs = sum(map(len, self._rows))

    def write(self, write: Callable[..., Segment]) -> Segment:
        return write(self.sources, sorted(self._superseded), list(self._packs), self._rows)

    def _rows_of(self, blob_type: str) -> list[bytes] | None:
        """Return where a type's rows go; a type that we do not know is nothing that we shall ask for."""
        if blob_type == "data":
            return self._rows[BlobType.DATA]
        return self._rows[BlobType.TREE] if blob_type == "tree" else None


class _Blob(msgspec.Struct, gc=False):
    id: str
    type: str
    offset: int
    length: int
    uncompressed_length: int = 0


class _Pack(msgspec.Struct, gc=False):
    id: str
    blobs: list[_Blob] | None = None


class _Document(msgspec.Struct):
    packs: list[_Pack] | None = None
    supersedes: list[str] | None = None


def index_document(packs: Iterable[Packed]) -> bytes:
    """Return the content of an index file."""
    return b'{"packs":[%s]}' % b",".join(_pack_text(packed).encode() for packed in packs)


def _pack_text(packed: Packed) -> str:
    pack, entries = packed
    return f'{{"id":"{pack.hex()}","blobs":[{",".join(map(_blob_text, entries))}]}}'


def _blob_text(entry: Entry) -> str:
    kind, blob, offset, length, plain = entry
    last = f',"uncompressed_length":{plain}' if plain else ""
    return f'{{"id":"{blob.hex()}","type":"{type_name(kind)}","offset":{offset},"length":{length}{last}}}'


def _id(text: str) -> bytes:
    value = bytes.fromhex(text)
    if len(value) != 32:
        raise ValueError(f"{text!r} is no id")
    return value


def _choose(segments: Sequence[Segment], dead: set[bytes]) -> tuple[list[Segment], set[bytes]]:
    """Return segments that together cover as much as can be, the largest first; and what they cover."""
    chosen: list[Segment] = []
    covered: set[bytes] = set()
    for segment in sorted(segments, key=lambda segment: -len(segment.sources)):
        if not segment.sources & dead and not segment.sources <= covered:
            chosen.append(segment)
            covered |= segment.sources
    return chosen, covered
