"""Logging in in a browser, with a real provider: authorization code and PKCE."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from tests.single_sign_on.logins import Logins, granted, refused
from tests.support.installation import Installation
from tests.support.oidc import SECRET, OidcProvider

from snapkeep.model.errors import AuthenticationFailed, InvalidInput, NotFound


def test_somebody_new_logs_in(installation: Installation, logins: Logins) -> None:
    login = logins.begin(provider="corp")
    asked = parse_qs(urlsplit(login["url"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["response_type"] == ["code"]
    assert asked["nonce"][0] != asked["state"][0] == login["state"]
    browser = logins.provider.browser()
    came_back = browser.log_in(login["url"], "alice")
    assert came_back["iss"] == logins.provider.issuer
    alice = logins.end(login, came_back)
    me = alice.request("GET", "/me")
    assert (me["name"], me["kind"]) == ("alice", "user")
    assert granted(alice) == {("operator", "system:files1"), ("viewer", "all")}
    shown = installation.rest.request("GET", "/identities/alice")
    assert not shown["has_password"]
    assert (shown["issuer"], shown["subject"]) == (logins.provider.issuer, "alice")
    assert {item["granted_by"] for item in shown["grants"]} == {"provider corp"}
    token = alice.request("GET", "/tokens")["data"]
    assert [item["kind"] for item in token] == ["session"]
    alice.request("POST", "/logout")
    with pytest.raises(AuthenticationFailed):
        alice.request("GET", "/me")
    browser.close()


def test_a_login_is_of_use_once(logins: Logins) -> None:
    login = logins.begin()
    browser = logins.provider.browser()
    came_back = browser.log_in(login["url"], "alice")
    logins.end(login, came_back)
    assert "used already" in str(refused(logins.end, login, came_back))
    another = logins.begin()  # the code of before, in a login that is under way
    error = refused(logins.end, another, came_back | {"state": another["state"]})
    assert isinstance(error, AuthenticationFailed)
    assert error.vendor_code == "invalid_grant"
    browser.close()


@pytest.mark.parametrize("wrong", [{"state": "x"}, {"code": "made-up"}, {"iss": "https://evil.example"}, {"iss": None}])
def test_what_comes_back_is_that_of_this_login(logins: Logins, wrong: dict[str, str | None]) -> None:
    login = logins.begin()
    browser = logins.provider.browser()
    came_back = browser.log_in(login["url"], "alice")
    assert isinstance(refused(logins.end, login, came_back | wrong), AuthenticationFailed)
    assert "used already" in str(refused(logins.end, login, came_back)), "it is over then"
    browser.close()


def test_somebody_else_cannot_end_a_login(logins: Logins) -> None:
    mine, other = logins.begin(), logins.begin()
    browser = logins.provider.browser()
    came_back = browser.log_in(mine["url"], "alice")
    assert "belongs to another login" in str(refused(logins.end, other, came_back))
    assert "used already" in str(refused(logins.end, {"ticket": "x" * 43}, came_back))
    device = {"ticket": mine["ticket"]}
    assert "used already" in str(refused(logins.ask, device)), "a login has its own kind"
    assert logins.end(mine, came_back).request("GET", "/me")["name"] == "alice"
    browser.close()


def test_somebody_does_not_agree(logins: Logins) -> None:
    login = logins.begin()
    browser = logins.provider.browser()
    came_back = browser.log_in(login["url"], "alice", agrees=False)
    assert came_back["error"] == "access_denied"
    error = refused(logins.end, login, came_back)
    assert "The login was refused at corp" in str(error)
    browser.close()


def test_groups_decide_at_each_login(installation: Installation, logins: Logins) -> None:
    rest = installation.rest
    alice = logins.log_in("alice")
    rest.request("POST", "/identities/alice/grants", json={"role": "restorer", "scope": "all"})
    rest.request("POST", "/identities/alice/grants", json={"role": "viewer", "scope": "all"})  # a group gives it, too
    logins.provider.say(alice={"preferred_username": "alice", "groups": []})
    assert ("operator", "system:files1") in granted(alice), "not before the next login"
    logins.log_in("alice")
    by_hand = {("restorer", "all"), ("viewer", "all")}
    assert granted(alice) == by_hand, "what somebody has granted stays"
    logins.provider.say(alice={"preferred_username": "alice", "groups": ["storage"]})
    logins.log_in("alice")
    assert granted(alice) == by_hand | {("operator", "system:files1")}
    rest.request("PATCH", "/providers/corp", json={"allowed_groups": ["staff"]})
    error = refused(logins.log_in, "alice")
    assert "no group that may log in" in str(error)
    assert granted(alice) == by_hand, "who may not log in any more keeps nothing of his groups"


def test_it_is_the_same_person_under_another_name(installation: Installation, logins: Logins) -> None:
    logins.log_in("alice")
    logins.provider.say(alice={"preferred_username": "alice.new", "groups": []})
    assert logins.log_in("alice").request("GET", "/me")["name"] == "alice"
    logins.provider.say(mallory={"preferred_username": "ALICE", "groups": []})
    error = refused(logins.log_in, "mallory")
    assert error.code == "conflict"
    assert "it is not yours" in str(error)


def test_a_local_user_is_not_taken_over(installation: Installation, logins: Logins) -> None:
    body = {"name": "bob", "password": "correct horse battery"}
    installation.rest.request("POST", "/identities", json=body)
    assert refused(logins.log_in, "bob").code == "conflict"
    installation.rest.request("POST", "/login", json=body)
    installation.rest.request("DELETE", "/identities/bob")
    assert logins.log_in("bob").request("GET", "/me")["name"] == "bob"


def test_who_is_known_by_a_provider_has_no_password(installation: Installation, logins: Logins) -> None:
    alice = logins.log_in("alice")
    with pytest.raises(InvalidInput, match="has no password here"):
        installation.rest.request("PATCH", "/identities/alice", json={"password": "correct horse battery"})
    with pytest.raises(InvalidInput, match="has no password here"):
        alice.request("PUT", "/me/password", json={"old": "x", "new": "correct horse battery"})
    with pytest.raises(AuthenticationFailed):
        installation.rest.request("POST", "/login", json={"name": "alice", "password": "correct horse battery"})


def test_who_is_disabled_or_removed_is_out(installation: Installation, logins: Logins) -> None:
    rest = installation.rest
    alice = logins.log_in("alice")
    rest.request("PATCH", "/identities/alice", json={"disabled": True})
    with pytest.raises(AuthenticationFailed):
        alice.request("GET", "/me")
    assert "is disabled here" in str(refused(logins.log_in, "alice"))
    rest.request("PATCH", "/identities/alice", json={"disabled": False})
    alice = logins.log_in("alice")
    rest.request("DELETE", "/identities/alice")
    with pytest.raises(AuthenticationFailed):
        alice.request("GET", "/me")


def test_a_provider_that_is_removed_lets_nobody_in(installation: Installation, logins: Logins) -> None:
    rest = installation.rest
    alice = logins.log_in("alice")
    rest.request("POST", "/identities/alice/grants", json={"role": "restorer", "scope": "all"})
    begun = logins.begin()
    rest.request("DELETE", "/providers/corp")
    with pytest.raises(AuthenticationFailed):
        alice.request("GET", "/me")
    held = rest.request("GET", "/identities/alice")["grants"]
    assert [item["role"] for item in held] == ["restorer"]
    assert "used already" in str(refused(logins.end, begun, {"state": begun["state"], "code": "x"}))
    assert isinstance(refused(logins.begin), NotFound)
    rest.request("POST", "/providers", json=logins.provider.settings("corp2"))
    assert logins.log_in("alice").request("GET", "/me")["name"] == "alice", "it is the same person"


def test_keys_may_change_meanwhile(logins: Logins) -> None:
    logins.log_in("alice")
    logins.provider.stop()
    logins.provider.new_keys()
    login = logins.begin()  # what is known of it is kept
    logins.provider.start()
    browser = logins.provider.browser()
    assert logins.end(login, browser.log_in(login["url"], "alice")).request("GET", "/me")["name"] == "alice"
    browser.close()


def test_a_provider_that_is_down_says_so(installation: Installation, logins: Logins) -> None:
    login = logins.begin()
    browser = logins.provider.browser()
    came_back = browser.log_in(login["url"], "alice")
    logins.provider.stop()
    try:
        error = refused(logins.end, login, came_back)
        assert error.code == "unavailable"
        assert "cannot be reached" in str(error)
        another = logins.provider.settings("other", issuer="https://localhost:1")
        error = refused(lambda: installation.rest.request("POST", "/providers", json=another))
        assert error.code == "unavailable"
    finally:
        logins.provider.start()
    browser.close()


def test_public_clients_and_tokens_with_everything(
    installation: Installation, oidc: OidcProvider, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without a client secret; signed with ES256; groups in the ID token itself."""
    oidc.stop()
    oidc.lean, oidc.algorithm = False, "ES256"
    oidc.start()
    try:
        settings = oidc.settings(client_id="public", client_secret=None, allowed_groups=["staff"])
        installation.rest.request("POST", "/providers", json=settings)
        logins = Logins(installation, oidc)
        assert logins.log_in("bob").request("GET", "/me")["name"] == "bob"
        logins.close()
    finally:
        oidc.stop()
        oidc.lean, oidc.algorithm = True, "RS256"
        oidc.start()


