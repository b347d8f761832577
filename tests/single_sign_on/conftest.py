"""What the tests of logins with identity providers may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.single_sign_on.hostile import Hostile, OpenCatalog
from tests.single_sign_on.logins import Logins, forget
from tests.support.hostile_oidc import HostileServer, hostile_server
from tests.support.installation import Installation
from tests.support.oidc import OidcProvider, running_provider

from snapkeep.catalog.database_url import sqlite_url


@pytest.fixture(scope="session")
def running_oidc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProvider]:
    with running_provider(tmp_path_factory.mktemp("oidc")) as provider:
        yield provider


@pytest.fixture
def oidc(running_oidc: OidcProvider, running_installation: Installation) -> Iterator[OidcProvider]:
    """The real provider, of which the installation does not know yet."""
    forget(running_installation)
    before = dict(running_oidc.people)
    yield running_oidc
    running_oidc.say(**before)
    forget(running_installation)


@pytest.fixture
def logins(running_installation: Installation, oidc: OidcProvider) -> Iterator[Logins]:
    """Logins with the real provider, which is known as `corp`; who is in its group `storage` is an operator."""
    grants = [{"group": "storage", "role": "operator", "scope": "system:files1"}, {"group": "staff", "role": "viewer"}]
    running_installation.rest.request("POST", "/providers", json=oidc.settings(grants=grants))
    logins = Logins(running_installation, oidc)
    yield logins
    logins.close()


@pytest.fixture(scope="session")
def hostile_providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileServer]:
    with hostile_server(tmp_path_factory.mktemp("hostile")) as server:
        yield server


@pytest.fixture(scope="module")
def open_catalog(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenCatalog]:
    opened = OpenCatalog(sqlite_url(tmp_path_factory.mktemp("hostile-catalog") / "catalog.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def hostile(hostile_providers: HostileServer, open_catalog: OpenCatalog) -> Iterator[Hostile]:
    """A provider that does whatever a test wants."""
    hostile = Hostile(open_catalog, hostile_providers.provider())
    yield hostile
    hostile.forget()


@pytest.fixture
def hostile_anywhere(hostile_providers: HostileServer, database_url: str) -> Iterator[Hostile]:
    """The same, once on each kind of database."""
    opened = OpenCatalog(database_url)
    yield Hostile(opened, hostile_providers.provider())
    opened.close()
