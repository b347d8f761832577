"""Quiesce: hold a file system frozen, or an application by its own hooks.

The host holds, and the host lets go. A small program there freezes, and thaws at the end of its input: that comes when
we ask for it, and also when our process or the connection is gone. It thaws when its time is over, too. Beside it runs
a guard in a session of its own, begun before the freeze, that thaws when the first program was killed, or hangs.

Programs: fsfreeze, flock, setsid (util-linux), timeout, cat, sleep (coreutils), and a POSIX shell.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple

from snapkeep.model.assets import Asset, AssetKind, Capability
from snapkeep.model.errors import (
    Busy,
    InvalidInput,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Timeout,
    Unavailable,
    VendorError,
)
from snapkeep.plugin.commands import Command, Held, Output, allowed, missing
from snapkeep.plugin.roles import Quiesced
from snapkeep.plugins.linux_host.errors import failure, number
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mapping import HOST
from snapkeep.plugins.linux_host.mounts import Mounts
from snapkeep.plugins.linux_host.settings import Hook, LinuxHostSettings

MOST_SECONDS = 600.0
PATIENCE = 30
"""Seconds for which another one that holds the same is waited for, beyond the time for which it may be held itself:
who asks again after a wrong judgement finds his own holder there, whose time is the same."""
THAW_SECONDS = 60.0
"""How long it is waited for the end of the thaw; the host goes on with it."""
_LATE = 15.0
"""How much later than its time an answer may come."""
HOOK_PREFIX = "hook:"
"""How the ids of hooks begin."""

HOLD = r"""
# $1: seconds; $2: name of a lock; $3: seconds to wait for it; $4: code of a freeze or thaw: nothing is frozen;
# $5: the program of the guard; $6: number of words of the thaw; these; the words of the freeze.
seconds=$1 lock=$2 patience=$3 nothing=$4 guard=$5 count=$6 ended='' thaws=yes
shift 6
trap ': "${ended:=signal}"' HUP INT TERM PIPE
trap ': "${ended:=released}"' USR1
trap ': "${ended:=time}"' USR2

