"""The chain of audit lines: pure. The hash of each line covers the hash of the line before it, under a key.

Hashes are HMAC-SHA256. Who can write the database alone does not have the key, so he cannot write a chain that
verifies. The head says which line is the last: it has a signature of its own, so that a cut at the end is found.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from snapkeep.model.errors import Damaged, InvalidInput

BEGINNING = bytes(32)
"""What stands before the first line in place of a hash."""

LONGEST = 1024
"""Characters of a text in a line; the rest of a longer one is left out."""

_LABEL = b"snapkeep audit 1"
_HEAD = b"head\n"


class Outcome(StrEnum):
    """What became of what somebody wanted."""

    ASKED = "asked"
    """It is about to be tried: its outcome is in another line with the same request."""
    DONE = "done"
    REFUSED = "refused"
    """Who asked may not do it, or did not prove who he is."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded."""

    actor: str
    """Who; empty for somebody whose identity was not proved."""
    actor_kind: str
    """What he is: user, service, local, unknown; `operation`: who asked for it; `shell`: a user of the machine."""
    source: str
    """From where: the address of the client, the worker of an operation, the host of a shell."""
    request_id: str = ""
    """The same in all lines about one request."""
    action: str
    subject: str
    outcome: Outcome
    status: int | None = None
    """HTTP status of the answer."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON-safe and small: code of the error, id of the operation, names of what was changed. Never a secret."""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry at its place in the chain."""

    seq: int
    """1, 2, 3 and so on, without a gap."""
    at: datetime
    entry: Entry
    previous: bytes
    """The hash of the line before."""
    hash: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        values = _values(self.seq, self.at, self.entry)
        return {**values, "previous": self.previous.hex(), "hash": self.hash.hex()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Line:
        """Return the line of which these are the values. Raises ValueError, KeyError or TypeError for anything else."""
        rest = dict(values)
        seq, at, previous, own = (rest.pop(name) for name in ("seq", "at", "previous", "hash"))
        rest["outcome"] = Outcome(rest["outcome"])
        return cls(seq, datetime.fromisoformat(at), Entry(**rest), bytes.fromhex(previous), bytes.fromhex(own))


@dataclass(frozen=True, slots=True)
class Head:
    """Which line is the last one: signed."""

    seq: int
    hash: bytes
    signature: bytes

    def to_dict(self) -> dict[str, Any]:
        """Return the head as JSON values."""
        return {"seq": self.seq, "hash": self.hash.hex(), "signature": self.signature.hex()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Head:
        """Return the head of which these are the values. Raises ValueError, KeyError or TypeError for anything else."""
        seq, own, signature = (values[name] for name in ("seq", "hash", "signature"))
        if not isinstance(seq, int):
            raise TypeError("seq is no number")
        return cls(seq, bytes.fromhex(own), bytes.fromhex(signature))

    def to_bytes(self) -> bytes:
        """Return the head as it is stored."""
        return canonical(self.to_dict())

    @classmethod
    def from_bytes(cls, data: bytes) -> Head | None:
        """Read a head; None when these bytes are none."""
        try:
            return cls.from_dict(json.loads(data))
        except (ValueError, KeyError, TypeError):
            return None


def derive_key(root: bytes) -> bytes:
    """Return the key of the chain, from the root of a catalog. It opens no secret, nor does it tell the root."""
    return HKDF(SHA256(), 32, salt=None, info=_LABEL).derive(root)


def canonical(values: Mapping[str, Any]) -> bytes:
    """Return the one form of JSON values that is hashed: names sorted, no spaces, ASCII."""
    return json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")


def _values(seq: int, at: datetime, entry: Entry) -> dict[str, Any]:
    return {
        "seq": seq,
        "at": f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
        "actor": entry.actor,
        "actor_kind": entry.actor_kind,
        "source": entry.source,
        "request_id": entry.request_id,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome.value,
        "status": entry.status,
        "detail": dict(entry.detail),
    }


class Chain:
    """Makes lines and heads under one key."""

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise InvalidInput("An audit key has 32 bytes", next_step="Take it from `snapkeep audit key`.")
        self._key = key

    def link(self, head: Head, at: datetime, entries: Sequence[Entry]) -> tuple[list[Line], Head]:
        """Return the lines that stand behind a head, and the head behind them."""
        lines, previous = [], head.hash
        for seq, entry in enumerate(entries, head.seq + 1):
            line = Line(seq, at, entry, previous, self.hash(seq, at, entry, previous))
            lines.append(line)
            previous = line.hash
        return lines, self.head(head.seq + len(lines), previous)

    def hash(self, seq: int, at: datetime, entry: Entry, previous: bytes) -> bytes:
        """Return the hash of a line."""
        return hmac.digest(self._key, previous + canonical(_values(seq, at, entry)), "sha256")

    def head(self, seq: int = 0, last: bytes = BEGINNING) -> Head:
        """Return the signed head behind a line; without arguments, that of an empty chain."""
        return Head(seq, last, self._sign(seq, last))

    def has_signed(self, head: Head) -> bool:
        """Say whether a head was made under this key."""
        return hmac.compare_digest(head.signature, self._sign(head.seq, head.hash))

    def has_made(self, line: Line) -> bool:
        """Say whether a line is as it was made under this key, whatever stands before it."""
        try:
            return hmac.compare_digest(line.hash, self.hash(line.seq, line.at, line.entry, line.previous))
        except (TypeError, ValueError, AttributeError):  # values that no line of ours has
            return False

    def _sign(self, seq: int, last: bytes) -> bytes:
        return hmac.digest(self._key, _HEAD + canonical({"seq": seq, "hash": last.hex()}), "sha256")


def shortened(text: str, most: int = LONGEST) -> str:
    """Return a text as it fits into a line, which must be UTF-8."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


