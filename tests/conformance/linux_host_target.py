"""This machine, with a btrfs file system of its own, as a target of the conformance suite.

All programs of the plug-in are run by `env`: one of ours stands first in PATH, counts them and plays faults.
"""

import fcntl
import itertools
import json
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from tests.support.btrfs import mounted_btrfs, snapshot, subvolume

from snapkeep.conformance import Circumstance, Fault, Step, Target
from snapkeep.conformance.target import FAILED_TASK_TEXT
from snapkeep.model.assets import Asset
from snapkeep.model.exports import BackupHost, Export, Protocol
from snapkeep.model.snapshots import DEFAULT_PREFIX, Snapshot, SnapshotKind
from snapkeep.plugin.roles import Roles
from snapkeep.plugins.linux_host import PLUGIN

PLAYER = Path(__file__).with_name("linux_host_player.py")
SIZE = 256 << 20
SUBVOL_CREATE = 0x5000940E
"""BTRFS_IOC_SUBVOL_CREATE (linux/btrfs.h): a program for each of hundreds would take seconds."""

PROGRAMS: dict[Step, str] = {
    Step.ANY: "^(?!sudo )",
    Step.LIST_ASSETS: "^findmnt ",
    Step.LIST_SNAPSHOTS: "^btrfs subvolume list ",
    Step.CREATE: "^btrfs subvolume snapshot -r ",
    Step.DELETE: "^btrfs subvolume delete ",
    Step.RESTORE: "^mv ",
    Step.CLONE: "^btrfs subvolume snapshot (?!-r )",
    Step.EXPORT: r"^(ln|rm) .*/\.exports/",
    Step.READ_SNAPSHOT: "^(stat|btrfs subvolume show) ",
    Step.TASK: "^btrfs subvolume show ",
    Step.READ_ACCESS: "^find ",
    Step.START_DIFF: "^btrfs subvolume show ",
    Step.READ_DIFF: "^btrfs send ",
}
"""The programs of a step."""

NO_ROOM = "env: 'program': Resource temporarily unavailable\n"
FAULTS: dict[Fault, dict[str, Any]] = {
    Fault.UNAVAILABLE: {"action": "fail", "runs": False, "code": 126, "complains": NO_ROOM},
    Fault.FAILING: {"action": "fail", "runs": False, "code": 1, "complains": "ERROR: no: Input/output error\n"},
    Fault.FAILING_AFTER_EFFECT: {"action": "fail", "runs": True, "code": 1, "complains": "ERROR: Input/output error\n"},
    Fault.VANISHED: {"action": "fail", "runs": False, "code": 1, "complains": "ERROR: No such file or directory\n"},
    Fault.FAILED_TASK: {"action": "fail", "runs": False, "code": 47, "complains": f"{FAILED_TASK_TEXT}\n"},
    Fault.RESET: {"action": "fail", "runs": False, "killed": True},
    Fault.RESET_AFTER_EFFECT: {"action": "fail", "runs": True, "killed": True, "says": ""},
    Fault.TRUNCATED: {"action": "cut", "runs": True, "killed": True},
    Fault.HANG: {"action": "hang"},
    Fault.BROKEN_JSON: {"action": "cut", "runs": True},
    Fault.WRONG_SHAPE: {"action": "say", "runs": False, "says": '{"filesystems": ["word", 7, null]}'},
    Fault.LYING_SUCCESS: {"action": "say", "runs": False, "says": ""},
    Fault.OTHER_LIST: {"action": "replace", "order": [0, 1, 2, 3, 4, 6, 5]},
}
"""What is played: a fault of the suite in the words of programs. A broken connection is a program that is killed."""

NO_NETWORK = "programs on this machine are reached by no network"
NO_LOGIN = "nobody logs in to the machine that he is on"
NO_TLS = "programs prove nothing by certificates"
NO_TASKS = "btrfs has no tasks: the work is done when its program ends"
NO_PAGES = "programs give no pages"
AT_ONCE = "a file system shows each change at once"

_numbers = itertools.count(1)


