"""Who may say by whose word people log in."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.single_sign_on.logins import Logins, refused
from tests.support.installation import Installation
from tests.support.oidc import SECRET, OidcProvider
from tests.support.people import People

from snapkeep.identity.approvals import Asked
from snapkeep.model.errors import Conflict, InvalidInput, NotFound, PermissionDenied, SnapkeepError


@pytest.fixture
def people(installation: Installation) -> Iterator[People]:
    everybody = People(installation)
    yield everybody
    everybody.close()


def test_nobody_changes_the_provider_that_knows_him(installation: Installation, logins: Logins, people: People) -> None:
    rest = installation.rest
    grants = [{"group": "storage", "role": "security-officer"}]
    rest.request("PATCH", "/providers/corp", json={"grants": grants})
    officer = logins.log_in("alice")
    assert officer.request("GET", "/providers")["data"]
    more = [*grants, {"group": "staff", "role": "administrator"}]
    for method, body in (("PATCH", {"grants": more}), ("PATCH", {"allowed_groups": []}), ("DELETE", None)):
        with pytest.raises(PermissionDenied, match="by which he himself is known"):
            officer.request(method, "/providers/corp", json=body)
    with pytest.raises(Conflict):  # nor does he add it once more
        officer.request("POST", "/providers", json=logins.provider.settings("again", grants=more))
    local = people.user("carol", "security-officer")
    assert local.request("PATCH", "/providers/corp", json={"grants": more})["grants"][1]["role"] == "administrator"


def test_who_approves_a_provider_does_not_see_its_secret(oidc: OidcProvider) -> None:
    """That adding one asks for approval, where identity.manage does, is seen with all routes (tests/server)."""
    shown, hidden = Asked("POST", "/v1/providers", "", json.dumps(oidc.settings()).encode()).shown()
    assert hidden
    assert json.loads(shown) == {**oidc.settings(), "client_secret": "(not shown)"}
    assert SECRET not in shown


def test_what_a_provider_cannot_be(installation: Installation, oidc: OidcProvider) -> None:
    rest = installation.rest
    for changed in (
        {"issuer": "http://localhost"},
        {"client_id": ""},
        {"client_id": "\x00"},
        {"client_secret": "a\nb"},
        {"client_secret": ""},
        {"scopes": ["a b"]},
        {"name": "Corp"},
        {"name": "x" * 41},
        {"name_claim": ""},
        {"grants": [{"group": "a", "role": "viewer", "scope": "nowhere"}]},
        {"allowed_groups": ["x"] * 501},
        {"ca": "x"},
        {"more": 1},
    ):
        with pytest.raises(InvalidInput):
            rest.request("POST", "/providers", json=oidc.settings(**changed))
    with pytest.raises(NotFound, match="no role"):
        rest.request("POST", "/providers", json=oidc.settings(grants=[{"group": "a", "role": "x"}]))
    assert not rest.request("GET", "/providers")["data"]


def test_a_change_is_whole_and_seen(installation: Installation, oidc: OidcProvider) -> None:
    rest = installation.rest
    made = rest.request("POST", "/providers", json=oidc.settings(scopes=["email"]))
    assert made["scopes"] == ["openid", "email"], "without openid there is no ID token"
    assert "client_secret" not in made
    before, tag = rest.read("/providers/corp")
    changed = rest.request("PATCH", "/providers/corp", json={"groups_claim": "roles"}, headers={"If-Match": tag})
    assert changed == {**before, "groups_claim": "roles"}
    assert (
        refused(lambda: rest.request("PATCH", "/providers/corp", json={"ca": None}, headers={"If-Match": tag})).code
        == "conflict"
    )
    with pytest.raises(SnapkeepError, match="is not trusted"):
        rest.request("PATCH", "/providers/corp", json={"ca": None})
    assert rest.request("DELETE", "/providers/corp", params={"dry_run": True})["would"]
    assert rest.request("GET", "/providers/corp")["groups_claim"] == "roles"
    assert [item["name"] for item in rest.request("GET", "/providers", params={"q": "cor"})["data"]] == ["corp"]


def test_several_providers_are_told_apart(installation: Installation, logins: Logins) -> None:
    body = logins.provider.settings("second", issuer=f"{logins.provider.issuer}/")
    assert "calls itself" in str(refused(lambda: installation.rest.request("POST", "/providers", json=body)))
    assert refused(lambda: logins.begin(provider="other")).code == "not_found"
    assert logins.begin(provider="corp")["provider"] == logins.begin()["provider"] == "corp"
