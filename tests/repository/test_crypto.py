from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapkeep.model.errors import Damaged
from snapkeep.repository.blobs import BlobType, open_blob, seal_blob
from snapkeep.repository.config import is_irreducible, random_polynomial
from snapkeep.repository.crypto import OVERHEAD, Key, make_key_file, open_key_file
from snapkeep.repository.packs import Entry, pack_end, read_header, verify_pack

KEY = Key(bytes(range(32)), bytes(range(16)), bytes(range(16, 32)))


@given(st.binary(max_size=3000))
def test_what_is_sealed_can_be_opened_and_never_looks_the_same(plain: bytes) -> None:
    sealed = KEY.seal(plain)
    assert len(sealed) == len(plain) + OVERHEAD
    assert pickle.loads(pickle.dumps(KEY)).open(sealed) == plain
    assert KEY.seal(plain) != sealed


@given(st.binary(max_size=300), st.data())
def test_any_changed_bit_is_noticed(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(KEY.seal(plain))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Damaged):
        KEY.open(bytes(sealed))


@given(st.binary(max_size=100), st.integers(0, OVERHEAD + 100))
def test_what_is_cut_off_is_noticed(plain: bytes, length: int) -> None:
    sealed = KEY.seal(plain)
    if length < len(sealed):
        with pytest.raises(Damaged):
            KEY.open(sealed[:length])


def test_a_key_serves_many_threads_at_once() -> None:
    def turn(number: int) -> bool:
        plains = [b"%d %d " % (number, i) * (i + 1) for i in range(200)]
        return [KEY.open(sealed) for sealed in [KEY.seal(plain) for plain in plains]] == plains

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(turn, range(32)))


def test_a_key_shows_nothing_of_itself() -> None:
    assert repr(KEY) == "Key(...)"


def test_a_key_file_opens_with_its_password_alone() -> None:
    content = make_key_file(KEY, "pässword")
    opened = open_key_file(content, "pässword")
    assert opened is not None
    assert opened.to_json() == KEY.to_json()
    assert open_key_file(content, "password") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[:-9],
        lambda content: content.replace(b'"scrypt"', b'"argon"'),
        lambda content: content.replace(b'"N":32768', b'"N":32769'),
        lambda content: content.replace(b'"N":32768', b'"N":1073741824'),
        lambda content: content.replace(b'"r":8', b'"r":0'),
        lambda content: content.replace(b'"salt":"', b'"salt":"!'),
    ],
)
def test_a_damaged_key_file_is_no_wrong_password(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Damaged):
        open_key_file(change(make_key_file(KEY, "password")), "password")


@given(st.binary(max_size=5000), st.integers(0, 3))
def test_blobs(plain: bytes, repeat: int) -> None:
    plain *= 1 + 10 * repeat
    blob = seal_blob(KEY, BlobType.DATA, plain)
    assert open_blob(KEY, blob.id, blob.sealed, blob.uncompressed_length) == plain
    other = seal_blob(KEY, BlobType.DATA, plain + b"x")
    with pytest.raises(Damaged):
        open_blob(KEY, blob.id, other.sealed, other.uncompressed_length)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=20, unique=True), st.sampled_from(BlobType))
def test_packs(plains: list[bytes], kind: BlobType) -> None:
    data = bytearray()
    entries = []
    for plain in plains:
        blob = seal_blob(KEY, kind, plain)
        entries.append(Entry(kind, blob.id, len(data), len(blob.sealed), blob.uncompressed_length))
        data += blob.sealed
    pack = bytes(data) + pack_end(KEY, entries)
    assert read_header(KEY, pack, len(pack)) == entries
    needed = read_header(KEY, pack[-10:], len(pack))
    assert isinstance(needed, int)
    assert read_header(KEY, pack[-needed:], len(pack)) == entries
    with pytest.raises(Damaged):
        verify_pack(KEY, "0" * 64, pack)
    for bad in (b"", pack[:-1], pack[:20], pack + b"\0"):
        with pytest.raises(Damaged):
            read_header(KEY, bad, len(bad))


def test_random_polynomials() -> None:
    polynomials = {random_polynomial() for _ in range(20)}
    assert len(polynomials) == 20
    assert all(polynomial.bit_length() == 54 for polynomial in polynomials)


def test_which_polynomials_are_irreducible() -> None:
    small = [number for number in range(2, 64) if is_irreducible(number)]
    products = {_multiply(first, second) for first in range(2, 64) for second in range(2, 64)}
    assert small == [number for number in range(2, 64) if number not in products]
    assert is_irreducible(0x3DA3358B4DC173)  # what restic's own tests use
    assert not is_irreducible(_multiply(0b1000011, random_polynomial() >> 6))


def _multiply(first: int, second: int) -> int:
    product = 0
    while second:
        product ^= first * (second & 1)
        first <<= 1
        second >>= 1
    return product
