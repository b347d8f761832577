"""The traps of an incremental backup, one by one. A full backup of the same directory says what is right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.backup.support import request

from snapkeep.backup.links import LinkTable
from snapkeep.backup.reading import Reader
from snapkeep.backup.request import BackupResult
from snapkeep.backup.writer import full_backup, incremental_backup
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import BaseMissing, Incomplete, NotFound, Unavailable
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

ADD, DELETE, RENAME = ChangeOperation.ADD, ChangeOperation.DELETE, ChangeOperation.RENAME
MODIFY, METADATA, UNKNOWN = ChangeOperation.MODIFY, ChangeOperation.METADATA, ChangeOperation.UNKNOWN
FILE, DIRECTORY, LINK = ObjectType.FILE, ObjectType.DIRECTORY, ObjectType.HARD_LINK


class Backups:
    """A chain of backups of one share."""

    def __init__(self, repository: Repository, share: Path, links: LinkTable) -> None:
        self.repository, self.share, self.links = repository, share, links
        self.last: BackupResult | None = None

    def full(self) -> BackupResult:
        self.last = full_backup(self.repository, request(self.share, "base"), links=self.links, readers=2)
        return self.last

    def update(self, *changes: Change, base: str = "base") -> BackupResult:
        """Make an incremental backup, and see that it is what a full one would be."""
        assert self.last
        self.last = incremental_backup(
            self.repository,
            request(self.share, "base"),
            parent=self.last.snapshot_id,
            base=base,
            changes=changes,
            links=self.links,
        )
        truth = full_backup(self.repository, request(self.share, "truth"), readers=1)
        assert self.last.tree_id == truth.tree_id
        return self.last


@pytest.fixture
def backups(repository: Repository, share: Path, tmp_path: Path) -> Iterable[Backups]:
    for name in ("one", "two", "three"):
        (share / name / "below").mkdir(parents=True)
        for number in range(3):
            (share / name / f"file-{number}").write_text(f"{name} {number}")
            (share / name / "below" / f"file-{number}").write_text(f"below {name} {number}")
    os.link(share / "one" / "file-0", share / "two" / "linked")
    with LinkTable(tmp_path / "links" / "share.sqlite") as links:
        made = Backups(repository, share, links)
        made.full()
        yield made


def test_nothing_changed(backups: Backups) -> None:
    first = backups.last
    done = backups.update()
    assert first and done.tree_id == first.tree_id
    assert (done.bytes_read, done.bytes_added, done.partial) == (0, 0, False)


def test_only_what_is_listed_is_read(backups: Backups) -> None:
    (backups.share / "one" / "file-1").write_text("new")
    done = backups.update(Change(MODIFY, FILE, b"one/file-1"))
    assert (done.files_changed, done.bytes_read, done.directories_changed) == (1, 3, 2)


@pytest.mark.parametrize("operation", [MODIFY, METADATA, ADD, UNKNOWN])
def test_a_write_within_one_tick_of_the_clock(backups: Backups, operation: ChangeOperation) -> None:
    """All that `stat` tells is as it was in the parent: the list alone knows that the file was written."""
    done = same_tick(backups, b"one/file-1", Change(operation, FILE, b"one/file-1"))
    assert (done.files_changed, done.bytes_read) == (1, 5)


@pytest.mark.parametrize("new", [(), (b"two/linked",), (b"two/linked", b"one/file-0")])
def test_a_write_within_one_tick_through_one_of_several_names(backups: Backups, new: tuple[bytes, ...]) -> None:
    """`new`: names that the table does not know."""
    done = same_tick(backups, b"two/linked", Change(MODIFY, LINK, b"two/linked"), forget=new)
    assert done.files_changed == 2


def same_tick(backups: Backups, path: bytes, change: Change, forget: Iterable[bytes] = ()) -> BackupResult:
    """Back up what was written so soon after the parent's snapshot that the file has the times of then.

    The parent is made so that it knows the present times with other content.
    """
    real = Reader._content
    written = (backups.share / os.fsdecode(path)).stat().st_ino

    def before(self: Reader, file: int, expected: int) -> tuple[list[bytes], int]:
        if os.fstat(file).st_ino == written:
            return [self._store(b"x" * expected)], expected
        return real(self, file, expected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reader, "_content", before)
        backups.full()
    for name in forget:
        backups.links.remove(name)
    return backups.update(change)


def test_what_is_listed_but_did_not_change_adds_nothing(backups: Backups) -> None:
    first = backups.last
    done = backups.update(Change(MODIFY, FILE, b"one/file-1"), Change(ADD, FILE, b"one/file-2"))
    assert first and done.tree_id == first.tree_id
    assert (done.bytes_read, done.bytes_added, done.partial) == (10, 0, False)


def test_what_is_walked_but_did_not_change_is_not_read(backups: Backups) -> None:
    done = backups.update(
        Change(ADD, DIRECTORY, b"two"),
        Change(UNKNOWN, ObjectType.OTHER, b"three"),
        Change(DELETE, FILE, b"never/was"),
        Change(RENAME, DIRECTORY, b"nor/this", b"nor/that"),
        Change(ADD, FILE, b"one/file-1/below-a-file"),
        Change(ADD, FILE, b"one/" + b"n" * 300),
    )
    assert (done.bytes_read, done.files_changed, done.partial) == (0, 0, False)


def test_renamed_directory_is_linked(backups: Backups) -> None:
    (backups.share / "one").rename(backups.share / "moved")
    (backups.share / "moved" / "below" / "file-1").write_text("changed")
    (backups.share / "moved" / "file-2").unlink()
    done = backups.update(
        Change(RENAME, DIRECTORY, b"moved", b"one"),
        Change(MODIFY, FILE, b"moved/below/file-1"),
        Change(DELETE, FILE, b"one/file-2"),
    )
    assert done.bytes_read == len("changed")


def test_swapped_and_nested_renames(backups: Backups) -> None:
    share = backups.share
    (share / "one").rename(share / "kept")
    (share / "two").rename(share / "one")
    (share / "kept").rename(share / "two")
    (share / "two" / "below").rename(share / "one" / "deeper")
    (share / "one" / "deeper" / "file-0").write_text("changed")
    done = backups.update(
        Change(RENAME, DIRECTORY, b"two", b"one"),
        Change(RENAME, DIRECTORY, b"one", b"two"),
        Change(RENAME, DIRECTORY, b"one/deeper", b"one/below"),
        Change(MODIFY, FILE, b"one/deeper/file-0"),
    )
    assert done.bytes_read == len("changed")
    (share / "one" / "linked").write_text("through the other name")  # the names are known at their new places
    backups.update(Change(MODIFY, LINK, b"one/linked"))


def test_rename_that_is_told_as_delete_and_add(backups: Backups) -> None:
    inode = (backups.share / "one").stat().st_ino
    (backups.share / "one").rename(backups.share / "moved")
    done = backups.update(Change(DELETE, DIRECTORY, b"one", inode=inode), Change(ADD, DIRECTORY, b"moved", inode=inode))
    assert (done.bytes_read, done.files_unmodified) == (0, 7)  # and the other name of the linked file


def test_renamed_file_is_not_read(backups: Backups) -> None:
    (backups.share / "one" / "file-1").rename(backups.share / "two" / "moved")
    done = backups.update(Change(RENAME, FILE, b"two/moved", b"one/file-1"))
    assert (done.bytes_read, done.files_unmodified) == (0, 1)
    (backups.share / "two" / "moved").rename(backups.share / "again")
    (backups.share / "again").write_text("2 moved")  # the same length as before, and another time
    done = backups.update(Change(RENAME, FILE, b"again", b"two/moved"), Change(MODIFY, FILE, b"again"))
    assert done.bytes_read == 7


def test_change_of_type(backups: Backups) -> None:
    share = backups.share
    shutil.rmtree(share / "one")
    (share / "one").write_text("a file now")
    (share / "two" / "file-0").unlink()
    (share / "two" / "file-0").mkdir()
    (share / "two" / "file-0" / "inside").write_text("new")
    (share / "three" / "file-0").unlink()
    (share / "three" / "file-0").symlink_to("/etc")
    backups.update(
        Change(DELETE, DIRECTORY, b"one"),
        Change(ADD, FILE, b"one"),
        Change(DELETE, FILE, b"two/file-0"),
        Change(ADD, DIRECTORY, b"two/file-0"),
        Change(DELETE, FILE, b"three/file-0"),
        Change(ADD, ObjectType.SYMLINK, b"three/file-0"),
        Change(ADD, FILE, b"three/file-0/passwd"),  # through the link: not below the share
    )


def test_change_through_one_of_several_names(backups: Backups) -> None:
    (backups.share / "two" / "linked").write_text("changed through one name")
    done = backups.update(Change(MODIFY, LINK, b"two/linked"))
    assert done.files_changed == 2


def test_new_name_of_a_file_that_had_one(backups: Backups) -> None:
    share = backups.share
    os.link(share / "three" / "below" / "file-2", share / "one" / "new-name")
    backups.update(Change(ADD, LINK, b"one/new-name"))  # the other name is found by its inode
    (share / "one" / "new-name").write_text("changed")
    done = backups.update(Change(MODIFY, LINK, b"one/new-name"))
    assert done.files_changed == 2
    (share / "one" / "new-name").unlink()
    backups.update(Change(DELETE, LINK, b"one/new-name"))
    assert not backups.links.names((share / "three" / "below" / "file-2").stat().st_ino)


def test_directory_with_linked_names_goes(backups: Backups) -> None:
    shutil.rmtree(backups.share / "two")
    backups.update(Change(DELETE, DIRECTORY, b"two"))  # one/file-0 has one name less


def test_name_that_went_with_a_directory_is_forgotten(backups: Backups) -> None:
    """In a renamed directory another one has taken the place of what had the name."""
    share = backups.share
    os.link(share / "three" / "file-0", share / "one" / "below" / "linked")
    backups.update(Change(ADD, LINK, b"one/below/linked"))
    (share / "one").rename(share / "moved")
    shutil.rmtree(share / "moved" / "below")
    (share / "moved" / "below").mkdir()
    backups.update(
        Change(RENAME, DIRECTORY, b"moved", b"one"),
        Change(DELETE, DIRECTORY, b"one/below"),
        Change(ADD, DIRECTORY, b"moved/below"),
    )
    os.link(share / "three" / "file-0", share / "three" / "again")
    backups.update(Change(ADD, LINK, b"three/again"))
    (share / "three" / "again").write_text("written through the new name")
    backups.update(Change(MODIFY, LINK, b"three/again"))


def test_lost_table_is_made_again(backups: Backups, repository: Repository) -> None:
    (backups.share / "two" / "linked").write_text("changed through one name")
    with LinkTable() as fresh:
        backups.links = fresh
        assert backups.update(Change(MODIFY, LINK, b"two/linked")).files_changed == 2


def test_damaged_table_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "table").write_bytes(b"this is no database, but long enough to look at" * 100)
    with LinkTable(tmp_path / "table") as table:
        assert table.recovery_point is None


def test_table_of_another_backup_is_left_alone(tmp_path: Path) -> None:
    with LinkTable(tmp_path / "table") as theirs:
        theirs.add([(b"one", 1, 2)])
        with LinkTable(tmp_path / "table") as ours:  # works, and is lost
            ours.clear()
            ours.commit("ours")
        theirs.commit("theirs")
    with LinkTable(tmp_path / "table") as table:
        assert (table.recovery_point, table.names(1)) == ("theirs", [b"one"])


def test_path_outside_is_refused(backups: Backups) -> None:
    for path in (b"/etc/passwd", b"../x", b"one/../../x", b"one//x", b"one/./x", b"a\0b", b"one/"):
        for change in (Change(DELETE, FILE, path), Change(MODIFY, FILE, path), Change(RENAME, DIRECTORY, b"x", path)):
            with pytest.raises(Incomplete, match="no path below the share"):
                backups.update(change)


def test_parent_must_be_the_base(backups: Backups, repository: Repository) -> None:
    with pytest.raises(BaseMissing, match="was not made from other"):
        backups.update(base="other")
    assert backups.last
    repository.forget(backups.last.snapshot_id)
    with pytest.raises(BaseMissing, match="is gone"):
        backups.update()


def test_parent_must_be_of_the_same_share(backups: Backups, repository: Repository) -> None:
    assert backups.last
    other = replace(request(backups.share, "base"), logical_path="/files1/other")
    with pytest.raises(BaseMissing, match="is of /files1/projects"):
        incremental_backup(repository, other, parent=backups.last.snapshot_id, base="base", changes=())


def test_full_backup_of_a_renamed_share(backups: Backups, repository: Repository) -> None:
    assert backups.last
    other = replace(request(backups.share, "base"), logical_path="/files1/other")
    done = full_backup(repository, other, parent=backups.last.snapshot_id)
    assert (done.files_new, done.files_unmodified, done.bytes_added > 0) == (19, 0, True)


def test_data_that_the_repository_lost_is_read_again(
    backups: Backups, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = repository.has

    def lossy(type: BlobType, id: bytes) -> bool:
        return type is not BlobType.DATA and real(type, id)

    monkeypatch.setattr(repository, "has", lossy)
    assert backups.last
    done = full_backup(repository, request(backups.share, "again"), parent=backups.last.snapshot_id)
    assert done.files_unmodified == 0
    assert done.tree_id == backups.last.tree_id


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_is_told_and_tried_again(backups: Backups) -> None:
    secret = backups.share / "one" / "file-1"
    hidden = backups.share / "three" / "below"
    secret.chmod(0)
    hidden.chmod(0)
    done = backups.update(Change(METADATA, FILE, b"one/file-1"), Change(METADATA, DIRECTORY, b"three/below"))
    assert sorted(path for path, _ in done.unreadable) == [b"one/file-1", b"three/below"]
    hidden.chmod(0o700)
    secret.chmod(0o600)
    assert not backups.update().partial


def test_unreadable_counts_as_partial(
    backups: Backups, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk error, which even root gets."""
    (backups.share / "one" / "file-1").write_text("unreadable")
    (backups.share / "three" / "below").rename(backups.share / "three" / "hidden")
    failing(monkeypatch, {b"file-1", b"hidden"})
    assert backups.last
    before = backups.last.snapshot_id
    done = incremental_backup(
        repository,
        request(backups.share, "base"),
        parent=before,
        base="base",
        changes=[Change(MODIFY, FILE, b"one/file-1"), Change(ADD, DIRECTORY, b"three/hidden")],
        links=backups.links,
    )
    assert sorted(done.unreadable) == [(b"one/file-1", "Input/output error"), (b"three/hidden", "Input/output error")]
    assert done.partial
    assert "partial" in repository.snapshot(done.snapshot_id).tags
    monkeypatch.undo()
    with pytest.raises(BaseMissing, match="lacks files"):  # without the table nobody knows which
        incremental_backup(repository, request(backups.share, "base"), parent=done.snapshot_id, base="base", changes=())
    backups.last = done
    assert not backups.update(
        Change(DELETE, DIRECTORY, b"three/below")
    ).partial  # it was tried again, though no change is listed


