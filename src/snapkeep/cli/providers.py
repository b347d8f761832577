"""`snapkeep provider`: identity providers (OpenID Connect), by whose word people log in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from snapkeep.cli.confirm import agree
from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.references import part
from snapkeep.cli.scopes import Scopes, parse_limit
from snapkeep.model.errors import InvalidInput

app = App(name="provider", help="Add, list, change and remove identity providers (single sign-on).")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]
_WITH_LABEL = re.compile(r"(.+)=([^=]+@label:[^=]+=[^=]+)")


@app.command
def add(
    name: str,
    /,
    *,
    issuer: str,
    client_id: str,
    secret_file: Path | None = None,
    public: Flag = False,
    scope: Several = (),
    name_claim: str = "preferred_username",
    groups_claim: str = "groups",
    allow_group: Several = (),
    grant: Several = (),
    authority: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Add an identity provider. It has to answer now; register Snapkeep there first.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '-' and '.'.
    issuer
        Its issuer, exactly as it writes it: an https address.
    client_id
        As what it knows Snapkeep.
    secret_file
        File whose first line is the client secret; otherwise it is asked for.
    public
        There is no client secret.
    scope
        Ask for this scope; may be given several times. Default: openid and profile.
    name_claim
        The claim that becomes the name of who is new here.
    groups_claim
        The claim with somebody's groups.
    allow_group
        Only who is in this group may log in, or in another one that is given. Default: all.
    grant
        GROUP=ROLE or GROUP=ROLE@SCOPE: what a group gives, at each login anew; may be given several times.
    authority
        PEM file with the authority of its certificate, instead of those of the server's machine.
    """
    from snapkeep.cli import output

    if public and secret_file:
        raise InvalidInput("A public client has no secret", next_step="Leave --public or --secret-file away.")
    rest = common.connect()
    body: Json = {
        "name": name,
        "issuer": issuer,
        "client_id": client_id,
        "client_secret": None if public else _secret(name, secret_file),
        "name_claim": name_claim,
        "groups_claim": groups_claim,
        "allowed_groups": list(allow_group),
        "grants": _grants(rest, grant),
        "ca": _pem(authority),
    }
    added = rest.request("POST", "/providers", json=body | ({"scopes": list(scope)} if scope else {}))
    if common.json:
        output.print_json(added)
    else:
        _say(f"Added identity provider {name}. Next: snapkeep login --browser --provider {name}")


@app.command(name="list")
def list_providers(*, common: Common = DEFAULT) -> None:
    """List the identity providers."""
    from snapkeep.cli import output

    rest = common.connect()
    rows = [{**row, "grants": _shown(rest, row)} for row in rest.pages("/providers")]
    columns = [("name", "NAME"), ("issuer", "ISSUER"), ("allowed_groups", "ALLOWED GROUPS"), ("grants", "GRANTS")]
    output.show(common, rows, columns, empty="There is none yet: add one with `snapkeep provider add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show an identity provider, and what its groups give.

    Parameters
    ----------
    name
        Its name.
    """
    from snapkeep.cli import output

    rest = common.connect()
    found = rest.request("GET", f"/providers/{part(name)}")
    output.show_one(common, found if common.json else {**found, "grants": _shown(rest, found)}, hide=("id",))


@app.command
def change(
    name: str,
    /,
    *,
    client_id: str | None = None,
    secret_file: Path | None = None,
    scope: Several = (),
    name_claim: str | None = None,
    groups_claim: str | None = None,
    allow_group: Several = (),
    allow_everybody: Flag = False,
    grant: Several = (),
    no_grants: Flag = False,
    authority: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Change an identity provider; what is left away stays. Lists are given anew, whole.

    Parameters
    ----------
    name
        Its name.
    client_id
        As what it knows Snapkeep.
    secret_file
        File whose first line is the new client secret.
    scope
        Ask for this scope; may be given several times.
    name_claim
        The claim that becomes the name of who is new here.
    groups_claim
        The claim with somebody's groups.
    allow_group
        Only who is in this group may log in, or in another one that is given.
    allow_everybody
        All whom the provider lets in may log in.
    grant
        GROUP=ROLE or GROUP=ROLE@SCOPE: what a group gives, at each login anew; may be given several times.
    no_grants
        No group gives anything.
    authority
        PEM file with the authority of its certificate.
    """
    from snapkeep.cli import output
    from snapkeep.cli.passwords import first_line

    if (allow_group and allow_everybody) or (grant and no_grants):
        raise InvalidInput("These options exclude each other", next_step="Leave one of them away.")
    rest = common.connect()
    given: Json = {
        "client_id": client_id,
        "client_secret": first_line(secret_file) if secret_file else None,
        "scopes": list(scope) or None,
        "name_claim": name_claim,
        "groups_claim": groups_claim,
        "allowed_groups": [] if allow_everybody else list(allow_group) or None,
        "grants": [] if no_grants else _grants(rest, grant) or None,
        "ca": _pem(authority),
    }
    body = {key: value for key, value in given.items() if value is not None}
    changed = rest.request("PATCH", f"/providers/{part(name)}", json=body)
    if common.json:
        output.print_json(changed)
    else:
        _say(f"Changed identity provider {name}. What its groups give changes at each one's next login.")


@app.command
def remove(
    name: str,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative="")] = False,
    common: Common = DEFAULT,
) -> None:
    """Remove an identity provider: sessions of those whom it knows end, and what its groups gave is taken back.

    Parameters
    ----------
    name
        Its name.
    yes
        Do not ask.
    """
    from snapkeep.cli import output

    rest = common.connect()
    rest.request("GET", f"/providers/{part(name)}")
    if not yes:
        agree(f"Remove the identity provider {name}? Nobody logs in with it any more.")
    rest.request("DELETE", f"/providers/{part(name)}")
    if common.json:
        output.print_json({"removed": name})
    else:
        _say(f"Removed identity provider {name}. Its users are still there: see `snapkeep identity list`.")


def parse_grant(text: str) -> tuple[str, str, str]:
    """Split GROUP=ROLE or GROUP=ROLE@SCOPE; a group may have '=' in its name, as in LDAP. Raises InvalidInput."""
    found = _WITH_LABEL.fullmatch(text)
    group, equals, limit = (found[1], "=", found[2]) if found else text.rpartition("=")
    if not group or not equals or not limit:
        raise InvalidInput(
            f"{text!r:.120} has not the form GROUP=ROLE or GROUP=ROLE@SCOPE",
            next_step="Write for instance storage-team=operator@system:files1.",
        )
    return group, *parse_limit(limit)


def _grants(rest: Any, given: tuple[str, ...]) -> list[Json]:
    scopes = Scopes(rest)
    parsed = (parse_grant(text) for text in given)
    return [{"group": group, "role": role, "scope": scopes.read(scope)} for group, role, scope in parsed]


def _shown(rest: Any, provider: Json) -> list[str]:
    scopes = Scopes(rest)
    return [f"{item['group']}={item['role']}@{scopes.shown(item['scope'])}" for item in provider["grants"]]


def _secret(name: str, file: Path | None) -> str:
    from snapkeep.cli.passwords import get_password

    return get_password(file, f"Client secret of Snapkeep at {name}: ", option="--secret-file")


def _pem(file: Path | None) -> str | None:
    from snapkeep.cli.passwords import content

    return None if file is None else content(file)


def _say(sentence: str) -> None:
    from snapkeep.cli import output

    output.console.print(output.printable(sentence), markup=False, soft_wrap=True)
