"""Logging in by a code that is typed on another device (RFC 8628), with a real provider."""

from __future__ import annotations

import time

from tests.single_sign_on.logins import Logins, granted, refused
from tests.support.installation import Installation, Json, until

from snapkeep.model.errors import AuthenticationFailed


def agree(logins: Logins, login: Json, name: str, *, agrees: bool = True) -> None:
    browser = logins.provider.browser()
    browser.agree_on_device(login["url"], login["code"], name, agrees=agrees)
    browser.close()


def test_somebody_agrees_elsewhere(installation: Installation, logins: Logins) -> None:
    login = logins.begin_on_device(provider="corp")
    assert login["url"] == f"{logins.provider.issuer}/device"
    assert login["code"] in login["url_with_code"]
    first = logins.ask(login)
    assert first == {"session": None, "seconds": login["seconds"]}
    agree(logins, login, "alice")
    assert logins.ask(login)["session"] is None, "the provider is not asked more often than it wants"
    found = until(lambda: logins.ask(login)["session"], login["seconds"] + 10)
    alice = logins.client(found["token"])
    assert alice.request("GET", "/me")["name"] == "alice"
    assert granted(alice) == {("operator", "system:files1"), ("viewer", "all")}
    assert "used already" in str(refused(logins.ask, login))
    lines = installation.rest.request("GET", "/audit", params={"action": "login", "limit": 2})["data"]
    assert [(item["subject"], item["outcome"]) for item in lines] == [("provider", "refused"), ("alice", "done")]


def test_somebody_does_not_agree(logins: Logins) -> None:
    login = logins.begin_on_device()
    agree(logins, login, "alice", agrees=False)
    assert "The login was refused at corp" in str(refused(logins.ask, login))
    assert "used already" in str(refused(logins.ask, login))


def test_nobody_agrees_in_time(installation: Installation, logins: Logins) -> None:
    logins.provider.stop()
    logins.provider.device_seconds = 2
    logins.provider.start()
    try:
        login = logins.begin_on_device()
        time.sleep(2.1)
        assert isinstance(refused(logins.ask, login), AuthenticationFailed)
    finally:
        logins.provider.stop()
        logins.provider.device_seconds = 600
        logins.provider.start()