# -- verification ------------------------------------------------------------------------------------------------------
class Fault(StrEnum):
    """What is wrong with a chain."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    """A line stands at another place, or twice, or is of another history of the same log."""
    ADDED = "added"
    """Behind the head, where Snapkeep has written nothing."""
    CUT = "cut"
    """At the end."""
    WRONG_KEY = "wrong_key"


def broken(fault: Fault, seq: int | None, message: str) -> Damaged:
    """Return the error for a chain that does not verify."""
    return Damaged(
        message,
        next_step="Somebody has written to the audit log who is not Snapkeep. Keep it as it is, compare it with an "
        "older export, and find out who could.",
        fault=fault.value,
        seq=seq,
    )


def _wrong_key() -> InvalidInput:
    return InvalidInput(
        "The audit log was not written with this key, or its head was altered",
        next_step="Give the audit key of this installation: `snapkeep audit key` prints it.",
        fault=Fault.WRONG_KEY.value,
        seq=None,
    )


class Verifier:
    """Takes the lines of a chain one by one, in the order in which they stand, and raises Damaged at the first fault,
    InvalidInput when the key is another one.

    Memory does not grow with their number.
    """

    def __init__(self, key: bytes, *, first: int = 1) -> None:
        """`first`: the number of the line with which it must begin; what stands before it is taken on trust."""
        self._chain = Chain(key)
        self._gap: int | None = None
        self._is_signed = True
        self.seq = first - 1
        """Number of the last line that was taken."""
        self.hash: bytes | None = BEGINNING if first == 1 else None
        """Its hash; None before the first line of a chain that does not begin with line 1."""

    def expect(self, head: Head) -> None:
        """Look at a head before its lines are taken: whether it was signed with this key."""
        self._is_signed = self._chain.has_signed(head)

    def take(self, line: Line) -> None:
        """Take the next line."""
        if self._gap is not None:
            self._look_for_the_gap(line)
            return
        made = self._chain.has_made(line)
        if not self._is_signed:
            raise broken(Fault.ALTERED, None, "The head of the audit log was altered") if made else _wrong_key()
        if not made:
            raise broken(Fault.ALTERED, line.seq, f"Line {line.seq} is not what was written")
        if line.seq <= self.seq:
            raise broken(Fault.REORDERED, line.seq, f"Line {line.seq} stands behind line {self.seq}")
        if line.seq > self.seq + 1:
            self._gap = self.seq + 1
            return
        if self.hash not in {None, line.previous}:
            raise broken(
                Fault.REORDERED, line.seq, f"Line {line.seq} does not follow this line {self.seq}, but another one"
            )
        self.seq, self.hash = line.seq, line.hash

    def end(self, head: Head) -> None:
        """Say that there are no more lines; those up to the head must have been there, and no others."""
        if not self._is_signed:
            raise _wrong_key()
        if self._gap is not None:
            raise broken(Fault.MISSING, self._gap, f"Line {self._gap} is missing")
        if self.seq < head.seq:
            raise broken(Fault.CUT, self.seq + 1, f"The end is missing: lines {self.seq + 1} to {head.seq}")
        if self.seq > head.seq:
            raise broken(Fault.ADDED, head.seq + 1, f"Line {head.seq + 1} stands behind the head")
        if self.hash not in {None, head.hash}:
            raise broken(Fault.REORDERED, self.seq, f"Line {self.seq} is not the one of the head, but another one")

    def meets(self, seq: int, known: bytes) -> None:
        """Hold the last line that was taken against a head that was noted elsewhere, if it is that one."""
        if seq == self.seq and self.hash is not None and self.hash != known:
            raise broken(Fault.REORDERED, seq, f"Line {seq} is not the one that was noted, but another one")

    def _look_for_the_gap(self, line: Line) -> None:
        """A line was not at its place: if it comes later it was moved, else it is missing."""
        if line.seq == self._gap:
            raise broken(Fault.REORDERED, line.seq, f"Line {line.seq} stands behind a later one")


# -- exports -----------------------------------------------------------------------------------------------------------
def export_header(first: int, head: Head) -> bytes:
    """Return the first line of an export: which lines follow, signed."""
    return canonical({"first": first, "head": head.to_dict()}) + b"\n"


def export_line(line: Line) -> bytes:
    """Return a line as it stands in an export."""
    return canonical(line.to_dict()) + b"\n"


def read_header(raw: bytes, name: str) -> tuple[int, Head]:
    """Return with which line an export begins, and its head. Raises InvalidInput when it is none."""
    try:
        values = json.loads(raw)
        first, head = values["first"], Head.from_dict(values["head"])
        if not isinstance(first, int) or first < 1 or export_header(first, head) != raw:
            raise ValueError("not as it is written")
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{name} is no export of an audit log, or its first line was altered",
            next_step="Give a file that `snapkeep audit export` wrote.",
        ) from error
    return first, head


def read_lines(raws: Iterator[bytes], expected: int) -> Iterator[Line]:
    """Yield the lines of an export, of which the first is numbered `expected`. Raises Damaged (altered).

    Each must be, byte for byte, as it was written: of two fields of one name, a reader might see the other.
    """
    for number, raw in enumerate(raws, expected):
        line = _read_line(raw)
        if line is None:
            raise broken(Fault.ALTERED, number, f"What stands in place of line {number} is not what was written")
        yield line


def _read_line(raw: bytes) -> Line | None:
    try:
        line = Line.from_dict(json.loads(raw))
        return line if export_line(line) == raw else None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
