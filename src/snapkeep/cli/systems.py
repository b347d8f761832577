"""`snapkeep system`, `snapkeep plugin` and `snapkeep discover`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.work import Wait, done, follow
from snapkeep.model.errors import InvalidInput

app = App(name="system", help="Add, list, check and remove the systems that hold data.")
plugins = App(name="plugin", help="List the installed plug-ins and what they can do.")

Json = dict[str, Any]
Pairs = Annotated[list[str], Parameter(negative="", consume_multiple=False)]
FINDINGS = [("check", "CHECK"), ("outcome", "RESULT"), ("message", "FOUND"), ("next_step", "NEXT STEP")]


@app.command
def add(
    name: str,
    /,
    *,
    plugin: str,
    set: Annotated[Pairs, Parameter(name=["--set", "-s"])] = [],  # noqa: B006 - read only
    secret_file: Annotated[Pairs, Parameter(name="--secret-file")] = [],  # noqa: B006
    secret_env: Annotated[Pairs, Parameter(name="--secret-env")] = [],  # noqa: B006
    ask: Annotated[Pairs, Parameter(name="--ask")] = [],  # noqa: B006
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
        A secret as NAME=FILE: the first line of the file.
    secret_env
        A secret as NAME=VARIABLE: taken from the environment.
    ask
        NAME of a secret to type in.
    check
        Look at once whether the system can be used.
    """
    from snapkeep.cli import output

    rest = common.connect()
    described = rest.request("GET", f"/plugins/{plugin}")
    settings = _settings(described, set) | _secrets(described, secret_file, secret_env, ask)
    system = rest.request("POST", "/systems", json={"name": name, "plugin": plugin, "settings": settings})
    findings = rest.request("POST", f"/systems/{name}/check")["data"] if check else []
    if common.json:
        output.print_json({"system": system, "check": findings})
        return
    output.console.print(f"Added system {name}.", markup=False)
    if findings:
        output.show(common, findings, FINDINGS, empty="")
    output.console.print(f"Next: snapkeep discover {name}", markup=False)


@app.command(name="list")
def list_systems(*, common: Common = DEFAULT) -> None:
    """List the systems."""
    from snapkeep.cli import output

    columns = [("name", "NAME"), ("plugin", "PLUG-IN"), ("created_at", "ADDED"), ("discovered_at", "LAST DISCOVERY")]
    rows = common.connect().request("GET", "/systems")["data"]
    output.show(common, rows, columns, empty="There is no system yet: add one with `snapkeep system add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show the settings of a system, without its secrets.

    Parameters
    ----------
    name
        Name of the system.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/systems/{name}"))


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

    findings = common.connect().request("POST", f"/systems/{name}/check")["data"]
    output.show(common, findings, FINDINGS, empty="")
    if any(finding["outcome"] == "failed" for finding in findings):
        raise SystemExit(1)


@app.command
def remove(name: str, /, *, force: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> None:
    """Forget a system. What lies on it is not touched.

    Parameters
    ----------
    name
        Name of the system.
    force
        Forget it although snapshots or exports made by Snapkeep are still on it.
    """
    from snapkeep.cli import output

    common.connect().request("DELETE", f"/systems/{name}", params={"force": force})
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
    operation = rest.request("POST", f"/systems/{name}/discover")
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

    plugin = common.connect().request("GET", f"/plugins/{name}")
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


def _settings(plugin: Json, pairs: Iterable[str]) -> Json:
    """Return settings as the plug-in's schema types them. Raises InvalidInput for a secret on the command line."""
    settings: Json = {}
    properties = plugin["settings_schema"]["properties"]
    for pair in pairs:
        name, value = _pair(pair, "--set NAME=VALUE")
        if name in plugin["secret_fields"]:
            raise InvalidInput(
                f"{name} is a secret: on the command line other users of this machine could read it",
                next_step=f"Use --ask {name}, --secret-file {name}=FILE or --secret-env {name}=VARIABLE.",
            )
        settings[name] = _typed(value, properties.get(name, {}))
    return settings


def _typed(value: str, schema: Json) -> Any:
    kinds = {schema.get("type"), *(item.get("type") for item in schema.get("anyOf", ()))}
    if "boolean" in kinds and value.lower() in {"true", "false", "yes", "no"}:
        return value.lower() in {"true", "yes"}
    for kind, convert in (("integer", int), ("number", float)):
        if kind in kinds:
            try:
                return convert(value)
            except ValueError:
                return value  # the server says what is wrong with it
    return value


def _secrets(plugin: Json, files: Iterable[str], variables: Iterable[str], asked: Iterable[str]) -> Json:
    secrets: Json = {}
    for pair in files:
        name, path = _pair(pair, "--secret-file NAME=FILE")
        try:
            secrets[name] = Path(path).read_text().splitlines()[0]
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise InvalidInput(f"No secret can be read from {path!r}: {error}") from error
    for pair in variables:
        name, variable = _pair(pair, "--secret-env NAME=VARIABLE")
        if variable not in os.environ:
            raise InvalidInput(f"The environment has no variable {variable!r}")
        secrets[name] = os.environ[variable]
    for name in asked:
        from getpass import getpass

        secrets[name] = getpass(f"{name}: ")
    unknown = secrets.keys() - set(plugin["secret_fields"])
    if unknown:
        raise InvalidInput(
            f"Not a secret of this plug-in: {', '.join(sorted(unknown))}",
            next_step=f"Its secrets are: {', '.join(plugin['secret_fields'])}.",
        )
    return secrets


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise InvalidInput(f"{text!r} has not the form {form}")
    return name, value
