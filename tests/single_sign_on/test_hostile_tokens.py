"""ID tokens that prove nothing, and claims that nobody can use."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from joserfc.jwk import RSAKey
from tests.single_sign_on.hostile import Hostile
from tests.single_sign_on.logins import refused
from tests.support.hostile_oidc import HostileProvider, base64url

from snapkeep.model.errors import AuthenticationFailed

OTHER = RSAKey.generate_key(2048, {"kid": "first"})
Make = Callable[[HostileProvider, str], object]


def raw(header: Any, claims: Any, signature: bytes = b"") -> str:
    return f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(claims).encode())}.{base64url(signature)}"


def symmetric(provider: HostileProvider, nonce: str, secret: bytes) -> str:
    text = raw({"alg": "HS256", "kid": "first"}, provider.claims(nonce)).rpartition(".")[0]
    return f"{text}.{base64url(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def shifted(provider: HostileProvider, nonce: str) -> str:
    """Return somebody else's claims with the signature of others."""
    mine = provider.sign(provider.claims(nonce)).split(".")
    other = raw({}, provider.claims(nonce, sub="bob")).split(".")
    return ".".join((mine[0], other[1], mine[2]))


TOKENS: dict[str, Make] = {
    "no signature": lambda provider, nonce: raw({"alg": "none"}, provider.claims(nonce)),
    "none in other letters": lambda provider, nonce: raw({"alg": "nOnE"}, provider.claims(nonce)),
    "the public key as a secret": lambda provider, nonce: symmetric(
        provider, nonce, provider.key.as_pem(private=False)
    ),
    "the modulus as a secret": lambda provider, nonce: symmetric(provider, nonce, provider.keys[0]["n"].encode()),
    "the client secret": lambda provider, nonce: symmetric(provider, nonce, b"secret"),
    "another key": lambda provider, nonce: provider.sign(provider.claims(nonce), OTHER),
    "a key of its own": lambda provider, nonce: provider.sign(
        provider.claims(nonce), OTHER, kid="mine", jwk=OTHER.as_dict(private=False)
    ),
    "an algorithm that is not announced": lambda provider, nonce: provider.sign(provider.claims(nonce), alg="PS256"),
    "another signature": shifted,
    "a critical header": lambda provider, nonce: raw({"alg": "RS256", "crit": ["x"], "x": 1}, provider.claims(nonce)),
    "no algorithm": lambda provider, nonce: raw({}, provider.claims(nonce)),
    "a strange algorithm": lambda provider, nonce: raw({"alg": ["RS256"]}, provider.claims(nonce)),
    "a strange key id": lambda provider, nonce: raw({"alg": "RS256", "kid": {"a": 1}}, provider.claims(nonce)),
    "a header that is no object": lambda provider, nonce: raw([], provider.claims(nonce)),
    "a header that never ends": lambda *_: base64url(b"[" * 20_000) + ".e30.",
    "claims that are no object": lambda provider, _: provider.sign(["x"]),
    "nothing": lambda *_: None,
    "a number": lambda *_: 5,
    "no token": lambda *_: "x",
    "dots": lambda *_: "...",
    "an encrypted one": lambda *_: "e30.e30.e30.e30.e30",
    "too long": lambda *_: "x" * 100_000,
    "not ASCII": lambda *_: "\u00e9.x.x",
}


@pytest.mark.parametrize("make", TOKENS.values(), ids=TOKENS)
def test_tokens_that_prove_nothing(hostile: Hostile, make: Make) -> None:
    hostile.add()
    error = refused(hostile.log_in, lambda nonce: make(hostile.provider, nonce))
    assert isinstance(error, AuthenticationFailed), error
    assert "The token of" in str(error)
    assert not hostile.run(hostile.catalog.identities.find())


