"""How often signals are wrong, and how much they see: generated histories of assets, normal ones and attacked ones.

    python -m benchmarks.signals [--assets 100] [--seed 1000] [--tuning]

Normal: each asset lives for two years of daily lists: a rhythm of weekdays, growth, noise with heavy tails, the ends of
months, holidays, clean-ups, imports, reorganisations (moved, not changed), days without a list, and changes of habit
that last. A false alarm is acknowledged at once, as a person would; they are counted from the first list on.

Attacked: a normal asset, and at some day of its second half somebody encrypts in place, renames to another extension,
copies and deletes, deletes, or does one of the first two slowly: so much of the files each day, among what people do.
What is found on the very first list of what is done at once, or before a slow one has come to its end, is detected.

The thresholds were chosen on the seeds from 0 on (`--tuning`); what is reported comes from others.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from snapkeep.signals.entropy import FILES, EntropySample
from snapkeep.signals.features import Features
from snapkeep.signals.scoring import WINDOW, judge

START = datetime(2025, 1, 1, 22, tzinfo=UTC)
DAY = timedelta(days=1)
YEAR = 365
TUNING = 0
REPORTED = 1000
KINDS = {  # mean entropy of a changed file, its spread between files, and the usual extensions
    "office": (6.9, 1.3, ("docx", "xlsx", "pdf", "pptx", "txt", "tmp", "jpg", "msg")),
    "text": (4.9, 0.7, ("py", "c", "md", "json", "txt", "yaml", "sh", "log")),
    "media": (7.8, 0.3, ("jpg", "mp4", "mov", "png", "xmp", "raw")),
    "data": (5.8, 1.6, ("csv", "parquet", "log", "gz", "dat", "idx")),
}


@dataclass(slots=True)
class Day:
    """What happens on one day, before it becomes a list."""

    modified: float
    added: float
    deleted: float
    extension_renames: float
    renamed: float
    encrypted: float = 0.0
    """Of those that are modified or renamed."""
    extensions: dict[str, int] = field(default_factory=dict)
    ordinary: bool = True
    """Nothing happens but the usual."""


class Asset:
    """One share and its habits, drawn by a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.kind = chance.choice(list(KINDS))
        self.files = int(10 ** chance.uniform(3.0, 6.0))
        quiet = chance.random() < 0.25
        self.rate = chance.uniform(0.2, 8) if quiet else self.files * 10 ** chance.uniform(-3.5, -1.7)
        self.size = 10 ** chance.uniform(4.3, 6.5)  # bytes of a file, the median
        self.noise = chance.uniform(0.2, 0.6)
        self.weekend = chance.choice([0.02, 0.1, 0.4, 1.0])
        self.month_end = chance.choice([1, 1, 2, 5, 10])
        self.growth = chance.uniform(-0.1, 0.5) / YEAR  # of the rate, per day
        self.gaps = chance.choice([0.0, 0.0, 0.02])
        self.level = 1.0

    def day(self, number: int) -> Day:
        """Return a normal day."""
        chance, when = self.chance, START + number * DAY
        factor = self.level * (1 + self.growth * number) * chance.lognormvariate(0, self.noise)
        factor *= self.weekend if when.weekday() >= 5 else 1.0
        factor *= self.month_end if (when + 2 * DAY).day <= 2 else 1.0
        if (when.month, when.day) in {(12, 24), (12, 25), (12, 26), (12, 31), (1, 1), (5, 1)}:
            factor *= 0.05
        if chance.random() < 0.3 / YEAR:  # another team moves in, or out: for good
            self.level *= chance.choice([0.5, 2.0])
        rate = self.rate * factor
        day = Day(rate, rate * 0.4, rate * 0.15, rate * 0.005, rate * 0.02)
        if chance.random() < 2 / YEAR:  # a clean-up
            day.ordinary = False
            day.deleted += self.files * 10 ** chance.uniform(-3.5, -1.3)
        if chance.random() < 4 / YEAR:  # an import, of files of another kind once in a while
            day.ordinary = False
            imported = self.files * 10 ** chance.uniform(-3, -0.7)
            day.added += imported
            if chance.random() < 0.3:
                day.extensions["heic"] = int(imported)
        if chance.random() < 1 / YEAR:  # everything is moved
            day.ordinary = False
            day.renamed += self.files * 10 ** chance.uniform(-2, -0.3)
        if chance.random() < 0.5 / YEAR:  # a program touches many files: tags, a new version of its format
            day.ordinary = False
            day.modified += self.files * 10 ** chance.uniform(-2.5, -0.7)
        return day

    def features(self, number: int, day: Day, days: int) -> Features:
        """Return the features of a list that spans so many days, of which this one stands for all."""
        chance, at = self.chance, START + number * DAY
        drawn = {name: _poisson(chance, getattr(day, name) * days) for name in
                 ("modified", "added", "deleted", "extension_renames", "renamed")}  # fmt: skip
        sizes = {name: drawn[name] * self.size * chance.lognormvariate(0.6, 0.5) for name in ("modified", "added")}
        named = drawn["modified"] + drawn["added"] + drawn["extension_renames"]
        usual = KINDS[self.kind][2]
        extensions = {one: named // (2 + place) for place, one in enumerate(usual) if named // (2 + place)}
        if chance.random() < 0.03:
            extensions[f"x{chance.randrange(1000)}"] = min(3, max(named, 1))
        extensions |= day.extensions
        renames = drawn["renamed"] + drawn["extension_renames"]
        return Features(
            at=at,
            since=at - days * DAY,
            counts={"modify": drawn["modified"], "add": drawn["added"], "delete": drawn["deleted"], "rename": renames},
            bytes={"modify": int(sizes["modified"]), "add": int(sizes["added"])},
            extensions=extensions,
            distinct_extensions=len(extensions),
            extension_renames=drawn["extension_renames"],
            entropy=self._entropy(drawn["modified"] + renames, day.encrypted * days),
        )

    def _entropy(self, changed: int, encrypted: float) -> EntropySample:
        mean, spread, _ = KINDS[self.kind]
        files = min(FILES, changed)
        share = min(1.0, encrypted / changed) if changed else 0.0
        bits = [
            7.98 if self.chance.random() < share else min(7.99, max(0.5, self.chance.gauss(mean, spread)))
            for _ in range(files)
        ]
        return EntropySample(statistics.fmean(bits) if bits else 0.0, files, 0)


def _poisson(chance: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(chance.gauss(mean, mean**0.5)))
    limit, number, product = 2.718281828 ** -max(mean, 0.0), 0, chance.random()
    while product > limit:
        number += 1
        product *= chance.random()
    return number


# -- attacks -----------------------------------------------------------------------------------------------------------
Change = Callable[[Day, float], None]


def encrypt(day: Day, files: float) -> None:
    day.modified += files
    day.encrypted += files


def rename(day: Day, files: float) -> None:
    day.extension_renames += files
    day.encrypted += files
    day.extensions["locked"] = int(files)


def copy_and_delete(day: Day, files: float) -> None:
    day.added += files
    day.deleted += files
    day.extensions["locked"] = int(files)


def delete(day: Day, files: float) -> None:
    day.deleted += files


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done, to which share of the files in all, over how many days."""

    name: str
    change: Change
    share: tuple[float, float]
    """Of the files; of a slow one, what it would reach."""
    days: tuple[int, int] = (1, 1)
    usual: tuple[float, float] | None = None
    """In place of a share: so many times what people change on a usual day, on each day."""


ATTACKS = (
    Attack("encrypt in place", encrypt, (0.3, 0.95)),
    Attack("encrypt and rename", rename, (0.3, 0.95)),
    Attack("copy, encrypt, delete", copy_and_delete, (0.3, 0.95)),
    Attack("delete", delete, (0.3, 0.95)),
    Attack("encrypt a tenth", encrypt, (0.1, 0.1)),
    Attack("slow drip: encrypt", encrypt, (0.5, 0.95), (50, 100)),
    Attack("slow drip: rename", rename, (0.5, 0.95), (50, 100)),
    Attack("drip below 2 x the usual", encrypt, (0, 0), (100, 100), usual=(1.0, 2.0)),
)


# -- lives -------------------------------------------------------------------------------------------------------------
def life(asset: Asset, days: int, attack: Attack | None = None) -> Iterator[tuple[int, bool, Features, float]]:
    """Yield day, whether it is an ordinary one, features, and the share of files that the attack has reached."""
    begin, lasts, share = days + 1, 1, 0.0
    if attack is not None:
        begin, lasts = asset.chance.randrange(days // 2, days - 101), asset.chance.randint(*attack.days)
        share = asset.chance.uniform(*attack.share)
        if attack.usual is not None:
            share = min(0.95, asset.chance.uniform(*attack.usual) * asset.rate * lasts / asset.files)
    since, reached = 0, 0.0
    for number in range(days):
        day = asset.day(number)
        since += 1
        if begin <= number < begin + lasts and attack is not None:
            attack.change(day, asset.files * share / lasts / since)
            reached += share / lasts
        elif asset.chance.random() < asset.gaps:
            continue
        yield number, day.ordinary, asset.features(number, day, since), reached
        since = 0


@dataclass(slots=True)
class Lived:
    """What was said of one asset."""

    alarms: list[int] = field(default_factory=list)
    """On which days."""
    ordinary: int = 0
    """How many of them on ordinary days."""
    reasons: list[str] = field(default_factory=list)
    lists: int = 0
    attacked: bool = False
    found_after: int | None = None
    """Lists from the first attacked one to the one that was suspicious; 0: that one itself."""
    reached: float = 0.0
    """The share of the files that the attack had reached then."""


def live(seed: int, days: int, attack: int | None = None) -> Lived:
    """Judge every list of an asset; who is attacked is watched until it is noticed."""
    lived, history = Lived(), list[Features]()
    first = last = 0.0
    during = 0
    for number, ordinary, features, reached in life(Asset(seed), days, None if attack is None else ATTACKS[attack]):
        first, last = last, reached
        lived.lists += 1
        lived.attacked = lived.attacked or reached > 0
        if lived.attacked and first == last:
            break  # it has ended
        verdict = judge(features, history)
        if verdict.suspicious:
            if lived.attacked:
                lived.found_after, lived.reached = during, reached
                break
            lived.alarms.append(number)
            lived.ordinary += ordinary
            lived.reasons += verdict.reasons
        during += lived.attacked
        history = [*history[1 - WINDOW :], replace(features, acknowledged=verdict.suspicious)]
    return lived


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--assets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=REPORTED)
    parser.add_argument("--tuning", action="store_true", help="on the seeds on which the thresholds were chosen")
    parser.add_argument("--reasons", action="store_true", help="print what false alarms said")
    given = parser.parse_args()
    seeds = range(TUNING if given.tuning else given.seed, (TUNING if given.tuning else given.seed) + given.assets)
    with ProcessPoolExecutor() as pool:
        normal = list(pool.map(live, seeds, [2 * YEAR] * len(seeds), chunksize=4))
        attacked = {
            attack.name: list(pool.map(live, seeds, [YEAR] * len(seeds), [number] * len(seeds), chunksize=4))
            for number, attack in enumerate(ATTACKS)
        }
    years, alarms = 2 * len(normal), sum(len(one.alarms) for one in normal)
    early = sum(number < 60 for one in normal for number in one.alarms)
    ordinary = sum(one.ordinary for one in normal)
    print(f"{len(normal)} assets of two years with a list a day, seeds {seeds.start} to {seeds.stop - 1}")
    print(f"false alarms per asset and year: {alarms / years:.2f}, on ordinary days {ordinary / years:.2f}")
    print(f"within the first 60 days per asset: {early / len(normal):.2f}")
    print(f"assets without any: {sum(not one.alarms for one in normal) / len(normal):.0%}")
    print(f"{'attack':<24} {'detected':>9} {'lists until then':>17} {'90th perc.':>11} {'files reached':>14}")
    for name, lives in attacked.items():
        found = [one for one in lives if one.found_after is not None]
        delays = [one.found_after or 0 for one in found]
        reached = statistics.median(one.reached for one in found) if found else 0.0
        slow = statistics.quantiles(delays, n=10, method="inclusive")[-1] if len(delays) > 1 else 0
        middle = statistics.median(delays) if delays else 0
        print(f"{name:<24} {len(found) / len(lives):>9.1%} {middle:>17.0f} {slow:>11.0f} {reached:>14.0%}")
    if given.reasons:
        for one in normal:
            for text in one.reasons:
                print("  ", text)


if __name__ == "__main__":
    main()
