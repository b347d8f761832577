"""Is a repository, or one recovery point, sound: is all there that is referred to, and is it what was written?"""

from __future__ import annotations

import math
import random
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec

from snapkeep.backup.nodes import unquote
from snapkeep.backup.reading import join
from snapkeep.backup.request import Progress, Report, Stop, never_stop, no_report
from snapkeep.model.errors import Damaged, NotFound
from snapkeep.repository.backends import FileKind
from snapkeep.repository.blobs import BlobId, BlobType
from snapkeep.repository.crypto import OVERHEAD
from snapkeep.repository.packs import Entry
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile

MOST_ERRORS = 100
"""So many errors are named; all are counted."""

Data = Literal["none", "sample", "all"]

SAMPLE = 200
"""Pieces of content of one recovery point that a sample has: blobs of some MiB at most."""

OnFile = Callable[[bytes, int, list[BlobId]], None]
"""Is given path, size in bytes and blobs of a file; raises Damaged for what is wrong with it."""

_READS = 4
_TREES = 1000  # that are read in one go
_PIECES = 1000
_ENTRY, _COMPRESSED_ENTRY = 37, 41  # bytes in the header of a pack


@dataclass
class CheckResult:
    """What a check found."""

    recovery_points: int = 0
    trees: int = 0
    """Different ones, as everywhere here: what several recovery points share is looked at once."""
    files: int = 0
    packs: int = 0
    """That the index knows."""
    packs_unused: int = 0
    """Of them, those with nothing that a recovery point refers to; `restic prune` removes them. No error."""
    packs_unindexed: int = 0
    """That the index does not know: what a crash left, or what another client writes just now. No error."""
    packs_read: int = 0
    files_read: int = 0
    """Of one recovery point: those of which content was read, all of it or a piece."""
    bytes_read: int = 0
    errors: list[str] = field(default_factory=list)
    """The first `MOST_ERRORS`, for people."""
    error_count: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.error_count

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-safe form."""
        return {**asdict(self), "sound": self.sound}


def check_repository(
    repository: Repository,
    *,
    data: Data = "none",
    fraction: float = 0.05,
    seed: int = 0,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> CheckResult:
    """Check what recovery points refer to, down to the blobs in the index, and that their packs are there.

    `data`: which packs are read wholly and every blob in them verified; for "sample" this fraction of all, chosen
    by `seed`. What is wrong is in the result; raised is only what makes the check impossible.
    """
    with closing(_Check(repository, progress, stop)) as check:
        check.index()
        check.packs()
        if data != "none":
            check.data(1.0 if data == "all" else fraction, random.Random(seed))
        check.recovery_points()
        return check.result


def check_recovery_point(
    repository: Repository,
    snapshot_id: str,
    *,
    data: Data = "none",
    seed: int = 0,
    on_file: OnFile | None = None,
    progress: Report = no_report,
    stop: Stop = never_stop,
) -> CheckResult:
    """Check what one recovery point refers to: the index and all of its trees are read, its packs must be there.

    `data`: how much of the content of its files is read back, decrypted and held against its hash; for "sample" so many
    pieces, chosen by `seed`: each of the same probability. What several directories share is looked at once, so
    `on_file` may be told of one of two equal directories alone. What is wrong is in the result; raised is NotFound or
    Damaged for a recovery point that cannot be read itself, and what makes the check impossible.
    """
    only = _Only(repository.snapshot(snapshot_id), data, Sample(SAMPLE, seed), on_file)
    with closing(_Check(repository, progress, stop, only)) as check:
        check.index()
        check.packs()
        check.recovery_points()
        check.content()
        return check.result


T = TypeVar("T")


class Sample(Generic[T]):
    """So many of what it is given, chosen by a seed, each with the same probability: Vitter's algorithm R.

    J. S. Vitter, Random Sampling with a Reservoir, ACM Transactions on Mathematical Software 11 (1985), 37-57.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.chosen: list[T] = []
        self._count = count
        self._seen = 0
        self._random = random.Random(seed)

    def add(self, item: T) -> None:
        """Take it, perhaps in place of another one."""
        self._seen += 1
        if len(self.chosen) < self._count:
            self.chosen.append(item)
        elif (place := self._random.randrange(self._seen)) < self._count:
            self.chosen[place] = item


@dataclass(frozen=True, slots=True)
class _Only:
    """The one recovery point that is checked."""

    snapshot: SnapshotFile
    data: Data
    sample: Sample[tuple[bytes, bytes]]
    """Blobs, each with the path of a file that has it."""
    on_file: OnFile | None


@dataclass(slots=True)
class _Pack:
    """What the index says of a pack."""

    size: int = OVERHEAD + 4
    used: bool = False


