"""Entropy, and which files it is taken of."""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.model.changes import Change, ChangeOperation, ObjectType
from snapkeep.operations import sampling
from snapkeep.operations.run import Unwanted
from snapkeep.operations.sampling import sample_entropy
from snapkeep.signals.entropy import FILES, PIECE, SMALLEST, choose, shannon


def go_on() -> None:
    pass


def changed(path: bytes, operation: ChangeOperation = ChangeOperation.MODIFY, size: int = 4096) -> Change:
    return Change(operation, ObjectType.FILE, path, b"old" if operation is ChangeOperation.RENAME else None, size)


@pytest.mark.parametrize(
    ("data", "bits"), [(b"", 0), (b"aaaa", 0), (b"ab", 1), (b"aab", 0.9183), (bytes(range(256)) * 3, 8)]
)
def test_known_entropies(data: bytes, bits: float) -> None:
    assert shannon(data) == pytest.approx(bits, abs=1e-4)


@given(st.binary(min_size=1, max_size=300), st.randoms(use_true_random=False))
def test_entropy_lies_within_its_bounds_and_order_is_nothing(data: bytes, chance: random.Random) -> None:
    other = list(data)
    chance.shuffle(other)
    assert 0 <= shannon(data) <= 8
    assert shannon(bytes(other)) == pytest.approx(shannon(data))
    assert shannon(data * 3) == pytest.approx(shannon(data))


def test_few_files_are_all_taken_and_only_those_that_say_something() -> None:
    changes = [
        changed(b"modified"), changed(b"renamed", ChangeOperation.RENAME), changed(b"added", ChangeOperation.ADD),
        changed(b"deleted", ChangeOperation.DELETE), changed(b"small", size=SMALLEST - 1),
        Change(ChangeOperation.MODIFY, ObjectType.DIRECTORY, b"directory", None, 4096),
    ]  # fmt: skip
    assert {one.path for one in choose(changes, 1)} == {b"modified", b"renamed"}


def test_the_same_seed_takes_the_same_and_all_are_taken_as_often() -> None:
    changes = [changed(b"%d" % number) for number in range(300)]
    assert choose(changes, 7) == choose(iter(changes), 7)
    taken = Counter(one.path for seed in range(600) for one in choose(changes, seed))
    assert len(choose(changes, 7)) == FILES
    assert sum(taken.values()) == 600 * FILES
    thirds = [sum(taken[b"%d" % number] for number in range(at, at + 100)) for at in (0, 100, 200)]
    assert max(thirds) / min(thirds) < 1.1, "the end of a list as often as its beginning"


@given(st.integers(SMALLEST, 10**7), st.integers(0, 2**32))
def test_a_piece_lies_within_its_file(size: int, seed: int) -> None:
    (one,) = choose([changed(b"x", size=size)], seed)
    assert 0 <= one.offset <= max(0, size - PIECE)


def test_a_sample_tells_text_from_noise_and_counts_what_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "text").write_bytes(b"hello world " * 1000)
    (tmp_path / "noise").write_bytes(os.urandom(100_000))
    (tmp_path / "link").symlink_to("noise")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "out").symlink_to("/etc")
    text = sample_entropy(tmp_path, lambda: [changed(b"d/text", size=12_000)], 1, go_on)
    noise = sample_entropy(tmp_path, lambda: [changed(b"noise", size=100_000)], 1, go_on)
    assert text is not None
    assert noise is not None
    assert text.bits < 3 < 7.9 < noise.bits
    hostile = [changed(path) for path in (b"gone", b"link", b"fifo", b"out/passwd", b"noise/x")]
    assert sample_entropy(tmp_path, lambda: hostile, 1, go_on) == (0.0, 0, 4), "a FIFO is read as nothing"


def test_a_list_of_many_is_read_no_longer_than_there_is_time_and_left_by_a_cancel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x" * 4096)
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Unwanted

    endless = lambda: (changed(b"x") for _ in itertools.count())  # noqa: E731
    with pytest.raises(Unwanted):
        sample_entropy(tmp_path, endless, 1, stop)
    monkeypatch.setattr(sampling, "SECONDS", 0.0)
    assert sample_entropy(tmp_path, endless, 1, go_on) == (0.0, 0, 0)


def test_no_sample_fails_a_backup_and_a_cancel_ends_it(tmp_path: Path) -> None:
    def broken() -> list[Change]:
        raise ValueError("no list")

    def stop() -> None:
        raise Unwanted

    assert sample_entropy(tmp_path, broken, 1, go_on) is None
    assert sample_entropy(tmp_path / "gone", lambda: [changed(b"x")], 1, go_on) is None
    with pytest.raises(Unwanted):
        sample_entropy(tmp_path, lambda: [changed(b"x")], 1, stop)