class LinuxHostTarget(Target):
    """A file system of its own in a file, on this machine."""

    plugin = PLUGIN
    programs: ClassVar = PROGRAMS
    longest_pause = 0.02
    impatient: ClassVar = {"command_seconds": 0.4}
    failed_code = "47"
    foreign_kinds = frozenset({SnapshotKind.USER, SnapshotKind.SCHEDULE})
    """What was replicated to a btrfs file system is a snapshot of nothing on it."""

    inapplicable: ClassVar = {
        Fault.RATE_LIMITED: "no program asks to be left alone",
        Fault.PASSING_ABSENCE: AT_ONCE,
        Fault.LINGERING: AT_ONCE,
        Fault.EXPIRED_SESSION: NO_LOGIN,
        Fault.STALE_VERSION: "names are changed whatever their version",
        Fault.HTML: NO_NETWORK,
        Fault.CHANGED_WORDING: "the words of strerror(3) stand for numbers, and programs tell no other code",
        Fault.UNKNOWN_WORDS: "btrfs names kinds and states by flags, not by words",
        Fault.REPEATED_PAGE: NO_PAGES,
        Fault.SMALLER_PAGES: NO_PAGES,
        Fault.STUCK_TASK: NO_TASKS,
        Fault.FORGOTTEN_TASK: NO_TASKS,
        Fault.SLOW_TASKS: NO_TASKS,
        Fault.SHORT_ACCESS: "a link does not end by itself",
        Fault.COMPUTING: "the change list is computed while it is read",
        Fault.STUCK_TOKEN: NO_PAGES,
        Fault.MISSING_TOKEN: NO_PAGES,
        Fault.LISTED_CHILDREN: "btrfs send never tells of what moved with its directory",
        "vanished-while-listed": "one program lists all assets of a file system with their snapshots",
        Circumstance.OTHER_LOGIN: NO_LOGIN,
        Circumstance.WRONG_PASSWORD: NO_LOGIN,
        Circumstance.WRONG_KEY: NO_LOGIN,
        Circumstance.UNTRUSTED: NO_TLS,
        Circumstance.PINNED: NO_TLS,
        Circumstance.PINNED_WRONG: NO_TLS,
        Circumstance.WRONG_CA: NO_TLS,
        Circumstance.UNREADABLE_CA: NO_TLS,
        Circumstance.WRONG_HOST: NO_NETWORK,
        Circumstance.WRONG_PORT: NO_NETWORK,
        Circumstance.PLAIN_SERVER: NO_NETWORK,
        Circumstance.READ_ONLY_ACCOUNT: "here the account is root's, which may do all",
        Circumstance.LEAST_ACCOUNT: "here the account is root's, which may do all",
        "account_with": "here the account is root's, which may do all",
        Circumstance.EXPORT_WRONGLY_PREPARED: "there is one kind of NFS server that it takes, or none",
        Circumstance.ABSOLUTE_PATHS: "btrfs send has one form of paths",
        "cut_connections": NO_NETWORK,
        "paused_asset": "btrfs cannot pause the snapshots of a subvolume",
        "limit_snapshots": "btrfs limits space, not the number of snapshots",
    }

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._closing = ExitStack()
        self._only: list[Path] = []
        self._others: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "LinuxHostTarget":
        self._mount = self._closing.enter_context(mounted_btrfs(self._directory / "one", SIZE))
        self._only.append(self._mount)
        self._play()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for child in self._others:
            child.kill()
            child.communicate()
        self._closing.close()

    def _play(self) -> None:
        """Put an `env` first in PATH that counts what it runs, and plays faults when there are any."""
        place = self._directory / "bin"
        self._seen, self._faults = write_player(self._directory, sys.executable)
        self._hook = write_hook(self._directory)
        before = os.environ["PATH"]
        self._closing.callback(os.environ.__setitem__, "PATH", before)
        os.environ["PATH"] = f"{place}:{before}"

    # -- how to reach it -------------------------------------------------------------------------------------------
    def settings(self) -> dict[str, Any]:
        hook = str(self._hook)
        return {
            "only": [str(path) for path in self._only],
            "hooks": {"application": {"freeze": [hook, "freeze"], "thaw": [hook, "thaw"]}},
        }

    async def requests_seen(self) -> int:
        return self._seen.stat().st_size

    # -- assets ----------------------------------------------------------------------------------------------------
    async def fresh_asset(self) -> Asset:
        return await self._found(subvolume(self._mount / f"asset-{next(_numbers)}"))

    async def unsupported_asset(self) -> Asset:
        """One beside the subvolume that is mounted."""
        outer = self._closing.enter_context(mounted_btrfs(self._directory / "two", SIZE))
        inner = self._directory / "inner"
        inner.mkdir()
        subvolume(outer / "beside")
        self._bind(subvolume(outer / "@"), inner)
        self._only.append(inner)
        return await self._found(Path("beside"))

    async def nested_asset(self, asset: Asset, name: str) -> None:
        subvolume(self.live_path(asset) / name)

    async def pause(self, asset: Asset) -> None:
        """Let nothing be changed any more where it is mounted."""
        subprocess.run(["mount", "-o", "remount,bind,ro", self._mount], check=True)

    async def remove_asset(self, asset: Asset) -> None:
        path = self.live_path(asset)
        inner = [*(path / ".snapkeep").glob("*"), path / ".snapkeep"]
        for each in [*(item for item in inner if item.is_dir() and item.stat().st_ino == 256), path]:
            subprocess.run(["btrfs", "subvolume", "delete", each], check=True, capture_output=True)

    async def many_assets(self, count: int, snapshots: int = 0) -> dict[str, Any]:
        for number in range(count):
            asset = self._mount / f"many-{number}"
            _make(asset)
            if snapshots:
                _make(asset / ".snapkeep")
            for each in range(snapshots):
                snapshot(asset, asset / ".snapkeep" / f"{DEFAULT_PREFIX}{each}")
        return {"hooks": None}

    async def add_listed(self, name: str) -> None:
        subvolume(self._mount / name)

    async def foreign_snapshot(self, asset: Asset, name: str, kind: SnapshotKind) -> str | None:
        if kind is SnapshotKind.USER:
            snapshot(self.live_path(asset), self._mount / name)
            return None
        place = self.live_path(asset) / ".snapshots"
        if not place.exists():
            subvolume(place)
        (place / name).mkdir()
        return str(snapshot(self.live_path(asset), place / name / "snapshot").relative_to(self._mount))

    async def foreign_access(self, asset: Asset, host: BackupHost) -> None:
        """Mount it elsewhere, as whoever serves it would."""
        place = self._directory / "served"
        place.mkdir()
        self._bind(self.live_path(asset), place)

    def _bind(self, path: Path, place: Path) -> None:
        subprocess.run(["mount", "--bind", path, place], check=True)
        self._closing.callback(lambda: subprocess.run(["umount", "-l", place], check=True))

    async def use(self, roles: Roles, asset: Asset, snapshot: Snapshot) -> None:
        """Send it to somebody who does not read."""
        path = self.live_path(asset) / ".snapkeep" / snapshot.name
        child = subprocess.Popen([sys.executable, "-ISc", SEND, path], stdout=subprocess.PIPE)
        self._others.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"begun\n"

    async def quiescent_asset(self) -> Asset:
        return await self._found(Path("application"))

    async def is_held(self, asset: Asset) -> bool:
        return self._hook.with_name("held").exists()

    async def many_changes(self, count: int) -> tuple[Asset, Snapshot, Snapshot]:
        asset = await self.fresh_asset()
        async with self.connect() as roles:
            made = [await self._taken(roles, asset)]
            for number in range(count):
                (self.live_path(asset) / f"file-{number}").touch()
            made.append(await self._taken(roles, asset))
        return asset, made[0], made[1]

    async def _taken(self, roles: Roles, asset: Asset) -> Snapshot:
        assert roles.create is not None
        ticket = await roles.create.start_create(
            asset, f"{DEFAULT_PREFIX}{next(_numbers)}", f"request-{next(_numbers)}"
        )
        made = await roles.create.poll_create(ticket)
        assert isinstance(made, Snapshot)
        return made

    # -- the content -----------------------------------------------------------------------------------------------
    def live_path(self, asset: Asset) -> Path:
        return Path("/") / asset.name

    def open_export(self, export: Export) -> Path:
        (location,) = export.locations
        assert location.protocol is Protocol.LOCAL
        return Path(location.path)

    def open_live(self, export: Export) -> Path:
        (location,) = export.locations
        assert location.live is not None
        return Path(location.live)

    # -- misbehaviour ----------------------------------------------------------------------------------------------
    async def suffer(
        self, fault: Fault, step: Step = Step.ANY, *, times: int | None = 1, value: float | None = None
    ) -> None:
        if fault is Fault.FORGETFUL or (fault is Fault.SLOW_TASKS and not value):
            return  # btrfs knows no requests, and no work that takes longer than its program
        if (fault, step) == (Fault.VANISHED, Step.LIST_SNAPSHOTS):
            self.require_applicable("vanished-while-listed")
        if fault not in FAULTS:
            await super().suffer(fault, step, times=times, value=value)
        listed = json.loads(self._faults.read_text()) if self._faults.exists() else []
        listed.append({**FAULTS[fault], "program": self.programs[step], "times": times})
        self._faults.write_text(json.dumps(listed))

    async def arrange(self, circumstance: Circumstance) -> dict[str, Any]:
        if circumstance is Circumstance.CLOCK_AHEAD:
            ahead = {"action": "say", "runs": False, "says": f"{4102444800}\n", "program": "^date ", "times": None}
            self._faults.write_text(json.dumps([ahead]))
            return {}
        if circumstance is Circumstance.WRONG_SYSTEM:
            return {"only": ["/no/such/mount"]}
        if circumstance is Circumstance.EXPORT_UNPREPARED:
            return {"nfs": "exportfs"}
        return await super().arrange(circumstance)

    async def _found(self, path: Path) -> Asset:
        async with super().connect() as roles:
            async for batch in roles.discover.discover():
                for asset in batch.assets:
                    if f"/{asset.name}".endswith(f"/{path}".replace("//", "/")):
                        return asset
        raise AssertionError(f"discovery does not show {path}")


