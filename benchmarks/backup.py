"""Backups and restores beside restic: the same tree, in the same run, taking turns; medians.

    python -m benchmarks.backup [--files 100000] [--changed 100,1000] [--repeats 5] [--cases ...] [--directory DIR]

Cases are named `full warm`, `incremental 1000 cold` and so on; `--cases` takes parts of such names. With several sizes
(`--files 100000,1000000`) the growth of incremental backups is told, too. The tree stays in DIR for the next run.

Both run as processes of their own, with their caches, on local repositories. Ours is given the list of changes (the
benchmark knows what it changed), restic its parent. `resident` is our time without the start of Python and without the
derivation of the key. Changes lie each in another directory as far as there are so many: the worst case for ours.

    warm    the kernel has seen the whole tree just before (for a full backup: read it)
    cold    its caches are dropped before each run; what this process itself has mapped of Python stays, and a virtual
            machine's host may keep what it read for the one who came first: an even number of repeats is fairer
    delay   the tree is a fresh mount on which each request takes 0.5 ms, also the one for a file's extended attributes
    plain   the same without extended attributes: listing a directory tells all that is needed

Every root tree must be the one that restic finds, what is restored is compared by sample, and in the end `restic check`
must be content. Memory is the proportional set size of the process tree, looked at every 50 ms, or less often
where a look takes long (the largest of all runs); bytes written are those of the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from benchmarks import delay
from benchmarks.backup_ours import Job, Outcome
from benchmarks.backup_tree import FileTree
from tests.support.restic import restic

from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.repository import Repository

ROOT = Path(__file__).parent.parent
PASSWORD = "secret"
LOOK_SECONDS = 0.05
SAMPLE = 300
GOALS = {"warm": 30.0, "cold": 12.0, "delay": 250.0}
"""So many times restic's speed in an incremental backup of 1,000 changes among a million files."""
MOST_MEMORY = 300
MOST_GROWTH = 1.15
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


class Failed(Exception):
    """A run did not do what it should."""


@dataclass
class Store:
    """A repository of one side, and the recovery point in it from which to go on."""

    directory: Path
    snapshot_id: str = ""
    name: str = ""
    """Stands for the source's snapshot of that recovery point."""

    @property
    def repository(self) -> Path:
        return self.directory / "repository"

    @property
    def cache(self) -> Path:
        return self.directory / "cache"

    def copy(self, directory: Path) -> Store:
        """Return a copy in which a run may go on: files of repositories are never written again, so links will do."""
        directory.mkdir()
        subprocess.run(["cp", "-al", self.repository, directory / "repository"], check=True)
        if self.cache.exists():
            subprocess.run(["cp", "-a", self.cache, directory / "cache"], check=True)
        return Store(directory, self.snapshot_id, self.name)

    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.repository.rglob("*") if path.is_file())

    def remove(self) -> None:
        shutil.rmtree(self.directory)


@dataclass(frozen=True, slots=True)
class Task:
    """What both sides are to do: a full backup, with `changed` an incremental one, with `target` a restore."""

    source: Path
    name: str = ""
    changed: list[str] | None = None
    target: Path | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """What was measured."""

    seconds: float
    resident: float
    memory: int
    """KiB"""
    written: int = 0
    tree: str = ""


class Ours:
    """Snapkeep: `backup_ours.py` in a new process."""

    def __init__(self, readers: int) -> None:
        self._readers = readers

    def create(self, directory: Path) -> Store:
        store = Store(directory)
        store.repository.mkdir(parents=True)
        Repository.create(LocalBackend(store.repository), PASSWORD, store.cache).close()
        return store

    def run(self, store: Store, task: Task) -> Run:
        parent = store.snapshot_id if task.changed is not None or task.target else ""
        job = Job(
            repository=str(store.repository),
            cache=str(store.cache),
            password=PASSWORD,
            readers=self._readers,
            source=str(task.source),
            snapshot=task.name,
            base=store.name,
            parent=parent,
            changed=task.changed or [],
            target=str(task.target or ""),
        )
        command = [sys.executable, "-m", "benchmarks.backup_ours"]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        said, seconds, memory = _measured(command, ROOT, environment, msgspec.json.encode(job))
        outcome = msgspec.json.decode(said, type=Outcome)
        if not task.target:
            store.snapshot_id, store.name = outcome.snapshot_id, task.name
        return Run(seconds, outcome.resident, memory, tree=outcome.tree_id)


