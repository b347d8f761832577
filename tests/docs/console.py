"""Runs the `console` blocks of a page that follow the mark `<!-- run -->`, in one shell, as a reader would."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = re.compile(r"^<!-- run -->\n```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "--- end of command"
SECONDS = 30.0


@dataclass(slots=True)
class Command:
    """A command of a page, and the lines that the page shows below it."""

    text: str
    shown: list[str] = field(default_factory=list)

    @property
    def fails(self) -> bool:
        """Whether the page shows that it fails."""
        return any(line.startswith(("Error:", "failed  ")) for line in self.shown)


def commands(page: str) -> Iterator[Command]:
    """Yield the commands of all marked blocks: `$ ` begins one, `> ` continues it."""
    for block in BLOCK.findall(page):
        found: Command | None = None
        for line in block.splitlines():
            if line.startswith("$ "):
                if found:
                    yield found
                found = Command(line[2:])
            elif line.startswith("> ") and found:
                found.text += "\n" + line[2:]
            elif line.strip():
                assert found, f"output without a command: {line}"
                found.shown.append(line)
        if found:
            yield found


_VARIES = (
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME"),
    (r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b", "ID"),
    (r"\b\d+(\.\d+)? (B|KiB|MiB)(?!\w)", "SIZE"),
    (r'"(size|inode|\w+_ns)":\d+', r'"\1":N'),
    (r"\s+", " "),
)


def plain(line: str) -> str:
    """Return a line of output without what differs from run to run, and from one file system to another."""
    for pattern, word in _VARIES:
        line = re.sub(pattern, word, line)
    return line.strip()


def appears(shown: str, output: list[str]) -> bool:
    """Say whether a line of the page is among the lines of the output; `…` stands for anything."""
    pattern = re.compile(".*".join(re.escape(part) for part in plain(shown).split("…")))
    return any(pattern.fullmatch(plain(line)) for line in output)


class Shell:
    """One bash that lives as long as the page; what it started in the background ends with it."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self._log = directory / "output.log"
        with self._log.open("w") as log:
            self._bash = subprocess.Popen(
                ["bash", "--norc", "--noprofile"],
                cwd=directory,
                env=dict(environment),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )

    def run(self, text: str) -> tuple[int, list[str]]:
        """Run a command; return its exit code and the lines that it wrote."""
        assert self._bash.stdin is not None
        begin = self._log.stat().st_size
        self._bash.stdin.write(f'{text}\necho "{END} $?"\n')
        self._bash.stdin.flush()
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            written = self._log.read_bytes()[begin:].decode()
            if ended := re.search(rf"^{END} (\d+)$", written, re.MULTILINE):
                return int(ended[1]), written[: ended.start()].splitlines()
            assert self._bash.poll() is None, f"the shell ended: {written}"
            time.sleep(0.02)
        raise AssertionError(f"no end after {SECONDS:g} s: {text}")

    def close(self) -> None:
        """End the shell and what it started."""
        assert self._bash.stdin is not None
        if self._bash.poll() is None:
            self._bash.stdin.write("jobs -p | xargs -r kill 2>/dev/null; wait; exit\n")
            self._bash.stdin.close()
        try:
            self._bash.wait(20)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
