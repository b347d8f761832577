"""Plays exportfs(8) for an nfs-ganesha: takes the calls that the plug-in makes, and says what the real one says.

Run as `exportfs.py DIRECTORY ARGUMENT...`. The directory has a table of what is exported, and the bus of the server, if
one runs. Like that of nfs-utils 2.6.2 it takes `\\ooo` in a path for a byte when it opens, but not when it closes, and
notes what it then finds wrong. It uses nothing but Python's own modules: root runs it, on the tested host.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

MOST_PATH = 1024
MANAGER = "org.ganesha.nfsd.exportmgr"
OPTIONS = re.compile(r"ro,no_subtree_check,no_root_squash,sec=sys,fsid=([0-9a-f-]{36})")
SHOWN = "sync,wdelay,hide,no_subtree_check,fsid={fsid},sec=sys,ro,secure,no_root_squash,no_all_squash"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Table:
    """What is exported: for each path its number and file system id, and the addresses that it is open to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = directory / "table.json"
        self._bus = directory / "bus"
        self.paths: dict[str, dict[str, Any]] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def open(self, path: str, address: str, fsid: str, source: str | None = None) -> None:
        """Note an export, and let the server have it. `source`: the directory that is shown at the path, if another."""
        number = 1 + max((entry["number"] for entry in self.paths.values()), default=0)
        entry = self.paths.setdefault(path, {"number": number, "addresses": []})
        is_new = not entry["addresses"]
        entry |= {"fsid": fsid, "source": source or path}
        entry["addresses"] = sorted({*entry["addresses"], address})
        self._save()
        if Path(entry["source"]).is_dir():
            self._serve(path, "AddExport" if is_new else "UpdateExport")

    def close(self, path: str, address: str) -> bool:
        """Forget an export; say whether there was one."""
        entry = self.paths.get(path, {"addresses": []})
        if address not in entry["addresses"]:
            return False
        entry["addresses"].remove(address)
        if entry["addresses"]:
            self._serve(path, "UpdateExport")
        else:
            del self.paths[path]
            if (view := self._view(entry["number"])).exists():
                if self._bus.exists():
                    self._ask("RemoveExport", f"uint16:{entry['number']}")
                subprocess.run(["umount", "-l", view], check=True)
                view.rmdir()
        self._save()
        return True

    def text(self, path: str) -> str:
        """Return an export as the server's settings have it, and show what it serves.

        The server knows mounted file systems, not subvolumes: so each path is mounted, at a place of its own.
        """
        entry = self.paths[path]
        high, low = divmod(uuid.UUID(entry["fsid"]).int, 1 << 64)
        view = self._view(entry["number"])
        if not view.exists():
            view.mkdir(parents=True)
            subprocess.run(["mount", "--bind", entry["source"], view], check=True)
        escaped = path.replace("\\", "\\\\").replace('"', '\\"')
        return (
            f'EXPORT {{ Export_Id = {entry["number"]}; Path = "{view}"; Pseudo = "{escaped}"; '
            f"Filesystem_Id = {high}.{low}; FSAL {{ Name = VFS; }} CLIENT {{ Clients = {','.join(entry['addresses'])}; "
            "Access_Type = RO; Squash = No_Root_Squash; PrivilegedPort = true; } }\n"
        )

    def _serve(self, path: str, method: str) -> None:
        if not self._bus.exists():
            return  # no server runs; it reads the table when it starts
        number = self.paths[path]["number"]
        settings = self._directory / "export.conf"
        settings.write_text(self.text(path), errors="surrogateescape")
        self._ask(method, f"string:{settings}", f"string:EXPORT(Export_Id={number})")

    def _ask(self, method: str, *arguments: str) -> None:
        bus = f"--bus=unix:path={self._bus}"
        where = ["--print-reply", "--dest=org.ganesha.nfsd", "/org/ganesha/nfsd/ExportMgr", f"{MANAGER}.{method}"]
        subprocess.run(["dbus-send", bus, *where, *arguments], check=True, stdout=subprocess.DEVNULL)

    def _view(self, number: int) -> Path:
        return self._directory / "views" / str(number)

    def _save(self) -> None:
        self._file.write_text(json.dumps(self.paths))


def main(directory: Path, arguments: list[str]) -> int:
    """Do what is asked; return the exit code."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        table = Table(directory)
        if arguments == ["-s"]:
            return _show(table)
        *options, client = arguments
        address, path = re.fullmatch(r"\[?([0-9a-f.:]+?)\]?:(/.*)", client, re.DOTALL).groups()  # type: ignore[union-attr]
        if options == ["-u"]:
            return 0 if table.close(path, address) else _say(f"Could not find '{client}' to unexport.")
        return _open(table, path, address, OPTIONS.fullmatch(options[1])[1])  # type: ignore[index]


def _open(table: Table, path: str, address: str, fsid: str) -> int:
    if len(os.fsencode(path)) > MOST_PATH:
        return _say(f"path name {path} too long")
    table.open(os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), os.fsencode(path))), address, fsid)
    if not Path(path).exists():
        return _say(f"Failed to stat {path}: {os.strerror(errno.ENOENT)}")
    return 0 if Path(path).is_dir() else _say(f"{path} is not a directory. Remote access will fail")


def _show(table: Table) -> int:
    for path, entry in table.paths.items():
        shown = re.sub(rb"[\x00-\x20\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(path))
        for address in entry["addresses"]:
            options = SHOWN.format(fsid=entry["fsid"])
            sys.stdout.buffer.write(b"%s  %s(%s)\n" % (shown, address.encode(), options.encode()))
    return 0


def _say(text: str) -> int:
    sys.stderr.buffer.write(f"exportfs: {text}\n".encode("utf-8", "surrogateescape"))
    return 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
