"""btrfs by its own programs: what there is, snapshots, and what was sent.

Programs: btrfs (btrfs-progs 5.15 or later), findmnt (util-linux), stat (coreutils). The texts that are read are those
of btrfs-subvolume(8); a name with a newline goes on in the next line, which no other line looks like.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from snapkeep.model.errors import VendorError
from snapkeep.plugin.commands import Command, Commands, Output, Stream

SEND_SECONDS = 7 * 86400.0
"""The longest that a diff may take; it may be silent for `seconds` only."""

TOP = 5
"""Id of the top-level subvolume (BTRFS_FS_TREE_OBJECTID)."""
_LISTED = re.compile(
    rb"ID (?P<id>\d+) gen (?P<generation>\d+) cgen \d+ parent (?P<parent>\d+) top level \d+ "
    rb"parent_uuid (?P<parent_uuid>\S+)\s+received_uuid (?P<received>\S+)\s+uuid (?P<uuid>\S+) path (?P<path>.*)"
)
_TIMED = re.compile(rb"ID (?P<id>\d+) gen \d+ cgen \d+ top level \d+ otime (?P<time>\S+ \S+) path .*")
_NUMBERED = re.compile(rb"ID (?P<id>\d+) gen \d+ top level \d+ path .*")
_OUTSIDE = b"<FS_TREE>/"
"""What `list -a` puts before paths outside of the directory; without `-a`, others are told from there, not the top."""
_NONE = "-"


class Mount(NamedTuple):
    """A btrfs file system where it is mounted."""

    target: bytes
    root: bytes
    """The directory of the file system that is mounted there, from its top: `/`, or `/@home`."""
    uuid: str
    read_only: bool


class Subvolume(NamedTuple):
    """A subvolume, which may be a snapshot. `path` is from the file system's top; `created` is ISO 8601 in UTC."""

    id: int
    parent: int
    """Id of the subvolume that it lies in."""
    generation: int
    uuid: str
    source: str
    """uuid of the subvolume that it is a snapshot of; empty: of none."""
    received: bool
    read_only: bool
    path: bytes
    created: str = ""


