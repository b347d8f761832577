from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapkeep.model.errors import Damaged, NotFound
from snapkeep.repository import index as index_module
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.index import Index, index_document
from snapkeep.repository.packs import Entry
from snapkeep.repository.segments import Location

Files = dict[str, bytes]
Known = dict[tuple[int, bytes], set[Location]]


def name(number: int) -> str:
    return f"{number:064x}"


def open_index(directory: Path, files: Files) -> Index:
    def load(file: str) -> bytes:
        try:
            return files[file]
        except KeyError:
            raise NotFound(file) from None

    return Index(directory, load)


def packs_of(seed: int, packs: int, blobs: int) -> list[tuple[bytes, list[Entry]]]:
    """Return packs in which some blobs, ids and whole packs come again in other seeds."""
    random_ = random.Random(seed)
    made = []
    for _ in range(packs):
        kind = random_.choice(list(BlobType))
        entries = []
        offset = 0
        for _ in range(random_.randrange(blobs + 1)):
            # Ids that are near each other and ids that are not; some again and again.
            blob = random_.choice((random_.randbytes(32), bytes(30) + random_.randbytes(2), b"\xff" * 31 + b"\x01"))
            entries.append(Entry(kind, blob, offset, random_.randrange(2**32), random_.randrange(2) * 77))
            offset += 1000
        made.append((random_.randbytes(32), entries))
    return made


def known_of(packs: Iterable[tuple[bytes, list[Entry]]]) -> Known:
    known: Known = {}
    for pack, entries in packs:
        for kind, blob, *place in entries:
            known.setdefault((kind, blob), set()).add(Location(pack, *place))
    return known


