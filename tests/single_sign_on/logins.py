"""Logins with an identity provider, step by step, as a program does them."""

from __future__ import annotations

from typing import Any

from tests.support.installation import Installation, Json
from tests.support.oidc import OidcProvider

from snapkeep.cli.rest import Rest
from snapkeep.model.errors import SnapkeepError

REDIRECT = "http://127.0.0.1:49152/callback"


class Logins:
    """Somebody's logins."""

    def __init__(self, installation: Installation, provider: OidcProvider) -> None:
        self.installation = installation
        self.provider = provider
        self.nobody = installation.server.connect("")
        self._open: list[Rest] = [self.nobody]

    def begin(self, **values: Any) -> Json:
        """Begin a login in a browser."""
        return dict(self.nobody.request("POST", "/login/browser", json={"redirect_uri": REDIRECT, **values}))

    def end(self, login: Json, came_back: Json) -> Rest:
        """End it with what came back; return the client of who has logged in."""
        body = {"ticket": login["ticket"], **came_back}
        return self.client(self.nobody.request("POST", "/login/browser/session", json=body)["token"])

    def log_in(self, name: str) -> Rest:
        """Log in, in a browser."""
        login = self.begin()
        browser = self.provider.browser()
        came_back = browser.log_in(login["url"], name)
        browser.close()
        return self.end(login, came_back)

    def begin_on_device(self, **values: Any) -> Json:
        """Begin a login by a code."""
        return dict(self.nobody.request("POST", "/login/device", json=values))

    def ask(self, login: Json) -> Json:
        """Ask whether somebody has agreed."""
        return dict(self.nobody.request("POST", "/login/device/session", json={"ticket": login["ticket"]}))

    def client(self, token: str) -> Rest:
        """Return the client of who has a token."""
        self._open.append(self.installation.server.connect(token))
        return self._open[-1]

    def close(self) -> None:
        """End all connections."""
        for rest in self._open:
            rest.close()


def granted(rest: Rest) -> set[tuple[str, str]]:
    """Return what somebody was granted."""
    return {(item["role"], item["scope"]) for item in rest.request("GET", "/me")["grants"]}


def refused(run: Any, *arguments: Any) -> SnapkeepError:
    """Return the error that a call ends with."""
    try:
        run(*arguments)
    except SnapkeepError as error:
        assert error.http_status < 500 or error.code == "unavailable", error
        assert error.next_step
        return error
    raise AssertionError("it was not refused")


def forget(installation: Installation) -> None:
    """Remove all providers and all people: names are few, and other tests use them, too."""
    for provider in installation.rest.request("GET", "/providers")["data"]:
        installation.rest.request("DELETE", f"/providers/{provider['name']}")
    for identity in installation.rest.request("GET", "/identities")["data"]:
        installation.rest.request("DELETE", f"/identities/{identity['name']}")
