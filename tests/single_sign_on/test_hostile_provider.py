"""Providers that answer what no provider should, and what becomes of logins meanwhile."""

from __future__ import annotations

import time
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey
from tests.single_sign_on.hostile import HERE, Hostile
from tests.single_sign_on.logins import REDIRECT, refused

from snapkeep.catalog import logins
from snapkeep.identity.attempts import FREE_OF_ADDRESS
from snapkeep.identity.oidc import transport
from snapkeep.identity.oidc.discovery import AGAIN_SECONDS, FAILED_SECONDS, KEPT_SECONDS
from snapkeep.identity.oidc.service import BROWSER_SECONDS
from snapkeep.model.errors import AuthenticationFailed, RateLimited, Unavailable

SPOKEN = {"access_token": "at", "id_token": "x"}
ANSWERS: dict[str, tuple[int, Any]] = {
    "a page": (200, b"<html>"),
    "nothing": (200, b""),
    "a list": (200, [1]),
    "half of something": (200, b'{"id_token": "'),
    "not UTF-8": (200, b'{"id_token": "\xff"}'),
    "what never ends": (200, b"[" * 100_000),
    "very much": (200, b'"' + b"x" * (transport.MOST_BYTES + 1) + b'"'),
    "a refusal without a reason": (400, {}),
    "a refusal with a strange reason": (400, {"error": 5}),
    "a redirect": (302, {}),
    "not there": (404, b"no"),
    "its own failure": (500, b"oops"),
    "too much for it": (429, {}),
    "no token": (200, {"access_token": "at"}),
    "half of a token": (200, SPOKEN),
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("place", ["/token", "/jwks", "/.well-known/openid-configuration"])
def test_what_is_no_answer(hostile: Hostile, place: str, answer: tuple[int, Any]) -> None:
    hostile.provider.answers[place] = lambda _: answer
    if place == "/token":
        hostile.add()
        login, _ = hostile.begin()
        error = refused(hostile.end, login)
    elif place == "/jwks" and answer[0] == 200 and isinstance(answer[1], dict):
        hostile.add()
        error = refused(hostile.with_claims)
    else:
        error = refused(hostile.add)
    assert isinstance(error, AuthenticationFailed | Unavailable)
    assert error.message.isprintable()


def test_what_it_says_cannot_control_a_terminal(hostile: Hostile) -> None:
    hostile.add()
    login, _ = hostile.begin()
    said = {"error": "x\x1b[2J" * 1000, "error_description": "\x07" * 1000}
    hostile.provider.answers["/token"] = lambda _: (400, said)
    error = refused(hostile.end, login)
    assert len(str(error)) < 1000
    assert str(error).isprintable()


def test_an_answer_that_takes_too_long(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.add()
    login, _ = hostile.begin()
    monkeypatch.setattr(transport, "SECONDS", 0.3)

    def late(_: dict[str, str]) -> tuple[int, Any]:
        time.sleep(1.0)
        return 200, {}

    hostile.provider.answers["/token"] = late
    error = refused(hostile.end, login)
    assert "no answer within 0.3 seconds" in str(error)


def test_one_that_is_down_is_not_asked_by_everybody(hostile: Hostile) -> None:
    hostile.add()
    hostile.another_process()
    place = "/.well-known/openid-configuration"
    hostile.provider.answers[place] = lambda _: (503, {})
    before = hostile.provider.asked[place]
    for _ in range(5):
        assert isinstance(refused(hostile.begin), Unavailable)
    assert hostile.provider.asked[place] == before + 1
    del hostile.provider.answers[place]
    hostile.clock.passed += FAILED_SECONDS
    hostile.with_claims()


METADATA: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://evil.example"},
    "no issuer": {"issuer": None},
    "plain HTTP": {"token_endpoint": "http://localhost/token"},
    "no address": {"token_endpoint": None},
    "a script": {"authorization_endpoint": "javascript:alert(1)"},
    "a file": {"jwks_uri": "file:///etc/passwd"},
    "a name before the host": {"jwks_uri": "https://good.example@evil.example/"},
    "a number": {"jwks_uri": 5},
    "an address in two lines": {"authorization_endpoint": "https://x/\nSet-Cookie: x"},
    "only symmetric algorithms": {"id_token_signing_alg_values_supported": ["HS256", "none"]},
    "the metadata of its cloud": {"jwks_uri": "https://169.254.169.254/latest/meta-data"},
}


@pytest.mark.parametrize("changed", METADATA.values(), ids=METADATA)
def test_what_it_says_of_itself_cannot_be_used(hostile: Hostile, changed: dict[str, Any]) -> None:
    hostile.provider.metadata = changed
    error = refused(hostile.add)
    assert error.code in {"authentication_failed", "unsupported", "invalid_input"}
    assert not hostile.run(hostile.catalog.providers.find())


@pytest.mark.parametrize(
    "issuer", ["http://localhost", "https://", "localhost", "https://x?y", "https://a@b", "https://169.254.169.254"]
)
def test_an_issuer_that_is_none(hostile: Hostile, issuer: str) -> None:
    assert refused(lambda: hostile.add(issuer=issuer)).code == "invalid_input"


def test_an_authority_that_is_none(hostile: Hostile) -> None:
    assert "The authority of the provider cannot be used" in str(refused(lambda: hostile.add(ca="x")))
    assert "is not trusted" in str(refused(lambda: hostile.add(ca=None)))


# -- keys --------------------------------------------------------------------------------------------------------------
def test_keys_that_cannot_be_used_do_not_spoil_the_others(hostile: Hostile) -> None:
    good = hostile.provider.keys[0]
    with pytest.warns(UserWarning, match="2048"):
        weak = RSAKey.generate_key(1024, {"kid": "weak"})
    secret = OctKey.generate_key(256, {"kid": "oct"})
    odd: list[Any] = [
        5, None, {}, {"kty": "RSA"}, {"kty": "RSA", "n": "x" * 400, "e": 5}, {"kty": "new"},
        {"kty": "EC", "crv": "x", "x": "y", "y": "z"}, {**good, "use": "enc", "kid": "enc"}, secret.as_dict(),
        weak.as_dict(private=False), ECKey.generate_key("P-384", {"kid": "ec"}).as_dict(private=False),
    ]  # fmt: skip
    hostile.provider.keys = [*odd, good]
    hostile.add()
    hostile.with_claims()
    error = refused(
        hostile.log_in, lambda nonce: hostile.provider.sign(hostile.provider.claims(nonce), weak, kid="weak")
    )
    assert "a key that the provider does not publish" in str(error)
    for kid in ("enc", "oct"):
        make = lambda nonce, kid=kid: hostile.provider.sign(hostile.provider.claims(nonce), kid=kid)  # noqa: E731
        assert isinstance(refused(hostile.log_in, make), AuthenticationFailed)


def test_a_new_key_is_looked_for_now_and_then(hostile: Hostile) -> None:
    hostile.add()
    provider = hostile.provider
    assert provider.asked["/jwks"] == 1
    new = RSAKey.generate_key(2048, {"kid": "second"})
    provider.keys.append(new.as_dict(private=False))
    hostile.log_in(lambda nonce: provider.sign(provider.claims(nonce), new, kid="second"))
    assert provider.asked["/jwks"] == 2
    for _ in range(5):
        refused(hostile.log_in, lambda nonce: provider.sign(provider.claims(nonce), kid="made-up"))
    assert provider.asked["/jwks"] == 2, "who makes up keys does not have it asked again and again"
    hostile.clock.passed += AGAIN_SECONDS
    refused(hostile.log_in, lambda nonce: provider.sign(provider.claims(nonce), kid="made-up"))
    assert provider.asked["/jwks"] == 3
    provider.keys.pop(0)
    hostile.clock.passed += KEPT_SECONDS
    assert "does not publish" in str(refused(hostile.with_claims)), "a key that is withdrawn is used no more"


def test_without_an_id_any_key_may_have_signed(hostile: Hostile) -> None:
    provider = hostile.provider
    ec = ECKey.generate_key("P-256")
    provider.keys = [RSAKey.generate_key(2048).as_dict(private=False), *provider.keys, ec.as_dict(private=False)]
    for key in provider.keys:
        key.pop("kid", None)
    hostile.add()
    hostile.log_in(lambda nonce: provider.sign(provider.claims(nonce), kid=None))
    hostile.log_in(lambda nonce: provider.sign(provider.claims(nonce), ec, alg="ES256", kid=None))


# -- what the exchange consists of -------------------------------------------------------------------------------------
@pytest.mark.parametrize("methods", [None, ["client_secret_post"], ["client_secret_basic", "client_secret_post"]])
def test_how_we_prove_who_we_are(hostile: Hostile, methods: list[str] | None) -> None:
    if methods:
        hostile.provider.metadata["token_endpoint_auth_methods_supported"] = methods
    hostile.add()
    hostile.with_claims()
    form = hostile.provider.forms[-1]
    assert form.keys() >= {"grant_type", "code", "redirect_uri", "code_verifier"}
    assert form["redirect_uri"] == REDIRECT
    assert ("client_secret" in form) is (methods == ["client_secret_post"])


# -- logins under way --------------------------------------------------------------------------------------------------
def test_a_login_ends_in_another_process(hostile_anywhere: Hostile) -> None:
    hostile = hostile_anywhere
    hostile.add(grants=[{"group": "staff", "role": "viewer"}])
    login, nonce = hostile.begin()
    hostile.another_process()
    hostile.provider.gives(hostile.provider.sign(hostile.provider.claims(nonce)))
    session = hostile.end(login)
    principal = hostile.run(hostile.identities.authenticate(session.token))
    assert principal is not None
    assert principal.is_session
    assert hostile.granted() == {("viewer", "all")}
    assert "used already" in str(refused(hostile.end, login))
    hostile.run(hostile.catalog.providers.remove(hostile.run(hostile.catalog.providers.get(hostile.provider.name))))
    assert hostile.run(hostile.identities.authenticate(session.token)) is None
    assert hostile.granted() == set()


def test_secrets_are_sealed(hostile_anywhere: Hostile) -> None:
    hostile = hostile_anywhere
    record = hostile.add(client_secret="top-secret")
    login, nonce = hostile.begin()
    assert hostile.run(hostile.catalog.providers.secret(record)) == "top-secret"
    assert login.ticket not in repr(hostile.run(hostile.catalog.sealing.needed()))
    assert sum(hostile.run(hostile.catalog.sealing.needed()).values()) >= 2
    assert nonce not in repr(record)


def test_a_login_that_takes_too_long(hostile: Hostile) -> None:
    hostile.add()
    login, nonce = hostile.begin()
    hostile.provider.gives(hostile.provider.sign(hostile.provider.claims(nonce)))
    hostile.clock.passed += BROWSER_SECONDS + 1
    assert "expired" in str(refused(hostile.end, login))


def test_logins_are_few(hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.add()
    monkeypatch.setattr(logins, "MOST", 3)
    for _ in range(3):
        hostile.begin()
    error = refused(hostile.begin)
    assert isinstance(error, RateLimited)
    hostile.clock.passed += BROWSER_SECONDS + 1
    hostile.begin()


def test_who_begins_and_never_ends_is_braked(hostile: Hostile) -> None:
    hostile.add()
    for _ in range(FREE_OF_ADDRESS):
        hostile.begin()
    assert isinstance(refused(hostile.begin), RateLimited)
    hostile.run(hostile.service.begin_browser(None, REDIRECT, "192.0.2.2"))  # nobody else is held up
    hostile.clock.passed += 1000
    for _ in range(FREE_OF_ADDRESS + 10):
        hostile.with_claims()  # who succeeds does not count


def test_who_guesses_tickets_is_braked(hostile: Hostile) -> None:
    hostile.add()
    errors = [
        refused(lambda: hostile.run(hostile.service.end_browser("x" * 43, {"state": "x"}, HERE)))
        for _ in range(FREE_OF_ADDRESS + 1)
    ]
    assert [type(error) for error in errors[-2:]] == [AuthenticationFailed, RateLimited]


# -- by a code ---------------------------------------------------------------------------------------------------------
def device(hostile: Hostile, **changed: Any) -> None:
    right = {
        "device_code": "secret",
        "user_code": "ABCD-EFGH",
        "verification_uri": f"{hostile.provider.issuer}/device",
        "expires_in": 600,
        "interval": 5,
    }
    said = {name: value for name, value in {**right, **changed}.items() if value is not None}
    hostile.provider.answers["/device"] = lambda _: (200, said)


def refuses(hostile: Hostile, error: str) -> None:
    hostile.provider.answers["/token"] = lambda _: (400, {"error": error})


def test_a_provider_that_wants_to_be_asked_less_often(hostile_anywhere: Hostile) -> None:
    hostile = hostile_anywhere
    hostile.add()
    device(hostile)
    login = hostile.begin_on_device()
    refuses(hostile, "authorization_pending")
    assert [hostile.ask(login) for _ in range(3)] == [5, 5, 5]
    assert hostile.provider.asked["/token"] == 1
    hostile.clock.passed += 6
    refuses(hostile, "slow_down")
    assert hostile.ask(login) == 10
    hostile.clock.passed += 6
    assert hostile.ask(login) == 10
    assert hostile.provider.asked["/token"] == 2, "not yet"
    hostile.clock.passed += 5
    hostile.provider.gives(hostile.provider.sign(hostile.provider.claims(None)))
    assert not isinstance(hostile.ask(login), int)
    assert "used already" in str(refused(hostile.ask, login))


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "invalid_grant", "x" * 5000])
def test_a_code_that_is_refused(hostile: Hostile, error: str) -> None:
    hostile.add()
    device(hostile)
    login = hostile.begin_on_device()
    refuses(hostile, error)
    assert isinstance(refused(hostile.ask, login), AuthenticationFailed)
    assert "used already" in str(refused(hostile.ask, login))


