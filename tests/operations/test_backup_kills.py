"""kill -9 at random moments of backups: the next start ends what was begun, and nothing is left over.

The long form: `python -m tests.operations.test_backup_kills --kills 100 --seed 1`.
"""

from __future__ import annotations

import argparse
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.backup.support import assert_equal
from tests.operations.backups import Backups
from tests.support.installation import Installation, Json, installed, until
from tests.support.restic import run_restic

AGAIN = 0.25
"""How probable it is that what goes on after a kill is killed, too."""
LONGEST = 4.0
"""Seconds after which a backup is killed at the latest."""
LIMITS = {"SNAPKEEP_OPERATION_SECONDS": "600", "SNAPKEEP_STALL_SECONDS": "120", "SNAPKEEP_OUTAGE_SECONDS": "120"}
"""Nothing that is done here lasts longer, also on a busy machine: so a backup has no excuse to fail."""


def run(root: Path, kills: int, seed: int, say: Callable[[str], None]) -> Counter[str]:
    """Kill so often; return the phases in which it hit. Raises AssertionError for whatever is not as it was."""
    chance = random.Random(seed)
    hit: Counter[str] = Counter()
    with installed(root, **LIMITS) as installation:
        installation.reset()
        backups = Backups(installation, root / "repository")
        backups.fill()
        while (so_far := hit.total()) < kills:
            mutate(installation.live(), chance)
            operation = backups.ask(full=chance.random() < 0.15)
            while hit.total() < kills:
                time.sleep(chance.uniform(0.0, LONGEST))
                hit[phase(installation, operation)] += 1
                assert installation.server.end(signal.SIGKILL) == -signal.SIGKILL
                installation.server.start()
                if chance.random() > AGAIN:
                    break
            check(backups, operation)
            if hit.total() // 10 > so_far // 10:
                assert "no errors were found" in run_restic(backups.location, "check")
                say(f"{hit.total()} kills, {len(backups.known())} recovery points")
        last = backups.make()
        assert backups.left() == [last["snapshot"]]
        backups.is_sound()
        judge_content(backups, last)
    return hit


def phase(installation: Installation, operation: Json) -> str:
    return str(installation.operation(operation)["phase"]).partition(":")[0]


def check(backups: Backups, operation: Json) -> None:
    """What was begun has succeeded, once; of all snapshots the base of the chain alone is left."""
    done = backups.installation.wait(operation, 120)
    made = backups.known()[0]
    assert made["id"] == done["result"]["backup_id"]
    assert done["result"]["left"] == []
    nothing_runs(backups.installation)
    assert backups.left() == [made["snapshot"]]
    written = [path.name for path in (Path(backups.location) / "snapshots").iterdir()]
    assert sorted(written) == sorted(item["restic_id"] for item in backups.known()), "written twice, or not recorded"


def nothing_runs(installation: Installation) -> None:
    """Wait for the look that is taken at a system after a crash."""
    states = {"state": ["queued", "running", "paused"]}
    until(lambda: not installation.rest.request("GET", "/operations", params=states)["data"], 60)


def judge_content(backups: Backups, backup: Json) -> None:
    """What restic restores of the last recovery point is what its snapshot holds."""
    target = Path(backups.location).with_name("restored")
    run_restic(backups.location, "restore", backup["restic_id"], "--target", target)
    assert_equal(backups.source(backup), target / "files1" / "projects")


def mutate(live: Path, chance: random.Random) -> None:
    """Add some files, write some, remove one."""
    files = [path for path in live.rglob("*") if path.is_file() and not path.is_symlink()]
    for path in chance.sample(files, min(5, len(files))):
        path.write_bytes(chance.randbytes(chance.choice((10, 10_000, 1 << 20))))
    chance.choice(files).unlink()
    for _ in range(6):
        (live / f"d{chance.randrange(5)}" / f"new-{chance.getrandbits(64):x}").write_bytes(chance.randbytes(50_000))


def test_a_killed_server_ends_what_it_began(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    hit = run(tmp_path, 8, seed, print)
    assert hit.total() == 8


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.operations.test_backup_kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=100, help="how often the server is killed (default: 100)")
    parser.add_argument("--seed", type=int, help="of moments and changes; default: random")
    given = parser.parse_args()
    seed = random.randrange(2**32) if given.seed is None else given.seed
    print(f"seed {seed}, {given.kills} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="snapkeep-kills-") as root:
        hit = run(Path(root), given.kills, seed, lambda line: print(line, flush=True))
    print("Killed while it was: " + ", ".join(f"{name} {count}" for name, count in hit.most_common()))


if __name__ == "__main__":
    main()
