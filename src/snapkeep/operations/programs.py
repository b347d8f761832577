"""Programs that people keep on a worker, and that an operation runs: before and after a snapshot, or to try a restore.

Who can name a program has it run as the worker's user. So there are no others than those that whoever starts the worker
has put into one directory (`--programs`), and neither they nor the way to them may be anybody's to change: sudo and
sshd (StrictModes) ask for the same. No shell sees a name or an argument, and nothing of the server's environment, where
secrets may be, gets to a program.

`plugin.commands` is for programs of the system, on any host: it waits for all that they write, and hands on the
environment. Here a program has ended when its own process has; what it leaves in its session is ended then.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from snapkeep.model.errors import NotFound, Timeout, Unsupported, VendorError
from snapkeep.model.programs import require_name
from snapkeep.operations.run import CANCEL_SECONDS, Run

MOST_OUTPUT = 4 << 10
"""Bytes of what a program writes, standard output and standard error together, that are kept: the last ones."""

_TERM_SECONDS = 3.0
"""How long a program may take to end when it was told to, before it is killed."""
_LOOK_SECONDS = 0.05
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PIECE = 64 << 10
_REASON = 300
"""Characters of the last line that are shown with an error."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program that succeeded has ended."""

    code: int
    """0."""
    output: str
    """The last part of what it wrote, printable: at most `MOST_OUTPUT` bytes of it."""
    seconds: float
    """How long it took."""


async def run_program(
    run: Run, name: str, *arguments: str, environment: Mapping[str, str], seconds: float, interruptible: bool = True
) -> ProgramResult:
    """Run a program of this worker's directory to its end.

    `environment`: what it is told, besides PATH, LANG and HOME; no secrets. Its standard input is empty, its directory
    is /. All of its session is ended, by TERM and then KILL, after `seconds`, when the operation is cancelled (unless
    it is not `interruptible`), and when the process of the worker ends; what a process left that was killed is ended
    here before the next program of the same operation begins.

    Raises Unsupported (the worker has no directory, or the file or the way to it is not safe), NotFound, InvalidInput
    (no such name), VendorError (it failed: `vendor_code` is its exit code, or minus the number of the signal that
    ended it; details: `program`, `exit_code`, `output`), Timeout (details: `program`, `output`), and what
    `Run.check_cancel` raises.
    """
    path = await asyncio.to_thread(find_program, run.host.programs, name, run.host.name)
    mark = run.host.directory / "programs" / run.operation.id
    await _end_left(mark)
    log.info("program begun", program=name)
    work = asyncio.ensure_future(_executed(path, arguments, environment, seconds, mark))
    try:
        while not (await asyncio.wait({work}, timeout=CANCEL_SECONDS))[0]:
            if interruptible:
                await run.check_cancel()
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})
    code, output, took = work.result()
    log.info("program ended", program=name, code=code, seconds=round(took, 3))
    if code is None:
        raise Timeout(
            f"The program {name} did not end within {seconds:g} s on {run.host.name}, and was ended",
            next_step="See what it waits for; allow it more seconds if it is merely slow.",
            program=name,
            output=output,
        )
    if code:
        said = output.strip().rpartition("\n")[2].strip()[-_REASON:]
        how = f"was ended by signal {-code}" if code < 0 else f"failed with code {code}"
        raise VendorError(
            f"The program {name} {how} on {run.host.name}",
            next_step="Read what it wrote (`output`), and run it there by hand as the worker's user.",
            vendor_code=str(code),
            vendor_message=said or None,
            program=name,
            exit_code=code,
            output=output,
        )
    return ProgramResult(code, output, took)


def find_program(directory: Path | None, name: str, worker: str) -> Path:
    """Return the file of a program. Raises InvalidInput, NotFound, or Unsupported: see `run_program`."""
    require_name(name)
    if directory is None:
        raise Unsupported(
            f"The worker {worker} runs no programs",
            next_step=f"Start {worker} with --programs and the directory in which they are (SNAPKEEP_PROGRAMS).",
        )
    try:
        directory = directory.resolve(strict=True)
        for place in (directory, *directory.parents):
            _require_safe(place, place.stat(), worker, sticky=place != directory)
        path = directory / name
        found = path.lstat()
    except FileNotFoundError:
        raise NotFound(
            f"There is no program {name} in {directory} on {worker}",
            next_step="Put it there, executable; it belongs to root or to the worker's user.",
        ) from None
    except OSError as error:
        raise Unsupported(
            f"The programs in {directory} on {worker} cannot be read: {error.strerror}",
            next_step="Let the worker's user read the directory.",
        ) from error
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(path, worker, "is no regular file", "Put the program itself there: no link and no directory.")
    _require_safe(path, found, worker)
    if found.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise _unsafe(path, worker, "would change its user or group", f"Take that back: chmod ug-s {path}")
    if not os.access(path, os.X_OK):
        raise _unsafe(path, worker, "is not executable for the worker", f"Let it be run: chmod u+x {path}")
    return path