def test_a_code_survives_a_provider_that_is_down(hostile: Hostile) -> None:
    hostile.add()
    device(hostile)
    login = hostile.begin_on_device()
    hostile.provider.answers["/token"] = lambda _: (503, {})
    assert isinstance(refused(hostile.ask, login), Unavailable)
    hostile.clock.passed += 6
    hostile.provider.gives(hostile.provider.sign(hostile.provider.claims(None)))
    assert not isinstance(hostile.ask(login), int)


@pytest.mark.parametrize(
    "changed",
    [
        {"user_code": None}, {"user_code": ""}, {"user_code": "a\x1b[2J"}, {"user_code": 5}, {"device_code": None},
        {"device_code": 5}, {"verification_uri": "http://localhost"}, {"verification_uri": "javascript:x"},
        {"verification_uri": None}, {"verification_uri_complete": "file:///x"},
    ],
)  # fmt: skip
def test_codes_that_are_none(hostile: Hostile, changed: dict[str, Any]) -> None:
    hostile.add()
    device(hostile, **changed)
    assert isinstance(refused(hostile.begin_on_device), AuthenticationFailed)


@pytest.mark.parametrize(
    "changed",
    [{"interval": -1}, {"interval": "x"}, {"interval": 1e300}, {"interval": True}, {"interval": None},
     {"expires_in": -5}, {"expires_in": 1e300}, {"expires_in": "x"}, {"expires_in": None}],
)  # fmt: skip
def test_strange_times_become_usable_ones(hostile: Hostile, changed: dict[str, Any]) -> None:
    hostile.add()
    device(hostile, **changed)
    login = hostile.begin_on_device()
    assert 1 <= login.seconds <= 60
    lasts = (login.expires_at - hostile.clock.now()).total_seconds()
    assert 0 < lasts <= 1800


def test_a_provider_without_codes(hostile: Hostile) -> None:
    hostile.provider.metadata["device_authorization_endpoint"] = None
    hostile.add()
    error = refused(hostile.begin_on_device)
    assert error.code == "unsupported"
    assert "--browser" in error.next_step
