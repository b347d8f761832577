"""`snapkeep hold`, `snapkeep lock` and `snapkeep cooling`: keep snapshots and recovery points."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.confirm import agree
from snapkeep.cli.moments import from_now
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import parse_snapshot, part
from snapkeep.model.errors import InvalidInput, NotFound

hold_app = App(name="hold", help="Keep snapshots and recovery points until a hold is released.")
lock_app = App(name="lock", help="Keep snapshots and recovery points until a date.")
cooling_app = App(name="cooling", help="Slow down mass deletions, so that they can be cancelled.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]
Kind = Literal["hold", "lock"]


# -- holds -------------------------------------------------------------------------------------------------------------
@hold_app.command(name="place")
def place_hold(subject: str, /, *, reason: str, until: str | None = None, common: Common = DEFAULT) -> None:
    """Hold a snapshot or a recovery point: it is not deleted before the hold is released.

    Parameters
    ----------
    subject
        The snapshot as system/asset@snapshot, or the id of the recovery point.
    reason
        Why, for those who come after.
    until
        When the hold ends by itself: 2030-12-31, 2030-12-31T18:00+01:00, or in 90d or 12h; default: never.
    """
    rest = common.connect()
    body = {"reason": reason, "until": from_now(until).isoformat() if until else None}
    held = rest.request("POST", f"{_path(rest, subject)}/holds", json=body)
    _tell(common, held, f"Held {held['reference']}: hold {held['id'][:8]}")


@hold_app.command(name="release")
def release_hold(hold: str, /, *, common: Common = DEFAULT) -> None:
    """Release a hold. What it kept can be deleted again, unless something else keeps it.

    Parameters
    ----------
    hold
        Its id, or the beginning of it; or what it keeps, where that has one hold.
    """
    rest = common.connect()
    found = _one(rest, "hold", hold)
    rest.request("DELETE", f"/holds/{found['id']}")
    _tell(common, found, f"Released hold {found['id'][:8]} of {found['reference']}")


@hold_app.command(name="list")
def list_holds(of: str | None = None, /, *, ended: Flag = False, common: Common = DEFAULT) -> None:
    """List holds, the newest first.

    Parameters
    ----------
    of
        Only those of this snapshot or recovery point.
    ended
        Also those that have ended.
    """
    _list(common, "hold", of, ended=ended)


# -- locks -------------------------------------------------------------------------------------------------------------
@lock_app.command(name="place")
def place_lock(
    subject: str,
    /,
    *,
    until: str,
    mode: Literal["governance", "compliance"],
    reason: str,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Lock a snapshot or a recovery point: it is not deleted before a date.

    Parameters
    ----------
    subject
        The snapshot as system/asset@snapshot, or the id of the recovery point.
    until
        When the lock ends: 2030-12-31, 2030-12-31T18:00+01:00, or in 90d or 12h.
    mode
        governance: a security officer may shorten it; compliance: nobody may, whatever happens.
    reason
        Why, for those who come after.
    yes
        Do not ask; a compliance lock is asked for, since nobody can take it back.
    """
    from snapkeep.cli.output import local_time

    rest = common.connect()
    end = from_now(until)
    if mode == "compliance" and not yes:
        agree(f"Lock {subject} until {end.isoformat(timespec='minutes')}? Nobody can take this back.")
    body = {"mode": mode, "until": end.isoformat(), "reason": reason}
    lock = rest.request("POST", f"{_path(rest, subject)}/locks", json=body)
    _tell(common, lock, f"Locked {lock['reference']} until {local_time(lock['until'])}: {mode} lock {lock['id'][:8]}")


@lock_app.command(name="extend")
def extend_lock(lock: str, /, *, until: str, common: Common = DEFAULT) -> None:
    """Let a lock end later.

    Parameters
    ----------
    lock
        Its id, or the beginning of it; or what it keeps, where that has one lock.
    until
        When the lock ends: 2030-12-31, 2030-12-31T18:00+01:00, or in 90d or 12h.
    """
    _move(common, lock, "extend", until)


@lock_app.command(name="shorten")
def shorten_lock(lock: str, /, *, until: str, common: Common = DEFAULT) -> None:
    """Let a governance lock end sooner.

    Parameters
    ----------
    lock
        Its id, or the beginning of it; or what it keeps, where that has one lock.
    until
        When the lock ends: 2030-12-31, 2030-12-31T18:00+01:00, or in 90d or 12h; 0h: now.
    """
    _move(common, lock, "shorten", until)


@lock_app.command(name="list")
def list_locks(of: str | None = None, /, *, ended: Flag = False, common: Common = DEFAULT) -> None:
    """List locks, the newest first.

    Parameters
    ----------
    of
        Only those of this snapshot or recovery point.
    ended
        Also those that have ended.
    """
    _list(common, "lock", of, ended=ended)


