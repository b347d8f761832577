"""What the tests of the command line may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation
from tests.support.office import Office


@pytest.fixture
def office(installation: Installation, tmp_path: Path) -> Iterator[Office]:
    rest = installation.rest
    forget_people(installation)
    for role in rest.request("GET", "/roles")["data"]:
        if not role["built_in"]:
            rest.request("DELETE", f"/roles/{role['name']}")
    office = Office(installation, tmp_path)
    yield office
    forget_people(installation)
    everything = "\n".join(office.said)
    assert not [secret for secret in office.secrets if secret in everything]
    assert "$argon2" not in everything


def forget_people(installation: Installation) -> None:
    """Remove all users and service accounts: names are few, and other tests use them, too."""
    for identity in installation.rest.request("GET", "/identities")["data"]:
        installation.rest.request("DELETE", f"/identities/{identity['name']}")
