"""`snapkeep login`, `logout` and `password`: one's own session and password."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from snapkeep.cli.options import DEFAULT, Common
from snapkeep.model.errors import AuthenticationFailed, InvalidInput, SnapkeepError

if TYPE_CHECKING:
    from snapkeep.cli.rest import Rest

Flag = Annotated[bool, Parameter(negative="")]


def login(
    name: str | None = None,
    /,
    *,
    password_file: Path | None = None,
    browser: Flag = False,
    device: Flag = False,
    provider: str | None = None,
    port: int = 0,
    common: Common = DEFAULT,
) -> None:
    """Log in: later commands for this server act in your name, for twelve hours.

    The session is kept in ~/.config/snapkeep/credentials.json, for you alone to read.

    Parameters
    ----------
    name
        Your name in Snapkeep; default: that of the session before, else the one on this machine.
    password_file
        File whose first line is the password; otherwise it is asked for.
    browser
        Log in with an identity provider, in a browser of this machine.
    device
        Log in with an identity provider, by a code that you type on any device.
    provider
        Name of the identity provider; default: the only one that the server knows.
    port
        With --browser: the port of this machine to which the browser comes back; default: any that is free.
    """
    from snapkeep.cli import credentials, output

    rest = common.connect(token="")
    before = credentials.find(rest.url)
    if browser or device or provider is not None:
        _require_one(name, password_file, browser=browser, device=device)
        from snapkeep.cli import single_sign_on

        elsewhere = single_sign_on.on_device(rest, provider) if device else None
        answer, known_by = elsewhere or single_sign_on.in_browser(rest, provider, port)
        name = str(answer["about"]["identity"])
    else:
        name, known_by = name or (before.name if before else _own_name()), None
        answer = _with_password(rest, name, password_file)
    expires_at = str(answer["about"]["expires_at"])
    session = credentials.Session(name, answer["token"], datetime.fromisoformat(expires_at), known_by)
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


def _with_password(rest: Rest, name: str, file: Path | None) -> dict[str, Any]:
    from snapkeep.cli.passwords import get_password

    password = get_password(file, f"Password of {name} at {rest.url}: ")
    return dict(rest.request("POST", "/login", json={"name": name, "password": password}))


def _require_one(name: str | None, password_file: Path | None, *, browser: bool, device: bool) -> None:
    """Raise InvalidInput unless one way to log in was chosen, that with a provider."""
    if name is not None or password_file is not None:
        raise InvalidInput(
            "Who logs in with an identity provider says name and password there, not here",
            next_step="Leave the name away: `snapkeep login --browser`.",
        )
    if browser == device:
        raise InvalidInput(
            "One of --browser and --device is needed",
            next_step="Use --browser where one runs on this machine, else --device.",
        )


def _own_name() -> str:
    from getpass import getuser

    try:
        return getuser()
    except (KeyError, OSError) as error:
        raise InvalidInput("Who logs in is not known", next_step="Give the name: `snapkeep login NAME`.") from error
