"""The instructions of a Containerfile, and a run of them on a copy of this machine's root, since no engine is here."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "Containerfile"


@dataclass(frozen=True, slots=True)
class Instruction:
    word: str
    rest: str

    @property
    def exec_form(self) -> list[str]:
        return [str(word) for word in json.loads(self.rest)]


@dataclass(frozen=True, slots=True)
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, word: str) -> list[str]:
        return [each.rest for each in self.instructions if each.word == word]

    def one(self, word: str) -> str:
        (rest,) = self.all(word)
        return rest


def read(path: Path = CONTAINERFILE) -> list[Stage]:
    """Return the stages; the values of ARG are put in."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for word, rest in _lines(path.read_text()):
        if word == "ARG" and not stages:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], base)
            stages.append(Stage(base, name))
        else:
            stages[-1].instructions.append(Instruction(word, rest))
    return stages


def _lines(text: str) -> Iterator[tuple[str, str]]:
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(kept)).splitlines():
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


def assignments(rest: str) -> dict[str, str]:
    """Return the pairs of ENV and LABEL."""
    return {name: value for name, _, value in (word.partition("=") for word in shlex.split(rest))}


MOUNTED = """
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
shift
for each in /proc /dev; do mount --rbind "$each" "$root$each"; done
cd /
exec /usr/sbin/chroot "$root" "$@"
"""
"""A shell of its own, in which what is written to the root lies in `upper` and is gone with it."""

CONFINED = """
set -e
cd "$1"
mount -t tmpfs -o size=64m tmpfs /tmp
mount --bind "$1" "$1"
mount -o remount,bind,rw "$1"
mount -o remount,bind,ro /
user=$2
group=$3
shift 3
exec /usr/bin/setpriv --reuid="$user" --regid="$group" --clear-groups \\
    --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
"""As `docker run --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges` with one volume."""


class Copy:
    """A copy of this machine's root, on which the instructions are carried out; the base image is not there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("upper", "work", "root"):
            (directory / name).mkdir()
        self.environment: dict[str, str] = {}
        self.where = "/"
        python = Path(sys.executable).resolve()
        self.stands_for_base = f"{python.parent}:/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"

    def command(self, *words: str) -> list[str]:
        return ["unshare", "--mount", "sh", "-c", MOUNTED, "sh", str(self.directory), *words]

    def shell(self, text: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command("sh", "-c", f"mkdir -p {self.where} && cd {self.where} && {text}"),
            env={"PATH": self.stands_for_base, "HOME": str(Path.home()), **self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def build(self, stage: Stage) -> None:
        """Carry out a stage. What apt-get would install is here."""
        for each in stage.instructions:
            if each.word == "COPY":
                self._copy(each.rest)
            elif each.word == "WORKDIR":
                self.where = each.rest
            elif each.word == "ENV":
                self.environment |= assignments(each.rest)
            elif each.word == "RUN" and "apt-get" not in each.rest:
                done = self.shell(each.rest, **_pip_settings())
                assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    def _copy(self, rest: str) -> None:
        if rest.startswith("--from="):
            return  # the stages are built on one root
        *sources, target = rest.split()
        for source in sources:
            into = f"{target}/" if target in {".", "./"} else target
            done = self.shell(f"mkdir -p $(dirname {target}) && cp -rT {ROOT / source} {_named(into, source)}")
            assert done.returncode == 0, done.stderr

    def inside(self, pid: int, user: str, *words: str) -> list[str]:
        """Return the command that runs `words` beside a process, as `docker exec` would."""
        uid, _, gid = user.partition(":")
        login = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--bounding-set=-all")
        return ["nsenter", f"--target={pid}", "--mount", "--root", "--wd", *login, *words]

    def run(self, data: str, user: str, *words: str) -> list[str]:
        """Return the command that runs `words` as the image would be run, with one volume."""
        return self.command("sh", "-c", CONFINED, "sh", data, *user.split(":"), *words)


def _named(target: str, source: str) -> str:
    return f"{target}{Path(source).name}" if target.endswith("/") else target


def _pip_settings() -> Mapping[str, str]:
    """Return this machine's own settings of pip: where it gets packages is no matter of the image."""
    return {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "REQUESTS_"))}
