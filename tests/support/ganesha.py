"""A real NFS server for tests, nfs-ganesha: on loopback, a port of its own, NFSv4 only; and clients of it by libnfs.

What it exports is said by `bin/exportfs` in its directory, which stands in for that of the kernel's server.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from tests.support import exportfs

HOME = "127.0.0.1"
SECONDS = 30
_PROGRAMS = ("ganesha.nfsd", "dbus-daemon", "dbus-send", "nfs-ls", "nfs-cat", "nfs-cp")
_BUS = """<busconfig><type>system</type><listen>unix:path={directory}/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/></policy></busconfig>
"""
_SETTINGS = """NFS_CORE_PARAM {{ Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; mount_path_pseudo = true;
  Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false; }}
NFSv4 {{ Graceless = true; RecoveryBackend = fs; RecoveryRoot = "{directory}/recovery"; }}
NFS_KRB5 {{ Active_krb5 = false; }}
EXPORT_DEFAULTS {{ Access_Type = NONE; SecType = sys; Protocols = 4; Transports = TCP; }}
"""


class Refused(Exception):
    """A client did not get what it asked for; says what the server answered."""


def require_ganesha() -> None:
    """Without it skip the test, or fail it where CI=true."""
    lacking = [name for name in _PROGRAMS if shutil.which(name) is None]
    reason = f"{', '.join(lacking)} missing: get them with scripts/nfs" if lacking else ""
    if os.geteuid() != 0:
        reason = "only root can serve NFS and mount"
    if not reason:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"This test did not run: {reason}", pytrace=False)
    pytest.skip(f"This test did not run: {reason}")


class NfsServer:
    """Serves what its table has, for as long as its context lasts. `bin`: a directory to stand first in PATH."""

    def __init__(self) -> None:
        require_ganesha()
        self._place = tempfile.TemporaryDirectory(prefix="nfs-")
        self.directory = Path(self._place.name)
        self.directory.chmod(0o755)
        self.bin = self.directory / "bin"
        self.port = _free_port()
        self._children: list[subprocess.Popen[bytes]] = []
        program = shutil.copy(exportfs.__file__, self.directory)
        self.bin.mkdir()
        words = [sys.executable, "-ISE", str(program), str(self.directory)]
        (self.bin / "exportfs").write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        (self.bin / "exportfs").chmod(0o755)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.stop()
        self.clear()
        self._place.cleanup()

    def start(self) -> None:
        """Start it with what the table has, and wait until it serves."""
        settings, log = self.directory / "ganesha.conf", self.directory / "ganesha.log"
        (self.directory / "recovery").mkdir(exist_ok=True)
        table = exportfs.Table(self.directory)
        exports = "".join(map(table.text, table.paths))
        settings.write_text(_SETTINGS.format(port=self.port, directory=self.directory) + exports)
        (self.directory / "bus.conf").write_text(_BUS.format(directory=self.directory))
        log.unlink(missing_ok=True)
        self._run("dbus-daemon", f"--config-file={self.directory}/bus.conf", "--nofork", "--nopidfile")
        self._wait((self.directory / "bus").exists, log)
        place = ["-f", str(settings), "-L", str(log), "-p", str(self.directory / "pid")]
        self._run("ganesha.nfsd", "-F", "-N", "NIV_EVENT", *place)
        self._wait(lambda: log.exists() and "NFS SERVER INITIALIZED" in log.read_text(errors="replace"), log)

    def stop(self) -> None:
        """End it, as a power cut would; what it exports is served again by the next start."""
        for child in reversed(self._children):
            child.kill()
            child.wait(SECONDS)
        self._children.clear()
        (self.directory / "bus").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget all exports, as `exportfs -r` does with an empty /etc/exports before each start of the server."""
        table = exportfs.Table(self.directory)
        for path, entry in list(table.paths.items()):
            for address in list(entry["addresses"]):
                table.close(path, address)

    # -- clients ---------------------------------------------------------------------------------------------------
    def names(self, path: str, source: str = HOME) -> list[str]:
        """Return the names in a directory, as a client from an address sees them. Raises Refused."""
        lines = self._client("nfs-ls", path, source).decode().splitlines()
        return sorted(line.split(maxsplit=5)[-1] for line in lines)

    def read(self, path: str, source: str = HOME) -> bytes:
        """Return what a file has. Raises Refused."""
        return self._client("nfs-cat", path, source)

    def write(self, path: str, text: str, source: str = HOME) -> None:
        """Write a file. Raises Refused."""
        given = self.directory / "given"
        given.write_text(text)
        self._client("nfs-cp", path, source, str(given))

    def _client(self, program: str, path: str, source: str, *given: str) -> bytes:
        with _coming_from(source, self.port) as port:
            url = f"nfs://{HOME}{path}?version=4&nfsport={port}"
            done = subprocess.run([program, *given, url], capture_output=True, timeout=SECONDS, check=False)
        if b"Failed" in done.stderr or (done.returncode and program != "nfs-ls"):  # its code is what lies in memory
            raise Refused(done.stderr.decode(errors="replace"))
        return done.stdout

    def _run(self, *arguments: str) -> None:
        with (self.directory / "output").open("ab") as output:
            self._children.append(
                subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.directory}/bus"},
                )
            )

    def _wait(self, ready: Callable[[], bool], log: Path) -> None:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and self._children[-1].poll() is None:
            if ready():
                return
            time.sleep(0.02)
        said = "\n".join(file.read_text(errors="replace") for file in (self.directory / "output", log) if file.exists())
        raise AssertionError(f"The NFS server does not start:\n{said}")


@contextmanager
def _coming_from(source: str, port: int) -> Iterator[int]:
    """Give a port from which one connection goes on to the server, coming from an address and a port of root's."""
    with ExitStack() as stack:
        entry = stack.enter_context(socket.create_server((HOME, 0)))
        entry.settimeout(SECONDS)
        thread = threading.Thread(target=_relay, args=(entry, source, port))
        thread.start()
        stack.callback(thread.join)
        stack.callback(_wake, entry.getsockname())
        yield int(entry.getsockname()[1])


def _relay(entry: socket.socket, source: str, port: int) -> None:
    with closing(entry.accept()[0]) as client, closing(_connected(source, port)) as server:
        back = threading.Thread(target=_pump, args=(server, client))
        back.start()
        _pump(client, server)
        back.join()


def _connected(source: str, port: int) -> socket.socket:
    for own in random.sample(range(600, 1024), 400):
        link = socket.socket()
        try:
            link.bind((source, own))
            link.connect((HOME, port))
        except OSError:
            link.close()
        else:
            return link
    raise OSError(f"No port of root's is free to connect from {source}")


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _wake(address: tuple[str, int]) -> None:
    """Let a relay that nobody has called end."""
    with suppress(OSError), socket.create_connection(address, 1):
        pass


def _free_port() -> int:
    with socket.create_server((HOME, 0)) as server:
        return int(server.getsockname()[1])
