"""Diff: exactly what changed, read in pieces, resumed anywhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from snapkeep.conformance.acts import Hand, connected, nothing_sent, played, promise, request_id
from snapkeep.conformance.target import Circumstance, Fault, Target
from snapkeep.model.assets import Asset, Capability
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import InvalidInput, NotFound
from snapkeep.model.snapshots import Snapshot
from snapkeep.model.work import ChangeBatch

NEEDED = (Capability.CREATE, Capability.DIFF_FILES)

MANY = 950
"""Changes: more than three pages of a system that gives three hundred."""

ADD, MODIFY, METADATA = ChangeOperation.ADD, ChangeOperation.MODIFY, ChangeOperation.METADATA
DELETE, RENAME = ChangeOperation.DELETE, ChangeOperation.RENAME
FILE, DIRECTORY, SYMLINK = ObjectType.FILE, ObjectType.DIRECTORY, ObjectType.SYMLINK
HARD_LINK, FIFO = ObjectType.HARD_LINK, ObjectType.FIFO

Fact = tuple[ChangeOperation, ObjectType, bytes, bytes | None]
Act = Callable[[Path], object]

HOSTILE_NAMES = [
    b"new\nline", b"tab\tand\x01control", b'"quoted"', b"it's", b"back\\slash", b"percent%20%00", b" space ",
    b"not utf-8 \xff\xfe\x80", b"surrogate \xed\xb3\xbf", "ünï漢字🎉".encode(), b"-rf", b"...", b"~", b"$(id)",
    b"*?[a]", b"host:", b"x" * 255,
]  # fmt: skip


def facts(changes: Iterable[Change]) -> set[Fact]:
    """Return what changed, without sizes and times."""
    return {(change.operation, change.type, change.path, change.old_path) for change in changes}


def fact(operation: ChangeOperation, kind: ObjectType, path: bytes | str, old: bytes | str | None = None) -> Fact:
    """Return one fact."""
    return operation, kind, os.fsencode(path), None if old is None else os.fsencode(old)


def without_directories(found: set[Fact]) -> set[Fact]:
    """Leave out that a directory's own times changed: systems may or may not list it."""
    return {item for item in found if item[:2] not in {(METADATA, DIRECTORY), (MODIFY, DIRECTORY)}}


def without_other_names(found: set[Fact], act: str) -> set[Fact]:
    """Leave out, where a file got or lost a name, that its other names tell of the new number of names."""
    return {item for item in found if not (act.startswith("hard-link") and item[:2] == (METADATA, HARD_LINK))}


def build(root: Path) -> None:
    """Make the content that the base snapshot has."""
    for name in ("keep", "change", "attributes", "remove", "move", "replace", "many-1"):
        (root / name).write_text(f"content of {name}")
    os.link(root / "many-1", root / "many-2")
    (root / "directory" / "below").mkdir(parents=True)
    (root / "directory" / "below" / "file").write_text("below")
    (root / "link").symlink_to("keep")


def built() -> set[bytes]:
    """Return the paths that `build` makes; the live asset may show more, such as the place of its snapshots."""
    with tempfile.TemporaryDirectory() as same:
        build(Path(same))
        return {os.fsencode(path.relative_to(same)) for path in Path(same).rglob("*")}


def swap(root: Path) -> None:
    """Exchange two names."""
    (root / "keep").rename(root / "aside")
    (root / "change").rename(root / "keep")
    (root / "aside").rename(root / "change")


def to_directory(root: Path) -> None:
    """Put a directory where a file was."""
    (root / "replace").unlink()
    (root / "replace").mkdir()


