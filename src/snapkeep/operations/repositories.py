"""Opening a repository as this host does: with its secrets, and with its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from snapkeep.catalog.catalog import Catalog
from snapkeep.catalog.records import BackupRecord, RepositoryRecord
from snapkeep.model.errors import Conflict
from snapkeep.operations.host import Host
from snapkeep.repository.backends import Backend
from snapkeep.repository.backends.opening import open_backend
from snapkeep.repository.repository import Repository

Stop = Callable[[], None]
"""Called often by long work; raises when it is to end."""

PASSWORD = "password"  # noqa: S105 - the name of a secret, not one
PLACE_PASSWORD = "place_password"  # noqa: S105


@dataclass(frozen=True, slots=True)
class Access:
    """What is needed to open a repository. Its text shows no secret."""

    record: RepositoryRecord
    host: Host
    secrets: Callable[[], dict[str, str]]

    def probe(self) -> None:
        """See whether it can be opened. Raises what `open` raises."""
        with self.open():
            pass

    @contextmanager
    def open(self) -> Iterator[Repository]:
        """Open it, and see that it is the one that was added. Raises what `Repository.open` raises, Conflict."""
        secrets, password = _parted(self.secrets())
        backend = open_backend(self.record.location, secrets)
        try:
            repository = Repository.open(backend, password, self.host.cache, keys=self.host.keys)
        except BaseException:
            backend.close()
            raise
        try:
            if repository.id != self.record.restic_id:
                raise Conflict(
                    f"At {self.record.location} there is another repository now, {repository.id[:8]}",
                    next_step=f"Add it under a name of its own; {self.record.name!r} was {self.record.restic_id[:8]}.",
                )
            yield repository
        finally:
            repository.close()

    @contextmanager
    def at_work(self, stop: Stop) -> Iterator[tuple[Repository, Stop]]:
        """Open it under a lock; give it with a `stop` that also raises Unavailable when the lock was lost."""
        with self.open() as repository, repository.locked() as lock:

            def check() -> None:
                stop()
                lock.check()

            yield repository, check


def logical_path(system_name: str, asset_name: str) -> str:
    """Return where recovery points show an asset: `/system/asset`, the same whatever is mounted where."""
    name = asset_name.encode("utf-8", "backslashreplace").decode()
    parts = [part for part in name.split("/") if part not in {"", ".", ".."}]
    return "/".join(["", system_name, *(parts or ["asset"])])


def share_path(backup: BackupRecord) -> str:
    """Return where a recovery point shows its asset."""
    return logical_path(backup.system_name, backup.asset_name)


async def access(catalog: Catalog, record: RepositoryRecord, host: Host) -> Access:
    """Return the way into a repository."""
    secrets = await host.references.resolve(await catalog.repositories.secrets(record.id))
    return Access(record, host, lambda: dict(secrets))


def make_or_open(location: str, secrets: dict[str, str], *, create: bool) -> str:
    """Make a repository, or open one that is there; return its own id. Raises what the two raise."""
    given, password = _parted(secrets)
    backend: Backend = open_backend(location, given)
    try:
        repository = Repository.create(backend, password) if create else Repository.open(backend, password)
    except BaseException:
        backend.close()
        raise
    try:
        return repository.id
    finally:
        repository.close()


def _parted(secrets: dict[str, str]) -> tuple[dict[str, str], str]:
    """Return the secrets of the place, and the password of the repository: an SFTP server has a password, too."""
    given = dict(secrets)
    password = given.pop(PASSWORD)
    if PLACE_PASSWORD in given:
        given[PASSWORD] = given.pop(PLACE_PASSWORD)
    return given, password
