"""Trees and their nodes: the text that restic writes, byte for byte.

A tree is `{"nodes":[...]}` and a newline; its id is the SHA-256 of that text. So the order of fields, what is left out
when it is empty, and how names and times are written all count. Nodes that were not touched keep the text that they
had, whoever wrote it.

Names are quoted twice: as Go's `strconv.Quote` does (so that every byte survives), and then as JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import TypeVar

import msgspec

from snapkeep.model.errors import Damaged

EMPTY_TREE = b'{"nodes":[]}\n'

_Read = TypeVar("_Read")

_HEAD = 300  # bytes of a node in which its name ends, unless it is an odd one
_PLAIN = re.compile(rb"[ !#-%'-;=?-\[\]-~]+").fullmatch  # needs no quoting of either kind
_UNSAFE = re.compile('["\\\\<>&\0-\x1f\u2028\u2029\ud800-\udfff]')
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f", '"': '\\"', "\\": "\\\\"}
_GO_SHORT = _SHORT | {"\a": "\\a", "\v": "\\v"}
_GO_QUOTED = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|([0-7]{3})|(.))", re.DOTALL)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)").fullmatch
_START = datetime(1970, 1, 1, tzinfo=UTC)
_GO_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}

# restic's Go knows Unicode 15.0. Python may know 14 (3.11) or 15.1 (3.13): what is printable must not depend on it.
_PRINTABLE_IN_15 = (
    (0xCF3, 0xCF3), (0xECE, 0xECE), (0x10EFD, 0x10EFF), (0x1123F, 0x11241), (0x11B00, 0x11B09), (0x11F00, 0x11F10),
    (0x11F12, 0x11F3A), (0x11F3E, 0x11F59), (0x1342F, 0x1342F), (0x13440, 0x13455), (0x1B132, 0x1B132),
    (0x1B155, 0x1B155), (0x1D2C0, 0x1D2D3), (0x1DF25, 0x1DF2A), (0x1E030, 0x1E06D), (0x1E08F, 0x1E08F),
    (0x1E4D0, 0x1E4F9), (0x1F6DC, 0x1F6DC), (0x1F774, 0x1F776), (0x1F77B, 0x1F77F), (0x1F7D9, 0x1F7D9),
    (0x1FA75, 0x1FA77), (0x1FA87, 0x1FA88), (0x1FAAD, 0x1FAAF), (0x1FABB, 0x1FABD), (0x1FABF, 0x1FABF),
    (0x1FACE, 0x1FACF), (0x1FADA, 0x1FADB), (0x1FAE8, 0x1FAE8), (0x1FAF7, 0x1FAF8), (0x2B739, 0x2B739),
    (0x31350, 0x323AF),
)  # fmt: skip
_NOT_YET_IN_15 = ((0x2FFC, 0x2FFF), (0x31EF, 0x31EF), (0x2EBF0, 0x2EE5D))


class Node(msgspec.Struct):
    """The fields of a node that somebody asks for; its text has more."""

    name: str
    type: str = ""
    mode: int = 0
    mtime: str = ""
    ctime: str = ""
    uid: int = 0
    gid: int = 0
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: list[ExtendedAttribute] | None = None
    device: int = 0
    content: list[str] | None = None
    subtree: str | None = None


class ExtendedAttribute(msgspec.Struct):
    """One extended attribute of a node."""

    name: str
    value: bytes | None = None


class Known(msgspec.Struct):
    """What decides whether an object is as it was: the few fields that a backup compares."""

    name: str
    type: str = ""
    mtime: str = ""
    ctime: str = ""
    inode: int = 0
    size: int = 0
    device_id: int = 0
    links: int = 0
    content: msgspec.Raw = msgspec.Raw(b"null")
    subtree: str | None = None


class _Named(msgspec.Struct):
    name: str


class _Raws(msgspec.Struct):
    nodes: list[msgspec.Raw]


class _Knowns(msgspec.Struct):
    nodes: list[Known]


_decode_raws = msgspec.json.Decoder(_Raws).decode
_decode_named = msgspec.json.Decoder(_Named).decode
_decode_known = msgspec.json.Decoder(Known).decode
_decode_knowns = msgspec.json.Decoder(_Knowns).decode
_decode_node = msgspec.json.Decoder(Node).decode
_decode_content = msgspec.json.Decoder(list[str] | None).decode


class Tree:
    """A tree that was read: names (as bytes, sorted), the text of each node, and what is known of it.

    A backup asks a tree of many nodes for a few of them. So these are looked for in the text, and all are told apart
    only where that is not enough.
    """

    __slots__ = ("_names", "_texts", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._names: list[bytes] | None = None
        self._texts: list[msgspec.Raw] | None = None

    def __reduce__(self) -> tuple[type[Tree], tuple[bytes]]:
        return Tree, (self.text,)

    @property
    def texts(self) -> list[msgspec.Raw]:
        """The text of each node. Raises Damaged when this is no tree."""
        if self._texts is None:
            try:
                self._texts = _decode_raws(self.text).nodes
                if not self.text.isascii():
                    self.text.decode()
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _no_tree(error) from error
            if self._texts:
                _node_name(self._texts[0])
        return self._texts

    def span(self, name: bytes) -> tuple[int, int] | None:
        """Return where the node of that name begins and ends in the text.

        None says only that it was not found so: it may be written otherwise than we and restic write it. What is
        looked for can only be the beginning of a node, since within a string every quotation mark has a backslash.
        """
        text = self.text
        start = text.find(b'{"name":"%s","type":"' % quote(name).encode())
        content = text.find(b',"content":', start) if start >= 0 else -1  # behind the extended attributes, with names
        if content < 0:
            return None
        end = text.find(b'},{"name":"', content)
        return start, end + 1 if end >= 0 else text.rfind(b"]}")

    @property
    def names(self) -> list[bytes]:
        """All names. Raises Damaged."""
        if self._names is None:
            self._names = list(map(_node_name, self.texts))
        return self._names

    def place(self, name: bytes) -> tuple[int, bool]:
        """Return where the node of that name is or would be, and whether it is there. Raises Damaged."""
        at = bisect_left(self.texts, name, key=_node_name)
        return at, at < len(self.texts) and _node_name(self.texts[at]) == name

    def position(self, name: bytes) -> int | None:
        """Return where the node of that name is. Raises Damaged."""
        at, there = self.place(name)
        return at if there else None

    def known(self, name: bytes) -> Known | None:
        """Return what is known of the node of that name. Raises Damaged."""
        if span := self.span(name):
            return _read(_decode_known, self.text[slice(*span)])
        at = self.position(name)
        return None if at is None else _read(_decode_known, self.texts[at])

    def knowns(self) -> Iterable[tuple[bytes, Known]]:
        """Return all names, each with what is known of it. Raises Damaged."""
        knowns = _read(_decode_knowns, self.text).nodes
        return ((unquote(known.name), known) for known in knowns)


def _node_name(text: msgspec.Raw) -> bytes:
    """Return the name that a node has; quickly where it stands at the beginning and needed no quoting."""
    head = bytes(memoryview(text)[:_HEAD])
    end = head.find(b'"', 9)
    if end > 0 and head.startswith(b'{"name":"') and b"\\" not in (name := head[9:end]):
        return name
    return unquote(_read(_decode_named, text).name)


def _read(decode: Callable[[bytes | msgspec.Raw], _Read], text: bytes | msgspec.Raw) -> _Read:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_tree(error) from error


def _no_tree(reason: object) -> Damaged:
    return Damaged(f"A tree of the repository cannot be read: {reason}")


def tree_text(texts: Iterable[bytes | msgspec.Raw]) -> bytes:
    """Return the text of a tree of these nodes, which must be in the order of their names' bytes."""
    return b'{"nodes":[' + b",".join(texts) + b"]}\n"