class Btrfs:
    """The file systems of one host."""

    def __init__(self, commands: Commands, seconds: float) -> None:
        self._commands = commands
        self._seconds = seconds

    async def mounts(self) -> list[Mount]:
        """Return where btrfs is mounted. Raises VendorError."""
        # 1: there is none (findmnt(8)).
        # As root: only root may read the UUID from the device, where no udev knows it.
        done = await self._run("findmnt", "-J", "-l", "-t", "btrfs", "-o", "TARGET,FSROOT,UUID,OPTIONS")
        if done.code == 1 and not done.out and not done.err:
            return []
        try:
            found = json.loads(done.succeeded())["filesystems"]
            return [
                Mount(
                    os.fsencode(item["target"]),
                    os.fsencode(item["fsroot"]),
                    item["uuid"],
                    "ro" in item["options"].split(","),
                )
                for item in found
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise VendorError("findmnt answers in a form that is not known", vendor_message=str(error)) from error

    async def subvolumes(self, target: bytes) -> list[Subvolume]:
        """Return all subvolumes of a mounted file system, without its top-level one."""
        listed = await self._list("-apcguqR", target)
        read_only = {int(match["id"]) for match in _matches(_NUMBERED, await self._list("-r", target))}
        times = {int(match["id"]): match["time"] for match in _matches(_TIMED, await self._list("-s", target))}
        return [
            Subvolume(
                id=int(match["id"]),
                parent=int(match["parent"]),
                generation=int(match["generation"]),
                uuid=match["uuid"].decode("ascii", "replace"),
                source=_uuid(match["parent_uuid"]),
                received=bool(_uuid(match["received"])),
                read_only=int(match["id"]) in read_only,
                path=path,
                created=times.get(int(match["id"]), b"").decode("ascii", "replace").replace(" ", "T"),
            )
            for match, path in _with_path(listed)
        ]

    async def show(self, path: bytes) -> dict[str, str] | None:
        """Return what `btrfs subvolume show` says of a path; None when there is nothing, or no subvolume."""
        done = await self._run("btrfs", "subvolume", "show", path)
        if done.code:
            if await self.exists(path) is not True:
                return None
            done.succeeded()
        lines = (line.split(b":", 1) for line in done.out.split(b"\n") if line.startswith(b"\t") and b":" in line)
        return {key.strip().decode(): value.strip().decode("utf-8", "backslashreplace") for key, value in lines}

    async def exists(self, path: bytes) -> bool | None:
        """Say whether a path is the root of a subvolume; None: it is there, but is none."""
        done = await self._run("stat", "--printf=%i %F", "--", path)
        if done.code:
            return False
        inode, _, kind = done.out.partition(b" ")
        return True if (inode, kind) == (b"256", b"directory") else None  # BTRFS_FIRST_FREE_OBJECTID

    async def snapshot(self, source: bytes, target: bytes, *, read_only: bool) -> Output:
        """Take a snapshot at a path where nothing is."""
        return await self._run("btrfs", "subvolume", "snapshot", *(["-r"] if read_only else []), source, target)

    async def delete(self, path: bytes) -> Output:
        """Delete a subvolume, durably."""
        return await self._run("btrfs", "subvolume", "delete", "--commit-after", path)

    def send(self, base: bytes | None, new: bytes) -> AbstractAsyncContextManager[Stream]:
        """Send what is in `new`, or what differs from `base`, without data."""
        parent: list[str | bytes] = ["-p", base] if base is not None else []
        return self._commands.stream(
            Command.of(
                *("btrfs", "send", "--quiet", "--no-data"),
                *parent,
                new,
                as_root=True,
                seconds=self._seconds,
                total=SEND_SECONDS,
            )
        )

    async def stat(self, top: bytes, paths: Sequence[bytes]) -> dict[bytes, Status]:
        """Return what is at these paths below a directory; what is not there is left out."""
        prefix = top + b"/"
        form = "--printf=%f %h %i %s %.9Y %.9Z %.9X %.9W\\n%n\\0"
        done = await self._run("stat", form, "--", *(prefix + path for path in paths))
        found = {}
        for record in done.out.split(b"\0")[:-1]:
            numbers, _, name = record.partition(b"\n")
            found[name[len(prefix) :]] = Status.read(numbers)
        return found

    async def _list(self, option: str, target: bytes) -> bytes:
        return (await self._run("btrfs", "subvolume", "list", option, target)).succeeded()

    async def _run(self, *arguments: str | bytes) -> Output:
        return await self._commands.run(Command.of(*arguments, as_root=True, seconds=self._seconds))


class Status(NamedTuple):
    """What stat(1) says. Times are nanoseconds since 1970; 0: not known."""

    mode: int
    links: int
    inode: int
    size: int
    modified: int
    changed: int
    accessed: int
    created: int

    @classmethod
    def read(cls, text: bytes) -> Status:
        """Read the numbers in the order of the fields. Raises VendorError."""
        try:
            mode, links, inode, size, *times = text.split()
            modified, changed, accessed, created = (_nanoseconds(time) for time in times)
            return cls(int(mode, 16), int(links), int(inode), int(size), modified, changed, accessed, created)
        except ValueError as error:
            raise VendorError("stat answers in a form that is not known", vendor_message=repr(text[:200])) from error


def _nanoseconds(text: bytes) -> int:
    seconds, _, fraction = text.partition(b".")
    sign = -1 if seconds.startswith(b"-") else 1
    return int(seconds) * 10**9 + sign * int(fraction or b"0")


def _matches(form: re.Pattern[bytes], text: bytes) -> Iterator[re.Match[bytes]]:
    return (match for line in text.split(b"\n") if (match := form.fullmatch(line)))


def _with_path(text: bytes) -> Iterable[tuple[re.Match[bytes], bytes]]:
    """Return each listed subvolume with its path, of which all but the first line stand in lines of their own."""
    found: list[tuple[re.Match[bytes], bytes]] = []
    for line in text.removesuffix(b"\n").split(b"\n"):
        if match := _LISTED.fullmatch(line):
            found.append((match, match["path"]))
        elif found:
            match, path = found[-1]
            found[-1] = match, path + b"\n" + line
        elif line:
            raise VendorError("btrfs lists subvolumes in a form that is not known", vendor_message=repr(line[:200]))
    return [(match, path.removeprefix(_OUTSIDE)) for match, path in found]


def _uuid(text: bytes) -> str:
    found = text.decode("ascii", "replace")
    return "" if found == _NONE else found
