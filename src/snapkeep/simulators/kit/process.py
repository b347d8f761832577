"""A simulator as a child process, for tests and for those who want one at hand."""

import contextlib
import json
import os
import select
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

START_SECONDS = 30.0
STOP_SECONDS = 10.0


class ControlFailedError(Exception):
    """The control API refused; ``status`` and the text say why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class SimulatorProcess:
    """``with SimulatorProcess(data_dir) as simulator:`` runs one on a free port until the block is left.

    ``module`` is the simulator's package; ``arguments`` go to its command line. The child ends with the block, even
    when it hangs.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        arguments: Sequence[str] = (),
        module: str = "snapkeep.simulators.nutanix_files",
    ) -> None:
        self.data_dir = data_dir
        self._arguments = list(arguments)
        self._module = module
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self.url = self.username = self.password = self.api_key = ""
        self.ca_file: str | None = None
        self.fingerprint: str | None = None
        self.control_url: str | None = None

    def __enter__(self) -> "SimulatorProcess":
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The child's process id. Raises ``RuntimeError`` when it does not run."""
        if self._child is None:
            raise RuntimeError("the simulator does not run")
        return self._child.pid

    def start(self) -> None:
        """Start the child and wait until it listens. Raises ``RuntimeError`` with what it said on stderr."""
        if self._child is not None:
            raise RuntimeError("the simulator runs already")
        command = [sys.executable, "-m", self._module, "--data-dir", str(self.data_dir)]
        command += ["--port", str(self._port), *self._arguments]
        self.data_dir.mkdir(parents=True, exist_ok=True)
        with (self.data_dir / "stderr.log").open("ab") as errors:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=os.environ.copy()
            )
        try:
            self._take(self._ready_line())
        except BaseException:
            self.kill()
            raise

    def stop(self) -> int | None:
        """Ask the child to end (SIGTERM), and kill it if it does not; returns its exit status."""
        if self._child is None:
            return None
        self._child.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(STOP_SECONDS)
        return self._end()

    def kill(self) -> None:
        """End the child with SIGKILL: it has no chance to tidy up."""
        self._end()

    def restart(self) -> None:
        """Start again on the same data directory and port; a running child is stopped first."""
        self.stop()
        self.start()

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """One call of the control API, for instance ``control("PATCH", "/settings", {"task_seconds": 1})``.

        Raises :class:`ControlFailedError`.
        """
        request = urllib.request.Request(f"{self.control_url}{path}", method=method)  # noqa: S310 - our own URL
        if body is not None:
            request.data = json.dumps(body).encode()
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        try:
            with urllib.request.urlopen(request, timeout=60, context=context) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                raise ControlFailedError(error.code, error.read().decode()) from None

    def secrets(self, name: str) -> tuple[str, str]:
        """The password and the API key of an account, for instance of ``backup`` or ``viewer``."""
        accounts = json.loads((self.data_dir / "accounts.json").read_text())
        found = next(each for each in accounts if each["name"] == name)
        return found["password"], found["api_key"]

    def errors(self) -> str:
        """What the child wrote to stderr, in all its lives."""
        return (self.data_dir / "stderr.log").read_text(errors="replace")

    def _ready_line(self) -> bytes:
        child = self._child
        if child is None or child.stdout is None:
            raise RuntimeError("the simulator does not run")
        end = time.monotonic() + START_SECONDS
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([child.stdout], [], [], max(0.0, end - time.monotonic()))
            piece = os.read(child.stdout.fileno(), 65536) if ready else b""
            if not piece:
                raise RuntimeError(f"the simulator did not start: {self.errors().strip()}")
            line += piece
        return line

    def _take(self, line: bytes) -> None:
        told = json.loads(line)
        self.url, self.ca_file, self.fingerprint = told["url"], told["ca_file"], told["fingerprint"]
        self.control_url = told["control"]
        self.username, self.password, self.api_key = told["username"], told["password"], told["api_key"]
        self._port = int(self.url.rpartition(":")[2])

    def _end(self) -> int | None:
        child, self._child = self._child, None
        if child is None:
            return None
        if child.poll() is None:
            child.kill()
        status = child.wait()
        if child.stdout is not None:
            child.stdout.close()
        return status
