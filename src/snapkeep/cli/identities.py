"""`snapkeep identity`: users, service accounts and what they were granted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.confirm import agree
from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.cli.scopes import Scopes
from snapkeep.model.errors import InvalidInput, NotFound

app = App(name="identity", help="Add, list, grant, revoke, disable and remove users and service accounts.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]


@app.command
def add(
    name: str,
    /,
    *,
    service: Flag = False,
    password_file: Path | None = None,
    no_password: Flag = False,
    common: Common = DEFAULT,
) -> None:
    """Add a user, or a service account. Nothing is granted to it yet.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '.', '_', '-' and '@'.
    service
        A service account: a program, which has tokens and no password.
    password_file
        File whose first line is the user's password; otherwise it is asked for, twice.
    no_password
        A user who cannot log in until he is given a password.
    """
    from snapkeep.cli import output
    from snapkeep.cli.passwords import get_password

    if password_file and (service or no_password):
        raise InvalidInput("Without a password there is no --password-file", next_step="Leave one of them away.")
    rest = common.connect()
    asks = not service and not no_password
    password = get_password(password_file, f"Password of {name}: ", twice=True) if asks else None
    body = {"name": name, "kind": "service" if service else "user", "password": password}
    added = rest.request("POST", "/identities", json=body)
    if common.json:
        output.print_json(added)
    else:
        kind = "service account" if service else "user"
        output.console.print(f"Added {kind} {name}. Next: snapkeep identity grant {name} ROLE", markup=False)


@app.command(name="list")
def list_identities(*, common: Common = DEFAULT) -> None:
    """List users and service accounts, with what was granted to them as ROLE@SCOPE."""
    from snapkeep.cli import output

    rest = common.connect()
    rows = rest.request("GET", "/identities")["data"]
    if not common.json:
        scopes = Scopes(rest)
        rows = [{**row, "grants": scopes.held(row["grants"])} for row in rows]
    columns = [
        ("name", "NAME"),
        ("kind", "KIND"),
        ("has_password", "PASSWORD"),
        ("disabled", "DISABLED"),
        ("grants", "GRANTS"),
    ]
    output.show(common, rows, columns, empty="There is nobody yet: add a user with `snapkeep identity add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show a user or a service account, and what was granted to it.

    Parameters
    ----------
    name
        Its name.
    """
    from snapkeep.cli import output

    rest = common.connect()
    identity = _get(rest, name)
    output.show_one(common, identity, hide=("id", "grants"))
    if not common.json:
        scopes = Scopes(rest)
        rows = [{**grant, "scope": scopes.shown(grant["scope"])} for grant in identity["grants"]]
        columns = [("role", "ROLE"), ("scope", "SCOPE"), ("granted_by", "GRANTED BY"), ("created_at", "SINCE")]
        output.console.print()
        output.show(common, rows, columns, empty=f"Nothing is granted to {name}.")


@app.command
def grant(name: str, role: str, /, *, scope: str = "all", common: Common = DEFAULT) -> None:
    """Give somebody a role within a scope. Repeating it is harmless.

    Parameters
    ----------
    name
        Name of the user or service account.
    role
        The role; see `snapkeep role list`.
    scope
        Where it counts: all, system:NAME, asset:SYSTEM/ASSET, label:KEY=VALUE or repository:NAME.
    """
    from snapkeep.cli import output

    rest = common.connect()
    scopes = Scopes(rest)
    body = {"role": role, "scope": scopes.read(scope)}
    granted = rest.request("POST", f"/identities/{part(name)}/grants", json=body)
    if common.json:
        output.print_json(granted)
    else:
        _say(f"Granted to {name}: {granted['role']}@{scopes.shown(granted['scope'])}")


@app.command
def revoke(name: str, role: str, /, *, scope: str = "all", common: Common = DEFAULT) -> None:
    """Take a role within a scope away, from now on.

    Parameters
    ----------
    name
        Name of the user or service account.
    role
        The role.
    scope
        The scope of the grant, as `snapkeep identity show` shows it.
    """
    from snapkeep.cli import output

    rest = common.connect()
    scopes = Scopes(rest)
    identity = _get(rest, name)
    wanted = (role, scopes.read(scope))
    found = [item for item in identity["grants"] if (item["role"], item["scope"]) == wanted]
    if not found:
        raise NotFound(
            f"{name!r} was not granted {role!r:.80} within {scope!r:.300}",
            next_step=f"Granted are: {', '.join(scopes.held(identity['grants'])) or 'none'}.",
        )
    rest.request("DELETE", f"/identities/{part(name)}/grants/{found[0]['id']}")
    if common.json:
        output.print_json({"revoked": found[0]})
    else:
        _say(f"Revoked from {name}: {role}@{scopes.shown(found[0]['scope'])}")


@app.command
def disable(name: str, /, *, common: Common = DEFAULT) -> None:
    """Let nobody in under this name, neither by password nor by token. It keeps what was granted to it.

    Parameters
    ----------
    name
        Name of the user or service account.
    """
    _change(common, name, {"disabled": True}, f"Disabled {name}: its sessions have ended, its tokens let nobody in.")


@app.command
def enable(name: str, /, *, common: Common = DEFAULT) -> None:
    """Let somebody in again who was disabled.

    Parameters
    ----------
    name
        Name of the user or service account.
    """
    _change(common, name, {"disabled": False}, f"Enabled {name}.")


@app.command
def password(name: str, /, *, password_file: Path | None = None, common: Common = DEFAULT) -> None:
    """Give a user another password; his sessions end.

    Parameters
    ----------
    name
        Name of the user.
    password_file
        File whose first line is the password; otherwise it is asked for, twice.
    """
    from snapkeep.cli.passwords import get_password

    given = get_password(password_file, f"New password of {name}: ", twice=True)
    _change(common, name, {"password": given}, f"{name} has a new password.")


@app.command
def remove(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove a user or service account, with grants, sessions and tokens. What it did stays on record.

    Parameters
    ----------
    name
        Its name.
    yes
        Do not ask.
    """
    from snapkeep.cli import output

    rest = common.connect()
    _get(rest, name)
    if not yes:
        agree(f"Remove {name}, with its grants and tokens?")
    rest.request("DELETE", f"/identities/{part(name)}")
    if common.json:
        output.print_json({"removed": name})
    else:
        _say(f"Removed {name}.")


def _get(rest: Any, name: str) -> Json:
    return dict(rest.request("GET", f"/identities/{part(name)}"))


def _change(common: Common, name: str, change: Json, sentence: str) -> None:
    from snapkeep.cli import output

    changed = common.connect().request("PATCH", f"/identities/{part(name)}", json=change)
    if common.json:
        output.print_json(changed)
    else:
        _say(sentence)


def _say(sentence: str) -> None:
    from snapkeep.cli import output

    output.console.print(output.printable(sentence), markup=False, soft_wrap=True)