def failing(monkeypatch: pytest.MonkeyPatch, bad: set[bytes]) -> None:
    real = os.open

    def fails(path: object, *arguments: object, **named: object) -> int:
        if path in bad:
            raise OSError(5, "Input/output error")
        return real(path, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", fails)


def test_stop_ends_and_leaves_the_table(backups: Backups, repository: Repository) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    table = backups.links.recovery_point
    for attempt in stopped_backups(backups, repository, stop):
        with pytest.raises(Stopped):
            attempt()
    assert backups.links.recovery_point == table
    backups.update()


def stopped_backups(backups: Backups, repository: Repository, stop: Callable[[], None]) -> list[Callable[[], object]]:
    assert backups.last
    parent = backups.last.snapshot_id
    made = request(backups.share, "base")
    return [
        lambda: full_backup(repository, made, links=backups.links, stop=stop),
        lambda: incremental_backup(
            repository,
            made,
            parent=parent,
            base="base",
            changes=[Change(ADD, FILE, b"x")],
            links=backups.links,
            stop=stop,
        ),
    ]


def test_source_that_is_not_there(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        full_backup(repository, replace(request(tmp_path, "x"), source=tmp_path / "absent"))
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="Not a directory"):
        full_backup(repository, replace(request(tmp_path, "x"), source=tmp_path / "file"))


def test_recovery_point_says_what_it_is(backups: Backups, repository: Repository) -> None:
    assert backups.last
    found = repository.snapshot(backups.last.snapshot_id)
    assert found.paths == ("/files1/projects",)
    assert found.tags == ("snapkeep", "snapshot=base")
    assert found.hostname == "backup-host"
    assert abs(found.time - request(backups.share, "x").time) < timedelta(minutes=5)
    assert found.summary and found.summary["files_new"] == 19


def test_data_that_the_repository_lost_is_read_again_from_a_list(
    backups: Backups, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = repository.has
    monkeypatch.setattr(repository, "has", lambda type, id: type is not BlobType.DATA and real(type, id))
    done = backups.update(Change(UNKNOWN, DIRECTORY, b"three"))
    assert (done.files_unmodified, done.bytes_read > 0) == (0, True)


def test_another_directory_in_the_place_of_one(backups: Backups) -> None:
    """Its inode tells, though the list only says that something of it changed."""
    (backups.share / "new").mkdir()
    (backups.share / "new" / "inside").write_text("new")
    shutil.rmtree(backups.share / "one" / "below")
    (backups.share / "new").rename(backups.share / "one" / "below")
    backups.update(Change(METADATA, DIRECTORY, b"one/below"))


def test_a_backup_that_failed_leaves_the_table_of_links_as_it_was(backups: Backups) -> None:
    assert backups.last
    (backups.share / "two" / "linked").unlink()
    inode = (backups.share / "one" / "file-0").stat().st_ino
    packs = backups.repository.statistics.packs

    def stop() -> None:
        if backups.repository.statistics.packs > packs:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        incremental_backup(
            backups.repository,
            request(backups.share, "base"),
            parent=backups.last.snapshot_id,
            base="base",
            changes=[Change(DELETE, LINK, b"two/linked")],
            links=backups.links,
            stop=stop,
        )
    assert backups.links.names(inode) == [b"one/file-0", b"two/linked"]
    assert backups.links.recovery_point == backups.last.snapshot_id