class _Node(msgspec.Struct):
    name: str
    type: str = ""
    size: int = 0
    content: list[str] | None = None
    subtree: str | None = None


class _Nodes(msgspec.Struct):
    nodes: list[_Node]


_decode = msgspec.json.Decoder(_Nodes).decode


class _Check:
    def __init__(self, repository: Repository, report: Report, stop: Stop, only: _Only | None = None) -> None:
        self.result = CheckResult()
        self._repository = repository
        self._report = report
        self._stop = stop
        self._packs: dict[bytes, _Pack] = {}
        self._bad: dict[bytes, str] = {}
        self._trees, self._pieces = _Met(), _Met()
        self._only = only
        # Listed before the index is read: it knows all that these refer to, whatever is written meanwhile.
        self._snapshots = [only.snapshot.id] if only is not None else repository.names(FileKind.SNAPSHOT)

    def close(self) -> None:
        self._trees.close()
        self._pieces.close()

    def index(self) -> None:
        """Read all index files."""
        with suppress(Damaged):  # it is told below
            self._repository.refresh()
        for name in self._repository.names(FileKind.INDEX):
            self._stop()
            with self._telling(f"Index file {name}"):
                self._repository.verify_index(name)

    def packs(self) -> None:
        """Compare the packs that are there with those of the index."""
        for number, (pack, length, plain) in enumerate(self._repository.index_rows()):
            if number % 10_000 == 0:
                self._stop()
            known = self._packs.setdefault(pack, _Pack())
            known.size += length + (_COMPRESSED_ENTRY if plain else _ENTRY)
        self.result.packs = len(self._packs)
        missing = set(self._packs)
        for name, size in self._repository.packs():
            self._stop()
            pack = bytes.fromhex(name)
            if pack not in missing:
                self.result.packs_unindexed += 1
                continue
            missing.discard(pack)
            if size != self._packs[pack].size:
                with self._telling(f"Pack {name} has {size} bytes, by the index {self._packs[pack].size}", pack):
                    self._repository.pack_entries(name, size)  # two index files may both tell of a pack
        for pack in sorted(missing):
            self._bad[pack] = "missing"
            if self._only is None:  # else only what needs it is an error
                self._error(f"Pack {pack.hex()} is missing")

    def data(self, fraction: float, chance: random.Random) -> None:
        """Read packs, and verify all that is in them."""
        names = sorted(pack for pack in self._packs if pack not in self._bad)
        chosen = iter(chance.sample(names, min(len(names), math.ceil(len(names) * fraction))))
        reading: deque[tuple[bytes, Future[list[Entry]]]] = deque()
        with ThreadPoolExecutor(_READS, "check") as threads:
            try:
                for pack in chosen:
                    reading.append((pack, threads.submit(self._repository.verify_pack, pack.hex())))
                    if len(reading) > _READS:
                        self._verified(*reading.popleft())
                while reading:
                    self._verified(*reading.popleft())
            finally:
                threads.shutdown(cancel_futures=True)

    def _verified(self, pack: bytes, reading: Future[list[Entry]]) -> None:
        self._stop()
        with self._telling(f"Pack {pack.hex()}", pack):
            for entry in reading.result():
                places = self._repository.locations(BlobType(entry.type), entry.id)
                if not any(place[:3] == (pack, entry.offset, entry.length) for place in places):
                    raise Damaged(f"the index does not know where blob {entry.id.hex()} is in it")
        self.result.packs_read += 1
        self.result.bytes_read += self._packs[pack].size
        self._tell(b"pack " + pack.hex().encode())

    def recovery_points(self) -> None:
        """Look at all trees of all recovery points, and for all blobs that they refer to."""
        for name in self._snapshots:
            self._stop()
            with self._telling(f"Recovery point {name}"), suppress(NotFound):  # removed since it was listed
                snapshot = self._only.snapshot if self._only is not None else self._repository.snapshot(name)
                self.result.recovery_points += 1
                self._trees.add(_id(snapshot.tree), b"" if self._only is not None else name[:8].encode() + b":")
        while some := self._trees.next(_TREES):
            for tree, text in self._load(BlobType.TREE, some):
                self._stop()
                self._tree(some[tree], tree, text)
                self.result.trees += 1
            self._tell(next(iter(some.values())))
        self.result.packs_unused = sum(not pack.used for pack in self._packs.values())

    def content(self) -> None:
        """Read what was chosen of the content of files."""
        files = set()
        for blob, path in self._only.sample.chosen if self._only is not None else ():
            self._pieces.add(blob, path)
            files.add(path)
        while some := self._pieces.next(_PIECES):
            for _, data in self._load(BlobType.DATA, some):
                self._stop()
                self.result.bytes_read += len(data)
            self._tell(next(iter(some.values())))
        self.result.files_read += len(files)

    def _load(self, type: BlobType, wanted: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield id and content of these blobs, each verified; what cannot be read is an error of its path."""
        missing = dict(wanted)
        try:
            for blob, content in self._repository.load_many(type, wanted):
                del missing[blob]
                yield blob, content
        except Damaged:
            for blob, path in missing.items():
                with self._telling(_text(path)):
                    yield blob, self._repository.load(type, blob)

    def _tree(self, path: bytes, tree: bytes, text: bytes) -> None:
        with self._telling(_text(path)):
            self._uses(BlobType.TREE, tree)
            try:
                nodes = _decode(text).nodes
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise Damaged(f"its tree {tree.hex()} cannot be read: {error}") from error
            for node in nodes:
                name = unquote(node.name)
                below = join(path, name)
                try:
                    if name in {b"", b".", b".."} or b"/" in name or b"\0" in name:
                        raise Damaged("the recovery point has an object with an impossible name")
                    self._node(node, below)
                except Damaged as error:
                    self._error(f"{_text(below)}: {error}")

    def _node(self, node: _Node, path: bytes) -> None:
        if node.type == "dir":
            if node.subtree is None:
                raise Damaged("it is a directory without a tree")
            self._trees.add(_id(node.subtree), path)
        elif node.type == "file":
            self.result.files += 1
            blobs = [_id(blob) for blob in node.content or ()]
            for blob in blobs:
                self._uses(BlobType.DATA, blob)
            if self._only is not None:
                self._choose(self._only, path, node.size, blobs)

    def _choose(self, only: _Only, path: bytes, size: int, blobs: list[BlobId]) -> None:
        """Take what is to be read of a file."""
        if only.data == "all":
            self.result.files_read += 1
        for blob in blobs:
            if only.data == "all":
                self._pieces.add(blob, path)
            elif only.data == "sample":
                only.sample.add((blob, path))
        if only.on_file is not None:
            only.on_file(path, size, blobs)

    def _uses(self, type: BlobType, id: BlobId) -> None:
        """Note the packs of a blob. Raises Damaged when it is in none, or only in bad ones."""
        places = self._repository.locations(type, id)
        if not places:
            raise Damaged(f"{type.name.lower()} blob {id.hex()} is not in the index")
        for place in places:
            if known := self._packs.get(place.pack):
                known.used = True
        if self._bad and all(place.pack in self._bad for place in places):
            pack = places[0].pack
            raise Damaged(f"{type.name.lower()} blob {id.hex()} is in pack {pack.hex()}, which is {self._bad[pack]}")

    @contextmanager
    def _telling(self, what: str, pack: bytes | None = None) -> Iterator[None]:
        """Make an error of the repository one of the result, about `what`; and of a bad pack when it is about one."""
        try:
            yield
        except (Damaged, NotFound) as error:
            if pack is not None:
                self._bad[pack] = "damaged"
            if pack is None or self._only is None:  # else only what needs it is an error
                self._error(f"{what}: {error}")

    def _error(self, text: str) -> None:
        self.result.error_count += 1
        if len(self.result.errors) < MOST_ERRORS:
            self.result.errors.append(text)

    def _tell(self, what: bytes) -> None:
        result = self.result
        self._report(Progress(result.files, result.trees, result.bytes_read, _text(what)))


class _Met:
    """The blobs that were met, in a file: there may be many; each with the first path where it was met."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode = OFF;"
            "CREATE TABLE met (blob BLOB PRIMARY KEY) WITHOUT ROWID;"
            "CREATE TABLE waiting (number INTEGER PRIMARY KEY, blob BLOB, path BLOB);"
            "BEGIN"
        )

    def add(self, blob: bytes, path: bytes) -> None:
        if self._database.execute("INSERT OR IGNORE INTO met VALUES (?)", (blob,)).rowcount:
            self._database.execute("INSERT INTO waiting (blob, path) VALUES (?, ?)", (blob, path))

    def next(self, most: int) -> dict[bytes, bytes]:
        """Take out the next, and their paths."""
        rows = self._database.execute("SELECT number, blob, path FROM waiting ORDER BY number DESC LIMIT ?", (most,))
        found = rows.fetchall()
        if found:
            self._database.execute("DELETE FROM waiting WHERE number >= ?", (found[-1][0],))
        return {blob: path for _, blob, path in found}

    def close(self) -> None:
        self._database.close()


def _id(text: str) -> bytes:
    try:
        id = bytes.fromhex(text)
    except ValueError:
        id = b""
    if len(id) != 32:
        raise Damaged(f"{text!r} is no id of a blob")
    return id


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
