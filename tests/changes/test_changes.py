"""Blocks, renames, summaries and the JSON form, over arbitrary changes."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.changes import blocks
from snapkeep.changes.renames import DirectoryRenames
from snapkeep.changes.summary import Summary, extension
from snapkeep.changes.wire import change_from_dict, change_to_dict
from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.model.errors import Incomplete

paths = st.binary(min_size=1, max_size=300)
maybe_int = st.none() | st.integers(0, 2**63 - 1)
changes = st.builds(
    Change,
    st.sampled_from(ChangeOperation),
    st.sampled_from(ObjectType),
    paths,
    st.none() | paths,
    st.integers(0, 2**63 - 1),
    maybe_int,
    maybe_int,
    maybe_int,
    maybe_int,
)


@given(st.lists(changes, max_size=50))
def test_a_block_gives_back_what_was_put_in(found: list[Change]) -> None:
    assert blocks.decode(blocks.encode(found)) == found


def test_a_time_beyond_64_bits_is_not_told() -> None:
    """Some file systems keep any time that `touch` is given; one such file must not end a whole list."""
    fine = Change(ChangeOperation.ADD, ObjectType.FILE, b"fine", accessed_ns=1)
    far = fine._replace(path=b"far", inode=2**64 - 1, changed_ns=-(10**20), accessed_ns=10**20)
    told = far._replace(changed_ns=None, accessed_ns=None)
    assert blocks.decode(blocks.encode([fine, far])) == [fine, told]


@given(st.lists(changes, min_size=1, max_size=20), st.data())
def test_a_damaged_block_is_never_read_as_another_one(found: list[Change], data: st.DataObject) -> None:
    block = blocks.encode(found)
    cut = data.draw(st.integers(0, len(block) - 1))
    with pytest.raises(Incomplete):
        blocks.decode(block[:cut])
    with pytest.raises(Incomplete, match="version"):
        blocks.decode(b"\x02" + block[1:])


@given(changes)
def test_the_json_form_keeps_every_byte(change: Change) -> None:
    text = msgspec.json.encode(change_to_dict(change))
    read = json.loads(text)
    assert _exact(read, "path") == change.path
    assert _exact(read, "old_path") == change.old_path
    assert ("path_base64" in read) == (not _is_text(change.path))
    assert (read["operation"], read["type"], read["size"]) == (change.operation, change.type, change.size)
    assert change_from_dict(read) == change


def _exact(entry: dict[str, str], key: str) -> bytes | None:
    if f"{key}_base64" in entry:
        return base64.b64decode(entry[f"{key}_base64"])
    return entry[key].encode() if key in entry else None


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def rename(kind: ObjectType, old: bytes, new: bytes) -> Change:
    return Change(ChangeOperation.RENAME, kind, new, old)


def test_renames_that_follow_from_a_directory_are_dropped_in_any_order() -> None:
    directory, file = ObjectType.DIRECTORY, ObjectType.FILE
    top = rename(directory, b"a", b"b")
    inner = rename(directory, b"a/x", b"b/y")
    own = {top, inner, rename(file, b"a/moved", b"b/elsewhere"), rename(file, b"b/old", b"b/old2")}
    implied = {
        rename(file, b"a/f", b"b/f"),
        rename(directory, b"a/d", b"b/d"),
        rename(file, b"a/d/f", b"b/d/f"),
        rename(file, b"a/x/f", b"b/y/f"),
        rename(directory, b"a/x/d", b"b/y/d"),
    }
    everything = sorted(own | implied, key=lambda change: change.path)
    for order in (everything, everything[::-1]):
        renames = DirectoryRenames()
        renames.learn(order)
        assert {change for change in order if not renames.implied(change)} == own


def test_a_name_that_only_begins_alike_is_not_below() -> None:
    renames = DirectoryRenames()
    renames.learn([rename(ObjectType.DIRECTORY, b"a", b"b")])
    assert not renames.implied(rename(ObjectType.FILE, b"ax/f", b"bx/f"))
    assert not renames.implied(Change(ChangeOperation.MODIFY, ObjectType.FILE, b"b/f"))


def test_the_summary_counts_by_operation_type_and_directory() -> None:
    summary = Summary()
    summary.add(
        [
            Change(ChangeOperation.ADD, ObjectType.FILE, b"d/one", None, 10),
            Change(ChangeOperation.ADD, ObjectType.FILE, b"d/two", None, 5),
            Change(ChangeOperation.DELETE, ObjectType.DIRECTORY, b"\xff/x", None, 4096),
            Change(ChangeOperation.MODIFY, ObjectType.FILE, b"top", None, 1),
        ]
    )
    assert summary.to_dict() == {
        "entries": 4,
        "operations": {
            "add": {"entries": 2, "bytes": 15},
            "delete": {"entries": 1, "bytes": 0},
            "modify": {"entries": 1, "bytes": 1},
        },
        "types": {"directory": 1, "file": 3},
        "type_bytes": {"directory": 0, "file": 16},
        "top_directories": [
            {"path": "d", "entries": 2, "bytes": 15},
            {"path": "\\xff", "entries": 1, "bytes": 0},
            {"path": ".", "entries": 1, "bytes": 1},
        ],
        "top_extensions": [{"extension": "", "entries": 3}],
        "distinct_extensions": 1,
        "extension_renames": 0,
    }


def test_the_summary_counts_extensions_of_what_is_there_now() -> None:
    summary = Summary()
    summary.add(
        [
            Change(ChangeOperation.ADD, ObjectType.FILE, b"d.old/Plan.DOCX", None, 10),
            Change(ChangeOperation.MODIFY, ObjectType.FILE, b".profile", None, 1),
            Change(ChangeOperation.RENAME, ObjectType.FILE, b"a/x.docx.locked", b"a/x.docx", 1),
            Change(ChangeOperation.RENAME, ObjectType.FILE, b"b/y.docx", b"a/y.docx", 1),
            Change(ChangeOperation.RENAME, ObjectType.DIRECTORY, b"c.new", b"c", 1),
            Change(ChangeOperation.DELETE, ObjectType.FILE, b"gone.txt", None, 1),
            Change(ChangeOperation.METADATA, ObjectType.FILE, b"seen.txt", None, 1),
        ]
    )
    found = summary.to_dict()
    assert {item["extension"]: item["entries"] for item in found["top_extensions"]} == {"docx": 2, "": 1, "locked": 1}
    assert (found["distinct_extensions"], found["extension_renames"]) == (3, 1)


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (b"a.b/c", b""), (b"c.TXT", b"txt"), (b"..x", b""), (b"x.", b""), (b"a.tar.gz", b"gz"), (b"x.\xff", b"\xff"),
        (b"x." + b"y" * 99, b"y" * 24),
    ],
)  # fmt: skip
def test_what_an_extension_is(path: bytes, wanted: bytes) -> None:
    assert extension(path) == wanted


def test_the_extensions_of_a_summary_stay_few() -> None:
    summary = Summary()
    for number in range(30):
        summary.add(Change(ChangeOperation.ADD, ObjectType.FILE, b"f.%d" % (number * 1000 + n)) for n in range(1000))
        summary.add([Change(ChangeOperation.ADD, ObjectType.FILE, b"f.hot")] * 5)
    assert len(summary._extensions) <= 10_000
    found = summary.to_dict()
    assert found["top_extensions"][0] == {"extension": "hot", "entries": 150}
    assert found["distinct_extensions"] > 10_000


def test_the_summary_stays_small() -> None:
    summary = Summary()
    for number in range(30):
        summary.add(Change(ChangeOperation.ADD, ObjectType.FILE, b"%d/f" % (number * 1000 + n)) for n in range(1000))
        summary.add([Change(ChangeOperation.ADD, ObjectType.FILE, b"hot/f")] * 5)
    assert len(summary._directories) <= 10_000
    assert len(summary._directory_bytes) <= 10_000
    assert summary.to_dict()["top_directories"][0] == {"path": "hot", "entries": 150, "bytes": 0}
