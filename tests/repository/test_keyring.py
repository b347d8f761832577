"""Keys are remembered for as long as the password is one of the repository's, and for nobody else."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.restic import run_restic

from snapkeep.model.errors import AuthenticationFailed
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.keyring import KeyRing
from snapkeep.repository.keys import find_key
from snapkeep.repository.repository import Repository

PASSWORD = "pass-4711"


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords from which a key was derived."""
    seen: list[str] = []

    def derived_again(backend: LocalBackend, password: str) -> object:
        seen.append(password)
        return find_key(backend, password)

    monkeypatch.setattr("snapkeep.repository.keyring.find_key", derived_again)
    return seen


def test_a_key_is_derived_once(tmp_path: Path, derived: list[str]) -> None:
    Repository.create(LocalBackend(tmp_path), PASSWORD).close()
    keys = KeyRing()
    for _ in range(3):
        Repository.open(LocalBackend(tmp_path), PASSWORD, tmp_path / "cache", keys=keys).close()
    assert derived == [PASSWORD]
    with pytest.raises(AuthenticationFailed):
        Repository.open(LocalBackend(tmp_path), "wrong", tmp_path / "cache", keys=keys)
    assert PASSWORD not in repr(vars(keys))


def test_a_password_that_was_taken_away_opens_nothing(tmp_path: Path, derived: list[str]) -> None:
    location, keys = tmp_path / "repository", KeyRing()
    Repository.create(LocalBackend(location), PASSWORD).close()
    Repository.open(LocalBackend(location), PASSWORD, tmp_path / "cache", keys=keys).close()
    (tmp_path / "new").write_text("another")
    run_restic(location, "key", "passwd", "--new-password-file", tmp_path / "new", password=PASSWORD)
    with pytest.raises(AuthenticationFailed):
        Repository.open(LocalBackend(location), PASSWORD, tmp_path / "cache", keys=keys)
    Repository.open(LocalBackend(location), "another", tmp_path / "cache", keys=keys).close()
    assert derived == [PASSWORD, PASSWORD, "another"]
