"""What several tests of repositories need."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile


def reopen(repository: Repository, cache: Path | None = None) -> Repository:
    """Open the same local repository once more; the keys are given, which saves the time to derive them."""
    return Repository.open(LocalBackend(Path(repository.location)), "", cache, key=repository.key)


def fill(repository: Repository, number: int, seed: int = 0, size: int = 900) -> dict[bytes, bytes]:
    """Add blobs of random sizes, half of them compressible; return what was added, by id."""
    random_ = random.Random(seed)
    added = {}
    for _ in range(number):
        plain = random_.randbytes(random_.randrange(1, size)) + b"again and " * random_.randrange(2) * 20
        added[repository.add_plain(BlobType.DATA, plain)] = plain
    return added


def tree_of(blobs: dict[bytes, bytes]) -> bytes:
    """Return a tree in which each blob is a file."""
    nodes = (
        f'{{"name":"{number:08}","type":"file","mode":420,"mtime":"2020-01-01T00:00:00Z",'
        f'"atime":"2020-01-01T00:00:00Z","ctime":"2020-01-01T00:00:00Z","uid":0,"gid":0,"inode":{number + 1},'
        f'"links":1,"size":{len(plain)},"content":["{name.hex()}"]}}'
        for number, (name, plain) in enumerate(blobs.items())
    )
    return f'{{"nodes":[{",".join(nodes)}]}}\n'.encode()


def save(repository: Repository, blobs: dict[bytes, bytes], path: str = "/share") -> str:
    """Save a recovery point of these blobs; return its id."""
    tree = repository.add_plain(BlobType.TREE, tree_of(blobs))
    return repository.save_snapshot(
        SnapshotFile(time=datetime.now(UTC), tree=tree.hex(), paths=(path,), hostname="host", tags=("snapkeep",))
    )


def files(path: Path, kind: FileKind) -> list[Path]:
    """Return the files of a kind, below the path of a repository."""
    return [file for file in (path / kind).rglob("*") if file.is_file()]


def overwrite(file: Path, content: bytes) -> None:
    """Give a file, that nobody may write, other content."""
    file.chmod(0o600)
    file.write_bytes(content)
