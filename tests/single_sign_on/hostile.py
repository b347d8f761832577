"""Logins with a hostile provider, without a server of ours around them: quick, and with a clock that a test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from tests.single_sign_on.logins import REDIRECT
from tests.support.hostile_oidc import HostileProvider

from snapkeep.catalog.catalog import open_catalog
from snapkeep.catalog.records import ProviderRecord
from snapkeep.identity.oidc.providers import ProviderSettings
from snapkeep.identity.oidc.service import BrowserLogin, DeviceLogin, Session, SingleSignOn
from snapkeep.identity.service import Identities
from snapkeep.operations.clock import Clock
from snapkeep.server.schemas_providers import ProviderChange, ProviderIn, settings_of

T = TypeVar("T")
HERE = "192.0.2.1"


class TurnedClock(Clock):
    """A clock that can be turned on."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.passed)

    def monotonic(self) -> float:
        return super().monotonic() + self.passed


class OpenCatalog:
    """A catalog that is open, in a loop of its own."""

    def __init__(self, url: str) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.catalog = self.run(self._stack.enter_async_context(open_catalog(url, b"k" * 32)))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()


class Hostile:
    """What logs people in, with one provider."""

    def __init__(self, opened: OpenCatalog, provider: HostileProvider) -> None:
        self.provider = provider
        self.catalog = opened.catalog
        self.run = opened.run
        self.clock = TurnedClock()
        provider.now = lambda: self.clock.now().timestamp()
        self.identities = Identities(self.catalog, self.clock)
        self.another_process()

    def another_process(self) -> None:
        """Go on as another process of the server, which has the catalog in common with the one before."""
        self.service = SingleSignOn(self.catalog, self.identities, self.clock)
        self.settings = ProviderSettings(self.catalog, self.identities, self.service.discovery, self.clock)

    def add(self, **changed: Any) -> ProviderRecord:
        """Let the catalog know the provider."""
        body = ProviderIn.model_validate(self.provider.settings(**changed))
        secret = body.client_secret.get_secret_value() if body.client_secret else None
        return self.run(self.settings.add(body.name, body.issuer, secret, settings_of(body)))

    def change(self, **changed: Any) -> None:
        """Change what the catalog knows of it."""
        record = self.run(self.catalog.providers.get(self.provider.name))
        given = settings_of(ProviderChange.model_validate(changed))
        self.run(self.catalog.providers.change(ProviderRecord(**{**_fields(record), **given})))

    def begin(self) -> tuple[BrowserLogin, str]:
        """Begin a login; return it, and its nonce."""
        login = self.run(self.service.begin_browser(None, REDIRECT, HERE))
        return login, parse_qs(urlsplit(login.url).query)["nonce"][0]

    def end(self, login: BrowserLogin) -> Session:
        given = {"state": login.state, "code": "x"}
        return self.run(self.service.end_browser(login.ticket, given, HERE))

    def log_in(self, make: Callable[[str], object], **more: Any) -> Session:
        """Log in, and be given what `make` makes of the nonce."""
        login, nonce = self.begin()
        self.provider.gives(make(nonce), **more)
        return self.end(login)

    def with_claims(self, **changed: Any) -> Session:
        """Log in with these claims, in a token that is signed as it should be."""
        return self.log_in(lambda nonce: self.provider.sign(self.provider.claims(nonce, **changed)))

    def begin_on_device(self) -> DeviceLogin:
        return self.run(self.service.begin_device(None, HERE))

    def ask(self, login: DeviceLogin) -> Session | int:
        return self.run(self.service.end_device(login.ticket, HERE))

    def granted(self, name: str = "alice") -> set[tuple[str, str]]:
        """Return what somebody has."""
        known = self.run(self.identities.known(name))
        return {(grant.role, str(grant.scope)) for grant in known.grants} if known else set()

    def forget(self) -> None:
        """Remove all that the catalog knows by now."""
        for provider in self.run(self.catalog.providers.find()):
            self.run(self.catalog.providers.remove(provider))
        for identity in self.run(self.catalog.identities.find()):
            self.run(self.catalog.identities.remove(identity.id))


def _fields(record: ProviderRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in ProviderRecord.__slots__}
