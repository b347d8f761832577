"""Programs of a host that cannot be had here, played on real directories: zfs, those of LVM, mount and findmnt.

What they print, also on errors, is what the real ones print; each module says where that is written. All state is in
one JSON file. The programs in PATH are small ones that ask the player here, so that each takes milliseconds.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import tempfile
import threading
from pathlib import Path

from tests.support.host_programs import lvm, mounts, zfs
from tests.support.host_programs.state import Failed, State, edited

PLAYED = {**zfs.PLAYED, **lvm.PLAYED, **mounts.PLAYED}

CLIENT = r"""#!/usr/bin/perl
socket(my $asked, 1, 1, 0) or die "$!";
connect($asked, pack("S a*", 1, "{address}")) or die "$!";
syswrite($asked, join("\0", "{name}", @ARGV));
shutdown($asked, 1);
my ($code, $out, $err) = split(/\0/, do {{ local $/; <$asked> }}, 3);
print $out;
print STDERR $err;
kill(-$code, $$) if $code < 0;
exit $code;
"""
"""Perl begins in a fifth of the time of Python, and is on every Debian (perl-base)."""


DIED = f"{-signal.SIGKILL}\0\0".encode()


class Programs:
    """The played programs, installed until they are closed."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        """Put them into `binaries`; state and contents go below `directory`."""
        directory.mkdir(parents=True)
        self.file = directory / "state.json"
        self.file.write_text("{}")
        self.called: list[list[str]] = []
        self.left: int | None = None
        """How many more changes there are until the host dies: the program that makes the last one, and all later ones,
        are ended by a signal."""
        self._place = Path(tempfile.mkdtemp(prefix="snapkeep-"))  # short: an address has at most 107 bytes
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(self._place / "socket"))
        self._listening.listen(64)
        self._player = threading.Thread(target=self._play)
        self._player.start()
        for name in PLAYED:
            program = binaries / name
            program.write_text(CLIENT.format(address=self._place / "socket", name=name))
            program.chmod(0o755)

    def close(self) -> None:
        """End the player."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._player.join()
        self._listening.close()
        shutil.rmtree(self._place)

    def state(self) -> State:
        """Return the state, to be looked at."""
        with edited(self.file) as state:
            return state

    def _play(self) -> None:
        while True:
            try:
                asked, _ = self._listening.accept()
            except OSError:
                return
            with asked:
                asked.sendall(self._answer(*_words(asked)))

    def _answer(self, name: str, *arguments: str) -> bytes:
        code, out, err = 0, "", ""
        self.called.append([name, *arguments])
        if self.left == 0:
            return DIED
        try:
            with edited(self.file) as state:
                before = json.dumps(state)
                out = PLAYED[name](state, list(arguments))
                if self.left is not None and json.dumps(state) != before:
                    self.left -= 1
        except Failed as error:
            code, err = error.code, f"{error}\n" if str(error) else ""
        except Exception as error:
            code, err = 70, f"{name} {arguments} is not played: {error!r}\n"
        if self.left == 0:
            return DIED
        return f"{code}\0{out}\0{err}".encode("utf-8", "surrogateescape")


def _words(asked: socket.socket) -> list[str]:
    text = b""
    while piece := asked.recv(1 << 16):
        text += piece
    return text.decode("utf-8", "surrogateescape").split("\0")
