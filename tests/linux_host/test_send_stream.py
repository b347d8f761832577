"""A send stream is read alike however it comes, what is none is noticed, and a script comes to the right facts."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.model.changes import ChangeOperation
from snapkeep.model.errors import Incomplete
from snapkeep.plugins.linux_host.script import Found, Script
from snapkeep.plugins.linux_host.send_stream import SendStream, Step, Verb

ADD, DELETE, RENAME = ChangeOperation.ADD, ChangeOperation.DELETE, ChangeOperation.RENAME
MODIFY, METADATA = ChangeOperation.MODIFY, ChangeOperation.METADATA
UUID, INODE, PATH, PATH_TO, PATH_LINK, CLONE_UUID = 1, 3, 15, 16, 17, 20
START = b"btrfs-stream\0" + struct.pack("<I", 1)


def command(verb: int, *attributes: tuple[int, bytes]) -> bytes:
    body = b"".join(struct.pack("<HH", kind, len(value)) + value for kind, value in attributes)
    return struct.pack("<IHI", len(body), verb, 0) + body


END = command(Verb.END)
STREAM = START + b"".join(
    [
        command(Verb.SNAPSHOT, (PATH, b"new"), (UUID, b"u" * 16), (CLONE_UUID, b"b" * 16)),
        command(Verb.MKFILE, (PATH, b"o257-7-0"), (INODE, struct.pack("<Q", 257))),
        command(Verb.RENAME, (PATH, b"o257-7-0"), (PATH_TO, b"a\nb\xff")),
        command(Verb.LINK, (PATH, b"c"), (PATH_LINK, b"a\nb\xff")),
        command(Verb.UPDATE_EXTENT, (PATH, b"x" * 4095)),
        command(99, (PATH, b"later"), (77, b"whatever")),
        END,
    ]
)
STEPS = [
    Step(Verb.SNAPSHOT, b"new", uuid=b"u" * 16, parent=b"b" * 16),
    Step(Verb.MKFILE, b"o257-7-0", inode=257),
    Step(Verb.RENAME, b"o257-7-0", b"a\nb\xff"),
    Step(Verb.LINK, b"c", b"a\nb\xff"),
    Step(Verb.UPDATE_EXTENT, b"x" * 4095),
    Step(99, b"later"),
    Step(Verb.END, b""),
]


def read(pieces: Sequence[bytes]) -> tuple[list[Step], bool]:
    stream = SendStream()
    return [step for piece in pieces for step in stream.feed(piece)], stream.ended


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_the_pieces_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    assert read(pieces) == (STEPS, True)


def test_byte_by_byte() -> None:
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]) == (STEPS, True)


@given(st.integers(0, len(STREAM) - 1))
def test_a_cut_is_noticed(end: int) -> None:
    steps, ended = read([STREAM[:end]])
    assert not ended
    assert steps == STEPS[: len(steps)]


def test_what_comes_after_the_end_is_not_read() -> None:
    assert read([STREAM + b"more", b"and more"]) == (STEPS, True)


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 17,
        b"BTRFS-STREAM\0" + START[-4:] + END,
        START[:-4] + struct.pack("<I", 0) + END,
        START[:-4] + struct.pack("<I", 4) + END,
        START + struct.pack("<IHI", (1 << 20) + 1, Verb.WRITE, 0),
        START + struct.pack("<IHI", 3, Verb.MKFILE, 0) + b"abc",
        START + struct.pack("<IHI", 6, Verb.MKFILE, 0) + struct.pack("<HH", PATH, 3) + b"ab",
    ],
    ids=["garbage", "magic", "version 0", "version 4", "too long", "no room", "longer than its command"],
)
def test_what_is_no_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(Incomplete):
        read([stream])


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_incomplete_or_not_at_an_end(data: bytes, started: bool) -> None:
    try:
        steps, ended = read([START + data if started else data])
    except Incomplete:
        return
    assert ended == (Step(Verb.END, b"") in steps)


# -- what a script comes to --------------------------------------------------------------------------------------------
def played(*steps: Step) -> list[Found]:
    script = Script()
    for step in steps:
        script.play(step)
    return list(script.facts())


def rename(old: bytes, new: bytes) -> Step:
    return Step(Verb.RENAME, old, new)


def test_a_new_file_is_added_once_with_its_number() -> None:
    assert played(
        Step(Verb.MKFILE, b"o9-9-0", inode=9),
        rename(b"o9-9-0", b"d/new"),
        Step(Verb.UPDATE_EXTENT, b"d/new"),
        Step(Verb.CHMOD, b"d/new"),
    ) == [Found(ADD, b"d/new", None, 9)]


@pytest.mark.parametrize("verb", [Verb.UPDATE_EXTENT, Verb.TRUNCATE, Verb.FALLOCATE, Verb.CLONE, Verb.WRITE])
def test_content_is_more_than_attributes(verb: Verb) -> None:
    assert played(Step(Verb.CHMOD, b"f"), Step(verb, b"f"), Step(Verb.UTIMES, b"f")) == [Found(MODIFY, b"f")]


@pytest.mark.parametrize("verb", [Verb.CHMOD, Verb.CHOWN, Verb.SET_XATTR, Verb.REMOVE_XATTR, Verb.FILE_ATTRIBUTES, 99])
def test_attributes(verb: int) -> None:
    assert played(Step(verb, b"f"), Step(Verb.UTIMES, b"f")) == [Found(METADATA, b"f")]


def test_times_alone_are_to_be_compared() -> None:
    assert played(Step(Verb.UTIMES, b"f")) == [Found(METADATA, b"f", base=b"f", times=True)]
    assert played(rename(b"f", b"g"), Step(Verb.UTIMES, b"g")) == [
        Found(RENAME, b"g", b"f"),
        Found(METADATA, b"g", base=b"f", times=True, renamed=True),
    ]


def test_a_swap_by_a_third_name_is_two_renames() -> None:
    found = played(rename(b"a", b"o5-5-0"), rename(b"b", b"a"), rename(b"o5-5-0", b"b"))
    assert found == [Found(RENAME, b"a", b"b"), Found(RENAME, b"b", b"a")]


def test_away_and_back_is_nothing() -> None:
    assert played(rename(b"a", b"o5-5-0"), rename(b"o5-5-0", b"a")) == []


def test_a_rename_over_another_one() -> None:
    found = played(Step(Verb.UNLINK, b"target"), rename(b"temporary", b"target"))
    assert found == [Found(RENAME, b"target", b"temporary"), Found(DELETE, b"target")]


def test_another_object_under_the_name() -> None:
    found = played(Step(Verb.UNLINK, b"a"), Step(Verb.MKDIR, b"o9-9-0", inode=9), rename(b"o9-9-0", b"a"))
    assert found == [Found(ADD, b"a", None, 9), Found(DELETE, b"a")]


def test_a_directory_moves_with_what_is_below() -> None:
    found = played(
        Step(Verb.UPDATE_EXTENT, b"d/below/file"), rename(b"d", b"e"), rename(b"e/below/other", b"e/below/moved")
    )
    assert found == [
        Found(RENAME, b"e", b"d"),
        Found(MODIFY, b"e/below/file"),
        Found(RENAME, b"e/below/moved", b"d/below/other"),
    ]


def test_a_directory_that_stood_aside_before_it_went() -> None:
    found = played(
        rename(b"d", b"o5-5-0"),
        Step(Verb.MKDIR, b"o9-9-0", inode=9),
        rename(b"o9-9-0", b"d"),
        rename(b"o5-5-0/kept", b"d/kept"),
        Step(Verb.UNLINK, b"o5-5-0/gone"),
        Step(Verb.RMDIR, b"o5-5-0"),
    )
    assert found == [
        Found(ADD, b"d", None, 9),
        Found(RENAME, b"d/kept", b"d/kept"),
        Found(DELETE, b"d"),
        Found(DELETE, b"d/gone"),
    ]


def test_names_of_one_file() -> None:
    assert played(Step(Verb.LINK, b"b", b"a")) == [Found(ADD, b"b")]
    assert played(Step(Verb.LINK, b"b", b"a"), Step(Verb.UNLINK, b"a")) == [Found(RENAME, b"b", b"a")]
    found = played(Step(Verb.LINK, b"b", b"a"), Step(Verb.LINK, b"c", b"a"), Step(Verb.UNLINK, b"a"))
    assert found == [Found(RENAME, b"b", b"a"), Found(ADD, b"c")]


@pytest.mark.parametrize(
    "steps",
    [
        [Step(Verb.UNLINK, b"a"), Step(Verb.UNLINK, b"a")],
        [Step(Verb.UNLINK, b"a"), Step(Verb.CHMOD, b"a")],
        [Step(Verb.MKDIR, b"new"), Step(Verb.CHMOD, b"new/what")],
        [Step(Verb.MKFILE, b"a/..")],
        [Step(Verb.MKFILE, b"")],
    ],
)
def test_a_stream_of_another_base_is_noticed(steps: list[Step]) -> None:
    with pytest.raises(Incomplete):
        played(*steps)


NAMES = st.sampled_from([b"a", b"b", b"c", b"d"])


@given(st.lists(st.tuples(NAMES, NAMES), max_size=30))
def test_any_renames_come_to_where_things_are(moves: list[tuple[bytes, bytes]]) -> None:
    """The model is a dictionary: from where something is to where it was."""
    there = {name: name for name in (b"a", b"b", b"c", b"d")}
    steps = []
    for old, new in moves:
        if old in there and new not in there:
            steps.append(rename(old, new))
            there[new] = there.pop(old)
        elif old in there and old != new:
            steps += [Step(Verb.UNLINK, new), rename(old, new)]
            there[new] = there.pop(old)
    truth = {Found(RENAME, name, was) for name, was in there.items() if name != was}
    truth |= {Found(DELETE, was) for was in {b"a", b"b", b"c", b"d"} - set(there.values())}
    found = played(*steps)
    assert (set(found), len(found)) == (truth, len(truth))