class Restic:
    """The stock restic, with its usual options."""

    def __init__(self, readers: int | None) -> None:
        self._more = [] if readers is None else ["--read-concurrency", str(readers)]

    def create(self, directory: Path) -> Store:
        store = Store(directory)
        store.directory.mkdir(parents=True)
        self.tell(store, "init")
        return store

    def run(self, store: Store, task: Task) -> Run:
        command = ["backup", "--json", "--host", "benchmark", *self._more, "."]
        if task.target:
            command = ["restore", store.snapshot_id, "--target", str(task.target)]
        elif task.changed is not None:
            command += ["--parent", store.snapshot_id]
        said, seconds, memory = _measured([str(restic()), *command], task.source, self._environment(store))
        if task.target:
            return Run(seconds, seconds, memory)
        summary = next(line for line in map(json.loads, said.splitlines()) if line["message_type"] == "summary")
        store.snapshot_id, store.name = summary["snapshot_id"], task.name
        tree = json.loads(self.tell(store, "cat", "snapshot", store.snapshot_id))["tree"]
        return Run(seconds, seconds, memory, tree=tree)

    def tell(self, store: Store, *command: str) -> str:
        """Run something that is not measured, on the repository of any side."""
        done = subprocess.run(
            [restic(), "--quiet", *command], env=self._environment(store), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"restic {command}: {done.stdout}\n{done.stderr}")
        return done.stdout

    def _environment(self, store: Store) -> dict[str, str]:
        return {
            **os.environ,
            "RESTIC_REPOSITORY": str(store.repository),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(store.cache),
            "RESTIC_FEATURES": "device-id-for-hardlinks=true",
            "RESTIC_PROGRESS_FPS": "0.01",
        }


@dataclass
class Case:
    """What is measured, and what came out."""

    kind: str
    condition: str
    changed: int = 0
    runs: dict[str, list[Run]] = field(default_factory=lambda: {"ours": [], "restic": []})

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.kind, str(self.changed or ""), self.condition)))

    def median(self, side: str, what: str = "seconds") -> float:
        return float(statistics.median(getattr(run, what) for run in self.runs[side]))

    def report(self) -> str:
        ours, others = self.median("ours"), self.median("restic")
        goal = GOALS.get(self.condition) if self.kind == "incremental" else 1.0
        memory = [max(run.memory for run in runs) >> 10 for runs in self.runs.values()]
        written = [self.median(side, "written") / 2**20 for side in self.runs]
        return (
            f"{self.name:<24} {ours:>8.2f} {self.median('ours', 'resident'):>9.2f} {others:>8.2f} "
            f"{others / ours:>7.1f} {f'{goal:g}' if goal else '':>5}  {memory[0]:>6} / {memory[1]:<6} "
            f"{written[0]:>8.1f} / {written[1]:<8.1f}"
        )


HEAD = (
    f"{'case':<24} {'ours s':>8} {'resident':>9} {'restic s':>8} {'ratio':>7} {'goal':>5}  {'memory MiB':>15} "
    f"{'written MiB':>19}"
)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--files", type=_numbers, default=[100_000], help="sizes of the tree")
    arguments.add_argument("--changed", type=_numbers, default=[100, 1000])
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--cases", nargs="*", default=[""], help="parts of the names of cases: all that fit are run")
    arguments.add_argument("--per-directory", type=int, default=100)
    arguments.add_argument("--readers", type=int, default=16, help="files that ours reads at once")
    arguments.add_argument("--restic-readers", type=int, help="the same of restic; without, its own default of 2")
    arguments.add_argument("--delay", type=float, default=0.5, help="milliseconds a request")
    arguments.add_argument("--directory", type=Path, help="where trees and repositories lie")
    given = arguments.parse_args()
    with ExitStack() as stack:
        place = given.directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="snapkeep-bench-")))
        place = place.absolute()
        place.mkdir(parents=True, exist_ok=True)
        done: dict[int, list[Case]] = {}
        failures = 0
        for files in given.files:
            cases = [case for case in _cases(given.changed) if any(part in case.name for part in given.cases)]
            sides: dict[str, Ours | Restic] = {"ours": Ours(given.readers), "restic": Restic(given.restic_readers)}
            tree = FileTree(place / f"tree-{files}-{given.per_directory}" / "share", files, given.per_directory)
            with Bench(place, tree, sides, given.delay, given.repeats) as bench:
                done[files] = bench.run(cases)
                failures += bench.failures
    _growth(done)
    if failures:
        raise SystemExit(f"{failures} cases failed")