def write_player(directory: Path, python: str) -> tuple[Path, Path]:
    """Put an `env` into the directory's `bin`; return its files of what it has seen, and of faults to play."""
    seen, faults = directory / "seen", directory / "faults"
    seen.touch()
    words = [python, "-ISE", str(directory / "player.py"), str(directory)]
    shutil.copy(PLAYER, directory / "player.py")
    (directory / "bin").mkdir()
    program = directory / "bin" / "env"
    program.write_text(
        f"#!/bin/sh\necho >>{shlex.quote(str(seen))}\n"
        f'test -e {shlex.quote(str(faults))} || exec /usr/bin/env "$@"\nexec {shlex.join(words)} "$@"\n'
    )
    program.chmod(0o755)
    return seen, faults


def write_hook(directory: Path) -> Path:
    """Put an application into the directory: it is held while the file `held` is there. Return its one program."""
    hook, held = directory / "hook", shlex.quote(str(directory / "held"))
    hook.write_text(f"#!/bin/sh\ncase $1 in freeze) touch {held};; thaw) rm -f {held};; esac\n")
    hook.chmod(0o755)
    return hook


SEND = """
import fcntl, os, struct, sys
read, write = os.pipe()
os.set_blocking(write, False)
try:
    while True:
        os.write(write, bytes(4096))
except BlockingIOError:
    os.set_blocking(write, True)
place = os.open(sys.argv[1], os.O_RDONLY)
print("begun", flush=True)
fcntl.ioctl(place, 0x40489426, struct.pack("qQQQQI28x", write, 0, 0, 0, 0, 1))  # BTRFS_IOC_SEND
"""
"""Sends a subvolume into a pipe that is full."""


def _make(path: Path) -> None:
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        name = os.fsencode(path.name)
        fcntl.ioctl(parent, SUBVOL_CREATE, bytearray(bytes(8) + name + bytes(4088 - len(name))))
    finally:
        os.close(parent)
