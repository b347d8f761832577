"""The chunker: restic's very cuts, in C as in Python, however the data comes."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.support.restic import run_restic

from snapkeep.model.errors import InvalidInput
from snapkeep.repository import chunker
from snapkeep.repository.chunker import MAX_SIZE, MIN_SIZE, Chunker

_POLYNOMIAL = 0x3DA3358B4DC173
_polynomials = st.integers(min_value=1 << 53, max_value=(1 << 54) - 1)


def _cuts(data: bytes, polynomial: int, sizes: list[int]) -> list[int]:
    """Return the cuts of a file that comes in parts of these sizes, again and again."""
    cutter, cuts, offset, turn = Chunker(polynomial), list[int](), 0, 0
    while offset < len(data):
        part = data[offset : offset + sizes[turn % len(sizes)]]
        cuts += [offset + cut for cut in cutter.cuts(part)]
        offset += len(part)
        turn += 1
    return cuts + [offset + cut for cut in cutter.cuts(b"", final=True)]


def _data(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def _mixed(seed: int) -> bytes:
    """Noise, zeros and repetition, so that some chunks end by their content and some by their size."""
    noise = _data(seed, 6 << 20)
    return b"".join((noise, bytes(9 << 20), noise[: 3 << 20], b"abcdefgh" * (1 << 20), noise[1:]))


def test_compiled() -> None:
    assert chunker._fastest_scan() is not chunker.scan, "the chunker was not compiled on this machine"


def test_restic_cuts_the_same(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    run_restic(repository, "init")
    content = _mixed(1)
    (tmp_path / "file").write_bytes(content)
    run_restic(repository, "backup", "file", cwd=tmp_path)
    config = json.loads(run_restic(repository, "cat", "config"))
    (snapshot,) = json.loads(run_restic(repository, "snapshots", "--json"))
    (node,) = json.loads(run_restic(repository, "cat", "tree", snapshot["id"]))["nodes"]
    polynomial = int(config["chunker_polynomial"], 16)
    cuts = _cuts(content, polynomial, [1 << 20])
    ids = [hashlib.sha256(content[a:b]).hexdigest() for a, b in zip([0, *cuts], cuts, strict=False)]
    assert ids == node["content"]
    assert len(ids) > 10


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, MIN_SIZE - 1, MIN_SIZE, MIN_SIZE + 1])
def test_small_files_are_one_chunk(size: int) -> None:
    assert Chunker(_POLYNOMIAL).cuts(_data(2, size), final=True) == ([size] if size else [])


def test_sizes_are_bounded() -> None:
    cuts = _cuts(_mixed(3), _POLYNOMIAL, [1 << 20])
    sizes = [b - a for a, b in zip([0, *cuts], cuts, strict=False)]
    assert max(sizes) <= MAX_SIZE
    assert min(sizes[:-1]) >= MIN_SIZE
    assert sum(sizes) == len(_mixed(3))


def test_data_of_one_value_is_cut_by_size() -> None:
    assert _cuts(b"\1" * (2 * MAX_SIZE + 5), _POLYNOMIAL, [700_001]) == [MAX_SIZE, 2 * MAX_SIZE, 2 * MAX_SIZE + 5]


def test_zeros_are_cut_as_early_as_allowed() -> None:
    assert _cuts(bytes(2 * MIN_SIZE + 5), _POLYNOMIAL, [1 << 20]) == [MIN_SIZE, 2 * MIN_SIZE, 2 * MIN_SIZE + 5]


@given(seed=st.integers(0, 1000), polynomial=_polynomials, sizes=st.lists(st.integers(1, 3 << 20), min_size=1))
@settings(max_examples=40, deadline=None)
def test_the_parts_do_not_matter(seed: int, polynomial: int, sizes: list[int]) -> None:
    data = _data(seed, 3 << 20)
    sizes = [max(size, 5000) if n % 3 == 0 else size for n, size in enumerate(sizes)]  # not a million calls
    assert _cuts(data, polynomial, sizes) == _cuts(data, polynomial, [len(data)])


@given(polynomial=_polynomials, seed=st.integers(0, 1000), first=st.integers(64, 200), length=st.integers(0, 70_000))
@settings(max_examples=60, deadline=None)
def test_python_and_c_find_the_same(polynomial: int, seed: int, first: int, length: int) -> None:
    data = _data(seed, 200 + length)
    if seed % 2:
        middle = random.Random(seed).randrange(len(data))
        data = data[:middle] + bytes(64) + data[middle:]  # a place that is found: 64 zeros
    tables = chunker._tables(polynomial)
    last = max(first, min(first + length, len(data))) + 1
    assert chunker._fastest_scan()(tables, data, first, last) == chunker.scan(tables, data, first, last)


def test_the_first_find_counts() -> None:
    tables = chunker._tables(_POLYNOMIAL)
    scan = chunker._fastest_scan()
    noise = bytearray(_data(5, 100_000))
    assert scan(tables, noise, 64, len(noise) + 1) == -1
    for position in (64, 65, 8191 + 64, 8192 + 64, 32768 + 63, 32768 + 64, *range(66, 100_000, 997), 100_000):
        data = bytearray(noise)
        data[position - 64 : position] = bytes(64)
        data[99_900:99_964] = bytes(64)
        assert scan(tables, data, 64, len(data) + 1) == min(position, 99_964)


def test_without_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data(6, 2 << 20) + bytes(1 << 20)
    compiled = _cuts(data, _POLYNOMIAL, [1 << 20])
    monkeypatch.setitem(sys.modules, "snapkeep.repository._chunker", None)
    monkeypatch.delattr("snapkeep.repository._chunker", raising=False)
    chunker._fastest_scan.cache_clear()
    try:
        with capture_logs() as logs:
            assert _cuts(data, _POLYNOMIAL, [300_000, 70_000]) == compiled
            assert chunker._fastest_scan() is chunker.scan
        assert [line["log_level"] for line in logs] == ["warning"]
    finally:
        chunker._fastest_scan.cache_clear()


def test_one_file_after_the_other() -> None:
    cutter = Chunker(_POLYNOMIAL)
    first, second = _data(7, 3 << 20), _data(8, 3 << 20)
    together = [cutter.cuts(first, final=True), cutter.cuts(second, final=True)]
    assert together == [_cuts(first, _POLYNOMIAL, [1 << 20]), _cuts(second, _POLYNOMIAL, [1 << 20])]


def test_other_threads_run_meanwhile() -> None:
    data, tables, ticks, done = b"\1" * (256 << 20), chunker._tables(_POLYNOMIAL), list[float](), threading.Event()

    def work() -> None:
        chunker._fastest_scan()(tables, data, 64, len(data) + 1)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks.append(time.monotonic())
        time.sleep(0.001)
    thread.join()
    assert len(ticks) > 10


@pytest.mark.parametrize("polynomial", [0, 1, (1 << 53) - 1, 1 << 54])
def test_a_wrong_polynomial_is_refused(polynomial: int) -> None:
    with pytest.raises(InvalidInput, match="degree 53"):
        Chunker(polynomial)


def test_wrong_positions_are_refused() -> None:
    scan = chunker._fastest_scan()
    tables = chunker._tables(_POLYNOMIAL)
    for arguments in ((tables, bytes(100), 63, 100), (tables, bytes(100), 64, 102), (b"", bytes(100), 64, 100)):
        with pytest.raises(ValueError, match="wrong"):
            scan(*arguments)