def test_a_wrong_client_secret_says_so(installation: Installation, logins: Logins) -> None:
    installation.rest.request("PATCH", "/providers/corp", json={"client_secret": "wrong"})
    error = refused(logins.log_in, "alice")
    assert error.vendor_code == "invalid_client"
    assert "snapkeep provider change" in error.next_step
    installation.rest.request("PATCH", "/providers/corp", json={"client_secret": SECRET})
    logins.log_in("alice")


def test_what_is_on_record(installation: Installation, logins: Logins) -> None:
    rest = installation.rest
    before = rest.request("GET", "/audit", params={"limit": 1})["data"][0]["seq"]
    login = logins.begin()
    refused(logins.end, login, {"state": "x", "code": "y"})
    logins.log_in("alice")
    found = rest.request("GET", "/audit", params={"action": "login", "limit": 100})["data"]
    lines = [(item["actor"], item["subject"], item["outcome"]) for item in reversed(found) if item["seq"] > before]
    assert lines == [("", "provider", "refused"), ("alice", "alice", "done")]
    for secret in (SECRET, login["ticket"]):
        assert secret not in installation.server.log.read_text()


def test_begun_logins_are_braked(installation: Installation, logins: Logins) -> None:
    with pytest.raises(InvalidInput):
        logins.begin(redirect_uri="https://evil.example/callback")
    for wrong in ("http://127.0.0.1:1/other", "http://localhost:1/callback", "http://127.0.0.1:1/callback?x"):
        with pytest.raises(InvalidInput):
            logins.begin(redirect_uri=wrong)