def read_node(text: bytes | msgspec.Raw) -> Node:
    """Return a node's fields. Raises Damaged."""
    try:
        return _decode_node(text)
    except msgspec.DecodeError as error:
        raise Damaged(f"A node of a tree of the repository cannot be read: {error}") from error


def read_content(text: bytes | msgspec.Raw) -> list[bytes]:
    """Return the blob ids of a node's `content`."""
    return [bytes.fromhex(one) for one in _decode_content(text) or ()]


def quote(name: bytes) -> str:
    """Return a name as it stands between the quotation marks of a node's `name`."""
    if _PLAIN(name):
        return name.decode()
    return json_text("".join(map(_go_quoted, name.decode("utf-8", "surrogateescape"))))


def unquote(name: str) -> bytes:
    """Return the bytes of a name, given the decoded JSON string."""
    if "\\" not in name:
        return name.encode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    end = 0
    for match in _GO_QUOTED.finditer(name):
        parts += (name[end : match.start()].encode("utf-8", "surrogateescape"), _unquoted(match))
        end = match.end()
    return b"".join(parts) + name[end:].encode("utf-8", "surrogateescape")


def json_text(text: str) -> str:
    """Return text as Go's JSON encoder writes it between quotation marks; a byte that is not UTF-8 is lost."""
    return _UNSAFE.sub(_json_escape, text)


def time_text(nanoseconds: int) -> str:
    """Return a time, given in ns since 1970, as Go writes it: in UTC, without zeros at the end of the fraction."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    day, second = divmod(seconds, 86400)
    minute, second = divmod(second, 60)
    hour, minute = divmod(minute, 60)
    if not fraction:
        return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}Z"
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}.{fraction:09}".rstrip("0") + "Z"


def read_time(text: str) -> int:
    """Return a node's time as ns since 1970. Raises Damaged."""
    match = _TIME(text)
    if match is None:
        raise Damaged(f"A time in a tree of the repository cannot be read: {text!r}")
    second, fraction, zone = match.groups()
    past = datetime.fromisoformat(second + zone.replace("Z", "+00:00")) - _START
    return (past.days * 86400 + past.seconds) * 1_000_000_000 + int((fraction or "").ljust(9, "0"))


def same_time(one: str, other: str) -> bool:
    """Say whether two nodes' times are the same instant; they may be written in different zones."""
    return one == other or (not (one.endswith("Z") and other.endswith("Z")) and read_time(one) == read_time(other))


def _go_quoted(char: str) -> str:
    if char.isprintable() and char not in '"\\':
        return _escaped(char) if _within(char, _NOT_YET_IN_15) else char
    if short := _GO_SHORT.get(char):
        return short
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return char if _within(char, _PRINTABLE_IN_15) else _escaped(char)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _within(char: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return char > "\x7f" and any(first <= ord(char) <= last for first, last in ranges)


def _unquoted(match: re.Match[str]) -> bytes:
    byte, short, long, octal, letter = match.groups()
    if byte:
        return bytes.fromhex(byte)
    if octal:
        return bytes([int(octal, 8) & 0xFF])
    if code := short or long:
        return chr(int(code, 16)).encode("utf-8", "surrogatepass")
    return _GO_LETTERS.get(letter, letter).encode("utf-8", "surrogateescape")


def _json_escape(match: re.Match[str]) -> str:
    char = match[0]
    if "\ud800" <= char <= "\udfff":
        return "\\ufffd"
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


@lru_cache(4096)
def _date(day: int) -> str:
    """Return the date of a day since 1970; a year that cannot be written becomes the nearest that can."""
    day = min(max(day, -719162), 2932896)
    return date.fromordinal(day + 719163).isoformat()
