"""Users and service accounts of an installation, who log in and speak for themselves."""

from __future__ import annotations

from tests.support.installation import Installation

from snapkeep.cli.rest import Rest

PASSWORD = "correct horse battery"


Granted = str | tuple[str, str]
"""A role for everything, or a role and a scope."""


class People:
    """Makes them with what they are granted, and removes them."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.tokens: dict[str, str] = {}
        self._open: list[Rest] = []

    def user(self, name: str, *granted: Granted) -> Rest:
        """Return the client of a new user, who is logged in."""
        self._add(name, "user", granted)
        return self.log_in(name)

    def someone(self, *granted: Granted) -> Rest:
        """Return the client of a new service account whose name does not matter."""
        return self.service(f"someone{len(self.tokens)}", *granted)

    def service(self, name: str, *granted: Granted, limits: list[dict[str, str]] | None = None) -> Rest:
        """Return the client of a new service account, whose token may be narrowed."""
        self._add(name, "service", granted)
        body = {"name": "test", "identity": name, "limits": limits}
        self.tokens[name] = self.installation.rest.request("POST", "/tokens", json=body)["token"]
        return self.again(name)

    def log_in(self, name: str) -> Rest:
        """Log in once more."""
        body = {"name": name, "password": PASSWORD}
        self.tokens[name] = self.installation.rest.request("POST", "/login", json=body)["token"]
        return self.again(name)

    def again(self, name: str) -> Rest:
        """Return another client of somebody: the server may have another address now."""
        return self.with_token(self.tokens[name])

    def with_token(self, token: str) -> Rest:
        """Return the client of whoever has a token."""
        rest = self.installation.server.connect(token)
        self._open.append(rest)
        return rest

    def env(self, name: str) -> dict[str, str]:
        """Return the environment in which the command line speaks for somebody."""
        return {"SNAPKEEP_TOKEN": self.tokens[name]}

    def _add(self, name: str, kind: str, granted: tuple[Granted, ...]) -> None:
        rest = self.installation.rest
        password = {"password": PASSWORD} if kind == "user" else {}
        rest.request("POST", "/identities", json={"name": name, "kind": kind, **password})
        for grant in granted:
            role, scope = (grant, "all") if isinstance(grant, str) else grant
            rest.request("POST", f"/identities/{name}/grants", json={"role": role, "scope": scope})

    def close(self) -> None:
        """End their connections, and remove them."""
        for rest in self._open:
            rest.close()
        for name in self.tokens:
            self.installation.rest.request("DELETE", f"/identities/{name}")
