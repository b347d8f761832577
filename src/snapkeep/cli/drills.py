"""`snapkeep backup verify`, `drill` and `drills`: proof that recovery points can be restored."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import parse_asset, part
from snapkeep.cli.work import Wait, done, follow
from snapkeep.model.drills import BYTES, FILES
from snapkeep.model.errors import InvalidInput, NotFound

Json = dict[str, Any]
Repository = Annotated[str | None, Parameter(name=["--repository", "-r"])]


def verify(
    of: str,
    /,
    *,
    data: Literal["sample", "all"] = "sample",
    repository: Repository = None,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Read a recovery point back from its repository: all directories, and a sample or all of the content.

    Parameters
    ----------
    of
        The id of a recovery point, or restic's, or the beginning of one; or a system/asset: its newest one.
    data
        How much of the content of files is read, decrypted, and compared with its checksums.
    repository
        Of an asset: only recovery points in this repository.
    wait
        Wait for the end.
    """
    rest = common.connect()
    backup = _points(rest, of, repository)[0]
    operation = rest.request("POST", f"/backups/{part(backup['id'])}/verify", json={"data": data})
    operation = follow(common, rest, operation, wait=wait, title=f"Verifying {backup['asset']}")
    found = operation["result"]
    how = "all of it was read" if found["whole"] else "a sample was read"
    done(common, operation, f"{_what(backup)} is what was written, {how}: {_much(found)}.")


def drill(
    of: str,
    /,
    *,
    files: str = str(FILES),
    most: Annotated[str, Parameter(name="--bytes")] = f"{BYTES >> 30}G",
    check: str | None = None,
    repository: Repository = None,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Restore some files of a recovery point to a scratch directory of the backup host, compare them, and clean up.

    Parameters
    ----------
    of
        The id of a recovery point, or restic's, or the beginning of one; or a system/asset: one of its at random.
    files
        How many files, at random; or all: the whole recovery point.
    most
        Not more bytes than this: 500M, 10G; all is not bounded by it.
    check
        A program of the worker that looks at what was restored.
    repository
        Of an asset: only recovery points in this repository.
    wait
        Wait for the end.
    """
    import secrets

    from snapkeep.cli.moments import bytes_of

    if files != "all" and not files.isdecimal():
        raise InvalidInput(f"{files!r:.40} is no number of files", next_step="Give a number, or all.")
    rest = common.connect()
    backup = secrets.choice(_points(rest, of, repository))
    body = {"files": "all" if files == "all" else int(files), "bytes": bytes_of(most), "check": check}
    operation = rest.request("POST", f"/backups/{part(backup['id'])}/drill", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Drilling {backup['asset']}")
    found = operation["result"]
    done(common, operation, f"{_what(backup)} can be restored: {_much(found)} were, and are removed again.")


def drills(
    of: str | None = None,
    /,
    *,
    failed: Annotated[bool, Parameter(negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """List what verifications and drills have found, the newest first.

    Parameters
    ----------
    of
        Only those of this system/asset.
    failed
        Only those that have found something wrong.
    """
    from snapkeep.cli import output

    rest = common.connect()
    asset = rest.asset(parse_asset(of))["id"] if of else None
    rows = list(rest.pages("/drills", asset_id=asset, passed=False if failed else None))
    if not common.json:
        rows = [{**row, "backup_id": row["backup_id"][:8]} for row in rows]
    columns = [("at", "AT"), ("kind", "KIND"), ("asset", "ASSET"), ("backup_id", "BACKUP"), ("passed", "PASSED"),
               ("files", "FILES"), ("bytes", "BYTES"), ("seconds", "SECONDS"), ("reason", "REASON")]  # fmt: skip
    output.show(common, rows, columns, empty="Nothing was verified or drilled yet: see `snapkeep backup drill`.")


def _points(rest: Any, of: str, repository: str | None) -> list[Json]:
    """Return a recovery point by its id, or those of an asset, the newest first."""
    if "/" not in of:
        return [rest.request("GET", f"/backups/{part(of)}")]
    asset = rest.asset(parse_asset(of))
    found = list(rest.pages("/backups", asset_id=asset["id"], repository=repository))
    if not found:
        raise NotFound(f"There is no recovery point of {of}", next_step="Make one with `snapkeep backup run`.")
    return found


def _what(backup: Json) -> str:
    return f"Recovery point {backup['id'][:8]} of {backup['asset']} in {backup['repository']}"


def _much(found: Json) -> str:
    from snapkeep.cli import output

    count = found["files"]
    return f"{count:,} {'file' if count == 1 else 'files'} with {output.size(found['bytes'])}"