class Bench:
    def __init__(
        self, place: Path, tree: FileTree, sides: dict[str, Ours | Restic], milliseconds: float, repeats: int
    ) -> None:
        self._tree = tree
        self._sides = sides
        self._milliseconds = milliseconds
        self._repeats = repeats
        self._work = Path(tempfile.mkdtemp(prefix="work-", dir=place))
        self._program = Path()
        self._stores: dict[str, Store] = {}
        self._number = 0
        self.failures = 0

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._tree.rewind()
        shutil.rmtree(self._work)

    def run(self, cases: list[Case]) -> list[Case]:
        """Measure and print all cases that can be; return them."""
        began = time.perf_counter()
        self._tree.make()
        print(f"{self._tree.files:,} files; made or found in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        print(
            f"\n{self._tree.files:,} files, {self._repeats} repeats, load {os.getloadavg()[0]:.1f}\n{HEAD}", flush=True
        )
        ended = []
        for case in cases:
            if reason := self._why_not(case):
                print(f"{case.name:<24} not measured: {reason}", flush=True)
                continue
            measure = {"full": self._full, "incremental": self._incremental, "restore": self._restore}[case.kind]
            try:
                if case.kind != "full":
                    self._base()
                for repeat in range(self._repeats):
                    measure(case, list(self._sides) if repeat % 2 == 0 else list(reversed(self._sides)))
            except Failed as error:
                print(f"{case.name:<24} FAILED: {error}", flush=True)
                self.failures += 1
                if case.kind == "incremental":  # what was changed is in no repository: start again
                    self._stores = {}
                continue
            print(case.report(), flush=True)
            ended.append(case)
        for side, store in self._stores.items():
            began = time.perf_counter()
            Restic(None).tell(store, "check")
            print(f"restic check of {side}: clean, {time.perf_counter() - began:.1f} s", flush=True)
        return ended

    def _why_not(self, case: Case) -> str:
        if case.condition == "cold":
            return "" if os.access(DROP_CACHES, os.W_OK) else "caches can only be dropped by root"
        if case.condition in {"delay", "plain"}:
            if reason := delay.why_not():
                return reason
            if self._program == Path():
                self._program = delay.build(self._work)
        return ""

    # -- cases -------------------------------------------------------------------------------------------------------
    def _base(self) -> None:
        """Have a repository of each side to go on from."""
        if not self._stores:
            self._full(Case("full", "warm"), list(self._sides))

    def _full(self, case: Case, order: list[str]) -> None:
        fresh = {}
        for side in order:
            fresh[side] = self._sides[side].create(self._directory())
            self._measure(case, side, fresh[side], "s0")
        self._go_on_from(case, fresh)

    def _incremental(self, case: Case, order: list[str]) -> None:
        self._number += 1
        name, changed = f"s{self._number}", self._tree.change(case.changed, self._number)
        copies = {}
        for side in order:
            copies[side] = self._stores[side].copy(self._directory())
            self._measure(case, side, copies[side], name, changed)
        self._go_on_from(case, copies)

    def _restore(self, case: Case, order: list[str]) -> None:
        for side in order:
            target = self._directory()
            with self._prepared(case):
                run = self._sides[side].run(self._stores[side], Task(self._work, target=target))
            case.runs[side].append(run)
            _tell(case, side, run)
            self._compare(target)
            shutil.rmtree(target)

    def _measure(self, case: Case, side: str, store: Store, name: str, changed: list[str] | None = None) -> None:
        before = store.bytes()
        with self._prepared(case) as source:
            run = self._sides[side].run(store, Task(source, name, changed))
        run = Run(run.seconds, run.resident, run.memory, store.bytes() - before, run.tree)
        case.runs[side].append(run)
        _tell(case, side, run)

    def _go_on_from(self, case: Case, stores: dict[str, Store]) -> None:
        ours, others = (case.runs[side][-1].tree for side in ("ours", "restic"))
        if ours != others:
            raise Failed(f"our root tree is {ours}, restic's is {others}")
        for store in self._stores.values():
            store.remove()
        self._stores = stores

    def _compare(self, target: Path) -> None:
        """Compare a sample of what was restored."""
        numbers = random.Random().sample(range(self._tree.files), min(SAMPLE, self._tree.files))
        for path in map(self._tree.path, numbers):
            one, other = self._tree.top / path, target / path
            if one.read_bytes() != other.read_bytes() or one.stat().st_mtime_ns != other.stat().st_mtime_ns:
                raise Failed(f"{other} is not what was backed up")

    # -- conditions --------------------------------------------------------------------------------------------------
    @contextmanager
    def _prepared(self, case: Case) -> Iterator[Path]:
        """Give the source as the condition wants it."""
        os.sync()
        if case.condition == "cold":
            DROP_CACHES.write_text("3")
        else:
            _see(self._tree.top, content=case.kind == "full")
        if case.condition not in {"delay", "plain"}:
            yield self._tree.top
            return
        attributes = case.condition == "delay"
        with delay.delayed(
            self._program,
            self._tree.top,
            self._work / "mounted",
            milliseconds=self._milliseconds,
            attributes=attributes,
        ) as mounted:
            yield mounted

    def _directory(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._work)) / "it"


