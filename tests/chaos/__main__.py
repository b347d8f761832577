"""`python -m tests.chaos --kills 300 --store postgresql --workers 3`: kill -9 at random, and count what got lost."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

from tests.chaos.plan import Options
from tests.chaos.report import summary
from tests.chaos.run import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="how many processes are killed (default: 300)")
    parser.add_argument("--seed", type=int, help="of victims, moments and clients; default: random")
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--workers", type=int, default=3, help="with postgresql; 0: the server itself works")
    parser.add_argument("--victims", default="", help="names with commas, for instance server,worker1; default: all")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty directory for data and logs, which stay")
    given = parser.parse_args()
    options = Options(
        kills=given.kills,
        seed=random.randrange(2**32) if given.seed is None else given.seed,
        store=given.store,
        workers=given.workers,
        victims=tuple(given.victims.split(",")) if given.victims else (),
        clients=given.clients,
        keep=given.keep,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that nothing is left behind
    print(f"seed {options.seed}, {options.kills} kills, {options.store}", flush=True)
    outcome = run(options, lambda line: print(line, flush=True))
    print(summary(outcome))
    raise SystemExit(not outcome.verdict.passed)


if __name__ == "__main__":
    main()
