"""A real PostgreSQL for tests: a throw-away cluster that can be killed and started again."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

_OWNER = "snapkeep"
# Text sorts by language and sessions have a zone of their own, as on many real servers: code must not lean on either.
_LOCALE = ("--encoding=UTF8", "--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",  # in the data directory: a killed server leaves nothing in /dev/shm
    "timezone": "Asia/Kolkata",
}


def find_binaries() -> Path | None:
    """Return the directory of the server's programs: Debian keeps them out of PATH, one directory a version."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(debian[-1]) if debian else shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def require_binaries() -> Path:
    """Return the directory of the server's programs; without them skip the test, or fail it where CI=true."""
    if found := find_binaries():
        return found
    reason = "PostgreSQL is missing: this test did not run. Install it with scripts/postgresql"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class Postgres:
    """A cluster below `directory`, which it takes over and which the user `postgres` must be able to reach.

    Loopback TCP only, with a random password. The port stays the same over restarts. The server ends with the process
    that started it. `fsync` costs time and protects from a crash of the machine only, not from `kill`.
    """

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self.directory = directory
        self.port = 0
        self._binaries = require_binaries()
        self._password = secrets.token_hex(16)
        self._sync = "on" if fsync else "off"
        self._data = directory / "data"
        self._log = directory / "log"
        self._child: subprocess.Popen[bytes] | None = None
        self._databases = 0

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Make the cluster if it is not there, start it, and wait until it takes connections."""
        assert not self.running, "PostgreSQL runs already"
        if not self._data.exists():
            self._make()
        for _ in range(5):
            port = self.port or _free_port()
            if self._started(port):
                self.port = port
                return
        raise AssertionError(f"PostgreSQL does not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        """Shut down at once but cleanly; open connections are cut."""
        if self._child is not None:
            self._child.send_signal(signal.SIGINT)
            self._child.wait(60)
            self._child = None

    def kill(self) -> None:
        """End everything as a crash would; afterwards `start` recovers what was committed."""
        assert self._child is not None
        postmaster = self._child.pid
        self._child.send_signal(signal.SIGSTOP)  # so that it starts no child behind our back
        _wait_for_state(postmaster, "T")
        children = [int(pid) for pid in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()]
        self._child.kill()
        self._child.wait(60)
        self._child = None
        for pid in children:
            _kill_and_wait(pid)

    def close(self) -> None:
        """Stop, and leave nothing behind."""
        self.stop()
        left = self._data / "postmaster.pid"
        if left.exists():  # it was killed: its shared memory is still there, and named in the seventh line
            segment = left.read_text().splitlines()[6].split()[1]
            subprocess.run(["ipcrm", "--shmem-id", segment], capture_output=True, check=False)
        shutil.rmtree(self.directory)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{_OWNER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """Return a connection of the owner's, in autocommit."""
        return psycopg.connect(self._address(self.port, database), autocommit=True)

    def create_database(self) -> str:
        """Return the URL of a new and empty database."""
        self._databases += 1
        name = f"test{self._databases}"
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database and cut the connections to it; while the server is down, it stays until the end."""
        if self.running:
            name = url.rpartition("/")[2]
            with closing(self.connect()) as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def demand_certificates(self, user: str, authority: Path, certificate: Path, key: Path) -> None:
        """Speak TLS from now on, and let a new user in by certificate alone: by no password, and not without TLS."""
        for source, name, mode in (
            (authority, "ca.pem", 0o644),
            (certificate, "tls.pem", 0o644),
            (key, "tls.key", 0o600),
        ):
            target = self._data / name
            shutil.copyfile(source, target)
            target.chmod(mode)
            if os.geteuid() == 0:
                shutil.chown(target, "postgres", "postgres")
        rules = self._data / "pg_hba.conf"
        lines = f"hostssl all {user} 127.0.0.1/32 cert\nhost all {user} all reject\n"
        rules.write_text(lines + rules.read_text())
        with closing(self.connect()) as connection:
            connection.execute(f"CREATE ROLE {user} LOGIN".encode())
            for setting in (
                "ssl_ca_file = 'ca.pem'",
                "ssl_cert_file = 'tls.pem'",
                "ssl_key_file = 'tls.key'",
                "ssl = on",
            ):
                connection.execute(f"ALTER SYSTEM SET {setting}".encode())
            connection.execute("SELECT pg_reload_conf()")

    def _make(self) -> None:
        password = self.directory / "password"
        password.write_text(self._password)
        if os.geteuid() == 0:
            for path in (self.directory, password):
                shutil.chown(path, "postgres", "postgres")
        done = subprocess.run(
            [
                *self._as_owner("initdb"),
                *_LOCALE,
                "--no-sync",
                f"--username={_OWNER}",
                "--auth=scram-sha-256",
                f"--pwfile={password}",
                f"--pgdata={self._data}",
            ],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        password.unlink()

    def _started(self, port: int) -> bool:
        options = {**_OPTIONS, "port": str(port), "fsync": self._sync, "full_page_writes": self._sync}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._as_owner("postgres"), "-D", str(self._data), *settings],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + 60
        while self._child.poll() is None:
            assert time.monotonic() < end, self._log.read_text()
            try:
                psycopg.connect(self._address(port, "postgres")).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        self._child = None
        return False

    def _as_owner(self, program: str) -> list[str]:
        """Begin a command: never as root, which PostgreSQL refuses, and never outliving this process."""
        user = ["--reuid=postgres", "--regid=postgres", "--init-groups"] if os.geteuid() == 0 else []
        return ["setpriv", "--pdeathsig=QUIT", *user, str(self._binaries / program)]

    def _address(self, port: int, database: str) -> str:
        return (
            f"host=127.0.0.1 port={port} user={_OWNER} password={self._password} dbname={database} connect_timeout=10"
        )


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[Postgres]:
    """Run a cluster of its own; at the end it is gone with its directory."""
    require_binaries()
    # Not below pytest's tmp_path: that is closed to all but the user of the tests.
    postgres = Postgres(Path(tempfile.mkdtemp(prefix="snapkeep-postgres-", dir="/tmp")), fsync=fsync)
    try:
        postgres.start()
        yield postgres
    finally:
        postgres.close()


def _free_port() -> int:
    """Return a port below those that the kernel gives to outgoing connections: it is not lost over a restart."""
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def _kill_and_wait(pid: int) -> None:
    """Kill a process that is not our child; wait until it holds nothing any more."""
    try:
        os.kill(pid, signal.SIGKILL)
        _wait_for_state(pid, "ZX")
    except (ProcessLookupError, FileNotFoundError):
        return


def _wait_for_state(pid: int, states: str) -> None:
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in states:
        assert time.monotonic() < end, f"process {pid} does not stop"
        time.sleep(0.002)