NOW = int(time.time())
CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "other"},
    "no audience": {"aud": None},
    "several audiences, for nobody": {"aud": ["snapkeep", "other"]},
    "several audiences, for another": {"aud": ["snapkeep", "other"], "azp": "other"},
    "another party": {"azp": "other"},
    "a strange party": {"azp": ["snapkeep"]},
    "expired": {"exp": NOW - 600},
    "never expires": {"exp": None},
    "expires at no time": {"exp": "tomorrow"},
    "expires at no number": {"exp": float("nan")},
    "of the future": {"iat": NOW + 6000},
    "of no time": {"iat": None},
    "not yet": {"nbf": NOW + 6000},
    "another nonce": {"nonce": "x"},
    "no nonce": {"nonce": None},
    "a strange nonce": {"nonce": ["x"]},
    "another access token": {"at_hash": "x"},
    "a strange access token": {"at_hash": 5},
    "nobody": {"sub": None},
    "an empty subject": {"sub": ""},
    "a long subject": {"sub": "x" * 256},
    "a subject that is no text": {"sub": 5},
    "a subject with control characters": {"sub": "alice\x00\x1b[2J"},
    "half a character": {"sub": "\ud800"},
}


@pytest.mark.parametrize("changed", CLAIMS.values(), ids=CLAIMS)
def test_claims_that_are_wrong(hostile: Hostile, changed: dict[str, Any]) -> None:
    hostile.add()
    assert isinstance(refused(lambda: hostile.with_claims(**changed)), AuthenticationFailed)


def test_claims_that_are_right(hostile: Hostile) -> None:
    hostile.add()
    half = base64url(hashlib.sha256(b"at").digest()[:16])
    clock = {"exp": int(time.time()) - 30, "iat": int(time.time()) + 30}  # clocks differ a little
    hostile.with_claims(aud=["snapkeep", "other"], azp="snapkeep", at_hash=half, **clock)


@pytest.mark.parametrize(
    "name",
    ["", "x" * 64, "a\x1b[2Jb", "a b", "-a", "administrator", "Snapkeep", "\u212aim", "\u0430lice", "../x", 5,
     ["alice"], {"a": 1}, None, "\ud800", "a/b", "alice\n"],
)  # fmt: skip
def test_names_that_are_none_here(hostile: Hostile, name: object) -> None:
    hostile.add()
    error = refused(lambda: hostile.with_claims(preferred_username=name))
    assert "is no name here" in str(error)
    assert str(error).isprintable()


def test_the_name_may_be_in_another_claim(hostile: Hostile) -> None:
    hostile.add(name_claim="https://example.com/mail")
    session = hostile.with_claims(**{"https://example.com/mail": "Alice.B@Example.com"})
    assert session.record.identity_name == "alice.b@example.com"


@pytest.mark.parametrize(
    "groups", [5, {"staff": True}, [["staff"]], [None], True, ["staff", 5], "staff\x00", ["x"] * 10_001]
)
def test_groups_that_are_none(hostile: Hostile, groups: object) -> None:
    hostile.add(allowed_groups=["staff"])
    assert refused(lambda: hostile.with_claims(groups=groups)).code in {"authentication_failed", "permission_denied"}


def test_groups_that_are_missing(hostile: Hostile) -> None:
    grants = [{"group": "staff", "role": "viewer"}]
    hostile.add(grants=grants)
    hostile.with_claims(groups="staff")
    assert hostile.granted() == {("viewer", "all")}, "one group may be given as a text"
    assert "too many for its token" in str(refused(lambda: hostile.with_claims(_claim_names={"groups": "src1"})))
    assert hostile.granted() == {("viewer", "all")}
    hostile.with_claims(groups=None)
    assert hostile.granted() == set(), "no groups are none"
    hostile.change(allowed_groups=["staff"])
    assert "has no claim 'groups'" in str(refused(lambda: hostile.with_claims(groups=None)))


def test_somebody_elses_name_is_not_shown_as_ones_own(hostile: Hostile) -> None:
    """What a provider says besides the token must be about the same one."""
    hostile.provider.metadata["userinfo_endpoint"] = f"{hostile.provider.issuer}/me"
    hostile.add()
    hostile.provider.answers["/me"] = lambda _: (200, {"sub": "bob", "preferred_username": "alice"})
    assert "tells of somebody else" in str(refused(lambda: hostile.with_claims(preferred_username=None)))
    hostile.provider.answers["/me"] = lambda _: (200, {"sub": "alice", "preferred_username": "alice", "aud": "x"})
    assert hostile.with_claims(preferred_username=None).record.identity_name == "alice"
    error = refused(
        lambda: hostile.log_in(
            lambda nonce: hostile.provider.sign(hostile.provider.claims(nonce, preferred_username=None)),
            access_token="x\r\nX: y",
        )
    )
    assert "access token" in str(error)
