"""Trees of many small files for `backup.py`: made once, changed, and changed back."""

from __future__ import annotations

import base64
import json
import multiprocessing
import random
import shutil
from pathlib import Path

_MOST_SIZE = 16 << 10
_STOCK = 16 << 20
_LOT = 10_000


class FileTree:
    """Files of 1 to 16 KiB of text that hardly compresses; a hundred directories in each directory above them."""

    def __init__(self, top: Path, files: int, per_directory: int, seed: int = 4) -> None:
        self.top = top
        self.files = files
        self.per_directory = per_directory
        self.seed = seed
        self._changed: set[int] = set()
        self._stock = b""

    def make(self) -> None:
        """Make it, unless it is there."""
        about = self.top.with_suffix(".json")
        wanted = {"files": self.files, "per_directory": self.per_directory, "seed": self.seed}
        if about.exists() and json.loads(about.read_text()) == wanted:
            return
        shutil.rmtree(self.top, ignore_errors=True)
        self.top.mkdir(parents=True)
        lots = [range(first, min(first + _LOT, self.files)) for first in range(0, self.files, _LOT)]
        with multiprocessing.Pool() as pool:
            for _ in pool.imap_unordered(self._write, lots):
                pass
        about.write_text(json.dumps(wanted))

    def change(self, count: int, generation: int) -> list[str]:
        """Write other content into files, as far as can be each in another directory; return their paths."""
        chosen = random.Random(f"{self.seed} {generation}")
        directories = range(-(-self.files // self.per_directory))
        found: set[int] = set()
        while len(found) < min(count, self.files):
            wanted = min(count - len(found), len(directories))
            for directory in chosen.sample(directories, wanted):
                number = directory * self.per_directory + chosen.randrange(self.per_directory)
                if number < self.files:
                    found.add(number)
        for number in found:
            self._write_one(number, generation)
        self._changed |= found
        return [self.path(number) for number in sorted(found)]

    def rewind(self) -> None:
        """Give all changed files the content that they had at first."""
        for number in self._changed:
            self._write_one(number, 0)
        self._changed.clear()

    def path(self, number: int) -> str:
        """Return the path of a file, below the top."""
        directory = number // self.per_directory
        return f"group-{directory // 100:04}/directory-{directory:06}/file-{number:08}.txt"

    def content(self, number: int, generation: int) -> bytes:
        """Return what a file holds; no two files and generations have the same."""
        if not self._stock:
            stock = random.Random(self.seed).randbytes(_STOCK)
            self._stock = base64.b64encode(stock)
        chosen = random.Random(number << 16 | generation)
        size = chosen.randint(1 << 10, _MOST_SIZE)
        start = chosen.randrange(len(self._stock) - _MOST_SIZE)
        return (b"%012d %06d\n" % (number, generation) + self._stock[start : start + size])[:size]

    def _write(self, numbers: range) -> None:
        for number in numbers:
            self._write_one(number, 0)

    def _write_one(self, number: int, generation: int) -> None:
        path = self.top / self.path(number)
        content = self.content(number, generation)
        try:
            path.write_bytes(content)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
