"""`snapkeep snapshot`: create, list, show, export, deport, restore, clone, delete."""

from __future__ import annotations

import socket
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.confirm import agree, typed
from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.programs import NO_PROGRAMS, Programs, after_failed
from snapkeep.cli.protection import of_snapshot
from snapkeep.cli.quiesce import SECONDS, Quiesce, Seconds, consistency, quiesce_body
from snapkeep.cli.references import parse_asset, parse_snapshot, part
from snapkeep.cli.work import Wait, done, follow
from snapkeep.model.errors import InvalidInput, NotFound

app = App(name="snapshot", help="Take, list, compare, export, restore and delete snapshots.")
app.command("snapkeep.cli.diff:diff", name="diff", help="Say what changed up to a snapshot.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]


@app.command
def create(
    asset: str,
    /,
    *,
    name: str | None = None,
    quiesce: Quiesce = (),
    quiesce_seconds: Seconds = SECONDS,
    programs: Programs = NO_PROGRAMS,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Take a snapshot of an asset.

    Parameters
    ----------
    asset
        The asset as system/asset.
    name
        Name of the snapshot; default: a unique one that marks it as made by Snapkeep.
    quiesce
        Another asset, of any system, that is held at a consistent point for it, as system/asset; may be repeated:
        they are frozen in this order.
    quiesce_seconds
        How long they are held at the longest; after that the host itself lets them go.
    wait
        Wait until the snapshot exists.
    """
    rest = common.connect()
    found = rest.asset(parse_asset(asset))
    body = {"name": name, **quiesce_body(rest, quiesce, quiesce_seconds), **programs.body}
    operation = rest.request("POST", f"/assets/{found['id']}/snapshots", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Taking a snapshot of {asset}")
    result = operation["result"]
    done(common, operation, "\n".join([f"Created {result['snapshot']}", *consistency(result), *after_failed(result)]))


@app.command(name="list")
def list_snapshots(of: str | None = None, /, *, gone: Flag = False, common: Common = DEFAULT) -> None:
    """List snapshots.

    Parameters
    ----------
    of
        Only those of this system, or of this system/asset.
    gone
        Also those that no longer exist.
    """
    from snapkeep.cli import output

    rest = common.connect()
    params: Json = {"gone": gone}
    if of and "/" in of:
        params["asset_id"] = rest.asset(parse_asset(of))["id"]
    elif of:
        params["system"] = of
    columns = [
        ("reference", "SNAPSHOT"),
        ("kind", "KIND"),
        ("owned", "OURS"),
        ("created_at", "TAKEN"),
        ("size_bytes", "SIZE"),
        *([("gone_at", "GONE")] if gone else []),
    ]
    rows = list(rest.pages("/snapshots", **params))
    if of and not rows and "/" not in of:
        rest.request("GET", f"/systems/{part(of)}")  # says so when that is the name that is wrong
    output.show(common, rows, columns, empty="There are no snapshots.")


@app.command
def show(snapshot: str, /, *, common: Common = DEFAULT) -> None:
    """Show a snapshot, its exports, and what keeps it.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.snapshot(parse_snapshot(snapshot), gone=True)
    exports = rest.request("GET", "/exports", params={"snapshot_id": found["id"]})["data"]
    output.show_one(common, {**found, "exports": exports, "protections": of_snapshot(rest, found["id"])})


@app.command
def export(
    snapshot: str,
    /,
    *,
    host: str | None = None,
    address: str | None = None,
    read_write: Flag = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Make a snapshot readable on a backup host, until it is deported. Repeating it is harmless.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    host
        Name of the backup host; default: this machine.
    address
        Its IP address or host name, as the system sees it; default: the host's name, for this machine the
        address from which it reaches the system.
    read_write
        Let the host also write to the asset.
    wait
        Wait until the host has access.
    """
    rest = common.connect()
    found = rest.snapshot(parse_snapshot(snapshot))
    name = host or socket.gethostname()
    body = {
        "host": {"name": name, "address": address or host or _own_address(rest, found["system"])},
        "mode": "read-write" if read_write else "read-only",
    }
    operation = rest.request("POST", f"/snapshots/{found['id']}/exports", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Exporting {snapshot}")
    lines = [f"Exported {snapshot} to {name}"]
    for location in operation["result"]["locations"]:
        lines.append(f"  {location['protocol']}: {_location(location)}")
        if location["protocol"] == "nfs":
            options = ",".join(location["options"])
            lines.append(f"  for instance: mount -t nfs{f' -o {options}' if options else ''} {location['source']} /mnt")
    done(common, operation, "\n".join(lines))


@app.command
def deport(
    snapshot: str,
    /,
    *,
    host: str | None = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Take the exports of a snapshot back. Repeating it is harmless.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    host
        Only from this backup host; default: from all.
    dry_run
        Check everything, say what would be done, and do nothing.
    wait
        Wait until the access is gone.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.snapshot(parse_snapshot(snapshot), gone=True)
    exports = rest.request("GET", "/exports", params={"snapshot_id": found["id"]})["data"]
    chosen = [item for item in exports if host in {None, item["host"], item["address"]}]
    if dry_run:
        for item in chosen:
            would(common, rest, "DELETE", f"/exports/{item['id']}")
        return
    operations = []
    for item in chosen:
        operation = rest.request("DELETE", f"/exports/{item['id']}")
        if wait:
            operation = follow(common, rest, operation, wait=True, title=f"Deporting {snapshot}")
        operations.append(operation)
    if common.json:
        output.print_json(operations)
    elif not chosen:
        output.console.print(f"{snapshot} is not exported{f' to {host}' if host else ''}.", markup=False)
    else:
        done = "Deported" if wait else "Asked to deport"
        output.console.print(f"{done} {snapshot} from {', '.join(item['host'] for item in chosen)}", markup=False)


@app.command
def restore(
    snapshot: str,
    /,
    *,
    confirm: str | None = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Turn an asset back to a snapshot, in place. What was written since is lost.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    confirm
        The name of the asset, to confirm; asked for on a terminal.
    dry_run
        Check everything, say what would be done, and do nothing.
    wait
        Wait for the end.
    """
    rest = common.connect()
    found = rest.snapshot(parse_snapshot(snapshot))
    if dry_run:
        body = {"confirmation": found["asset"] if confirm is None else confirm}
        would(common, rest, "POST", f"/snapshots/{found['id']}/restore", json=body)
        return
    question = f"Everything written to {found['asset']!r} since {found['name']} will be lost."
    confirmation = confirm if confirm is not None else typed(question, found["asset"])
    operation = rest.request("POST", f"/snapshots/{found['id']}/restore", json={"confirmation": confirmation})
    operation = follow(common, rest, operation, wait=wait, title=f"Restoring {snapshot}")
    done(common, operation, f"Restored {snapshot}")


@app.command
def clone(
    snapshot: str,
    name: str,
    /,
    *,
    confirm: str | None = None,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Make a new, independent asset from a snapshot.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    name
        Name of the new asset.
    confirm
        The name of the asset that is cloned, to confirm; asked for on a terminal.
    dry_run
        Check everything, say what would be done, and do nothing.
    wait
        Wait for the end.
    """
    rest = common.connect()
    found = rest.snapshot(parse_snapshot(snapshot))
    if dry_run:
        body = {"name": name, "confirmation": found["asset"] if confirm is None else confirm}
        would(common, rest, "POST", f"/snapshots/{found['id']}/clone", json=body)
        return
    question = f"A new asset {name!r} will be made on {found['system']!r}."
    confirmation = confirm if confirm is not None else typed(question, found["asset"])
    body = {"name": name, "confirmation": confirmation}
    operation = rest.request("POST", f"/snapshots/{found['id']}/clone", json=body)
    operation = follow(common, rest, operation, wait=wait, title=f"Cloning {snapshot}")
    done(common, operation, f"Cloned {snapshot} to {operation['result']['asset']}")


@app.command
def delete(
    snapshot: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Delete a snapshot, and prove that it is gone. One that is gone already is success.

    Parameters
    ----------
    snapshot
        The snapshot as system/asset@snapshot.
    yes
        Do not ask.
    dry_run
        Check everything, say what would be done, and do nothing.
    wait
        Wait until it is gone.
    """
    rest = common.connect()
    reference = parse_snapshot(snapshot)
    found = _existing(rest, reference, common)
    if dry_run:
        would(common, rest, "DELETE", f"/snapshots/{found['id']}")
        return
    if not yes:
        whose = "" if found["owned"] else ", which Snapkeep did not make"
        agree(f"Delete {found['reference']}{whose}?")
    operation = rest.request("DELETE", f"/snapshots/{found['id']}")
    operation = follow(common, rest, operation, wait=wait, title=f"Deleting {snapshot}")
    done(common, operation, f"Deleted {snapshot}: {operation['result']['proof']}")


def _own_address(rest: Any, system: str) -> str:
    """Return the address from which this machine reaches a system; nothing is sent. Raises InvalidInput."""
    settings = rest.request("GET", f"/systems/{part(system)}")["settings"]
    try:
        found = socket.getaddrinfo(settings["host"], settings.get("port", 443), type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])
            return str(probe.getsockname()[0])
    except (OSError, KeyError) as error:
        raise InvalidInput(
            f"The address of this machine as {system!r} sees it cannot be told: {error}",
            next_step="Give --address.",
        ) from error


def _location(location: Json) -> str:
    return f"{location['source']}, there {location['path']}" if location["source"] else str(location["path"])


def _existing(rest: Any, reference: Any, common: Common) -> Json:
    """Return the snapshot; when it is known to be gone, say so and exit with success."""
    from snapkeep.cli import output

    try:
        return dict(rest.snapshot(reference))
    except NotFound:
        gone = rest.snapshot(reference, gone=True)
    if common.json:
        output.print_json(gone)
    else:
        output.console.print(f"{gone['reference']} is gone already.", markup=False)
    raise SystemExit(0)