def assert_knows(index: Index, known: Known) -> None:
    for (kind, blob), places in known.items():
        assert index.has(kind, blob)
        assert set(index.locations(kind, blob)) == places
    for kind in BlobType:
        for blob in (bytes(32), b"\xff" * 32, random.Random(7).randbytes(32)):
            assert index.has(kind, blob) is ((kind, blob) in known)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_happens_the_index_knows_what_its_files_say(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("index")
    files: Files = {}
    packs: dict[str, list[tuple[bytes, list[Entry]]]] = {}
    index = open_index(directory, files)
    for turn in range(data.draw(st.integers(1, 12), label="turns")):
        step = data.draw(st.sampled_from(["write", "others", "many", "remove", "reopen", "damage"]), label="step")
        if step in ("write", "others", "many"):
            for number in range(30 if step == "many" else 1):
                new = name(1000 * turn + number)
                again = data.draw(st.booleans()) if packs and step != "many" else False
                packs[new] = next(iter(packs.values())) if again else packs_of(1000 * turn + number, 4, 12)
                files[new] = index_document(packs[new])
                if step != "others":
                    index.add(new, packs[new])
        elif step == "remove" and packs:
            gone = data.draw(st.sampled_from(sorted(packs)), label="gone")
            del packs[gone], files[gone]
        elif step == "reopen":
            index.close()
            index = open_index(directory, files)
        elif step == "damage":
            index.close()
            for segment in directory.iterdir():
                content = bytearray(segment.read_bytes())
                match data.draw(st.sampled_from(["cut", "head", "empty", "none"]), label="damage"):
                    case "cut":
                        content = content[: len(content) // 2]
                    case "head":
                        content[data.draw(st.integers(0, 60))] ^= 1
                    case "empty":
                        content = bytearray()
                segment.unlink()
                segment.write_bytes(content)
            index = open_index(directory, files)
        index.refresh(files)
        assert_knows(index, known_of(pack for found in packs.values() for pack in found))
        assert {pack for pack, _, _ in index.rows()} == {
            pack for found in packs.values() for pack, held in found if held
        }
        assert len(list(directory.iterdir())) <= 12


def test_each_damaged_byte_is_harmless_or_noticed(tmp_path: Path) -> None:
    """Damage in the rows is not seen when a segment is opened: who misses a blob asks for it."""
    packs = packs_of(1, 3, 9)
    files = {name(1): index_document(packs)}
    index = open_index(tmp_path, files)
    index.refresh(files)
    index.close()
    (segment,) = tmp_path.iterdir()
    sound = segment.read_bytes()
    known = known_of(packs)
    noticed = 0
    for position in range(len(sound)):
        bad = bytearray(sound)
        bad[position] ^= 0x10
        segment.unlink()
        segment.write_bytes(bad)
        index = open_index(tmp_path, files)
        index.refresh(files)
        if any(set(index.locations(*blob)) != places for blob, places in known.items()):
            noticed += 1
            assert index.drop_unsound()
            index.refresh(files)
            assert_knows(index, known)
        elif index.drop_unsound():
            index.refresh(files)
        index.close()
        assert segment.read_bytes() == sound
    assert noticed > 100


def test_many_small_files_are_read_once_and_become_few_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "_BATCH", 100)
    packs = {name(number): packs_of(number, 1, 5) for number in range(2000)}
    files = {file: index_document(found) for file, found in packs.items()}
    known = known_of(pack for found in packs.values() for pack in found)
    index = open_index(tmp_path, files)
    index.refresh(files)
    assert_knows(index, known)
    assert len(list(tmp_path.iterdir())) <= 12
    index.close()
    names, content = list(files), dict(files)
    files.clear()  # whoever reads an index file again fails
    index = open_index(tmp_path, files)
    index.refresh(names)
    assert_knows(index, known)

    # One is gone: what was merged with it must be read again, and nothing is missed.
    files.update(content)
    del packs[names[7]], files[names[7]]
    index.refresh(files)
    assert_knows(index, known_of(pack for found in packs.values() for pack in found))


def test_two_processes_may_share_the_directory(tmp_path: Path) -> None:
    packs = {name(number): packs_of(number, 2, 9) for number in range(40)}
    files: Files = {}
    first, second = open_index(tmp_path, files), open_index(tmp_path, files)
    for number, (file, found) in enumerate(packs.items()):
        files[file] = index_document(found)
        (first, second)[number % 2].add(file, found)
        (second, first)[number % 3 % 2].refresh(files)
    for index in (first, second):
        index.refresh(files)
        assert_knows(index, known_of(pack for found in packs.values() for pack in found))


def document(number: int, **fields: Any) -> bytes:
    return json.dumps(json.loads(index_document(packs_of(number, 2, 9))) | fields).encode()


def test_superseded_files_count_for_nothing(tmp_path: Path) -> None:
    files = {name(1): document(1), name(2): document(2)}
    index = open_index(tmp_path, files)
    index.refresh(files)
    assert_knows(index, known_of(packs_of(1, 2, 9) + packs_of(2, 2, 9)))
    files[name(3)] = document(3, supersedes=[name(1)])
    for _ in range(2):
        index.refresh(files)
        assert_knows(index, known_of(packs_of(2, 2, 9) + packs_of(3, 2, 9)))
        index.close()
        index = open_index(tmp_path, files)


def test_unknown_types_of_blobs_and_unknown_fields_are_left_alone(tmp_path: Path) -> None:
    content = json.loads(document(1))
    content["packs"].append({"id": name(9), "blobs": [{"id": name(8), "type": "new", "offset": 0, "length": 1}]})
    files = {name(1): json.dumps(content | {"new": 1}).encode(), name(2): b'{"packs":null}'}
    index = open_index(tmp_path, files)
    index.refresh(files)
    assert_knows(index, known_of(packs_of(1, 2, 9)))
    assert not any(index.has(kind, bytes.fromhex(name(8))) for kind in BlobType)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"packs":[{"id":"00","blobs":[]}]}',
        b'{"packs":[{"id":"' + b"zz" * 32 + b'","blobs":[]}]}',
        b'{"packs":[{"id":"%s","blobs":[{"id":"%s","type":"data","offset":-1,"length":1}]}]}'
        % (name(1).encode(), name(1).encode()),
        b'{"packs":[{"id":"%s","blobs":[{"id":"%s","type":"data","offset":1,"length":4294967296}]}]}'
        % (name(1).encode(), name(1).encode()),
    ],
)
def test_a_bad_index_file_is_named(tmp_path: Path, text: bytes) -> None:
    files = {name(5): text}
    with pytest.raises(Damaged, match=name(5)) as raised:
        open_index(tmp_path, files).refresh(files)
    assert "restic repair index" in raised.value.next_step
