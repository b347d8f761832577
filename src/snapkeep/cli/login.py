"""`snapkeep login`, `logout` and `password`: one's own session and password."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, SnapkeepError


def login(name: str | None = None, /, *, password_file: Path | None = None, common: Common = DEFAULT) -> None:
    """Log in: later commands for this server act in your name, for twelve hours.

    The session is kept in ~/.config/snapkeep/credentials.json, for you alone to read.

    Parameters
    ----------
    name
        Your name in Snapkeep; default: that of the session before, else the one on this machine.
    password_file
        File whose first line is the password; otherwise it is asked for.
    """
    from snapkeep.cli import credentials, output
    from snapkeep.cli.passwords import get_password

    rest = common.connect(token="")
    before = credentials.find(rest.url)
    name = name or (before.name if before else _own_name())
    password = get_password(password_file, f"Password of {name} at {rest.url}: ")
    answer = rest.request("POST", "/login", json={"name": name, "password": password})
    expires_at = str(answer["about"]["expires_at"])
    session = credentials.Session(name, answer["token"], datetime.fromisoformat(expires_at))
    try:
        credentials.keep(rest.url, session)
    except SnapkeepError:
        common.connect(token=session.token).request("POST", "/logout")
        raise
    if before:
        with suppress(SnapkeepError):  # it is over already
            common.connect(token=before.token).request("POST", "/logout")
    if common.json:
        output.print_json({"server": rest.url, "name": name, "expires_at": expires_at})
        return
    until = output.cell("expires_at", expires_at)
    output.console.print(f"Logged in at {rest.url} as {name}, until {until}.", markup=False, soft_wrap=True)
    for variable in ("SNAPKEEP_TOKEN", "SNAPKEEP_TOKEN_FILE"):
        if os.environ.get(variable):
            output.errors.print(f"{variable} is set, and goes before the session.", markup=False)


def logout(*, common: Common = DEFAULT) -> None:
    """End the session of `snapkeep login`, here and at the server. Repeating it is harmless."""
    from snapkeep.cli import credentials, output
    from snapkeep.cli.rest import ServerUntrusted

    url = common.connect(token="").url
    session = credentials.find(url)
    if session:
        try:
            common.connect(token=session.token).request("POST", "/logout")
        except ServerUntrusted:
            raise
        except AuthenticationFailed:  # it is over already
            pass
        credentials.forget(url)
    if common.json:
        output.print_json({"server": url, "name": session.name if session else None})
    elif session:
        output.console.print(f"Logged out at {url}.", markup=False, soft_wrap=True)
    else:
        output.console.print(f"There is no session at {url}.", markup=False, soft_wrap=True)


def change_password(
    *, old_password_file: Path | None = None, password_file: Path | None = None, common: Common = DEFAULT
) -> None:
    """Change your own password; all your sessions end, and your tokens stay.

    Parameters
    ----------
    old_password_file
        File whose first line is the old password; otherwise it is asked for.
    password_file
        File whose first line is the new password; otherwise it is asked for, twice.
    """
    from snapkeep.cli import credentials, output
    from snapkeep.cli.passwords import get_password

    rest = common.connect()
    me = rest.request("GET", "/me")
    if me["kind"] != "user":
        raise InvalidInput(f"{me['name']!r} has no password", next_step="Log in as a user: `snapkeep login NAME`.")
    old = get_password(old_password_file, f"Old password of {me['name']}: ", option="--old-password-file")
    new = get_password(password_file, "New password: ", twice=True)
    rest.request("PUT", "/me/password", json={"old": old, "new": new})
    session = credentials.find(rest.url)
    if session and session.name == me["name"]:
        credentials.forget(rest.url)
    if common.json:
        output.print_json({"changed": me["name"]})
    else:
        output.console.print(f"Changed the password of {me['name']}. Next: snapkeep login {me['name']}", markup=False)


def _own_name() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError) as error:
        raise InvalidInput("Who logs in is not known", next_step="Give the name: `snapkeep login NAME`.") from error
