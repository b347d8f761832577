"""`snapkeep role`: which actions a role allows."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.cli.references import part
from snapkeep.model.access import Action
from snapkeep.model.errors import NotFound

app = App(name="role", help="List and show roles; make roles of your own.")

Json = dict[str, Any]


@app.command(name="list")
def list_roles(*, common: Common = DEFAULT) -> None:
    """List the roles: those that are always there, and your own."""
    from snapkeep.cli import output

    columns = [("name", "ROLE"), ("built_in", "ALWAYS THERE"), ("description", "DESCRIPTION")]
    output.show(common, _roles(common), columns, empty="There are no roles.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show a role with its actions.

    Parameters
    ----------
    name
        Name of the role.
    """
    from snapkeep.cli import output

    found = [role for role in _roles(common) if role["name"] == name]
    if not found:
        raise NotFound(f"There is no role {name!r:.80}", next_step="See `snapkeep role list`.")
    output.show_one(common, found[0])


@app.command
def actions(*, common: Common = DEFAULT) -> None:
    """List all actions, each with the roles that have it."""
    from snapkeep.cli import output

    roles = _roles(common)
    rows = [
        {"action": action.value, "roles": [role["name"] for role in roles if action in role["actions"]]}
        for action in Action
    ]
    output.show(common, rows, [("action", "ACTION"), ("roles", "ROLES")], empty="")


@app.command(name="set")
def change(name: str, /, *actions: str, description: str | None = None, common: Common = DEFAULT) -> None:
    """Make a role of your own, or give it other actions: these, and no others.

    Parameters
    ----------
    name
        Name of the role.
    actions
        What it allows; see `snapkeep role actions`.
    description
        What it is for; default: as before.
    """
    from snapkeep.cli import output

    rest = common.connect()
    if description is None:
        before = [role["description"] for role in rest.request("GET", "/roles")["data"] if role["name"] == name]
        description = before[0] if before else ""
    body = {"description": description, "actions": list(actions)}
    role = rest.request("PUT", f"/roles/{part(name)}", json=body)
    if common.json:
        output.print_json(role)
    else:
        output.console.print(f"Role {name} allows: {', '.join(role['actions'])}", markup=False, soft_wrap=True)


@app.command
def remove(name: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a role of your own that is granted to nobody.

    Parameters
    ----------
    name
        Name of the role.
    """
    from snapkeep.cli import output

    common.connect().request("DELETE", f"/roles/{part(name)}")
    if common.json:
        output.print_json({"removed": name})
    else:
        output.console.print(f"Removed role {name}.", markup=False)


def _roles(common: Common) -> list[Json]:
    return list(common.connect().request("GET", "/roles")["data"])
