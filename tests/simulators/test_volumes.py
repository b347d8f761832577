"""Volumes: copies are true, a killed process leaves nothing behind, and a diff leads exactly from base to new."""

import errno
import os
import socket
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapkeep.simulators.kit import changes, tree
from snapkeep.simulators.kit.volumes import Entry, Method, ObjectType, Operation, Volume

HOSTILE = [
    b"new\nline",
    b"quote'\"`$(x)",
    b"\xff\xfe not utf-8",
    b"-rf",
    b" ",
    b"back\\slash",
    b"*",
    b"x" * 255,
    b"\xe4" * 255,
]


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "volume")


def listing(top: Path) -> dict[bytes, tuple[Any, ...]]:
    """All that a copy has to keep, read with other means than the product's."""
    root, found = os.fsencode(top), {}
    names: dict[int, set[bytes]] = {}
    for folder, directories, files in os.walk(root):
        for path in [folder, *(folder + b"/" + name for name in directories + files)]:
            s, where = os.lstat(path), path[len(root) + 1 :]
            content: bytes = b""
            if stat.S_ISREG(s.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(s.st_mode):
                content = os.fsencode(Path(os.fsdecode(path)).readlink())
            held = {key: os.getxattr(path, key, follow_symlinks=False) for key in xattrs(path)}
            size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
            names.setdefault(s.st_ino, set()).add(where)
            found[where] = (s.st_mode, s.st_uid, s.st_gid, size, s.st_mtime_ns, s.st_rdev, content, held, s.st_ino)
    return {path: (*value[:-1], frozenset(names[value[-1]])) for path, value in found.items()}


def xattrs(path: bytes | Path) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        return []


def brief(entries: Iterator[Entry]) -> list[str]:
    """Entries as words: `RENAME FILE new < old`."""
    return [
        f"{e.operation} {e.type} {os.fsdecode(e.path)}" + (f" < {os.fsdecode(e.old_path)}" if e.old_path else "")
        for e in entries
    ]


def fill(live: Path) -> None:
    """One of everything."""
    (live / "d" / "empty").mkdir(parents=True)
    (live / "d" / "file").write_bytes(os.urandom(100_000))
    (live / "d" / "nothing").touch()
    (live / "link").symlink_to("d/file")
    (live / "broken").symlink_to("nowhere\n")
    os.link(live / "d" / "file", live / "second")
    os.link(live / "link", live / "link.2", follow_symlinks=False)
    os.mkfifo(live / "fifo", 0o640)
    os.mknod(live / "socket", 0o600 | stat.S_IFSOCK)
    with suppress(PermissionError):
        os.mknod(live / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(live / "disk", 0o660 | stat.S_IFBLK, os.makedev(7, 200))
        os.chown(live / "fifo", 1234, 4321)
        os.chown(live / "link", 1234, 4321, follow_symlinks=False)
    for name in HOSTILE:
        Path(os.fsdecode(os.fsencode(live) + b"/" + name)).write_bytes(name)
    with suppress(OSError):
        os.setxattr(live / "d", "user.comment", b"a\0b")
        os.setxattr(live / "d" / "file", "user.comment", b"c")
    (live / "d" / "nothing").chmod(0o4555)
    os.utime(live / "d" / "nothing", ns=(1_000_000_007, -5_000_000_001))
    os.utime(live / "link", ns=(1, 2_000_000_000_123_456_789), follow_symlinks=False)
    (live / "d" / "empty").chmod(0o1777)
    os.utime(live / "d", ns=(3, 1_111_111_111_111_111_111))
    live.chmod(0o751)


class TestCopies:
    def test_a_snapshot_keeps_everything(self, volume: Volume) -> None:
        fill(volume.live)
        before = listing(volume.live)
        path = volume.snapshot("one")
        assert path == volume.snapshot_path("one") == volume.root / "snapshots" / "one"
        assert listing(path) == before == listing(volume.live)
        assert volume.method in set(Method)

    def test_access_times_are_kept_and_not_touched(self, volume: Volume) -> None:
        (volume.live / "file").write_text("x")
        os.utime(volume.live / "file", ns=(42_000_000_042, 43))
        os.utime(volume.live, ns=(44, 45))
        path = volume.snapshot("one")
        assert (path / "file").stat().st_atime_ns == (volume.live / "file").stat().st_atime_ns == 42_000_000_042
        assert volume.live.stat().st_atime_ns == path.stat().st_atime_ns == 44

    def test_a_snapshot_is_independent(self, volume: Volume) -> None:
        (volume.live / "file").write_text("old")
        path = volume.snapshot("one")
        (volume.live / "file").write_text("new")
        (volume.live / "more").mkdir()
        assert [p.name for p in path.iterdir()] == ["file"]
        assert (path / "file").read_text() == "old"

    def test_holes_stay_holes(self, volume: Volume) -> None:
        with (volume.live / "sparse").open("wb") as file:
            file.write(b"start")
            file.seek(5 << 20)
            file.write(b"middle")
            file.truncate(64 << 20)
        with (volume.live / "hole").open("wb") as file:
            file.truncate(1 << 30)
        path = volume.snapshot("one")
        assert (path / "sparse").read_bytes() == (volume.live / "sparse").read_bytes()
        assert (path / "hole").stat().st_size == 1 << 30
        assert sum(p.stat().st_blocks for p in path.iterdir()) * 512 < 1 << 20

    @pytest.mark.parametrize("component", [b"ab", b"\xe4" * 255, b"n\n" * 30])
    def test_long_paths(self, volume: Volume, component: bytes) -> None:
        deep = b"/".join([component] * (4000 // (len(component) + 1)))
        here = os.open(volume.live, os.O_RDONLY)
        for _ in deep.split(b"/"):
            os.mkdir(component, dir_fd=here)
            below = os.open(component, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.link("file", "other", src_dir_fd=here, dst_dir_fd=here)
        volume.snapshot("one")
        os.close(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        volume.snapshot("two")
        os.unlink("file", dir_fd=here)
        os.close(here)
        volume.restore("two")
        volume.snapshot("three")
        assert [(e.operation, e.path) for e in volume.diff("one", "two")] == [
            (Operation.META_MODIFY, deep),
            (Operation.ADD, deep + b"/late"),
        ]
        assert list(volume.diff("two", "three")) == []
        assert volume.totals("one")[0] == deep.count(b"/") + 3
        for name in volume.snapshots():
            volume.delete(name)
        assert volume.snapshots() == []
        tree.remove(volume.root)  # not left to others, who may not be able to
        assert not volume.root.exists()

    def test_thousands_of_small_files_are_quick(self, volume: Volume) -> None:
        """In CPU time, so that neighbours do not make it fail, and measured against the file system of the moment.

        ext4 makes files up to ten times slower while many have just been deleted (other tests do that).
        """
        start = time.process_time()
        for folder in range(50):
            (volume.live / str(folder)).mkdir()
            for number in range(100):
                (volume.live / str(folder) / str(number)).write_bytes(b"x" * 1000)
        made = time.process_time()
        volume.snapshot("one")
        assert time.process_time() - made < max(1.5, 5 * (made - start))
        assert volume.totals("one") == (5050, 5_000_000)

    def test_no_descriptor_is_left_open(self, volume: Volume, tmp_path: Path) -> None:
        fill(volume.live)
        other = Volume(tmp_path / "other")
        before = len(list(Path("/proc/self/fd").iterdir()))
        volume.snapshot("one")
        volume.restore("one")
        volume.clone("one", other)
        list(volume.diff(None, "one"))
        volume.delete("one")
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    def test_users_may_go_on_meanwhile(self, volume: Volume) -> None:
        stop = threading.Event()

        def work() -> None:
            for turn in range(1_000_000):
                if stop.is_set():
                    return
                folder = volume.live / f"d{turn % 7}"
                folder.mkdir(exist_ok=True)
                for name in range(5):
                    (folder / f"{name}").write_bytes(b"y" * turn)
                    (folder / f"{name}").rename(folder / f"{name + turn % 3}")
                for path in folder.iterdir():
                    path.unlink()
                folder.rmdir()

        user = threading.Thread(target=work)
        user.start()
        try:
            for number in range(20):
                volume.snapshot(str(number))
        finally:
            stop.set()
            user.join()
        for number in range(19):
            list(volume.diff(str(number), str(number + 1)))

    def test_other_ways_to_copy_content(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> int:
            raise OSError(errno.EXDEV, "not here")

        monkeypatch.setattr(os, "copy_file_range", refuse)
        fill(volume.live)
        (volume.live / "large").write_bytes(os.urandom(3_000_000))
        assert listing(volume.snapshot("one")) == listing(volume.live)


class TestNames:
    @pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "x" * 256, "ä" * 128, "\udcff"])
    def test_bad(self, volume: Volume, name: str) -> None:
        calls: list[Callable[[str], object]] = [
            volume.snapshot,
            volume.snapshot_path,
            volume.delete,
            volume.restore,
            volume.totals,
            lambda n: volume.diff(None, n),
        ]
        for call in calls:
            with pytest.raises(ValueError, match=r"name|surrogates"):
                call(name)

    def test_good(self, volume: Volume) -> None:
        names = ["x", "x" * 255, "x" * 254 + "y", "ä" * 127, "~", "~x", "a\nb", "...", ".tmp", "m.map", "-x"]
        names.sort()
        for name in names:
            volume.snapshot(name)
        assert volume.snapshots() == names == Volume(volume.root).snapshots()
        for name in names:
            assert volume.snapshot_path(name).is_dir()
            volume.delete(name)
        assert list((volume.root / "snapshots").iterdir()) == list((volume.root / "maps").iterdir()) == []

    def test_taken_and_absent(self, volume: Volume, tmp_path: Path) -> None:
        volume.snapshot("one")
        with pytest.raises(FileExistsError):
            volume.snapshot("one")
        volume.delete("absent")
        other = Volume(tmp_path / "other")
        calls: list[Callable[[], object]] = [
            lambda: volume.restore("absent"),
            lambda: volume.totals("absent"),
            lambda: volume.diff("absent", "one"),
            lambda: volume.diff("one", "absent"),
            lambda: volume.clone("absent", other),
        ]
        for call in calls:
            with pytest.raises(FileNotFoundError):
                call()


class TestRestoreAndClone:
    def test_restore(self, volume: Volume) -> None:
        fill(volume.live)
        before = listing(volume.live)
        volume.snapshot("one")
        tree.remove(volume.live / "d")
        (volume.live / "second").write_text("other")
        (volume.live / "more").mkdir()
        volume.live.chmod(0o700)
        volume.restore("one")
        assert listing(volume.live) == before == listing(volume.snapshot_path("one"))
        assert clean(volume)

    def test_objects_are_the_same_after_restores(self, volume: Volume) -> None:
        fill(volume.live)
        volume.snapshot("one")
        (volume.live / "later").touch()
        volume.snapshot("two")
        volume.restore("one")
        volume.restore("one")
        volume = Volume(volume.root)
        volume.snapshot("three")
        (volume.live / "d").rename(volume.live / "e")
        (volume.live / "later").touch()
        (volume.live / "e" / "nothing").chmod(0o600)
        volume.snapshot("four")
        assert list(volume.diff("one", "three")) == []
        assert brief(volume.diff("two", "three")) == ["DELETE FILE later"]
        wanted = ["RENAME DIRECTORY e < d", "META_MODIFY FILE e/nothing", "ADD FILE later"]
        assert brief(volume.diff("one", "four")) == brief(volume.diff("three", "four")) == wanted
        wanted = ["RENAME DIRECTORY e < d", "META_MODIFY FILE e/nothing", "DELETE FILE later", "ADD FILE later"]
        assert brief(volume.diff("two", "four")) == wanted
        volume.restore("four")
        volume.restore("two")
        volume.snapshot("five")
        assert list(volume.diff("two", "five")) == []

    @pytest.mark.parametrize("name", ["one", None])
    def test_clone(self, volume: Volume, tmp_path: Path, name: str | None) -> None:
        fill(volume.live)
        before = listing(volume.live)
        volume.snapshot("one")
        target = Volume(tmp_path / "target")
        (target.live / "old").touch()
        target.snapshot("old")
        volume.clone(name, target)
        assert listing(target.live) == before == listing(volume.live)
        target.snapshot("new")
        found = list(target.diff("old", "new"))
        assert Counter(e.operation for e in found) == {Operation.DELETE: 1, Operation.ADD: len(before) - 1}
        assert target.snapshots() == ["new", "old"]

    def test_directories_that_forbid_writing(self, volume: Volume) -> None:
        """Without root's rights these are harder (root passes over every mode)."""
        (volume.live / "d" / "e").mkdir(parents=True)
        (volume.live / "d" / "e" / "file").touch(0o400)
        for path in [volume.live / "d" / "e", volume.live / "d", volume.live]:
            path.chmod(0o555)
        before = listing(volume.live)
        volume.snapshot("one")
        volume.restore("one")
        volume.snapshot("two")
        assert listing(volume.live) == listing(volume.snapshot_path("two")) == before
        assert list(volume.diff("one", "two")) == []
        volume.delete("one")
        volume.delete("two")
        assert clean(volume)
        tree.remove(volume.live)

    def test_clone_onto_itself(self, volume: Volume) -> None:
        with pytest.raises(ValueError, match="itself"):
            volume.clone(None, volume)

    def test_restore_without_exchange(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tree, "_renameat2", None)
        fill(volume.live)
        before = listing(volume.live)
        volume.snapshot("one")
        tree.remove(volume.live / "d")
        volume.restore("one")
        assert listing(volume.live) == before


def clean(volume: Volume) -> bool:
    """Nothing is there but what belongs there."""
    found = {str(path.relative_to(volume.root)) for path in [*volume.root.iterdir(), *volume.root.glob("[sm]*s/*")]}
    wanted = {"live", "snapshots", "maps"} | {f"snapshots/{name}" for name in volume.snapshots()}
    maps = {f"maps/{name}.map" for name in volume.snapshots()}
    return {name for name in found if not name.endswith(".origins")} == wanted | maps


class Crash(BaseException):
    """The process dies here: not even clean-up runs after it."""


class TestCrash:
    @pytest.mark.parametrize("point", ["copy", "map", "rename"])
    def test_in_a_snapshot(self, volume: Volume, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
        fill(volume.live)
        volume.snapshot("kept")
        before = listing(volume.live)
        with monkeypatch.context() as patch:
            patch.setattr("snapkeep.simulators.kit.volumes._remove_tree", lambda path: None)
            patch.setattr(tree, "remove", lambda path: None)
            if point == "copy":
                patch.setattr(changes, "write_map", lambda path, name, records: crash(next(records)))
            elif point == "map":
                patch.setattr(Path, "replace", crash)
            else:
                patch.setattr(Path, "rename", crash)
            with pytest.raises(Crash):
                volume.snapshot("lost")
        again = Volume(volume.root)
        assert again.snapshots() == ["kept"]
        assert clean(again)
        assert [path.name for path in (again.root / "maps").iterdir()] == ["kept.map"]
        again.snapshot("lost")
        assert list(again.diff("kept", "lost")) == []
        assert listing(again.live) == before

    def test_in_a_delete(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        volume.snapshot("one")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", crash)
            with pytest.raises(Crash):
                volume.delete("one")
        again = Volume(volume.root)
        assert again.snapshots() == []
        assert clean(again)

    @pytest.mark.parametrize("exchange", [True, False])
    def test_in_a_restore(self, volume: Volume, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
        fill(volume.live)
        old = listing(volume.live)
        volume.snapshot("one")
        (volume.live / "more").touch()
        new = listing(volume.live)
        volume.snapshot("two")

        def away(one: Path, other: Path) -> bool:
            """As a crash between the two renames leaves it."""
            other.rename(other.with_name("live.old"))
            raise Crash

        with monkeypatch.context() as patch:
            patch.setattr(tree, "exchange", crash if exchange else away)
            with pytest.raises(Crash):
                volume.restore("one")
        again = Volume(volume.root)
        assert listing(again.live) == (new if exchange else old)
        again.snapshot("three")
        assert list(again.diff("two" if exchange else "one", "three")) == []
        assert clean(again)

    def test_an_error_leaves_no_snapshot(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        fill(volume.live)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "no space left")

        with monkeypatch.context() as patch:
            patch.setattr(changes.Origins, "record", full)
            with pytest.raises(OSError, match="no space"):
                volume.snapshot("one")
        assert volume.snapshots() == []
        assert clean(volume)
        volume.snapshot("one")


def crash(*_: object, **__: object) -> Any:
    raise Crash


Act = Callable[[Path], object]


def swap(live: Path, one: str, other: str) -> None:
    (live / one).rename(live / "swap.tmp")
    (live / other).rename(live / one)
    (live / "swap.tmp").rename(live / other)


def base_tree(live: Path) -> None:
    for folder in ["d/s", "e", "empty"]:
        (live / folder).mkdir(parents=True)
    for name in ["a", "b", "d/f", "d/g", "d/s/x", "e/f", "l1"]:
        (live / name).write_text(name)
    os.link(live / "l1", live / "l2")
    (live / "link").symlink_to("a")


def several(*acts: Act) -> Act:
    return lambda live: [act(live) for act in acts]


def move(old: str, new: str) -> Act:
    return lambda live: (live / old).rename(live / new)


def write(name: str, text: str = "other text") -> Act:
    return lambda live: (live / name).write_text(text)


def drop(name: str) -> Act:
    return lambda live: tree.remove(live / name)


def link(old: str, new: str) -> Act:
    return lambda live: os.link(live / old, live / new)


def sly(live: Path) -> None:
    """Other content, the size and time of before."""
    s = (live / "a").stat()
    (live / "a").write_text("z")
    os.utime(live / "a", ns=(s.st_atime_ns, s.st_mtime_ns))


RULES: list[tuple[str, Act, list[str], list[str] | None]] = [
    ("nothing", lambda live: None, [], None),
    ("read", lambda live: (live / "a").read_text(), [], None),
    ("add", write("c"), ["ADD FILE c"], None),
    ("add in a directory", write("d/n"), ["META_MODIFY DIRECTORY d", "ADD FILE d/n"], None),
    ("delete", drop("a"), ["DELETE FILE a"], None),
    ("delete a tree", drop("e"), ["DELETE DIRECTORY e", "DELETE FILE e/f"], None),
    ("write", write("a"), ["MODIFY FILE a"], None),
    ("touch", lambda live: (live / "a").touch(), ["MODIFY FILE a"], None),
    ("truncate", lambda live: os.truncate(live / "a", 0), ["MODIFY FILE a"], None),
    ("chmod", lambda live: (live / "a").chmod(0o611), ["META_MODIFY FILE a"], None),
    ("chmod directory", lambda live: (live / "d").chmod(0o711), ["META_MODIFY DIRECTORY d"], None),
    ("chmod and write", several(lambda live: (live / "a").chmod(0o611), write("a")), ["MODIFY FILE a"], None),
    ("sly", sly, ["META_MODIFY FILE a"], None),
    ("rename", move("a", "c"), ["RENAME FILE c < a"], None),
    ("there and back", several(move("a", "c"), move("c", "a")), ["META_MODIFY FILE a"], None),
    ("rename and write", several(move("a", "c"), write("c")), ["RENAME FILE c < a", "MODIFY FILE c"], None),
    (
        "rename and chmod",
        several(move("a", "c"), lambda live: (live / "c").chmod(0o600)),
        ["RENAME FILE c < a", "META_MODIFY FILE c"],
        None,
    ),
    ("rename over", move("a", "b"), ["DELETE FILE b", "RENAME FILE b < a"], None),
    ("swap", lambda live: swap(live, "a", "b"), ["RENAME FILE a < b", "RENAME FILE b < a"], None),
    ("replace", several(drop("a"), write("a")), ["DELETE FILE a", "ADD FILE a"], None),
    (
        "file to directory",
        several(drop("a"), lambda live: (live / "a").mkdir(), write("a/n")),
        ["DELETE FILE a", "ADD DIRECTORY a", "ADD FILE a/n"],
        None,
    ),
    (
        "directory to file",
        several(drop("e"), write("e")),
        ["DELETE DIRECTORY e", "ADD FILE e", "DELETE FILE e/f"],
        None,
    ),
    (
        "new symlink text",
        several(drop("link"), lambda live: (live / "link").symlink_to("b")),
        ["DELETE LINK link", "ADD LINK link"],
        None,
    ),
    (
        "rename a directory",
        move("d", "c"),
        ["RENAME DIRECTORY c < d"],
        [
            "RENAME DIRECTORY c < d",
            "RENAME FILE c/f < d/f",
            "RENAME FILE c/g < d/g",
            "RENAME DIRECTORY c/s < d/s",
            "RENAME FILE c/s/x < d/s/x",
        ],
    ),
    (
        "nested renames",
        several(move("e", "c"), move("c/f", "c/h"), move("d", "c/d"), move("c/d/s", "c/d/t")),
        [
            "RENAME DIRECTORY c < e",
            "META_MODIFY DIRECTORY c",
            "RENAME DIRECTORY c/d < d",
            "META_MODIFY DIRECTORY c/d",
            "RENAME DIRECTORY c/d/t < d/s",
            "RENAME FILE c/h < e/f",
        ],
        [
            "RENAME DIRECTORY c < e",
            "META_MODIFY DIRECTORY c",
            "RENAME DIRECTORY c/d < d",
            "META_MODIFY DIRECTORY c/d",
            "RENAME FILE c/d/f < d/f",
            "RENAME FILE c/d/g < d/g",
            "RENAME DIRECTORY c/d/t < d/s",
            "RENAME FILE c/d/t/x < d/s/x",
            "RENAME FILE c/h < e/f",
        ],
    ),
    (
        "change, delete and leave below a renamed directory",
        several(move("d", "c"), write("c/f"), drop("c/g"), move("c/s/x", "x")),
        [
            "RENAME DIRECTORY c < d",
            "META_MODIFY DIRECTORY c",
            "MODIFY FILE c/f",
            "META_MODIFY DIRECTORY c/s",
            "DELETE FILE d/g",
            "RENAME FILE x < d/s/x",
        ],
        [
            "RENAME DIRECTORY c < d",
            "META_MODIFY DIRECTORY c",
            "RENAME FILE c/f < d/f",
            "MODIFY FILE c/f",
            "RENAME DIRECTORY c/s < d/s",
            "META_MODIFY DIRECTORY c/s",
            "DELETE FILE d/g",
            "RENAME FILE x < d/s/x",
        ],
    ),
    (
        "a file stays where its directory was",
        several(move("e", "c"), lambda live: (live / "e").mkdir(), move("c/f", "e/f")),
        ["RENAME DIRECTORY c < e", "META_MODIFY DIRECTORY c", "ADD DIRECTORY e", "RENAME FILE e/f < e/f"],
        ["RENAME DIRECTORY c < e", "META_MODIFY DIRECTORY c", "ADD DIRECTORY e"],
    ),
    (
        "swap directories",
        lambda live: swap(live, "d/s", "e"),
        ["META_MODIFY DIRECTORY d", "RENAME DIRECTORY d/s < e", "RENAME DIRECTORY e < d/s"],
        [
            "META_MODIFY DIRECTORY d",
            "RENAME DIRECTORY d/s < e",
            "RENAME FILE d/s/f < e/f",
            "RENAME DIRECTORY e < d/s",
            "RENAME FILE e/x < d/s/x",
        ],
    ),
    ("another name", link("a", "c"), ["ADD HARD_LINK c"], None),
    ("a third name", link("l1", "l0"), ["ADD HARD_LINK l0"], None),
    ("one name less", drop("l1"), ["DELETE HARD_LINK l1"], None),
    ("no name left", several(drop("l1"), drop("l2")), ["DELETE HARD_LINK l1", "DELETE HARD_LINK l2"], None),
    ("rename one of two", move("l2", "l3"), ["DELETE HARD_LINK l2", "ADD HARD_LINK l3"], None),
    ("write to the second name", write("l2"), ["MODIFY HARD_LINK l1"], None),
    ("chmod the second name", lambda live: (live / "l2").chmod(0o600), ["META_MODIFY HARD_LINK l1"], None),
    (
        "write and a new first name",
        several(write("l2"), link("l1", "l0")),
        ["ADD HARD_LINK l0", "MODIFY HARD_LINK l1"],
        None,
    ),
    ("write to what is left", several(drop("l1"), write("l2")), ["DELETE HARD_LINK l1", "MODIFY FILE l2"], None),
    (
        "both names to one other",
        several(drop("l1"), move("l2", "l3")),
        ["DELETE HARD_LINK l1", "DELETE HARD_LINK l2", "ADD HARD_LINK l3"],
        None,
    ),
    (
        "new object with two names",
        several(write("n1"), link("n1", "n2")),
        ["ADD HARD_LINK n1", "ADD HARD_LINK n2"],
        None,
    ),
]


@pytest.mark.parametrize(("act", "short", "full"), [rule[1:] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rules_of_the_diff(volume: Volume, act: Act, short: list[str], full: list[str] | None) -> None:
    base_tree(volume.live)
    volume.snapshot("base")
    act(volume.live)
    volume.snapshot("new")
    assert brief(volume.diff("base", "new")) == short
    assert brief(volume.diff("base", "new", list_renamed_children=True)) == (full or short)


class TestDiff:
    def test_hard_links_below_a_renamed_directory(self, volume: Volume) -> None:
        base_tree(volume.live)
        os.link(volume.live / "d/f", volume.live / "d/h")
        volume.snapshot("base")
        (volume.live / "d").rename(volume.live / "c")
        (volume.live / "c/h").write_text("changed")
        volume.snapshot("new")
        assert brief(volume.diff("base", "new")) == ["RENAME DIRECTORY c < d", "MODIFY HARD_LINK c/f"]
        found = brief(volume.diff("base", "new", list_renamed_children=True))
        assert found[1:3] == ["RENAME HARD_LINK c/f < d/f", "MODIFY HARD_LINK c/f"]
        assert "RENAME HARD_LINK c/h < d/h" in found

    def test_attributes(self, volume: Volume) -> None:
        base_tree(volume.live)
        volume.snapshot("base")
        try:
            os.setxattr(volume.live / "a", "user.k", b"v")
        except OSError:
            pytest.skip("no user attributes here")
        (volume.live / "a").rename(volume.live / "c")
        volume.snapshot("new")
        assert brief(volume.diff("base", "new")) == ["RENAME FILE c < a", "META_MODIFY FILE c"]

    def test_no_base(self, volume: Volume) -> None:
        fill(volume.live)
        volume.snapshot("one")
        found = {e.path: e for e in volume.diff(None, "one")}
        assert list(found) == sorted(found, key=lambda path: path.split(b"/"))
        assert found.keys() | {b""} == listing(volume.live).keys()
        assert {e.operation for e in found.values()} == {Operation.ADD}
        types = {
            b"d": "DIRECTORY",
            b"d/file": "HARD_LINK",
            b"link": "HARD_LINK",
            b"broken": "LINK",
            b"fifo": "FIFO",
        }
        types |= {b"socket": "SOCKET", b"-rf": "FILE"}
        if b"disk" in found:
            types |= {b"null": "CHARACTER", b"disk": "BLOCK"}
        assert {path: found[path].type for path in types} == types
        for path, entry in found.items():
            s = os.lstat(os.fsencode(volume.live) + b"/" + path)
            told = (entry.size, entry.inode, entry.change_time, entry.modify_time)
            assert told == (s.st_size, s.st_ino, s.st_ctime_ns, s.st_mtime_ns)
            assert entry.old_path is None
        size = 100_000 + sum(map(len, HOSTILE))
        assert volume.totals("one") == (len(found), size)

    def test_birth_times(self, volume: Volume) -> None:
        early = time.time_ns()
        (volume.live / "file").touch()
        os.utime(volume.live / "file", ns=(1, 1))
        volume.snapshot("one")
        [entry] = volume.diff(None, "one")
        if not entry.birth_time:
            pytest.skip("no birth times here")
        assert early - 20_000_000 <= entry.birth_time <= time.time_ns()

    def test_a_reused_inode_number_is_another_object(self, volume: Volume) -> None:
        for number in range(100):
            (volume.live / f"old{number}").touch()
        volume.snapshot("base")
        for number in range(100):
            (volume.live / f"old{number}").unlink()
            (volume.live / f"new{number}").touch()
        volume.snapshot("new")
        found = list(volume.diff("base", "new"))
        if not found[0].birth_time:
            pytest.skip("no birth times here")
        assert Counter(e.operation for e in found) == {Operation.ADD: 100, Operation.DELETE: 100}

    def test_without_birth_times(self, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tree, "_statx", None)
        base_tree(volume.live)
        volume.snapshot("base")
        volume.restore("base")
        (volume.live / "d").rename(volume.live / "c")
        (volume.live / "a").unlink()
        (volume.live / "a").mkdir()
        volume.snapshot("new")
        found = list(volume.diff("base", "new"))
        assert brief(iter(found)) == ["DELETE FILE a", "ADD DIRECTORY a", "RENAME DIRECTORY c < d"]
        assert {e.birth_time for e in found} == {0}

    def test_a_change_right_after_a_snapshot_is_seen(self, volume: Volume) -> None:
        (volume.live / "a").write_text("0")
        volume.snapshot("0")
        for number in range(1, 10):
            (volume.live / "a").write_text(str(number))
            volume.snapshot(str(number))
            assert brief(volume.diff(str(number - 1), str(number))) == ["MODIFY FILE a"]

    def test_a_real_socket(self, volume: Volume) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            here = Path.cwd()
            os.chdir(volume.live)  # the address may be too long otherwise
            server.bind("s")
            os.chdir(here)
        volume.snapshot("one")
        assert stat.S_ISSOCK((volume.snapshot_path("one") / "s").lstat().st_mode)


# --- the property: a diff leads from base to new, whatever happened in between ---

NAMES = [b"a", b"b", b"c", b"a-", b"\n", b"'\"", b"\xff", b"y" * 255]
KINDS = {
    stat.S_IFREG: "FILE",
    stat.S_IFDIR: "DIRECTORY",
    stat.S_IFLNK: "LINK",
    stat.S_IFIFO: "FIFO",
}


class User:
    """Changes a tree at random and knows, by its own book, which object is where."""

    def __init__(self, live: Path) -> None:
        self.live = live
        self.book: dict[bytes, int] = {}  # path -> object
        self.count = 0

    def at(self, path: bytes) -> Path:
        return self.live / os.fsdecode(path)

    def new(self, path: bytes) -> None:
        self.count += 1
        self.book[path] = self.count

    def kind(self, path: bytes) -> str:
        return KINDS[stat.S_IFMT(self.at(path).lstat().st_mode)]

    def pick(self, number: int, *kinds: str) -> bytes | None:
        paths = sorted(path for path in self.book if not kinds or self.kind(path) in kinds)
        return paths[number % len(paths)] if paths else None

    def free(self, number: int, name: bytes) -> bytes:
        """A path that may or may not be taken."""
        folders = [b"", *sorted(p for p in self.book if self.kind(p) == "DIRECTORY" and len(p) < 900)]
        folder = folders[number % len(folders)]
        return folder + b"/" + name if folder else name

    def act(self, verb: str, one: int, two: int, name: bytes) -> None:
        with suppress(OSError):  # a name that is taken, a directory into itself: users try that too
            getattr(self, verb)(one, two, name)

    def create(self, one: int, two: int, name: bytes) -> None:
        path = self.free(one, name)
        self.at(path).touch(0o644, exist_ok=False)
        self.new(path)

    def mkdir(self, one: int, two: int, name: bytes) -> None:
        path = self.free(one, name)
        self.at(path).mkdir()
        self.new(path)

    def symlink(self, one: int, two: int, name: bytes) -> None:
        path = self.free(one, name)
        self.at(path).symlink_to(f"to {two}")
        self.new(path)

    def mkfifo(self, one: int, two: int, name: bytes) -> None:
        path = self.free(one, name)
        os.mkfifo(self.at(path))
        self.new(path)

    def write(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one, "FILE"):
            self.at(path).write_bytes(b"w" * (two % 100))

    def append(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one, "FILE"):
            with self.at(path).open("ab") as file:
                file.write(name)

    def truncate(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one, "FILE"):
            os.truncate(self.at(path), two % 50)

    def chmod(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one, "FILE", "DIRECTORY", "FIFO"):
            self.at(path).chmod(0o700 + two % 64)

    def attribute(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one, "FILE", "DIRECTORY"):
            os.setxattr(self.at(path), "user.k", b"%d" % (two % 5))

    def stamp(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one):
            os.utime(self.at(path), ns=(two, two % 3), follow_symlinks=False)

    def link(self, one: int, two: int, name: bytes) -> None:
        if old := self.pick(one, "FILE", "LINK", "FIFO"):
            path = self.free(two, name)
            os.link(self.at(old), self.at(path), follow_symlinks=False)
            self.book[path] = self.book[old]

    def delete(self, one: int, two: int, name: bytes) -> None:
        if path := self.pick(one):
            tree.remove(self.at(path))
            for gone in [p for p in self.book if p == path or p.startswith(path + b"/")]:
                del self.book[gone]

    def rename(self, one: int, two: int, name: bytes) -> None:
        if old := self.pick(one):
            self.move(old, self.free(two, name))

    def move(self, old: bytes, new: bytes) -> None:
        self.at(old).rename(self.at(new))
        if self.book.get(new) == self.book[old]:
            return  # two names of one object: the kernel does nothing
        self.book.pop(new, None)
        for path in [p for p in self.book if p == old or p.startswith(old + b"/")]:
            self.book[new + path[len(old) :]] = self.book.pop(path)

    def swap(self, one: int, two: int, name: bytes) -> None:
        a, b = self.pick(one), self.pick(two)
        if (
            a
            and b
            and self.book[a] != self.book[b]
            and not (a + b"/").startswith(b + b"/")
            and not b.startswith(a + b"/")
        ):
            self.move(a, b"swap")
            self.move(b, a)
            self.move(b"swap", b)

    def replace(self, one: int, two: int, name: bytes) -> None:
        """A file becomes a directory, or the other way round."""
        if path := self.pick(one):
            was = self.kind(path)
            self.delete(sorted(self.book).index(path), two, name)
            if was == "DIRECTORY":
                self.at(path).touch(0o644, exist_ok=False)
            else:
                self.at(path).mkdir()
            self.new(path)

    def replace_parent(self, one: int, two: int, name: bytes) -> None:
        """A directory goes, another takes its name, and some of what it held is where it was."""
        if path := self.pick(one, "DIRECTORY"):
            target = self.free(two, name)
            self.move(path, target)
            self.at(path).mkdir()
            self.new(path)
            for child in sorted(p for p in self.book if p.rpartition(b"/")[0] == target)[: 1 + two % 3]:
                self.move(child, path + child[len(target) :])

    def seen(self) -> "Seen":
        return Seen(dict(self.book), {path: self.at(path).lstat() for path in self.book}, self)


class Seen:
    """What is in a tree at one time."""

    def __init__(self, book: dict[bytes, int], stats: dict[bytes, os.stat_result], user: User) -> None:
        self.book, self.stats = book, stats
        self.names: dict[int, set[bytes]] = {}
        for path, number in book.items():
            self.names.setdefault(number, set()).add(path)
        self.attributes = {path: [os.getxattr(user.at(path), k) for k in xattrs(user.at(path))] for path in book
                           if not stat.S_ISLNK(stats[path].st_mode)}  # fmt: skip

    def kind(self, path: bytes) -> str:
        return KINDS[stat.S_IFMT(self.stats[path].st_mode)]

    def type(self, path: bytes) -> str:
        several = len(self.names[self.book[path]]) > 1 and self.kind(path) != "DIRECTORY"
        return "HARD_LINK" if several else self.kind(path)

    def places(self, number: int) -> set[tuple[int, bytes]]:
        """Directory object and name, for each name of the object."""
        parts = [path.rpartition(b"/") for path in self.names[number]]
        return {(self.book.get(parent, 0), name) for parent, _, name in parts}

    def state(self, number: int) -> tuple[Any, Any, int]:
        path = min(self.names[number])
        s = self.stats[path]
        held = (s.st_mode, s.st_uid, s.st_gid, self.attributes.get(path))
        if self.kind(path) == "DIRECTORY":
            return None, (*held, s.st_mtime_ns), s.st_ctime_ns
        return (s.st_size, s.st_mtime_ns), held, s.st_ctime_ns


def apply(
    base: Seen, births: dict[tuple[int, int], int], entries: list[Entry], *, each_child: bool
) -> dict[bytes, Any]:
    """Path -> (object, type) of the new tree, from the base and the entries alone; new objects by their inode."""
    gone = [e.path for e in entries if e.operation == "DELETE"]
    moved = {e.old_path: e.path for e in entries if e.operation == "RENAME"}
    assert len(gone) == len(set(gone))
    assert not set(gone) & set(moved)
    assert {*gone, *moved} <= base.book.keys()

    def goes_to(path: bytes) -> bytes:
        if path in moved:
            return moved[path]
        if each_child or b"/" not in path:
            return path
        assert path not in gone
        parent, _, name = path.rpartition(b"/")
        return goes_to(parent) + b"/" + name

    result: dict[bytes, tuple[object, str | None]] = {}
    for path in base.book.keys() - set(gone):
        assert goes_to(path) not in result
        result[goes_to(path)] = (base.book[path], base.kind(path))
    for e in entries:
        if e.operation == "ADD":
            assert e.path not in result
            known = births.get((e.inode, e.birth_time)) if e.type == "HARD_LINK" else None
            kind = base.kind(min(base.names[known])) if known else None if e.type == "HARD_LINK" else str(e.type)
            result[e.path] = (known or ("new", e.inode), kind)
    for path in result:
        parent = path.rpartition(b"/")[0]
        assert not parent or result[parent][1] == "DIRECTORY"
    names = Counter(number for number, _ in result.values())
    return {
        path: (number, "HARD_LINK" if kind != "DIRECTORY" and names[number] > 1 else kind)
        for path, (number, kind) in result.items()
    }


def check(volume: Volume, base: Seen, new: Seen, names: tuple[str, str], *, each_child: bool) -> None:
    entries = list(volume.diff(*names, list_renamed_children=each_child))
    births = {(e.inode, e.birth_time): base.book[e.path] for e in volume.diff(None, names[0])}
    truth = {
        path: (number if number in base.names else ("new", new.stats[path].st_ino), new.type(path))
        for path, number in new.book.items()
    }
    assert apply(base, births, entries, each_child=each_child) == truth
    rank = ["DELETE", "ADD", "RENAME", "MODIFY", "META_MODIFY"].index
    assert entries == sorted(entries, key=lambda e: (e.path.split(b"/"), rank(e.operation)))
    check_fields(base, new, entries)
    changed = {e.path: e.operation for e in entries if e.operation in {"MODIFY", "META_MODIFY"}}
    assert {new.book[path]: operation for path, operation in changed.items()} == dict(
        expected_changes(base, new, each_child=each_child)
    )
    assert len(changed) == len({new.book[path] for path in changed})
    for path in changed:
        number = new.book[path]
        if base.names[number] == new.names[number] and base.places(number) == new.places(number):
            assert path == min(new.names[number])


def check_fields(base: Seen, new: Seen, entries: list[Entry]) -> None:
    for e in entries:
        side = base if e.operation == "DELETE" else new
        living = side.book[e.path] in base.names and side.book[e.path] in new.names
        if living and e.operation in {"ADD", "DELETE"}:
            assert e.type == "HARD_LINK"
        else:
            assert e.type == side.type(e.path)
        s = side.stats[e.path]
        assert (e.size, e.inode, e.modify_time) == (s.st_size, s.st_ino, s.st_mtime_ns)
        assert (e.old_path is not None) == (e.operation == "RENAME")
        if e.operation == "RENAME":
            assert e.old_path is not None
            assert base.book[e.old_path] == new.book[e.path]


def expected_changes(base: Seen, new: Seen, *, each_child: bool) -> Iterator[tuple[int, Operation]]:
    for number in base.names.keys() & new.names.keys():
        old, now = base.state(number), new.state(number)
        stayed = bool(base.places(number) & new.places(number))
        stayed |= each_child and bool(base.names[number] & new.names[number])
        stayed |= len(base.names[number]) == len(new.names[number]) == 1
        if not stayed:
            continue
        if old[0] != now[0]:
            yield number, Operation.MODIFY
        elif old[1] != now[1] or (base.places(number) == new.places(number) and old[2] != now[2]):
            yield number, Operation.META_MODIFY


VERBS = ["create", "mkdir", "symlink", "mkfifo", "write", "append", "truncate", "chmod", "attribute", "stamp"]
VERBS += ["link", "delete", "rename", "swap", "replace", "replace_parent"]


def acts(*verbs: str, least: int, most: int) -> st.SearchStrategy[list[tuple[str, int, int, bytes]]]:
    number = st.integers(0, 99)
    act = st.tuples(st.sampled_from(verbs), number, number, st.sampled_from(NAMES))
    return st.lists(act, min_size=least, max_size=most)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    start=acts("create", "mkdir", "mkdir", "link", "symlink", "mkfifo", "write", least=3, most=20),
    rounds=st.lists(acts(*VERBS, "rename", "swap", "replace_parent", least=1, most=20), min_size=1, max_size=2),
    restore=st.booleans(),
)
def test_a_diff_leads_from_base_to_new(
    start: list[tuple[str, int, int, bytes]], rounds: list[list[tuple[str, int, int, bytes]]], restore: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        volume = Volume(Path(folder) / "volume")
        user = User(volume.live)
        for act in start:
            user.act(*act)
        volume.snapshot("start")
        if restore:
            volume.restore("start")
            volume.snapshot("restored")
            assert list(volume.diff("start", "restored")) == []
        base, name = user.seen(), "restored" if restore else "start"
        for number, step in enumerate(rounds):
            for act in step:
                user.act(*act)
            volume.snapshot(str(number))
            new = user.seen()
            check(volume, base, new, (name, str(number)), each_child=False)
            check(volume, base, new, (name, str(number)), each_child=True)
            assert listing(volume.snapshot_path(str(number))) == listing(volume.live)
        assert {e.type for e in volume.diff(None, name)} <= set(ObjectType)