def _require_safe(path: Path, found: os.stat_result, worker: str, *, sticky: bool = False) -> None:
    """Raise Unsupported when others could put something else there. `sticky`: as /tmp, where nobody moves others'."""
    if found.st_uid not in {0, os.geteuid()}:
        raise _unsafe(path, worker, "belongs to another user", f"Give it to root: chown root {path}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not (sticky and found.st_mode & stat.S_ISVTX):
        raise _unsafe(path, worker, "may be written by others", f"Take that from them: chmod go-w {path}")


def _unsafe(path: Path, worker: str, why: str, next_step: str) -> Unsupported:
    return Unsupported(f"Programs are not run from there: {path} on {worker} {why}", next_step=next_step)


async def _executed(
    path: Path, arguments: tuple[str, ...], environment: Mapping[str, str], seconds: float, mark: Path
) -> tuple[int | None, str, float]:
    """Run a file; return its exit code (None: its time was over), the end of what it wrote, and the time it took."""
    begun = time.monotonic()
    with _tail() as (tail, pipe):
        try:
            child = await asyncio.create_subprocess_exec(
                path,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", "HOME": _home(), **environment},
                start_new_session=True,
            )
        except OSError as error:
            raise Unsupported(
                f"The program {path} cannot be started: {error.strerror}",
                next_step="See that its first line names an interpreter that is there, or that it is made for this "
                "machine.",
            ) from error
        finally:
            os.close(pipe)
        try:
            _note(mark, child.pid)
            async with asyncio.timeout(seconds):
                await child.wait()
        except TimeoutError:
            pass
        finally:
            code = child.returncode
            await _end_session(child.pid)
            with contextlib.suppress(TimeoutError):  # nothing ends a process that waits for a disk
                async with asyncio.timeout(_TERM_SECONDS):
                    await child.wait()
            _forget(mark)
        return code, tail.text(), time.monotonic() - begun


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:  # a container may run as a user without a name
        return "/"


async def _end_session(leader: int) -> None:
    """End the process group that a program leads, and that nobody else can be in; harmless when all have ended.

    What has become another user's by sudo gets TERM from sudo alone.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGTERM)
        until = time.monotonic() + _TERM_SECONDS
        while time.monotonic() < until:
            await asyncio.sleep(_LOOK_SECONDS)
            os.killpg(leader, 0)
        os.killpg(leader, signal.SIGKILL)


# -- what a process left that was killed ---------------------------------------------------------------------------
def _note(mark: Path, leader: int) -> None:
    """Note which process leads the group, and when it began: by both it is known again.

    What cannot be noted, as on a full disk, runs all the same: only after a kill -9 it would not be found.
    """
    try:
        mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mark.write_text(f"{leader} {_begun(leader)}")  # torn, it is that of no process
    except OSError as error:
        log.warning("it cannot be noted which program runs", mark=str(mark), reason=str(error))


async def _end_left(mark: Path) -> None:
    """End a program that an earlier process of ours has begun, if it still runs."""
    if (leader := _left(mark)) is not None:
        log.warning("a program of a process that was killed still runs, and is ended", pid=leader)
        await _end_session(leader)
    _forget(mark)


def _left(mark: Path) -> int | None:
    """Return the process that was noted, if it still runs."""
    try:
        leader, _, begun = mark.read_text().partition(" ")
    except OSError:
        return None
    return int(leader) if leader.isdigit() and begun and begun == _begun(int(leader)) else None


def _forget(mark: Path) -> None:
    with contextlib.suppress(OSError):
        mark.unlink()


def _begun(process: int) -> str:
    """Return when a process began, in ticks since the boot (proc(5), /proc/PID/stat, field 22); empty: it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if fields[0] not in {"Z", "X"} else ""


# -- what it writes ------------------------------------------------------------------------------------------------
class _Tail:
    """The last part of what comes out of a pipe."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._kept = b""

    def take(self) -> bool:
        """Take what is there; say whether there may be more."""
        try:
            piece = os.read(self._pipe, _PIECE)
        except BlockingIOError:
            return False
        self._kept = (self._kept + piece)[-MOST_OUTPUT:]
        return bool(piece)

    def text(self) -> str:
        """Return it, printable. What stays open elsewhere is not waited for."""
        for _ in range(64):  # more than a pipe holds
            if not self.take():
                break
        text = self._kept.decode("utf-8", "backslashreplace")
        return "".join(
            char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode("ascii")
            for char in text
        )


@contextmanager
def _tail() -> Iterator[tuple[_Tail, int]]:
    """Give the tail of a new pipe, and the end of it to be written to: that is for the caller to close."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    tail, loop = _Tail(reading), asyncio.get_running_loop()

    def ready() -> None:
        if not tail.take():
            loop.remove_reader(reading)

    loop.add_reader(reading, ready)
    try:
        yield tail, writing
    finally:
        loop.remove_reader(reading)
        os.close(reading)
