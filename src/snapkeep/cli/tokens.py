"""`snapkeep token`: tokens by which programs act, and sessions."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.references import part
from snapkeep.cli.scopes import Scopes, parse_limit

app = App(name="token", help="Create, list and revoke tokens.")

Json = dict[str, Any]


@app.command
def create(
    name: str,
    /,
    *,
    identity: str | None = None,
    days: int = 90,
    limit: Several = (),
    common: Common = DEFAULT,
) -> None:
    """Make a token, for yourself or for a service account. It is printed this once, alone on standard output.

    Parameters
    ----------
    name
        What it is for.
    identity
        The service account that gets it; default: yourself.
    days
        How long it is valid, 1 to 366.
    limit
        It may do no more than this, as ROLE or ROLE@SCOPE; repeat it. Default: all that its identity may.
    """
    from snapkeep.cli import output

    rest = common.connect()
    scopes = Scopes(rest)
    limits = [{"role": role, "scope": scopes.read(scope)} for role, scope in map(parse_limit, limit)]
    body = {"name": name, "identity": identity, "days": days, "limits": limits or None}
    made = rest.request("POST", "/tokens", json=body)
    if common.json:
        output.print_json(made)
        return
    sys.stdout.write(f"{made['token']}\n")
    sys.stdout.flush()
    about = made["about"]
    until = output.cell("expires_at", about["expires_at"])
    output.errors.print(
        f"Token of {about['identity']}, valid until {until}; it is not shown again. "
        f"Revoke it: snapkeep token revoke {about['id']}",
        markup=False,
        soft_wrap=True,
    )


@app.command(name="list")
def list_tokens(*, everybody: Annotated[bool, Parameter(negative="")] = False, common: Common = DEFAULT) -> None:
    """List your tokens and sessions, the newest first; the tokens themselves are not known any more.

    Parameters
    ----------
    everybody
        Those of all users and service accounts.
    """
    from snapkeep.cli import output

    rest = common.connect()
    rows = rest.request("GET", "/tokens", params={"everybody": everybody})["data"]
    if not common.json:
        scopes = Scopes(rest)
        rows = [{**row, "limits": row["limits"] and scopes.held(row["limits"])} for row in rows]
    columns = [
        ("id", "ID"),
        ("identity", "OF"),
        ("kind", "KIND"),
        ("name", "NAME"),
        ("expires_at", "VALID UNTIL"),
        ("used_at", "LAST USED"),
        ("limits", "LIMITS"),
    ]
    output.show(common, rows, columns, empty="There are no tokens.")


@app.command
def revoke(token: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a token, or end a session: it lets nobody in any more.

    Parameters
    ----------
    token
        Its id, as `snapkeep token list` shows it.
    """
    from snapkeep.cli import output

    common.connect().request("DELETE", f"/tokens/{part(token)}")
    if common.json:
        output.print_json({"revoked": token})
    else:
        output.console.print(f"Revoked {token}.", markup=False, soft_wrap=True)
