"""Real files for the demo: fill a share, change it, and know by an own look what was really changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LARGEST = 512 * 1024
"""Larger files are left out, so that the demo fits a small disk."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look at an object tells."""

    inode: int
    kind: str
    size: int
    mtime_ns: int
    metadata: tuple[int, int, int, int]
    content: str


HOSTILE = (b"line\nbreak", b"quote'\"back\\slash", b"not-utf-8-\xff\xfe", "emoji-\U0001f98a".encode(), b"n" * 255)
"""Names that break careless programs."""

Tree = dict[bytes, Seen]
Fact = tuple[str, bytes, bytes | None]
"""Operation, path, old path."""


def fill(share: Path, wanted: int) -> tuple[int, int]:
    """Copy real files of this machine to the share, half of them Python's library; return how many and their bytes."""
    count = total = 0
    for name, source, until in (
        ("python", Path(sysconfig.get_path("stdlib")), wanted // 2),
        ("doc", Path("/usr/share/doc"), wanted),
        ("packages", Path(sysconfig.get_path("purelib")), wanted),
    ):
        for path in _files(source):
            if count >= until:
                break
            target = share / name / path.relative_to(source)
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
            except OSError:
                continue  # unreadable here, or gone meanwhile: there are enough others
            count += 1
            total += target.stat().st_size
    return count, total


def _files(root: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if name not in {"__pycache__", "site-packages"})
        for name in sorted(files):
            path = Path(directory, name)
            try:
                found = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST:
                yield path


def look(root: Path) -> Tree:
    """Look at every object below `root`, content included."""
    tree: Tree = {}
    top = os.fsencode(root.resolve())
    for directory, names, files in os.walk(top):
        for name in [*names, *files]:
            path = os.path.join(directory, name)  # noqa: PTH118 - bytes
            tree[os.path.relpath(path, top)] = _look_at(path)
    return tree


def _look_at(path: bytes) -> Seen:
    found = os.lstat(path)
    kind, content = "file", ""
    if stat.S_ISDIR(found.st_mode):
        kind = "directory"
    elif stat.S_ISLNK(found.st_mode):
        kind, content = "symlink", os.fsdecode(os.readlink(path))  # noqa: PTH115 - bytes
    else:
        content = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).hexdigest()
    metadata = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink if kind == "file" else 1)
    return Seen(found.st_ino, kind, found.st_size, found.st_mtime_ns, metadata, content)


def change(share: Path) -> int:
    """Change the share in every way that matters; return how many things were done.

    Deletes come last: an inode that they free then serves no new object, and `truth` can follow objects by inode.
    """
    python = share / "python"
    packages = sorted(path for path in python.iterdir() if path.is_dir())
    texts = [path for path in sorted(python.glob("*.py")) if path.stat().st_size]
    for path in texts[:20]:
        with path.open("a") as file:
            file.write("# changed by the demo\n")
    for path in texts[20:25]:
        path.chmod(0o600)
    texts[25].rename(python / "renamed by the demo.py")
    packages[0].rename(python / "a renamed directory")
    packages[1].rename(share / "moved directory")
    new = share / "new"
    new.mkdir()
    for number in range(50):
        (new / f"report-{number}.txt").write_text(f"Report {number}\n" * (number + 1))
    for name in HOSTILE:
        descriptor = os.open(os.path.join(os.fsencode(new), name), os.O_WRONLY | os.O_CREAT, 0o644)  # noqa: PTH118
        os.write(descriptor, b"a name like any other\n")
        os.close(descriptor)
    (new / "link").symlink_to("report-1.txt")
    (new / "other name").hardlink_to(new / "report-2.txt")
    for path in texts[26:36]:
        path.unlink()
    shutil.rmtree(packages[2])
    return 20 + 5 + 3 + 1 + 50 + len(HOSTILE) + 2 + 10 + 1


def truth(before: Tree, after: Tree) -> set[Fact]:
    """Say what differs between two looks, knowing nothing of snapshots: objects are followed by their inode."""
    facts: set[Fact] = set()
    old_paths = {seen.inode: path for path, seen in before.items()}
    renamed: dict[bytes, bytes] = {}
    for path, now in sorted(after.items()):
        was = before.get(path)
        if was is not None and was.inode == now.inode and was.kind == now.kind:
            facts |= _compared(path, was, now)
            continue
        origin = old_paths.get(now.inode)
        if origin is not None and origin not in after and before[origin].kind == now.kind:
            renamed[path] = origin
        else:
            facts.add(("add", path, None))
    moved = set(renamed.values())
    facts |= {("delete", path, None) for path in before if path not in after and path not in moved}
    for path, origin in renamed.items():
        if not _implied(path, origin, renamed):
            facts.add(("rename", path, origin))
        facts |= _compared(path, before[origin], after[path])
    return facts


def _compared(path: bytes, was: Seen, now: Seen) -> set[Fact]:
    if was.kind != "directory" and (was.content != now.content or was.size != now.size):
        return {("modify", path, None)}
    if was.metadata != now.metadata or was.mtime_ns != now.mtime_ns:
        return {("metadata", path, None)}
    return set()


def _implied(path: bytes, origin: bytes, renamed: dict[bytes, bytes]) -> bool:
    parent, _, name = path.rpartition(b"/")
    return parent in renamed and renamed[parent] + b"/" + name == origin