# -- the cooling time --------------------------------------------------------------------------------------------------
@cooling_app.command(name="show")
def show_cooling(*, common: Common = DEFAULT) -> None:
    """Show how many deletions within an hour begin at once, and after how many hours further ones do."""
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", "/cooling"))


@cooling_app.command(name="set")
def set_cooling(*, limit: int | None = None, hours: int | None = None, common: Common = DEFAULT) -> None:
    """Change that, or turn it on: what is not given stays.

    Parameters
    ----------
    limit
        So many deletions within an hour begin at once; at first: 20.
    hours
        After how long a further one begins; until then it can be cancelled. At first: 4.
    """
    from snapkeep.cli import output
    from snapkeep.model.protections import Cooling

    rest = common.connect()
    before = rest.request("GET", "/cooling")
    given = {"limit": limit, "hours": hours}
    kept = {**before, "limit": before["limit"] or Cooling().limit}
    body = {**kept, **{name: value for name, value in given.items() if value is not None}}
    output.show_one(common, rest.request("PUT", "/cooling", json=body), before=before)


@cooling_app.command(name="off")
def turn_cooling_off(*, common: Common = DEFAULT) -> None:
    """Let any number of deletions begin at once."""
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("PUT", "/cooling", json={"limit": None}))


# -- inside ------------------------------------------------------------------------------------------------------------
def of_snapshot(rest: Any, snapshot_id: str) -> list[Json]:
    """Return what keeps a snapshot."""
    return list(rest.pages("/protections", snapshot_id=snapshot_id))


def of_backup(rest: Any, backup_id: str) -> list[Json]:
    """Return what keeps a recovery point."""
    return list(rest.pages("/protections", backup_id=backup_id))


def _path(rest: Any, subject: str) -> str:
    """Return the path of a snapshot or a recovery point."""
    if "/" in subject:
        return f"/snapshots/{rest.snapshot(parse_snapshot(subject))['id']}"
    return f"/backups/{rest.request('GET', f'/backups/{part(subject)}')['id']}"


def _filter(rest: Any, subject: str) -> Json:
    what, _, found = _path(rest, subject).removeprefix("/").partition("/")
    return {f"{what.removesuffix('s')}_id": found}


def _one(rest: Any, kind: Kind, wanted: str) -> Json:
    """Return the hold or lock of an id, or the only one of a subject. Raises NotFound, InvalidInput."""
    if "/" not in wanted:
        try:
            found = rest.request("GET", f"/protections/{part(wanted)}")
            if found["kind"] == kind:
                return dict(found)
        except NotFound:
            pass
    several = list(rest.pages("/protections", kind=kind, **_filter(rest, wanted)))
    if not several:
        raise NotFound(f"There is no {kind} {wanted!r}", next_step=f"See `snapkeep {kind} list`.")
    if len(several) > 1:
        ids = ", ".join(item["id"][:8] for item in several)
        raise InvalidInput(f"{wanted!r} has several {kind}s", next_step=f"Give the id of one: {ids}.")
    return dict(several[0])


def _move(common: Common, lock: str, verb: str, until: str) -> None:
    from snapkeep.cli.output import local_time

    rest = common.connect()
    found = _one(rest, "lock", lock)
    moved = rest.request("POST", f"/locks/{found['id']}/{verb}", json={"until": from_now(until).isoformat()})
    _tell(common, moved, f"The lock of {moved['reference']} ends at {local_time(moved['until'])}")


def _list(common: Common, kind: Kind, of: str | None, *, ended: bool) -> None:
    from snapkeep.cli import output

    rest = common.connect()
    rows = list(rest.pages("/protections", kind=kind, ended=ended, **(_filter(rest, of) if of else {})))
    if not common.json:
        rows = [{**row, "id": row["id"][:8], "what": _what(row), "until_at": row["until"]} for row in rows]
    columns = [
        ("id", "ID"),
        ("what", "KEEPS"),
        ("reference", "OF"),
        *([("mode", "MODE")] if kind == "lock" else []),
        ("until_at", "UNTIL"),
        ("reason", "REASON"),
        ("placed_by", "BY"),
        *([("in_force", "IN FORCE")] if ended else []),
    ]
    output.show(common, rows, columns, empty=f"There are no {kind}s.")


def _what(row: Json) -> str:
    return "snapshot" if row["snapshot_id"] else f"backup {row['backup_id'][:8]}"


def _tell(common: Common, value: Json, sentence: str) -> None:
    from snapkeep.cli import output

    if common.json:
        output.print_json(value)
    else:
        output.console.print(output.printable(sentence), markup=False, soft_wrap=True)
