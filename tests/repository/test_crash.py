"""A writer is killed at any moment: the repository stays sound, and the next writer succeeds."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.repository.support import fill, save
from tests.support.restic import run_restic

from snapkeep.repository.backends import FileKind
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

_KILLS = int(os.environ.get("SNAPKEEP_KILLS", "6"))

_WRITER = """
import sys
from pathlib import Path
from snapkeep.repository import writing
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.crypto import Key
from snapkeep.repository.repository import Repository
from tests.repository.support import fill, save
writing.PACK_SIZE, writing.INDEX_BLOBS = 30_000, 150
path, cache, seed = sys.argv[1:]
key = Key.from_json(sys.stdin.buffer.read())
repository = Repository.open(LocalBackend(Path(path)), "", Path(cache), key=key)
print("ready", flush=True)
with repository.locked():
    for turn in range(1000):
        save(repository, fill(repository, 300, seed=int(seed) * 1000 + turn), f"/{seed}/{turn}")
        print("saved", flush=True)
"""


def test_killed_at_any_moment(path: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("SNAPKEEP_SEED", str(random.randrange(1000))))
    print("SNAPKEEP_SEED", seed)
    random_ = random.Random(seed)
    repository = Repository.create(LocalBackend(path), "secret", tmp_path / "cache")
    saved = 0
    for kill in range(_KILLS):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, path, tmp_path / "cache", str(kill)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert writer.stdin
        assert writer.stdout
        writer.stdin.write(repository.key.to_json())
        writer.stdin.close()
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.2 + random_.random() * 0.8)
        writer.send_signal(signal.SIGKILL)
        saved += writer.stdout.read().count(b"saved")
        writer.wait()
        writer.stdout.close()
        run_restic(path, "check", "--no-lock", "--read-data")
    assert saved, "nobody came to an end: the test shows nothing"

    # Everything that was said to be saved is there, and the next one needs no help: the locks of the dead are gone.
    assert len(repository.snapshots()) >= saved
    for name, _ in repository.packs():
        repository.verify_pack(name)
    with repository.locked(exclusive=True):
        assert len(list(LocalBackend(path).list(FileKind.LOCK))) == 1
        for seed in range(_KILLS):
            again = fill(repository, 300, seed=1000 * seed)
            save(repository, again)
            assert dict(repository.load_many(BlobType.DATA, again)) == again
    run_restic(path, "check", "--read-data")
    run_restic(path, "prune", "--max-unused", "0")
    run_restic(path, "check", "--read-data")
    repository.close()


def test_what_the_killed_left_in_tmp_is_removed_in_the_end(path: Path) -> None:
    backend = LocalBackend(path)
    backend.create()
    old, new = path / "tmp" / "1-old", path / "tmp" / "1-new"
    old.touch()
    new.touch()
    os.utime(old, (1, 1))
    backend.close()
    assert [file.name for file in (path / "tmp").iterdir()] == [new.name]