def _cases(changed: list[int]) -> Iterator[Case]:
    for condition in ("warm", "cold", "delay"):
        yield Case("full", condition)
    for condition in ("warm", "cold", "delay", "plain"):
        for count in changed:
            yield Case("incremental", condition, count)
    for condition in ("warm", "cold"):
        yield Case("restore", condition)


def _growth(done: dict[int, list[Case]]) -> None:
    """Print how incremental backups grow with the tree."""
    first, *others = sorted(done)
    for files in others:
        print(f"\nFrom {first:,} to {files:,} files; at most {MOST_GROWTH} is wanted of ours")
        for small in done[first]:
            for large in done[files]:
                if small.name == large.name and small.kind == "incremental":
                    grown = [
                        large.median(side, what) / small.median(side, what)
                        for side, what in (("ours", "seconds"), ("ours", "resident"), ("restic", "seconds"))
                    ]
                    print(
                        f"{small.name:<24} ours {grown[0]:.2f} (resident {grown[1]:.2f}), restic {grown[2]:.2f}",
                        flush=True,
                    )
    memory = max((run.memory for cases in done.values() for case in cases for run in case.runs["ours"]), default=0)
    print(f"\nOur peak memory: {memory >> 10} MiB; less than {MOST_MEMORY} is wanted")


def _tell(case: Case, side: str, run: Run) -> None:
    load = os.getloadavg()[0]
    print(
        f"    {case.name}, {side}: {run.seconds:.2f} s, {run.resident:.2f} s resident, load {load:.1f}", file=sys.stderr
    )


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


# -- the machine -------------------------------------------------------------------------------------------------------
def _see(top: Path, *, content: bool) -> None:
    """Let the kernel see a tree."""
    if content:
        subprocess.run(["find", top, "-type", "f", "-exec", "cat", "{}", "+"], check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run(["find", top, "-printf", "%s%m"], check=True, stdout=subprocess.DEVNULL)


def _measured(
    command: list[str], directory: Path, environment: dict[str, str], given: bytes = b""
) -> tuple[bytes, float, int]:
    """Run a command; return what it wrote, the seconds that it took, and the memory of all its processes in KiB."""
    with tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        peak = Peak(child.pid)
        said, _ = child.communicate(given)
        seconds = time.perf_counter() - began
        memory = peak.end()
        if child.returncode:
            errors.seek(0)
            raise Failed(f"{' '.join(command[:4])}: {errors.read()[-3000:].decode()}")
    return said, seconds, memory


class Peak:
    """Looks at the memory of a process and those that it started."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def end(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak

    def _look(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            began = time.perf_counter()
            self._peak = max(self._peak, sum(map(_memory, _family(self._pid))))
            self._ended.wait(20 * (time.perf_counter() - began))  # it costs a twentieth of a core at most


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _memory(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
