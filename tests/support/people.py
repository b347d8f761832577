"""Users and service accounts of an installation, who log in and speak for themselves."""

from __future__ import annotations

from tests.support.installation import Installation

from snapkeep.cli.rest import Rest

PASSWORD = "correct horse battery"


class People:
    """Makes them with roles for everything, and removes them."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.tokens: dict[str, str] = {}
        self._open: list[Rest] = []

    def user(self, name: str, *roles: str) -> Rest:
        """Return the client of a new user, who is logged in."""
        self._add(name, "user", roles)
        return self.log_in(name)

    def service(self, name: str, *roles: str) -> Rest:
        """Return the client of a new service account."""
        self._add(name, "service", roles)
        body = {"name": "test", "identity": name}
        self.tokens[name] = self.installation.rest.request("POST", "/tokens", json=body)["token"]
        return self.again(name)

    def log_in(self, name: str) -> Rest:
        """Log in once more."""
        body = {"name": name, "password": PASSWORD}
        self.tokens[name] = self.installation.rest.request("POST", "/login", json=body)["token"]
        return self.again(name)

    def again(self, name: str) -> Rest:
        """Return another client of somebody: the server may have another address now."""
        rest = self.installation.server.connect(self.tokens[name])
        self._open.append(rest)
        return rest

    def env(self, name: str) -> dict[str, str]:
        """Return the environment in which the command line speaks for somebody."""
        return {"SNAPKEEP_TOKEN": self.tokens[name]}

    def _add(self, name: str, kind: str, roles: tuple[str, ...]) -> None:
        rest = self.installation.rest
        password = {"password": PASSWORD} if kind == "user" else {}
        rest.request("POST", "/identities", json={"name": name, "kind": kind, **password})
        for role in roles:
            rest.request("POST", f"/identities/{name}/grants", json={"role": role, "scope": "all"})

    def close(self) -> None:
        """End their connections, and remove them."""
        for rest in self._open:
            rest.close()
        for name in self.tokens:
            self.installation.rest.request("DELETE", f"/identities/{name}")
