"""`snapkeep backup`: back up an asset, search recovery points, restore from them."""

from __future__ import annotations

import base64
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.confirm import agree, typed
from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.programs import NO_PROGRAMS, Programs, after_failed
from snapkeep.cli.protection import of_backup
from snapkeep.cli.quiesce import SECONDS, Quiesce, Seconds, consistency, quiesce_body
from snapkeep.cli.references import parse_asset, part
from snapkeep.cli.signals import tell_signal
from snapkeep.cli.work import Wait, done, follow
from snapkeep.model.errors import InvalidInput

app = App(name="backup", help="Back up assets; list, search, restore and forget recovery points.")
app.command("snapkeep.cli.repositories:check", name="check", help="Check a repository; the same as repository check.")
app.command("snapkeep.cli.drills:verify", name="verify", help="Read a recovery point back from its repository.")
app.command("snapkeep.cli.drills:drill", name="drill", help="Restore some files to a scratch place, and compare them.")
app.command("snapkeep.cli.drills:drills", name="drills", help="List what verifications and drills have found.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]
Query = list[tuple[str, str | bytes]]
PARTIAL = 20
"""Exit code of a backup that lacks something that could not be read."""
SHOWN = 10
"""So many unreadable paths are shown; `backup show --output json` has more."""


@app.command
def run(
    asset: str,
    /,
    *,
    repository: Annotated[str, Parameter(name=["--repository", "-r"])],
    full: Flag = False,
    keep_base: Flag = False,
    quiesce: Quiesce = (),
    quiesce_seconds: Seconds = SECONDS,
    programs: Programs = NO_PROGRAMS,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Back up an asset into a repository: the first time all of it, then what has changed.

    Takes a snapshot, exports it to the backup host, writes a recovery point, compares a sample of it with the snapshot,
    and deletes the snapshot of the backup before. Exits with 20 when the recovery point is partial: something could not
    be read.

    Parameters
    ----------
    asset
        The asset as system/asset.
    repository
        Name of the repository.
    full
        Look at every file, whatever the system says has changed.
    keep_base
        Do not delete the snapshot that the backup before was made of.
    quiesce
        Another asset, of any system, that is held at a consistent point for the snapshot, as system/asset; may be
        repeated: they are frozen in this order.
    quiesce_seconds
        How long they are held at the longest; after that the host itself lets them go.
    wait
        Wait for the end.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.asset(parse_asset(asset))
    held = quiesce_body(rest, quiesce, quiesce_seconds) | programs.body
    body = {"repository": repository, "full": full, "keep_base": keep_base, **held}
    operation = rest.request("POST", f"/assets/{found['id']}/backups", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Backing up {asset}")
    result = operation["result"]
    if common.json:
        output.print_json(operation)
    else:
        _tell(result, repository)
    if code := exit_code(result):
        raise SystemExit(code)


@app.command(name="list")
def list_backups(
    of: str | None = None,
    /,
    *,
    repository: Annotated[str | None, Parameter(name=["--repository", "-r"])] = None,
    common: Common = DEFAULT,
) -> None:
    """List recovery points, the newest first.

    Parameters
    ----------
    of
        Only those of this system/asset.
    repository
        Only those in this repository.
    """
    from snapkeep.cli import output

    rest = common.connect()
    params = {"asset_id": rest.asset(parse_asset(of))["id"] if of else None, "repository": repository}
    rows = list(rest.pages("/backups", **params))
    if not common.json:
        rows = [{**row, "id": row["id"][:8], "added_bytes": row["counts"]["bytes_added"]} for row in rows]
    columns = [
        ("id", "ID"),
        ("asset", "ASSET"),
        ("snapshot_at", "STATE OF"),
        ("mode", "MODE"),
        ("added_bytes", "ADDED"),
        ("partial", "PARTIAL"),
        ("repository", "REPOSITORY"),
    ]
    output.show(common, rows, columns, empty="There is no recovery point yet: make one with `snapkeep backup run`.")


@app.command
def show(backup: str, /, *, common: Common = DEFAULT) -> None:
    """Show a recovery point, and what keeps it.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("GET", f"/backups/{part(backup)}")
    if not common.json and found["verification"]:
        found["verification"] = found["verification"]["verdict"]
    output.show_one(common, {**found, "protections": of_backup(rest, found["id"])})


@app.command
def ls(backup: str, path: str = "", /, *, common: Common = DEFAULT) -> None:
    """List a directory of a recovery point.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    path
        The directory, below the asset; default: the asset's top.
    """
    _show_entries(common, f"/backups/{part(backup)}/entries", [("path", os.fsencode(path))])


@app.command
def find(backup: str, pattern: str, /, *, path: str = "", common: Common = DEFAULT) -> None:
    """Search a recovery point by name.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    pattern
        A name such as '*.txt'; with a slash it is compared with the whole path below the asset.
    path
        Only below this directory.
    """
    query: Query = [("pattern", os.fsencode(pattern)), ("path", os.fsencode(path))]
    _show_entries(common, f"/backups/{part(backup)}/find", query)


@app.command
def cat(backup: str, path: str, /, *, common: Common = DEFAULT) -> None:
    """Write the content of a file to standard output.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    path
        The file, below the asset.
    """
    for piece in common.connect().content(f"/backups/{part(backup)}/content", [("path", os.fsencode(path))]):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


@app.command
def restore(
    backup: str,
    target: Path | None = None,
    /,
    *,
    path: Several = (),
    overwrite: Flag = False,
    to_asset: Flag = False,
    confirm: str | None = None,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Restore a recovery point, or a part of it, to a directory of the backup host or back to the asset.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    target
        The directory, on the worker that serves the repository; made if it is not there.
    path
        Only this file, or what is in this directory, below the asset: it comes into the target itself. Of several,
        each comes to its own path below the target.
    overwrite
        Into a directory that holds something: replace files of the same name, one by one.
    to_asset
        Back to where it was backed up from, over what is there now; a snapshot of that is taken first, and kept.
    confirm
        With --to-asset: the name of the asset, to confirm; asked for on a terminal.
    wait
        Wait for the end.
    """
    from urllib.parse import quote

    from snapkeep.cli import output

    if (target is None) is not to_asset:
        raise InvalidInput("A restore goes to one place", next_step="Give a directory, or --to-asset.")
    rest = common.connect()
    body: dict[str, Any] = {"paths": [quote(os.fsencode(item)) for item in path]}
    if target is None:
        asset = rest.request("GET", f"/backups/{part(backup)}")["asset"]
        name = asset.partition("/")[2]
        question = f"Files of {asset!r} will be replaced by those of the recovery point."
        body["confirmation"] = confirm if confirm is not None else typed(question, name)
    else:
        body |= {"target": str(target.expanduser().absolute()), "overwrite": overwrite}
    operation = rest.request("POST", f"/backups/{part(backup)}/restore", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Restoring {backup}")
    result = operation["result"]
    done(
        common,
        operation,
        f"Restored {_number(result['files'], 'file')} ({output.size(result['bytes'])}) and "
        f"{_number(result['directories'], 'directory', 'directories')} to {result['target']}"
        + (f"; what was there before is in {result['before']}" if to_asset else ""),
    )


@app.command
def forget(
    backup: str,
    /,
    *,
    force: Flag = False,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    dry_run: DryRun = False,
    common: Common = DEFAULT,
) -> None:
    """Forget a recovery point, here and in its repository. Nothing can be restored from it any more.

    The space that it alone took is given back by `restic prune`.

    Parameters
    ----------
    backup
        Its id, or restic's, or the beginning of one.
    force
        Also the one from which the next incremental backup starts, with its snapshot: the next one then reads
        everything.
    yes
        Do not ask.
    dry_run
        Check everything, say what would be done, and do nothing.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("GET", f"/backups/{part(backup)}")
    if dry_run:
        would(common, rest, "DELETE", f"/backups/{found['id']}", force=force)
        return
    if not yes:
        agree(f"Forget recovery point {found['id'][:8]} of {found['asset']}, made {found['created_at']}?")
    rest.request("DELETE", f"/backups/{found['id']}", params={"force": force})
    if common.json:
        output.print_json({"forgotten": found["id"]})
    else:
        output.console.print(f"Forgot recovery point {found['id'][:8]} of {found['asset']}.", markup=False)


def exit_code(result: Json) -> int:
    """Return with what a backup exits: one that is not true, or not whole, is no success."""
    if (result["verification"] or {}).get("differing"):
        return 1
    return PARTIAL if result["partial"] else 0


# -- what people see ---------------------------------------------------------------------------------------------------
def _tell(result: Json, repository: str) -> None:
    from snapkeep.cli import output

    def say(text: str, style: str | None = None) -> None:
        output.console.print(output.printable(text), style=style, markup=False, soft_wrap=True)

    counts, verification = result["counts"], result["verification"]
    say(f"Backed up {result['snapshot']} into {repository}: recovery point {result['backup_id'][:8]}")
    for sentence in consistency(result):
        say(f"  {sentence}", "yellow" if result.get("consistency_reason") else None)
    for sentence in after_failed(result):
        say(f"  {sentence}", "yellow")
    say(f"  mode: {result['mode']}" + (f", because: {result['reason']}" if result["reason"] else ""))
    say(
        f"  files: {counts['files_new']:,} new, {counts['files_changed']:,} changed, "
        f"{counts['files_unmodified']:,} looked at and as before"
    )
    say(f"  bytes: {output.size(counts['bytes_read'])} read, {output.size(counts['bytes_added'])} added")
    if verification:
        wrong = verification["differing"]
        say(f"  verified: {verification['verdict']}", "bold red" if wrong else None)
        for example in verification["examples"]:
            say(f"    {example}", "red")
    tell_signal(result)
    for text in result["left"]:
        say(f"  left: {text}", "yellow")
    if result["partial"]:
        say(f"Partial: {_number(counts['unreadable'], 'object')} could not be read, or not wholly:", "yellow")
        for item in counts["unreadable_paths"][:SHOWN]:
            say(f"  {item['path']}: {item['reason']}", "yellow")
        if counts["unreadable"] > SHOWN:
            say(f"  and more: snapkeep backup show {result['backup_id'][:8]} --output json", "yellow")


def _show_entries(common: Common, path: str, query: Query) -> None:
    """Print entries as they arrive, one a line as `ls -l` does; for programs all of them as one JSON list."""
    from snapkeep.cli import output

    entries = (json.loads(line) for line in common.connect().stream(path, query) if line)
    if common.json:
        output.print_json(list(entries))
        return
    for line in _lines(entries):
        sys.stdout.write(line + "\n")


def _lines(entries: Iterable[Json]) -> Iterator[str]:
    from snapkeep.cli import output

    for entry in entries:
        mode = stat.filemode(entry["mode"] | _TYPES.get(entry["type"], 0))
        size = output.size(entry["size"]) if "size" in entry else "-"
        when = output.local_time(entry["modified_at"])
        exact = entry.get("path_base64")
        name = base64.b64decode(exact).decode("utf-8", "backslashreplace") if exact else entry["path"]
        link = f" -> {output.printable(entry['link_target'])}" if "link_target" in entry else ""
        owner = f"{entry['uid']}:{entry['gid']}"
        yield f"{mode} {owner:>11} {size:>10} {when} {output.printable(name)}{link}"


_TYPES = {
    "file": stat.S_IFREG, "dir": stat.S_IFDIR, "symlink": stat.S_IFLNK, "fifo": stat.S_IFIFO, "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR, "socket": stat.S_IFSOCK,
}  # fmt: skip


def _number(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