freeze() { shift "$count"; exec "$@" >&2 9>&-; }
with_thaw() {  # Run $1 with the words of the thaw: turn them behind the others, and leave these out.
    run=$1 others=$(($# - 1 - count)) turned=0
    shift
    while [ "$turned" -lt "$count" ]; do set -- "$@" "$1"; shift; turned=$((turned + 1)); done
    shift "$others"
    "$run" "$@"
}
thaw() { "$@" >&2 9>&-; }
watch() { setsid sh -c "$guard" "$0-guard" $$ "$seconds" "$nothing" "$@" 2>/dev/null & }
freezes() { [ -d "/proc/$freezing" ]; }

if [ -w /run ]; then lock=/run/$lock; else lock=${XDG_RUNTIME_DIR:-${HOME:-/tmp}}/.$lock-$(id -u); fi
exec 3<&0 </dev/null 9>>"$lock"
flock -w "$patience" 9 || { echo busy; exit 0; }
(timeout "$seconds" cat <&3 >/dev/null && kill -s USR1 $$ || kill -s USR2 $$) 2>/dev/null 9>&- &
reading=$!
exec 3<&-
guarding=$(with_thaw watch "$@")
[ -n "$guarding" ] || { echo "failed 126"; exit 0; }

freeze "$@" &
freezing=$!
wait "$freezing"
code=$?
if [ -n "$ended" ]; then
    echo "late $ended"
    kill -s TERM "$freezing" 2>/dev/null
    tries=0
    while freezes && [ "$tries" -lt 5 ]; do sleep 1 9>&-; tries=$((tries + 1)); done
    ! freezes || with_thaw thaw "$@"
    while freezes; do sleep 1 9>&-; done
    wait "$freezing"
    code=$?
elif [ "$code" = 0 ]; then
    kill -s USR1 "$guarding"
    echo frozen
    [ -n "$ended" ] || wait "$reading"
    : "${ended:=lost}"
else
    echo "failed $code"
fi
[ "$code" != "$nothing" ] || thaws=''
tries=0 said=thawed
while [ -n "$thaws" ]; do
    with_thaw thaw "$@"
    code=$?
    [ "$code" != "$nothing" ] || said=gone
    if [ "$code" = 0 ] || [ "$said" = gone ]; then break; fi
    tries=$((tries + 1))
    [ "$tries" -lt 5 ] || { echo "stuck $ended"; exit 0; }  # the guard goes on
    sleep 1 9>&-
done
kill -s KILL -- "-$guarding" 2>/dev/null
echo "$said $ended"
"""
"""Says `frozen`, `failed CODE`, `late WHY` or `busy`; then `thawed WHY`, `gone WHY` or `stuck WHY`."""

GUARD = r"""
# $1: the process that holds; $2: for how many seconds; $3: code of a thaw: nothing is frozen; the words of the thaw.
# Says its number once it is ready. Is told (USR1) that it is frozen: before, nothing frozen may mean not yet.
holder=$1 left=$(($2 + 5)) nothing=$3 tries=60 frozen=''
shift 3
trap 'left=0' HUP INT TERM PIPE
trap 'frozen=yes' USR1
echo $$
exec >/dev/null
while [ "$left" -gt 0 ] && kill -0 "$holder" 2>/dev/null; do sleep 1 9>&-; left=$((left - 1)); done
while [ "$tries" -gt 0 ]; do
    "$@" 9>&-
    code=$?
    if [ "$code" = 0 ] || [ "$frozen$code" = "yes$nothing" ]; then exit 0; fi
    sleep 5 9>&-
    tries=$((tries - 1))
done
"""

UNFREEZE = r"""
# Thaws a file system; ends with 1 when it is not frozen, as the kernel says by EINVAL (ioctl_fsfreeze(2)).
said=$("$@" 2>&1) && exit 0
echo "$said" >&2
case $said in *": Invalid argument") exit 1 ;; esac
exit 2
"""

_WHY = {
    "time": "it was let go after {seconds:g} s, the longest that was allowed, before the work was done",
    "signal": "the program that held it was ended on the host",
    "lost": "the program that held it could not tell any more for how long it had to",
}


class Way(NamedTuple):
    """How an asset is frozen and thawed."""

    freeze: tuple[str | bytes, ...]
    thaw: tuple[str | bytes, ...]
    nothing: str
    """Code by which these say that nothing is frozen; a freeze that fails with another one is followed by a thaw."""


class Quiescing:
    """Plays the role `Quiesce`."""

    def __init__(self, host: Host, mounts: Mounts, settings: LinuxHostSettings) -> None:
        self._host = host
        self._mounts = mounts
        self._settings = settings

    @asynccontextmanager
    async def quiesced(self, asset: Asset, seconds: float, request_id: str) -> AsyncIterator[Quiesced]:
        """Hold a file system or an application."""
        asset.require(Capability.QUIESCE)
        if not 1 <= seconds <= MOST_SECONDS:
            raise InvalidInput(f"{asset.name!r} can be held for 1 to {MOST_SECONDS:g} seconds, not for {seconds:g}")
        way = await self._way(asset)
        whole = math.ceil(seconds)
        patience = PATIENCE + whole
        lock = "snapkeep-quiesce-" + hashlib.sha256(asset.id.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        command = Command.of(
            *("sh", "-c", HOLD, f"snapkeep-quiesce-{request_id}"),
            *(str(whole), lock, str(patience), way.nothing, GUARD, str(len(way.thaw)), *way.thaw, *way.freeze),
            seconds=patience + whole + _LATE,
            total=patience + whole + THAW_SECONDS + 2 * _LATE,
        )
        async with self._host.commands.hold(command) as stream:
            held = _Held(asset, stream, seconds)
            try:
                said = await held.begun()
                if said != "frozen":
                    raise await self._error(asset, way, said, await held.ended())
                yield held
            finally:
                await held.release()

    async def _way(self, asset: Asset) -> Way:
        """Return how it is held now. Raises NotFound, or Unsupported when that is not possible any more."""
        sudo = ("sudo", "-n", "--") if self._host.by_sudo else ()
        if asset.kind is AssetKind.APPLICATION:
            hook = self._settings.hooks.get(asset.id.removeprefix(HOOK_PREFIX))
            if hook is None:
                raise NotFound(f"The settings have no hook {asset.name!r} any more", next_step="Run a discovery.")
            for words in (hook.freeze, hook.thaw):
                await self._require_program(words)
            return Way((*sudo, *hook.freeze), (*sudo, *hook.thaw), "-")
        path = await self._mounts.place(asset)
        if path is None:
            raise NotFound(
                f"The file system {asset.name!r} is not mounted there any more",
                next_step="Mount it again; run `snapkeep discover` if it is mounted elsewhere now.",
            )
        thaw = ("sh", "-c", UNFREEZE, "snapkeep-thaw", *sudo, "fsfreeze", "-u", path)
        return Way((*sudo, "fsfreeze", "-f", path), thaw, "1")

    async def _require_program(self, words: Sequence[str]) -> None:
        """Raise PermissionDenied or Unsupported before anything is frozen that could not be thawed."""
        if (asked := await self._host.commands.run(asking(words, sudo=self._host.by_sudo))).code:
            if not self._host.by_sudo:
                raise missing(words[0], self._host.name, asked.reason)
            raise PermissionDenied(
                f"sudo on {self._host.name} does not allow {Command.of(*words)}, or there is no such program",
                needed=str(Command.of(*words)),
                next_step="Put it there; install the sudoers file that `snapkeep system check` shows.",
                vendor_message=asked.reason or None,
            )

    async def _error(self, asset: Asset, way: Way, said: str, done: Output) -> SnapkeepError:
        """Return why it could not be frozen: what the holder said first, and the reason that the freeze gave."""
        word, _, code = said.partition(" ")
        doing = f"Quiescing {asset.name!r}"
        if word == "busy":
            return Busy(f"{asset.name!r} is held by somebody else, and was not let go in time")
        freeze = Command.of(*way.freeze[3 if self._host.by_sudo else 0 :], as_root=True)
        if word == "late":
            return Timeout(
                f"{doing}: {freeze} did not come to its end in time on {self._host.name}; it was let go again",
                next_step="See what hangs there; allow more seconds if it is merely slow.",
                vendor_message=done.reason or None,
            )
        if word != "failed" or not code.isdigit():
            return Unavailable(f"{doing}: {self._host.name} did not say what came of it", vendor_message=done.reason)
        done = replace(done, command=freeze, code=int(code))
        if asset.kind is AssetKind.APPLICATION:
            return VendorError(
                f"{doing}: its hook failed on {self._host.name}",
                next_step=f"Run {done.command} there by hand.",
                vendor_code=code,
                vendor_message=done.reason or None,
            )
        if self._host.by_sudo:
            await self._host.commands.require_allowed(done)
        if number(done) == errno.EBUSY:
            return Busy(
                f"{asset.name!r} is frozen already, by somebody else",
                next_step=f"See who it is; `fsfreeze -u /{asset.name}` thaws it.",
                vendor_code="EBUSY",
                vendor_message=done.reason,
            )
        return failure(done, doing, root=self._host.is_root)


class _Held:
    """Plays `Quiesced`."""

    def __init__(self, asset: Asset, stream: Held, seconds: float) -> None:
        self._asset = asset
        self._stream = stream
        self._seconds = seconds
        self._pieces = aiter(stream)
        self._said = b""
        self._released = False
        self._answer: str | None = "it is not known for how long it was held"

    async def begun(self) -> str:
        """Wait for what the holder says first. Raises Unavailable."""
        return await self._line()

    async def ended(self) -> Output:
        """Wait for its end when it did not freeze; it thaws before. Raises Unavailable."""
        self._released = True
        self._stream.release()
        last, done = await self._end()
        if last.startswith("stuck"):
            done = replace(done, err=done.err + b"\nIt could not be thawed again: see to it on the host.")
        return done

    async def release(self) -> str | None:
        """Let it go."""
        if not self._released:
            self._released = True
            self._stream.release()
            try:
                self._answer = self._judged(*await self._end())
            except SnapkeepError as error:
                self._answer = f"{error.message}; the host lets it go by itself"
        return self._answer

    def _judged(self, said: str, done: Output) -> str | None:
        word, _, why = said.partition(" ")
        if (word, why) == ("thawed", "released"):
            return None
        if word == "thawed":
            return _WHY.get(why, "the host did not say for how long it was held").format(seconds=self._seconds)
        if word == "gone":
            return "somebody else has thawed it meanwhile"
        return f"it could not be thawed, and the host goes on trying: {done.reason}"

    async def _end(self) -> tuple[str, Output]:
        """Return the last line, and how the holder ended. Raises Unavailable."""
        last = ""
        try:
            async with asyncio.timeout(THAW_SECONDS):
                while line := await self._line():
                    last = line
                return last, await self._stream.end()
        except TimeoutError as error:
            raise Unavailable(f"{self._asset.name!r} was not thawed within {THAW_SECONDS:g} s") from error

    async def _line(self) -> str:
        """Return the next line, empty at the end."""
        while b"\n" not in self._said and (piece := await anext(self._pieces, b"")):
            self._said += piece
        line, _, self._said = self._said.partition(b"\n")
        return line.decode("utf-8", "replace")


def asking(words: Sequence[str], *, sudo: bool) -> Command:
    """Return the command that asks whether a program of a hook may be run; its exit code tells."""
    return allowed(Command.of(*words)) if sudo else Command.of("test", "-x", words[0])


def hook_asset(name: str, hook: Hook) -> Asset:
    """Return the application that a hook is for."""
    return Asset(
        id=HOOK_PREFIX + name,
        kind=AssetKind.APPLICATION,
        name=name,
        parent_id=HOST,
        capabilities=frozenset({Capability.QUIESCE}),
        attributes={"freeze": str(Command.of(*hook.freeze)), "thaw": str(Command.of(*hook.thaw))},
    )
