"""`snapkeep system`, `snapkeep plugin` and `snapkeep discover`."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.references import part
from snapkeep.cli.settings import plain_settings, secret_settings
from snapkeep.cli.work import Wait, done, follow

app = App(name="system", help="Add, list, check and remove the systems that hold data.")
plugins = App(name="plugin", help="List the installed plug-ins and what they can do.")

Json = dict[str, Any]


@app.command
def add(
    name: str,
    /,
    *,
    plugin: str,
    set: Annotated[Several, Parameter(name=["--set", "-s"])] = (),
    secret_file: Annotated[Several, Parameter(name="--secret-file")] = (),
    secret_env: Annotated[Several, Parameter(name="--secret-env")] = (),
    secret_ref: Annotated[Several, Parameter(name="--secret-ref")] = (),
    ask: Annotated[Several, Parameter(name="--ask")] = (),
    queue: str = "default",
    check: Annotated[bool, Parameter(name="--check", negative="--no-check")] = True,
    common: Common = DEFAULT,
) -> None:
    """Add a system and say whether it can be used.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '-' and '.'.
    plugin
        Plug-in that speaks to it; see `snapkeep plugin list`.
    set
        A setting as NAME=VALUE; repeat it. See `snapkeep plugin show PLUGIN` for all of them.
    secret_file
        A secret as NAME=FILE: the first line of the file; of a private key, all of it.
    secret_env
        A secret as NAME=VARIABLE: taken from the environment.
    secret_ref
        Where a secret is, as NAME=REFERENCE: file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD, as the
        server and its workers see it. It is read whenever they connect.
    ask
        NAME of a secret to type in.
    queue
        Queue of its operations: the workers that serve it run them.
    check
        Look at once whether the system can be used.
    """
    from snapkeep.cli import output

    rest = common.connect()
    described = rest.request("GET", f"/plugins/{part(plugin)}")
    settings = plain_settings(described, set) | secret_settings(described, secret_file, secret_env, ask, secret_ref)
    system = rest.request(
        "POST", "/systems", json={"name": name, "plugin": plugin, "settings": settings, "queue": queue}
    )
    with output.busy(common, f"Checking {name}"):
        findings = rest.request("POST", f"/systems/{part(name)}/check")["data"] if check else []
    if common.json:
        output.print_json({"system": system, "check": findings})
        return
    output.console.print(f"Added system {name}.", markup=False)
    output.show_findings(findings)
    if any(finding["outcome"] == "failed" for finding in findings):
        correct = (
            f"snapkeep system set {name} --set NAME=VALUE (or --ask, --secret-file), then snapkeep system check {name}"
        )
        output.console.print(f"Correct what failed: {correct}", markup=False, soft_wrap=True)
    else:
        output.console.print(f"Next: snapkeep discover {name}", markup=False)


@app.command(name="list")
def list_systems(*, common: Common = DEFAULT) -> None:
    """List the systems."""
    from snapkeep.cli import labels, output

    columns = [
        ("name", "NAME"),
        ("plugin", "PLUG-IN"),
        ("labels", "LABELS"),
        ("created_at", "ADDED"),
        ("discovered_at", "LAST DISCOVERY"),
    ]
    rows = common.connect().request("GET", "/systems")["data"]
    rows = rows if common.json else [labels.shown(row) for row in rows]
    output.show(common, rows, columns, empty="There is no system yet: add one with `snapkeep system add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show the settings of a system, without its secrets.

    Parameters
    ----------
    name
        Name of the system.
    """
    from snapkeep.cli import labels, output

    found = common.connect().request("GET", f"/systems/{part(name)}")
    output.show_one(common, found if common.json else labels.shown(found))


@app.command
def label(
    name: str,
    /,
    *labels: str,
    remove: Several = (),
    common: Common = DEFAULT,
) -> None:
    """Give a system labels, or take them away; they count for its assets, too.

    Parameters
    ----------
    name
        Name of the system.
    labels
        KEY=VALUE; one that has the key already gets the new value.
    remove
        KEY of a label to take away; repeat it.
    """
    from snapkeep.cli.labels import change

    change(common, common.connect(), name, f"/systems/{part(name)}", labels, remove)


