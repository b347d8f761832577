"""The same machine, reached by SSH as an ordinary user, who may run as root what the plug-in's sudoers file says."""

import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import asyncssh
from tests.conformance.linux_host_target import LinuxHostTarget, write_hook, write_player
from tests.support.person import ordinary_user
from tests.support.sshd import SshServer

from snapkeep.conformance import Circumstance, Fault, Step
from snapkeep.model.assets import Capability
from snapkeep.plugins.linux_host.rights import RULES, by_capability, line, sudoers

PYTHON = "/usr/bin/python3"
"""One that any user may run."""


BY_SSH = {
    Circumstance.OTHER_LOGIN,
    Circumstance.WRONG_PASSWORD,
    Circumstance.WRONG_KEY,
    Circumstance.UNTRUSTED,
    Circumstance.WRONG_CA,
    Circumstance.WRONG_HOST,
    Circumstance.WRONG_PORT,
    Circumstance.PLAIN_SERVER,
    Circumstance.READ_ONLY_ACCOUNT,
    Circumstance.LEAST_ACCOUNT,
    "account_with",
    "cut_connections",
}
"""What has a meaning here, and not on this machine. The key of a host stands for a certificate."""


class Machine:
    """A server with its user, for many targets."""

    def __init__(self, directory: Path, server: SshServer) -> None:
        self.directory = directory
        self.server = server
        self.seen, self.faults = write_player(directory, PYTHON)
        self.hook = write_hook(directory)
        (directory / "shell").write_text(f'#!/bin/sh\nPATH={directory}/bin:$PATH\nexport PATH\nexec /bin/sh "$@"\n')
        (directory / "shell").chmod(0o755)
        for path in (directory, self.seen):
            shutil.chown(path, server.user)


@contextmanager
def machine() -> Iterator[Machine]:
    """Start a server that lets in a new user."""
    with tempfile.TemporaryDirectory() as place, ordinary_user(sudoers("USER", hooks=_hooks(place))) as user:
        directory = Path(place) / "all"
        directory.mkdir()
        Path(place).chmod(0o755)
        server = SshServer(Path(place), programs=True, user=user)
        made = Machine(directory, server)
        subprocess.run(["usermod", "--shell", directory / "shell", user], check=True)
        server.start()
        try:
            yield made
        finally:
            server.stop()


def _hooks(place: str) -> list[tuple[str, str]]:
    return [(f"{place}/all/hook", word) for word in ("freeze", "thaw")]


class SshLinuxHostTarget(LinuxHostTarget):
    """A file system of its own in a file, on a host that is reached by SSH."""

    impatient: ClassVar = {"command_seconds": 0.6}
    impatient_seconds = 15.0
    """A hang is ended there, by `timeout`, which counts whole seconds; the connection has ten more."""

    inapplicable: ClassVar = {
        **{what: reason for what, reason in LinuxHostTarget.inapplicable.items() if what not in BY_SSH},
        Capability.EXPORT: "to other machines it is an NFS server that exports, and this one has none",
        Fault.EXPIRED_SESSION: "a connection by SSH lasts until it breaks",
        Fault.HTML: "no web server stands between",
    }

    seldom_needed: ClassVar = {
        (
            Capability.CREATE,
            "rmdir -- *",
        ): "an asset that others cloned has an empty directory in the place of snapshots",
        (Capability.QUIESCE, "fsfreeze -f *"): "what is held here is held by hooks; tests/quiesce freezes",
        (Capability.QUIESCE, "fsfreeze -u *"): "what is held here is held by hooks; tests/quiesce freezes",
    }

    def __init__(self, directory: Path, machine: Machine) -> None:
        super().__init__(directory)
        self._machine = machine

    def _play(self) -> None:
        self._seen, self._faults = self._machine.seen, self._machine.faults
        self._hook = self._machine.hook
        self._faults.unlink(missing_ok=True)

    def settings(self) -> dict[str, Any]:
        server = self._machine.server
        return {
            **super().settings(),
            "host": "127.0.0.1",
            "port": server.port,
            "username": server.user,
            "private_key": server.private_key,
            "host_key": server.host_key,
            "sudo": True,
        }

    async def suffer(
        self, fault: Fault, step: Step = Step.ANY, *, times: int | None = 1, value: float | None = None
    ) -> None:
        await super().suffer(fault, step, times=times, value=value)
        self._give()

    async def cut_connections(self) -> None:
        self._machine.server.cut()

    async def arrange(self, circumstance: Circumstance) -> dict[str, Any]:
        if circumstance is Circumstance.READ_ONLY_ACCOUNT:
            self._allow(RULES["btrfs"][Capability.DISCOVER], self._closing)
        simple: dict[Circumstance, dict[str, Any]] = {
            Circumstance.WRONG_PASSWORD: {"private_key": None, "password": "not-the-password"},
            Circumstance.WRONG_KEY: {"private_key": _new_key().export_private_key().decode()},
            Circumstance.UNTRUSTED: {"host_key": None},
            Circumstance.WRONG_CA: {"host_key": _new_key().export_public_key().decode()},
            Circumstance.WRONG_HOST: {"host": "no-such-host.invalid"},
            Circumstance.READ_ONLY_ACCOUNT: {},
            Circumstance.LEAST_ACCOUNT: {},
        }
        if circumstance in simple:
            return simple[circumstance]
        if circumstance is Circumstance.OTHER_LOGIN:
            key = asyncssh.import_private_key(self._machine.server.private_key)
            return {"private_key": key.export_private_key(passphrase="pass").decode(), "passphrase": "pass"}
        if circumstance is Circumstance.WRONG_PORT:
            with socket.create_server(("127.0.0.1", 0)) as unused:
                return {"port": unused.getsockname()[1]}
        if circumstance is Circumstance.PLAIN_SERVER:
            return {"port": self._plain_server()}
        settings = await super().arrange(circumstance)
        self._give()
        return settings

    def rights(self, capability: Capability) -> tuple[str, ...]:
        """Those of btrfs and of what can be frozen: there is nothing else here."""
        return by_capability(["btrfs", "mounts"]).get(capability, ())

    @asynccontextmanager
    async def account_with(self, rights: Sequence[str]) -> AsyncIterator[dict[str, Any]]:
        with ExitStack() as before:
            self._allow(rights, before)
            yield {}

    def _give(self) -> None:
        if self._faults.exists():
            shutil.chown(self._faults, self._machine.server.user)

    def _allow(self, rules: Sequence[str], until: ExitStack) -> None:
        """Let the user run no other programs as root, until the stack ends."""
        user = self._machine.server.user
        file = Path("/etc/sudoers.d") / user
        until.callback(file.write_text, file.read_text())
        hooks = (f"{self._hook} {word}" for word in ("freeze", "thaw"))  # are settings, no rights of a capability
        file.write_text(f"{user} ALL = (root) NOPASSWD: {', '.join([*map(line, rules), *hooks])}\n")

    def _plain_server(self) -> int:
        server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self._closing.callback(server.server_close)
        self._closing.callback(thread.join)
        self._closing.callback(server.shutdown)
        return int(server.server_address[1])


def _new_key() -> asyncssh.SSHKey:
    return asyncssh.generate_private_key("ssh-ed25519")