CASES: dict[str, tuple[Act, set[Fact]]] = {
    "nothing": (lambda _root: None, set()),
    "add": (lambda root: (root / "new").write_text("new"), {fact(ADD, FILE, "new")}),
    "add-below": (
        lambda root: (root / "directory" / "below" / "new").write_text("new"),
        {fact(ADD, FILE, "directory/below/new")},
    ),
    "modify": (lambda root: (root / "change").write_text("other words"), {fact(MODIFY, FILE, "change")}),
    "append": (
        lambda root: (root / "change").write_text((root / "change").read_text() + "!"),
        {fact(MODIFY, FILE, "change")},
    ),
    "metadata": (lambda root: (root / "attributes").chmod(0o640), {fact(METADATA, FILE, "attributes")}),
    "delete": (lambda root: (root / "remove").unlink(), {fact(DELETE, FILE, "remove")}),
    "rename-file": (lambda root: (root / "move").rename(root / "moved"), {fact(RENAME, FILE, "moved", "move")}),
    "move-file": (
        lambda root: (root / "move").rename(root / "directory" / "move"),
        {fact(RENAME, FILE, "directory/move", "move")},
    ),
    "swap": (swap, {fact(RENAME, FILE, "change", "keep"), fact(RENAME, FILE, "keep", "change")}),
    "delete-directory": (
        lambda root: shutil.rmtree(root / "directory"),
        {
            fact(DELETE, DIRECTORY, "directory"),
            fact(DELETE, DIRECTORY, "directory/below"),
            fact(DELETE, FILE, "directory/below/file"),
        },
    ),
    "hard-link": (lambda root: os.link(root / "many-1", root / "many-3"), {fact(ADD, HARD_LINK, "many-3")}),
    "hard-link-removed": (lambda root: (root / "many-2").unlink(), {fact(DELETE, HARD_LINK, "many-2")}),
    "symlink": (lambda root: (root / "link-2").symlink_to("nowhere"), {fact(ADD, SYMLINK, "link-2")}),
    "fifo": (lambda root: os.mkfifo(root / "fifo"), {fact(ADD, FIFO, "fifo")}),
    "type-change": (to_directory, {fact(DELETE, FILE, "replace"), fact(ADD, DIRECTORY, "replace")}),
}
"""What is done between two snapshots, and the whole truth about it."""


async def two(hand: Hand, act: Act) -> tuple[Asset, Snapshot, Snapshot]:
    """Return an asset with two snapshots, between which `act` was done."""
    asset = await hand.target.fresh_asset()
    build(hand.target.live_path(asset))
    base = await hand.create(asset)
    act(hand.target.live_path(asset))
    return asset, base, await hand.create(asset)


@promise(*NEEDED)
@pytest.mark.parametrize("case", CASES)
async def test_a_diff_is_the_exact_truth(target: Target, case: str) -> None:
    """What happened is listed, with type and both paths, and nothing else is."""
    act, truth = CASES[case]
    async with connected(target) as hand:
        found = facts(await hand.diff(*await two(hand, act)))
    assert without_other_names(without_directories(found), case) == truth


@promise(*NEEDED)
@pytest.mark.parametrize("listed", [False, True], ids=["directory-alone", "children-too"])
async def test_a_renamed_directory_is_a_rename(target: Target, listed: bool) -> None:
    """The directory is a rename with both paths; what moved with it is listed as renames, or not at all."""
    if listed:
        await target.suffer(Fault.LISTED_CHILDREN)
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda root: (root / "directory").rename(root / "renamed"))
        found = without_directories(facts(await hand.diff(asset, base, new)))
    directory = fact(RENAME, DIRECTORY, "renamed", "directory")
    children = {
        fact(RENAME, DIRECTORY, "renamed/below", "directory/below"),
        fact(RENAME, FILE, "renamed/below/file", "directory/below/file"),
    }
    assert directory in found
    assert found - {directory} in ([children] if listed else [set(), children])