@app.command(name="set")
def change(
    name: str,
    /,
    *,
    set: Annotated[Several, Parameter(name=["--set", "-s"])] = (),
    unset: Annotated[Several, Parameter(name="--unset")] = (),
    secret_file: Annotated[Several, Parameter(name="--secret-file")] = (),
    secret_env: Annotated[Several, Parameter(name="--secret-env")] = (),
    secret_ref: Annotated[Several, Parameter(name="--secret-ref")] = (),
    ask: Annotated[Several, Parameter(name="--ask")] = (),
    queue: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Change settings or secrets of a system, for instance a new password.

    Parameters
    ----------
    name
        Name of the system.
    set
        A setting as NAME=VALUE; repeat it.
    unset
        NAME of a setting or secret to take away.
    secret_file
        A secret as NAME=FILE: the first line of the file; of a private key, all of it.
    secret_env
        A secret as NAME=VARIABLE: taken from the environment.
    secret_ref
        Where a secret is, as NAME=REFERENCE: file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD, as the
        server and its workers see it. It is read whenever they connect.
    ask
        NAME of a secret to type in.
    queue
        Another queue for its operations: the workers that serve it run them.
    """
    from snapkeep.cli import output

    rest = common.connect()
    system, tag = rest.read(f"/systems/{part(name)}")
    plugin = rest.request("GET", f"/plugins/{system['plugin']}")
    settings = plain_settings(plugin, set) | secret_settings(plugin, secret_file, secret_env, ask, secret_ref)
    settings |= dict.fromkeys(unset)
    changed = {"settings": settings, "queue": queue}
    system = rest.request("PATCH", f"/systems/{part(name)}", json=changed, headers={"If-Match": tag})
    if common.json:
        output.print_json(system)
    else:
        output.console.print(f"Changed system {name}. Next: snapkeep system check {name}", markup=False)


@app.command
def check(name: str, /, *, common: Common = DEFAULT) -> None:
    """Say whether a system can be used, and exactly what is missing. Changes nothing.

    Exits with 1 when something failed.

    Parameters
    ----------
    name
        Name of the system.
    """
    from snapkeep.cli import output

    with output.busy(common, f"Checking {name}"):
        findings = common.connect().request("POST", f"/systems/{part(name)}/check")["data"]
    if common.json:
        output.print_json(findings)
    else:
        output.show_findings(findings)
    if any(finding["outcome"] == "failed" for finding in findings):
        raise SystemExit(1)


@app.command
def remove(
    name: str,
    /,
    *,
    force: Annotated[bool, Parameter(negative="")] = False,
    dry_run: DryRun = False,
    common: Common = DEFAULT,
) -> None:
    """Forget a system. What lies on it is not touched.

    Parameters
    ----------
    name
        Name of the system.
    force
        Forget it although snapshots or exports made by Snapkeep are still on it.
    dry_run
        Check everything, say what would be done, and do nothing.
    """
    from snapkeep.cli import output

    if dry_run:
        would(common, common.connect(), "DELETE", f"/systems/{part(name)}", force=force)
        return
    common.connect().request("DELETE", f"/systems/{part(name)}", params={"force": force})
    if common.json:
        output.print_json({"removed": name})
    else:
        output.console.print(f"Removed system {name}.", markup=False)


def discover(name: str, /, *, wait: Wait = True, common: Common = DEFAULT) -> None:
    """Find the assets and snapshots of a system.

    Parameters
    ----------
    name
        Name of the system.
    wait
        Wait for the end.
    """
    rest = common.connect()
    operation = rest.request("POST", f"/systems/{part(name)}/discover")
    operation = follow(common, rest, operation, wait=wait, title=f"Discovering {name}")
    result = operation["result"]
    done(
        common,
        operation,
        f"{name}: {result['assets']:,} assets and {result['snapshots']:,} snapshots"
        f" ({result['assets_gone']:,} and {result['snapshots_gone']:,} no longer exist).\n"
        f"Next: snapkeep asset list {name}",
    )


@plugins.command(name="list")
def list_plugins(*, common: Common = DEFAULT) -> None:
    """List the installed plug-ins."""
    from snapkeep.cli import output

    rows = common.connect().request("GET", "/plugins")["data"]
    output.show(common, rows, [("name", "NAME"), ("title", "SYSTEM"), ("proof", "PROVED BY")], empty="None.")


@plugins.command(name="show")
def show_plugin(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show the settings, capabilities and needed permissions of a plug-in.

    Parameters
    ----------
    name
        Name of the plug-in.
    """
    from snapkeep.cli import output

    plugin = common.connect().request("GET", f"/plugins/{part(name)}")
    if common.json:
        output.print_json(plugin)
        return
    output.show_one(common, plugin, hide=("settings_schema", "secret_fields"))
    schema = plugin["settings_schema"]
    rows = [
        {
            "name": key,
            "needed": "yes" if key in schema.get("required", ()) else "",
            "secret": "yes" if key in plugin["secret_fields"] else "",
            "default": field.get("default"),
            "description": field.get("description", ""),
        }
        for key, field in schema["properties"].items()
    ]
    columns = [("name", "SETTING"), ("needed", "NEEDED"), ("secret", "SECRET"), ("default", "DEFAULT")]
    output.console.print()
    output.show(common, rows, [*columns, ("description", "MEANING")], empty="")


@plugins.command(name="permissions")
def show_permissions(
    name: str,
    /,
    *,
    operations: Several = (),
    common: Common = DEFAULT,
) -> None:
    """Show what an account needs on such a system, and no more: the role or file to make there.

    Parameters
    ----------
    name
        Name of the plug-in.
    operations
        What the account is to do, separated by commas: discover,create,delete, for instance. Default: all that the
        plug-in can do.
    """
    from snapkeep.cli import output

    wanted = [operation for given in operations for operation in given.split(",") if operation]
    grant = common.connect().request("GET", f"/plugins/{part(name)}/permissions", params={"operation": wanted})
    columns = [("name", "RIGHT"), ("operations", "NEEDED TO")]
    if any(right["allows"] for right in grant["rights"]):
        columns.append(("allows", "ALLOWS"))
    if common.json:
        output.print_json(grant)
        return
    output.show(common, grant["rights"], columns, empty="Nothing is needed.")
    say = partial(output.console.print, markup=False, soft_wrap=True)
    say(f"\nHow to grant them ({grant['kind']}):")
    for number, step in enumerate(grant["steps"], 1):
        say(f"{number}. {step}")
    say(f"\n{grant['text']}")
    for limit in grant["limits"]:
        say(f"Note: {limit}")
    if "discover" not in grant["operations"]:
        say("Note: Without `discover` Snapkeep finds nothing on the system that it could work with.")
