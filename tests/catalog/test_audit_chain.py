"""The chain of audit lines: whatever is done to it afterwards is found, and nothing is found in one that is whole."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapkeep.catalog.audit_chain import (
    LONGEST,
    Chain,
    Entry,
    Fault,
    Head,
    Line,
    Outcome,
    Verifier,
    derive_key,
    export_header,
    export_line,
    shortened,
)
from snapkeep.catalog.audit_verification import Noted, Verified, verify_files
from snapkeep.model.errors import Damaged, InvalidInput, SnapkeepError

KEY = derive_key(b"k" * 32)
OTHER = derive_key(b"o" * 32)
NOW = datetime(2026, 11, 28, 12, 30, 15, 123456, tzinfo=UTC)

texts = st.text(st.characters(), max_size=12)  # control characters, newlines and lone surrogates among them
entries = st.builds(
    Entry,
    actor=texts,
    actor_kind=st.sampled_from(["user", "service", "local", "unknown", "operation"]),
    source=texts,
    request_id=texts,
    action=texts,
    subject=texts,
    outcome=st.sampled_from(Outcome),
    status=st.none() | st.integers(100, 599),
    detail=st.dictionaries(texts, st.text() | st.integers() | st.lists(texts, max_size=2), max_size=2),
)
chains = st.lists(entries, min_size=1, max_size=8)


def linked(found: list[Entry], key: bytes = KEY) -> tuple[list[Line], Head]:
    chain = Chain(key)
    lines, head = [], chain.head()
    for number, entry in enumerate(found):  # by one and by two, as they come
        more, head = chain.link(head, NOW + timedelta(microseconds=number), [entry])
        lines += more
    return lines, head


def verify(lines: list[Line], head: Head, key: bytes = KEY) -> None:
    verifier = Verifier(key)
    verifier.expect(head)
    for line in lines:
        verifier.take(line)
    verifier.end(head)


def fault(lines: list[Line], head: Head, key: bytes = KEY) -> tuple[str, int | None]:
    with pytest.raises(SnapkeepError) as caught:
        verify(lines, head, key)
    return caught.value.details["fault"], caught.value.details["seq"]


def some(number: int) -> list[Entry]:
    return [
        Entry(actor="a", actor_kind="user", source="s", action="x", subject=str(item), outcome=Outcome.DONE)
        for item in range(1, number + 1)
    ]


# -- what is whole -----------------------------------------------------------------------------------------------------
@given(chains)
def test_a_chain_that_nobody_touched_verifies(found: list[Entry]) -> None:
    lines, head = linked(found)
    verify(lines, head)
    assert [line.entry for line in lines] == found
    together, same = Chain(KEY).link(Chain(KEY).head(), NOW, found)
    verify(together, same)


def test_an_empty_chain_verifies() -> None:
    verify([], Chain(KEY).head())


@given(chains)
def test_a_line_survives_the_way_through_json(found: list[Entry]) -> None:
    lines, _ = linked(found)
    for line in lines:
        raw = export_line(line)
        assert raw.count(b"\n") == 1
        assert raw.isascii()
        again = Line.from_dict(json.loads(raw))
        assert (again.seq, again.at, again.previous, again.hash) == (line.seq, line.at, line.previous, line.hash)
        assert export_line(again) == raw


# -- what is not -------------------------------------------------------------------------------------------------------
def changed(value: object) -> object:
    """Return another value of the same kind."""
    match value:
        case Outcome():
            return Outcome.DONE if value is not Outcome.DONE else Outcome.FAILED
        case str():
            return f"{value}x"
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:]
        case int():
            return value + 1
        case datetime():
            return value + timedelta(microseconds=1)
        case None:
            return 200
        case dict():
            return {**value, "more": 1}
    raise AssertionError(value)


FIELDS = ("seq", "at", "previous", "hash")
ENTRY_FIELDS = tuple(Entry.__dataclass_fields__)


@given(chains, st.data())
def test_any_altered_field_is_found(found: list[Entry], data: st.DataObject) -> None:
    lines, head = linked(found)
    place = data.draw(st.integers(0, len(lines) - 1))
    line, name = lines[place], data.draw(st.sampled_from(FIELDS + ENTRY_FIELDS))
    if name in FIELDS:
        other: dict[str, Any] = {name: changed(getattr(line, name))}
    else:
        values: dict[str, Any] = {name: changed(getattr(line.entry, name))}
        other = {"entry": replace(line.entry, **values)}
    lines[place] = replace(line, **other)
    assert fault(lines, head)[0] == Fault.ALTERED


@given(chains, st.data())
def test_whatever_is_done_to_the_order_is_found(found: list[Entry], data: st.DataObject) -> None:
    lines, head = linked(found)
    place = data.draw(st.integers(0, len(lines) - 1))
    other = data.draw(st.integers(0, len(lines) - 1))
    forged, _ = linked(found, OTHER)
    acts: dict[str, Callable[[], object]] = {
        "remove": lambda: lines.pop(place),
        "cut": lambda: lines.__delitem__(slice(place, None)),
        "repeat": lambda: lines.insert(other, lines[place]),
        "forge": lambda: lines.insert(place, forged[place]),
        "append": lambda: lines.append(replace(forged[0], seq=head.seq + 1, previous=head.hash)),
        "move": lambda: lines.insert(other, lines.pop(place)),
        "reverse": lines.reverse,
    }
    whole = list(lines)
    acts[data.draw(st.sampled_from(sorted(acts)))]()
    if lines != whole:
        fault(lines, head)


@pytest.mark.parametrize(
    ("act", "expected", "seq"),
    [
        (lambda lines: lines.pop(2), Fault.MISSING, 3),
        (lambda lines: lines.pop(0), Fault.MISSING, 1),
        (lambda lines: lines.pop(), Fault.CUT, 5),
        (lambda lines: lines.clear(), Fault.CUT, 1),
        (lambda lines: lines.insert(1, lines.pop(2)), Fault.REORDERED, 2),
        (lambda lines: lines.insert(3, lines[1]), Fault.REORDERED, 2),
        (lambda lines: lines.append(Chain(KEY).link(linked(some(5))[1], NOW, some(1))[0][0]), Fault.ADDED, 6),
        (lambda lines: lines.append(linked(some(6), OTHER)[0][5]), Fault.ALTERED, 6),
        (lambda lines: lines.__setitem__(2, linked(some(2) + some(3))[0][2]), Fault.REORDERED, 4),
        (lambda lines: lines.__setitem__(4, linked(some(4) + some(1))[0][4]), Fault.REORDERED, 5),
    ],
    ids=["missing", "first", "cut", "all", "swapped", "twice", "added", "forged", "other history", "other end"],
)
def test_the_first_fault_is_named(act: Callable[[list[Line]], object], expected: Fault, seq: int) -> None:
    lines, head = linked(some(5))
    act(lines)
    assert fault(lines, head) == (expected, seq)


def test_a_wrong_key_is_not_taken_for_tampering() -> None:
    lines, head = linked(some(3))
    assert fault(lines, head, OTHER) == (Fault.WRONG_KEY, None)
    assert fault([], head, OTHER) == (Fault.WRONG_KEY, None)
    with pytest.raises(InvalidInput, match="32 bytes"):
        Chain(b"short")


def test_a_head_that_was_altered_is_found() -> None:
    """Whoever cuts the end must make a head for what is left, and cannot sign it."""
    lines, head = linked(some(3))
    assert fault(lines[:2], replace(head, seq=2, hash=lines[1].hash)) == (Fault.ALTERED, None)
    assert fault(lines, replace(head, hash=lines[1].hash)) == (Fault.ALTERED, None)
    assert fault(lines, Head(3, lines[2].hash, lines[2].hash)) == (Fault.ALTERED, None)


def test_the_key_of_the_chain_is_not_the_secret_key() -> None:
    assert KEY != b"k" * 32
    assert derive_key(b"k" * 32) == KEY


def test_long_texts_are_shortened() -> None:
    assert shortened("x" * LONGEST) == "x" * LONGEST
    assert shortened("x" * (LONGEST + 1)) == "x" * (LONGEST - 1) + "…"


# -- files -------------------------------------------------------------------------------------------------------------
def export(path: Path, lines: list[Line], head: Head, first: int = 1) -> Path:
    path.write_bytes(export_header(first, head) + b"".join(map(export_line, lines)))
    return path


def verify_exports(*files: Path, key: bytes = KEY, first: int = 1, noted: Noted | None = None) -> Verified:
    return verify_files(files, key, first=first, noted=noted)


def file_fault(*files: Path, first: int = 1, noted: Noted | None = None) -> tuple[str, int | None]:
    with pytest.raises(Damaged) as caught:
        verify_exports(*files, first=first, noted=noted)
    return caught.value.details["fault"], caught.value.details["seq"]


@given(chains, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_byte_of_an_export_counts(tmp_path: Path, found: list[Entry], data: st.DataObject) -> None:
    lines, head = linked(found)
    file = export(tmp_path / "export", lines, head)
    done = verify_exports(file)
    assert (done.first, done.last, done.hash) == (1, len(lines), head.hash)
    raw = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    match data.draw(st.sampled_from(["change", "remove", "insert", "cut"])):
        case "change":
            raw[place] ^= data.draw(st.integers(1, 255))
        case "remove":
            del raw[place]
        case "insert":
            raw.insert(place, data.draw(st.integers(0, 255)))
        case _:
            del raw[place:]
    if bytes(raw) != file.read_bytes():
        file.write_bytes(raw)
        with pytest.raises(SnapkeepError):
            verify_exports(file)


def test_of_two_fields_of_one_name_none_is_believed(tmp_path: Path) -> None:
    lines, head = linked(some(2))
    file = export(tmp_path / "export", lines, head)
    file.write_bytes(file.read_bytes().replace(b'"actor":"a"', b'"actor":"b","actor":"a"', 1))
    assert file_fault(file) == (Fault.ALTERED, 1)


def test_exports_that_follow_each_other_are_one_chain(tmp_path: Path) -> None:
    lines, head = linked(some(9))
    _, early = linked(some(4))
    one = export(tmp_path / "1", lines[:4], early)
    two = export(tmp_path / "2", lines[4:], head, first=5)
    done = verify_exports(one, two)
    assert (done.first, done.last, done.hash, done.first_at) == (1, 9, head.hash, NOW)
    assert verify_exports(two, first=5).last == 9
    assert file_fault(two) == (Fault.MISSING, 1)
    assert file_fault(two, one) == (Fault.MISSING, 1)
    assert file_fault(one, one) == (Fault.REORDERED, 5)
    assert file_fault(one, export(tmp_path / "3", lines[5:], head, first=6)) == (Fault.MISSING, 5)
    assert file_fault(export(tmp_path / "3", lines[5:], head, first=5), first=5) == (Fault.MISSING, 5)
    other = export(tmp_path / "4", linked(some(4)[::-1] + some(9)[4:])[0][4:], head, first=5)
    assert file_fault(one, other) == (Fault.REORDERED, 5)


def test_a_head_that_was_noted_finds_an_older_state(tmp_path: Path) -> None:
    lines, head = linked(some(5))
    _, older = linked(some(3))
    file = export(tmp_path / "export", lines[:3], older)
    assert verify_exports(file).last == 3  # alone, it is as good as ever
    assert file_fault(file, noted=Noted(head.seq, head.hash)) == (Fault.CUT, 4)
    whole = export(tmp_path / "whole", lines, head)
    for known in (older, head):
        assert verify_exports(whole, noted=Noted(known.seq, known.hash)).last == 5
    assert file_fault(whole, noted=Noted(3, head.hash)) == (Fault.REORDERED, 3)


def test_what_is_no_export_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "file"
    lines, head = linked(some(1))
    for content in (b"", b"\n", b"[]\n", b"{}\n", b"\xff", export_line(lines[0]), export_header(0, head)):
        file.write_bytes(content)
        with pytest.raises(InvalidInput, match="no export"):
            verify_exports(file)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read"):
            verify_exports(missing)


@pytest.mark.parametrize("text", ["", "5", "5:", "5:zz", f"x:{'0' * 64}", f"-1:{'0' * 64}", f"5:{'0' * 62}"])
def test_a_head_is_read_as_it_is_printed(text: str) -> None:
    assert Noted.parse(f"5:{'0f' * 32}") == Noted(5, b"\x0f" * 32)
    with pytest.raises(InvalidInput, match="no head"):
        Noted.parse(text)


def test_the_form_of_a_line_never_changes() -> None:
    """Else logs of older versions would fail. Computed here as it is documented, without our code."""
    entry = Entry(
        actor="alice",
        actor_kind="user",
        source="192.0.2.1",
        request_id="r",
        action="snapshot.delete",
        subject="files1/projects@ä\n",
        outcome=Outcome.ASKED,
        detail={"fields": ["name"]},
    )
    [line], head = Chain(KEY).link(Chain(KEY).head(), NOW, [entry])
    extracted = hmac.digest(bytes(32), b"k" * 32, "sha256")  # HKDF, RFC 5869
    key = hmac.digest(extracted, b"snapkeep audit 1\x01", "sha256")
    text = (
        b'{"action":"snapshot.delete","actor":"alice","actor_kind":"user","at":"2026-11-28T12:30:15.123456Z",'
        b'"detail":{"fields":["name"]},"outcome":"asked","request_id":"r","seq":1,"source":"192.0.2.1","status":null,'
        b'"subject":"files1/projects@\\u00e4\\n"}'
    )
    own = hmac.digest(key, bytes(32) + text, "sha256")
    assert line.hash == own
    assert head.signature == hmac.digest(key, b'head\n{"hash":"%s","seq":1}' % own.hex().encode(), "sha256")