@promise(*NEEDED)
async def test_a_change_below_a_renamed_directory_has_its_new_path(target: Target) -> None:
    """What changed inside a directory that was renamed too is listed by its path in the new snapshot."""

    def act(root: Path) -> None:
        (root / "directory" / "below" / "file").write_text("changed")
        (root / "directory").rename(root / "renamed")

    async with connected(target) as hand:
        found = facts(await hand.diff(*await two(hand, act)))
    assert fact(RENAME, DIRECTORY, "renamed", "directory") in found
    assert fact(MODIFY, FILE, "renamed/below/file") in found
    assert not [item for item in found if item[2].startswith(b"directory")]


@promise(*NEEDED)
async def test_a_diff_without_base_is_everything(target: Target) -> None:
    """Without a base every object of the snapshot is added, once, with its size."""
    async with connected(target) as hand:
        asset, base, _ = await two(hand, lambda _root: None)
        changes = await hand.diff(asset, None, base)
    present = built()
    assert {change.path for change in changes} == present
    assert {change.operation for change in changes} == {ADD}
    assert len(changes) == len(present)
    sizes = {change.path: change.size for change in changes if change.type is FILE}
    assert sizes[b"keep"] == len("content of keep")


@promise(*NEEDED)
async def test_a_diff_tells_size_and_times(target: Target) -> None:
    """A changed file has its new size, and times, where told, are of today."""
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda root: (root / "change").write_text("x" * 1234))
        changes = await hand.diff(asset, base, new)
    (change,) = [change for change in changes if change.path == b"change"]
    assert change.size == 1234
    moment = (target.live_path(asset) / "change").stat().st_mtime_ns
    for told in (change.created_ns, change.changed_ns, change.accessed_ns):
        assert told is None or abs(told - moment) < 600 * 10**9


@promise(*NEEDED)
async def test_every_change_since_an_older_base_is_told(target: Target) -> None:
    """Over several snapshots the diff is between the two that were named."""
    async with connected(target) as hand:
        asset, base, _ = await two(hand, lambda root: (root / "first").write_text("1"))
        (target.live_path(asset) / "second").write_text("2")
        (target.live_path(asset) / "first").unlink()
        new = await hand.create(asset)
        found = without_directories(facts(await hand.diff(asset, base, new)))
    assert found == {fact(ADD, FILE, "second")}


@promise(*NEEDED)
@pytest.mark.parametrize("form", ["usual", "absolute"])
async def test_hostile_names_come_through_unharmed(target: Target, form: str) -> None:
    """Newlines, quotes, backslashes, bytes that are no text, and the longest names keep their bytes."""
    settings = await target.arrange(Circumstance.ABSOLUTE_PATHS) if form == "absolute" else {}

    def act(root: Path) -> None:
        for name in HOSTILE_NAMES:
            Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_text("x")

    async with connected(target, **settings) as hand:
        found = without_directories(facts(await hand.diff(*await two(hand, act))))
    assert found == {fact(ADD, FILE, name) for name in HOSTILE_NAMES}


@promise(*NEEDED)
async def test_a_very_long_path_comes_through(target: Target) -> None:
    """A path of almost 4,000 bytes is whole."""
    parts = [b"d" * 240] * 16

    def act(root: Path) -> None:
        here = os.open(root, os.O_RDONLY)
        for part in parts:
            os.mkdir(part, dir_fd=here)
            below = os.open(part, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=here))
        os.close(here)

    async with connected(target) as hand:
        found = facts(await hand.diff(*await two(hand, act)))
    assert fact(ADD, FILE, b"/".join([*parts, b"file"])) in found


@promise(*NEEDED)
async def test_both_forms_of_paths_give_the_same(target: Target) -> None:
    """Whichever form of paths the system is asked for, the changes are the same."""
    settings = await target.arrange(Circumstance.ABSOLUTE_PATHS)

    def act(root: Path) -> None:
        for change, _ in CASES.values():
            if change not in {swap, CASES["delete-directory"][0], CASES["move-file"][0]}:
                change(root)
        (root / "directory").rename(root / "renamed")

    async with connected(target) as hand:
        asset, base, new = await two(hand, act)
        usual = await hand.diff(asset, base, new)
    async with connected(target, **settings) as hand:
        other = await hand.diff(asset, base, new)
    assert Counter(usual) == Counter(other)
    assert len(usual) >= 9


