"""A real OpenSSH server for tests: on loopback, a port of its own, with keys of its own."""

from __future__ import annotations

import getpass
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import asyncssh
import pytest


def require_sshd() -> str:
    """Return the server's path; without it skip the test, or fail it where CI=true."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found:
        return found
    reason = "The OpenSSH server is missing: this test did not run. Install it with scripts/sshd"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class SshServer:
    """Lets in whoever runs the tests, or `user`, with `private_key`; keeps its port when it starts again.

    Has only SFTP, or with `programs` whatever the user may run.
    """

    def __init__(
        self, directory: Path, *, biggest_file: int | None = None, programs: bool = False, user: str | None = None
    ) -> None:
        self._program = require_sshd()
        self._directory = directory
        self._biggest_file = biggest_file
        self._child: subprocess.Popen[bytes] | None = None
        self._programs = programs
        self.user = user or getpass.getuser()
        self.port = _free_port()
        login = asyncssh.generate_private_key("ssh-ed25519")
        self.private_key = login.export_private_key().decode()
        login.write_public_key(directory / "authorized_keys")
        self.host_key = self.new_host_key()

    def new_host_key(self) -> str:
        """Make another host key and return its public half; it counts from the next start on."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        path = self._directory / "host_key"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_bytes(key.export_private_key())
        return key.export_public_key().decode().strip()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        config = self._directory / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self._directory}/host_key\n"
            f"AuthorizedKeysFile {self._directory}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            "Subsystem sftp internal-sftp\nMaxStartups 100\nLogLevel VERBOSE\n"
            + ("" if self._programs else "ForceCommand internal-sftp\n")
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with (self._directory / "sshd.log").open("ab") as log:
            self._child = subprocess.Popen(
                [self._program, "-D", "-e", "-f", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self._limit if self._biggest_file else None,  # noqa: PLW1509  (one limit, no lock)
            )
        end = time.monotonic() + 30
        while time.monotonic() < end and self._child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError(f"sshd does not start:\n{(self._directory / 'sshd.log').read_text()}")

    def stop(self) -> None:
        """Take no more connections; those that are open stay."""
        if self._child is not None:
            self._child.terminate()
            self._child.wait(30)
            self._child = None

    def cut(self) -> None:
        """End every connection that is open, as a network would: what runs in them is not told."""
        assert self._child is not None
        for child in _servers_below(self._child.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)

    def _limit(self) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limit = self._biggest_file or 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


def _servers_below(pid: int) -> list[int]:
    """Return the processes of the server below one of them, without the programs that they run for users."""
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{child}/comm").read_text().startswith("sshd"):
                found += [int(child), *_servers_below(int(child))]
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
