"""The configuration of a repository: its identity, and the polynomial by which files are cut into chunks."""

from __future__ import annotations

import json
import secrets
from typing import NamedTuple

import msgspec

from snapkeep.model.errors import Damaged, Unsupported
from snapkeep.repository.chunker import DEGREE, remainder


class Config(NamedTuple):
    """What `config` says."""

    id: str
    polynomial: int

    @classmethod
    def random(cls) -> Config:
        """Return what a new repository gets."""
        return cls(secrets.token_hex(32), random_polynomial())

    def to_json(self) -> bytes:
        """Return the document, as restic writes it."""
        content = {"version": 2, "id": self.id, "chunker_polynomial": f"{self.polynomial:x}"}
        return json.dumps(content, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Config:
        """Raises Damaged, or Unsupported for a version of the format that is not ours."""
        try:
            content = msgspec.json.decode(text, type=_Content)
            polynomial = int(content.chunker_polynomial, 16)
        except (msgspec.DecodeError, ValueError) as error:
            raise Damaged(f"The configuration of the repository cannot be read: {error}") from error
        if content.version != 2:
            raise Unsupported(
                f"The repository has version {content.version} of restic's format; Snapkeep knows version 2",
                next_step="Upgrade the repository by `restic migrate upgrade_repo_v2`, or make a new one.",
            )
        if not is_irreducible(polynomial):
            raise Damaged("The polynomial of the repository is not irreducible")
        return cls(content.id, polynomial)


class _Content(msgspec.Struct):
    version: int
    id: str
    chunker_polynomial: str


def random_polynomial() -> int:
    """Return a random irreducible polynomial of degree 53 over GF(2): bit n is the coefficient of x^n."""
    while True:
        # The lowest bit must be set as well: otherwise x divides it.
        candidate = secrets.randbits(DEGREE) | 1 << DEGREE | 1
        if is_irreducible(candidate):
            return candidate


def is_irreducible(polynomial: int) -> bool:
    """Ben-Or's test: no factor of degree i divides both `polynomial` and x^(2^i) - x."""
    degree = polynomial.bit_length() - 1
    if degree < 1:
        return False
    power = 2  # x
    for _ in range(degree // 2):
        power = _square(power, polynomial)
        if _gcd(polynomial, power ^ 2) != 1:
            return False
    return True


def _square(value: int, modulus: int) -> int:
    # The square of a sum is the sum of the squares here: bits move to twice their place.
    return remainder(int(f"{value:b}", 4), modulus)


def _gcd(first: int, second: int) -> int:
    while second:
        first, second = second, remainder(first, second)
    return first