# -- pages and cursors ---------------------------------------------------------------------------------------------
@promise(*NEEDED)
async def test_a_long_change_list_is_complete(target: Target) -> None:
    """A list of many pages has every change once, in batches of which only the last is complete."""
    asset, base, new = await target.many_changes(MANY)
    async with connected(target) as hand:
        batches = await hand.batches(await hand.start_diff(asset, base, new))
    paths = [change.path for batch in batches for change in batch.changes]
    assert len(paths) == len(set(paths)) == MANY
    assert len(batches) > 1
    assert [batch.complete for batch in batches] == [False] * (len(batches) - 1) + [True]


@promise(*NEEDED)
async def test_a_change_list_resumes_at_every_cursor(target: Target) -> None:
    """Resumed after any batch, by another process, the rest is what it was; after the last nothing new comes."""
    asset, base, new = await target.many_changes(MANY)
    async with connected(target) as hand:
        ticket = await hand.start_diff(asset, base, new)
        batches = await hand.batches(ticket)
    for done, batch in enumerate(batches):
        async with connected(target) as hand:
            rest = await hand.batches(ticket, batch.cursor)
        assert changes_of(rest) == changes_of(batches[done + 1 :])
        assert rest[-1].complete


def changes_of(batches: Iterable[ChangeBatch]) -> list[Change]:
    """Return the changes of all batches."""
    return [change for batch in batches for change in batch.changes]


@promise(*NEEDED)
async def test_a_diff_asked_for_again_gives_the_same(target: Target) -> None:
    """Started again after a crash, with the same request id or another, the list is the same."""
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda root: (root / "new").write_text("new"))
        first, request = await hand.diff(asset, base, new), request_id()
        role = played(hand.roles.diff_files)
        for _ in range(2):
            ticket = await role.start_diff(asset, base, new, request)
            assert changes_of(await hand.batches(ticket)) == first


# -- what cannot be diffed -----------------------------------------------------------------------------------------
@promise(*NEEDED)
async def test_a_base_that_is_newer_is_refused(target: Target) -> None:
    """A base that is not older than the snapshot is `InvalidInput`, and so is the snapshot itself."""
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda _root: None)
        for pair in ((new, base), (new, new)):
            with pytest.raises(InvalidInput):
                await hand.start_diff(asset, *pair)


@promise(*NEEDED)
async def test_a_base_of_another_asset_is_refused_without_a_call(target: Target) -> None:
    """Both snapshots must be of the asset; what is not is `InvalidInput` before any request."""
    async with connected(target) as hand:
        asset, base, _ = await two(hand, lambda _root: None)
        other, _, new = await two(hand, lambda _root: None)
        async with nothing_sent(target):
            with pytest.raises(InvalidInput):
                await hand.start_diff(other, base, new)
            with pytest.raises(InvalidInput):
                await hand.start_diff(asset, base, new)


@promise(*NEEDED, Capability.DELETE)
async def test_a_vanished_new_snapshot_is_not_found(target: Target) -> None:
    """When the newer snapshot is gone the diff is `NotFound`: a full would not help."""
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda _root: None)
        await hand.delete(asset, new)
        with pytest.raises(NotFound):
            await hand.start_diff(asset, base, new)


@promise(*NEEDED)
async def test_a_diff_on_a_vanished_asset_is_not_found(target: Target) -> None:
    """When the asset is gone the diff is `NotFound`: a full would not help."""
    async with connected(target) as hand:
        asset, base, new = await two(hand, lambda _root: None)
        await target.remove_asset(asset)
        with pytest.raises(NotFound):
            await hand.start_diff(asset, base, new)
