"""Server and workers log in to PostgreSQL by certificate, without a password; what is wrong with one is said."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.support.authority import DAY, Authority, Issued
from tests.support.installation import Worker, installed, until
from tests.support.postgres import Postgres, running_postgres

from snapkeep.catalog.database import open_database
from snapkeep.model.errors import AuthenticationFailed, SnapkeepError

USER = "keeper"


@dataclasses.dataclass(frozen=True, slots=True)
class Office:
    """A cluster that lets its user in by certificate alone."""

    postgres: Postgres
    directory: Path
    ours: Authority
    good: Issued

    def url(self, database: str = "kept", host: str = "127.0.0.1", **changed: object) -> str:
        query = {
            "sslmode": "verify-full",
            "sslrootcert": self.ours.file,
            "sslcert": self.good.certificate,
            "sslkey": self.good.key,
            **changed,
        }
        given = urlencode({name: str(value) for name, value in query.items() if value is not None})
        return f"postgresql+psycopg://{USER}@{host}:{self.postgres.port}/{database}?{given}"

    def issued(self, authority: str, name: str = USER, days: float = 30) -> dict[str, Any]:
        """Return the parameters for a certificate that is another one in each test."""
        found = Authority(self.directory / f"of-{authority}", authority) if authority != "ours" else self.ours
        made = found.issue(name, ends_in=days * DAY)
        into = Path(shutil.copytree(made.certificate.parent, self.directory / f"{authority}-{name}-{days}"))
        return {"sslcert": into / made.certificate.name, "sslkey": into / made.key.name}


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    directory = tmp_path_factory.mktemp("certificates")
    with running_postgres() as postgres:
        ours = Authority(directory / "ours", "ours")
        server = ours.issue("database", ["127.0.0.1"])
        postgres.demand_certificates(USER, ours.file, server.certificate, server.key)
        with closing(postgres.connect()) as connection:
            for name in ("kept", "shared"):
                connection.execute(f"CREATE DATABASE {name} OWNER {USER}".encode())
        made = ours.issue(USER)
        good = Path(shutil.copytree(made.certificate.parent, directory / "good"))
        yield Office(postgres, directory, ours, Issued(good / made.certificate.name, good / made.key.name))


async def refused(url: str) -> SnapkeepError:
    with pytest.raises(SnapkeepError) as caught:
        await open_database(url)
    assert caught.value.next_step
    return caught.value


async def test_the_catalog_is_opened_by_certificate(office: Office) -> None:
    engine = await open_database(office.url())
    await engine.dispose()


async def test_without_a_certificate_nobody_gets_in(office: Office) -> None:
    for url in (
        office.url(sslcert=None, sslkey=None),
        office.url(sslmode="disable", sslcert=None, sslkey=None, sslrootcert=None),
        office.url(sslcert=None, sslkey=None).replace(f"{USER}@", f"{USER}:any-password@"),
    ):
        error = await refused(url)
        assert isinstance(error, AuthenticationFailed)
        assert "sslcert and sslkey" in error.next_step


async def test_the_certificate_of_somebody_else_does_not_do(office: Office) -> None:
    error = await refused(office.url(**office.issued("ours", "somebody-else")))
    assert isinstance(error, AuthenticationFailed)
    assert f"user {USER!r}" in error.message
    assert "common name" in error.next_step


@pytest.mark.parametrize(("authority", "days", "why"), [("theirs", 30, "unknown ca"), ("ours", -1, "expired")])
async def test_the_server_says_what_is_wrong_with_the_certificate(
    office: Office, authority: str, days: float, why: str
) -> None:
    error = await refused(office.url(**office.issued(authority, days=days)))
    assert isinstance(error, AuthenticationFailed)
    assert error.message.startswith(
        f"The database 127.0.0.1:{office.postgres.port}/kept refused the client certificate"
    )
    assert why in error.message
    assert "ssl_ca_file" in error.next_step


async def test_a_server_that_is_not_the_right_one_gets_nothing(office: Office) -> None:
    other = Authority(office.directory / "another", "another")
    wrong: list[dict[str, Any]] = [{"sslrootcert": other.file}, {"host": "localhost"}]
    for changed in wrong:
        error = await refused(office.url(**changed))
        assert isinstance(error, AuthenticationFailed)
        assert error.message.startswith("No TLS connection")
        assert "sslrootcert" in error.next_step


async def test_a_key_that_cannot_be_used(office: Office) -> None:
    strange = office.directory / "strange.key"
    strange.write_text("This is no key.")
    strange.chmod(0o600)
    open_to_all = Path(shutil.copy(office.good.key, office.directory / "open.key"))
    open_to_all.chmod(0o644)
    for key in (strange, open_to_all, office.directory / "nowhere"):
        error = await refused(office.url(sslkey=key))
        assert isinstance(error, AuthenticationFailed)
        assert "sslkey" in error.next_step


def test_server_and_worker_and_their_engines_have_no_password(office: Office, tmp_path: Path) -> None:
    url = office.url("shared")
    with installed(tmp_path, 1, SNAPKEEP_DATABASE_URL=url) as installation:
        installation.add_system()
        done = installation.discover()
        assert (done["state"], done["worker"]) == ("succeeded", "w1")
        with closing(office.postgres.connect()) as connection:
            rows = connection.execute(
                "SELECT application_name, ssl, client_dn, pid FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE usename = %s",
                [USER],
            ).fetchall()
        assert {(ssl, name) for _, ssl, name, _ in rows} == {(True, f"/CN={USER}")}
        assert len({name for name, *_ in rows if "engine" in name}) == 1
        assert len({name for name, *_ in rows if "engine" not in name}) >= 1
        expired = office.url("shared", **office.issued("ours", days=-2))
        late = Worker(installation.server, "late", {"SNAPKEEP_DATABASE_URL": expired})
        late.begin()
        try:
            until(lambda: not late.running, 30)
            assert late.wait() != 0
            assert "refused the client certificate: certificate expired" in late.said()
            assert "ssl_ca_file" in late.said()
        finally:
            late.close()
