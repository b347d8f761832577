"""Programs of a worker: which are run, what they see, what is kept of them, and that all of them end."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from snapkeep.catalog.operations import Signals
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.model.errors import InvalidInput, NotFound, SnapkeepError, Timeout, Unsupported, VendorError
from snapkeep.operations import programs
from snapkeep.operations.clock import Clock
from snapkeep.operations.host import Host
from snapkeep.operations.programs import MOST_OUTPUT, ProgramResult, find_program, run_program
from snapkeep.operations.run import Cancelled, Limits, Run

GIVEN = {"SNAPKEEP_MOMENT": "before"}


class Asked:
    """A catalog in which somebody may ask for a cancel."""

    cancel = False

    @property
    def operations(self) -> Asked:
        return self

    async def report(self, *_: object) -> Signals:
        return await self.signals()

    async def signals(self, *_: object) -> Signals:
        return Signals(cancel=self.cancel, pause=False)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "CANCEL_SECONDS", 0.05)
    monkeypatch.setattr("snapkeep.operations.run.CANCEL_SECONDS", 0.05)
    monkeypatch.setattr(programs, "_TERM_SECONDS", 0.5)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = tmp_path / "programs"
    found.mkdir(mode=0o755)
    return found


def put(directory: Path, text: str, name: str = "flush", mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text(text)
    path.chmod(mode)
    return path


def run_of(directory: Path | None, catalog: Asked) -> Run:
    operation = OperationRecord(
        id="0b0c0e8a", kind="create", system_id="1", system_name="files1", asset_id=None, target="", request={},
        requester="", state=OperationState.RUNNING, phase="", progress=None, items=None, cursor=None, result=None,
        error=None, cancel_requested=False, pause_requested=False, queue="default", worker=None, attempt=1,
        generation=0, exclusive=None, turn=None, digest=None, created_at=datetime.now(UTC), started_at=None,
        ended_at=None,
    )  # fmt: skip
    clock = Clock()

    async def unconnected(system_id: str) -> Any:
        raise AssertionError

    host = Host(name="w1", directory=(directory or Path("/")).parent / "data", programs=directory)
    return Run(
        operation, cast("Any", catalog), unconnected, clock, Limits(), host, cast("Any", None),
        begun=clock.monotonic(), cancellable=True, pausable=False,
    )  # fmt: skip


def ran(
    directory: Path | None,
    *arguments: str,
    name: str = "flush",
    environment: Mapping[str, str] = GIVEN,
    seconds: float = 30.0,
) -> ProgramResult:
    async def wait() -> ProgramResult:
        run = run_of(directory, Asked())
        return await run_program(run, name, *arguments, environment=environment, seconds=seconds)

    return asyncio.run(wait())


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def has_ended(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except FileNotFoundError:
        return True


# -- what it sees, and what is kept --------------------------------------------------------------------------------
def test_it_sees_its_arguments_and_nothing_of_the_server(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAPKEEP_DATABASE_URL", "postgresql://secret")
    put(directory, '#!/bin/sh\nprintf "%s\\n" "$@"; pwd; cat; env | cut -d= -f1 | sort | grep -v -e ^_$ -e PWD\n')
    result = ran(directory, "two words", "$HOME; x")
    assert result.output.splitlines() == ["two words", "$HOME; x", "/", "HOME", "LANG", "PATH", "SNAPKEEP_MOMENT"]
    assert result.code == 0


def test_only_the_last_part_of_what_it_writes_is_kept(directory: Path) -> None:
    put(directory, "#!/bin/sh\nhead -c 20000000 /dev/zero | tr '\\0' x\necho; echo the end\necho an error >&2\n")
    output = ran(directory).output
    assert output.endswith("x\nthe end\nan error\n")
    assert len(output) == MOST_OUTPUT


def test_what_it_writes_is_made_printable(directory: Path) -> None:
    put(directory, "#!/bin/sh\nprintf '\\377\\033[31m\\303\\244\\n'\n")
    assert ran(directory).output == "\\xff\\x1b[31mä\n"


def test_a_failure_tells_code_and_last_words(directory: Path) -> None:
    put(directory, "#!/bin/sh\necho first\necho the database is read-only >&2\nexit 7\n")
    with pytest.raises(VendorError) as failed:
        ran(directory)
    assert failed.value.details == {
        "program": "flush", "exit_code": 7, "output": "first\nthe database is read-only\n"
    }  # fmt: skip
    assert (failed.value.vendor_code, failed.value.vendor_message) == ("7", "the database is read-only")
    assert "w1" in failed.value.message


def test_a_signal_is_told(directory: Path) -> None:
    put(directory, "#!/bin/sh\nkill -9 $$\n")
    with pytest.raises(VendorError, match="signal 9") as failed:
        ran(directory)
    assert failed.value.details["exit_code"] == -9


# -- its end -------------------------------------------------------------------------------------------------------
STUBBORN = """#!/bin/sh
trap '' TERM
(trap '' TERM; echo $$ > "$SNAPKEEP_DIR/leader"; sh -c 'echo $$ > "$SNAPKEEP_DIR/child"; exec sleep 600') &
wait
sleep 600
"""


def pids(directory: Path) -> list[int]:
    files = [directory.parent / "leader", directory.parent / "child"]
    until(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    return [int(file.read_text()) for file in files]


def test_all_of_it_is_killed_when_its_time_is_over(directory: Path) -> None:
    put(directory, "#!/bin/sh\necho begun\n" + STUBBORN)
    with pytest.raises(Timeout) as late:
        ran(directory, environment={"SNAPKEEP_DIR": str(directory.parent)}, seconds=1.0)
    assert late.value.details == {"program": "flush", "output": "begun\n"}
    until(lambda: all(map(has_ended, pids(directory))))


def test_it_may_end_by_itself_when_it_is_told_to(directory: Path) -> None:
    mark = directory.parent / "tidied"
    put(directory, f"#!/bin/sh\ntrap 'touch {mark}; exit 0' TERM\necho begun\nsleep 600 & wait\n")
    with pytest.raises(Timeout):
        ran(directory, seconds=1.0)
    assert mark.exists()


def test_a_child_that_holds_the_pipe_is_ended_with_it(directory: Path) -> None:
    put(directory, "#!/bin/sh\nsleep 600 &\necho $!\n")
    result = ran(directory, seconds=300.0)
    until(lambda: has_ended(int(result.output)))


def test_what_has_left_its_session_is_not_waited_for(directory: Path) -> None:
    put(directory, "#!/bin/sh\nsetsid sleep 600 &\nsleep 0.2\necho $!\n")
    result = ran(directory, seconds=300.0)
    process = int(result.output)
    assert not has_ended(process)
    os.kill(process, 9)


@pytest.mark.parametrize("how", ["cancel of the operation", "end of the server"])
def test_a_cancel_ends_all_of_it(directory: Path, how: str) -> None:
    put(directory, STUBBORN)

    async def wait() -> None:
        catalog = Asked()
        work = asyncio.ensure_future(
            run_program(
                run_of(directory, catalog), "flush", environment={"SNAPKEEP_DIR": str(directory.parent)}, seconds=300.0
            )
        )
        await asyncio.to_thread(pids, directory)
        if how == "end of the server":
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
        else:
            catalog.cancel = True
            with pytest.raises(Cancelled):
                await work

    asyncio.run(wait())
    until(lambda: all(map(has_ended, pids(directory))))


def test_what_is_not_interruptible_goes_on_in_spite_of_a_cancel(directory: Path) -> None:
    put(directory, "#!/bin/sh\nsleep 0.5\necho done\n")

    async def wait() -> ProgramResult:
        catalog = Asked()
        catalog.cancel = True
        run = run_of(directory, catalog)
        return await run_program(run, "flush", environment={}, seconds=30.0, interruptible=False)

    assert asyncio.run(wait()).output == "done\n"


def test_what_a_killed_process_left_is_ended_before_the_next_one_begins(directory: Path) -> None:
    """The parent dies at once; a child of it has become the worker that goes on."""
    put(directory, STUBBORN)
    put(directory, "#!/bin/sh\necho next\n", "next")

    async def begin() -> None:
        work = asyncio.ensure_future(
            run_program(
                run_of(directory, Asked()), "flush", environment={"SNAPKEEP_DIR": str(directory.parent)}, seconds=300.0
            )
        )
        await asyncio.to_thread(pids, directory)
        assert not work.done()
        os._exit(0)

    if (child := os.fork()) == 0:
        try:
            asyncio.run(begin())
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert not any(map(has_ended, pids(directory)))
    assert ran(directory, name="next").output == "next\n"
    until(lambda: all(map(has_ended, pids(directory))))
    assert not list((directory.parent / "data" / "programs").iterdir())


def test_it_runs_also_when_that_cannot_be_noted(directory: Path) -> None:
    put(directory, "#!/bin/sh\necho thawed\n")
    (directory.parent / "data").write_text("no directory, as nothing can be made on a full disk")
    assert ran(directory).output == "thawed\n"


# -- which are run -------------------------------------------------------------------------------------------------
def test_without_a_directory_none_is_run() -> None:
    with pytest.raises(Unsupported) as refused:
        ran(None)
    assert "--programs" in refused.value.next_step


@pytest.mark.parametrize("name", ["", "../flush", "a/b", ".hidden", "-x", "flush\n", "é", "a" * 64, "/bin/true"])
def test_a_name_is_no_path(directory: Path, name: str) -> None:
    put(directory, "#!/bin/sh\n")
    with pytest.raises(InvalidInput):
        ran(directory, name=name)


def test_one_that_is_missing(directory: Path) -> None:
    with pytest.raises(NotFound):
        ran(directory)


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o4755, 0o2755, 0o644])
def test_a_file_that_is_not_safe_is_refused(directory: Path, mode: int) -> None:
    put(directory, "#!/bin/sh\n", mode=mode)
    with pytest.raises(Unsupported) as refused:
        ran(directory)
    assert "chmod" in refused.value.next_step


@pytest.mark.parametrize("where", ["programs", "."])
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_directory_that_others_may_write_is_refused(directory: Path, where: str, mode: int) -> None:
    put(directory, "#!/bin/sh\n")
    place = directory if where == "programs" else directory.parent
    place.chmod(mode)
    if where == "." and mode == 0o1777:
        assert ran(directory).code == 0  # as /tmp: nobody can put another directory in its place
        return
    with pytest.raises(Unsupported, match="may be written by others"):
        ran(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_belongs_to_somebody_else_is_refused(directory: Path, what: str) -> None:
    path = put(directory, "#!/bin/sh\n")
    os.chown(path if what == "file" else directory, 65534, 65534)
    with pytest.raises(Unsupported, match="another user"):
        ran(directory)


def test_a_link_is_refused(directory: Path) -> None:
    put(directory.parent, "#!/bin/sh\n", "outside")
    put(directory, "#!/bin/sh\n", "inside")
    for target in ("../outside", "inside", "/bin/true"):
        (directory / "flush").symlink_to(target)
        with pytest.raises(Unsupported, match="no regular file"):
            ran(directory)
        (directory / "flush").unlink()


def test_a_directory_that_is_a_link_is_judged_by_where_it_leads(directory: Path) -> None:
    put(directory, "#!/bin/sh\n")
    link = directory.parent / "link"
    link.symlink_to(directory)
    assert find_program(link, "flush", "w1") == directory / "flush"


def test_what_cannot_be_started_says_why(directory: Path) -> None:
    put(directory, "#!/nonexistent/interpreter\n")
    with pytest.raises(SnapkeepError, match="cannot be started"):
        ran(directory)
