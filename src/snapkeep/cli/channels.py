"""`snapkeep notification add` and `set`: channels over which people are told of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.passwords import first_line, get_password
from snapkeep.cli.references import part
from snapkeep.model.errors import InvalidInput

adding = App(name="add", help="Add a channel.")

Json = dict[str, Any]
Events = Annotated[Several, Parameter(name="--event")]
Systems = Annotated[Several, Parameter(name="--system")]
Flag = Annotated[bool, Parameter(negative="")]
Tls = Literal["starttls", "tls", "none"]


# -- adding   ----------------------------------------------------------------------------------------------------------
@adding.command(name="webhook")
def add_webhook(
    name: str,
    /,
    *,
    url: str | None = None,
    url_file: Path | None = None,
    url_ref: str | None = None,
    secret_file: Path | None = None,
    secret_ref: str | None = None,
    event: Events = (),
    system: Systems = (),
    per_minute: int = 20,
    ca_file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Add a webhook: each event is sent to an address by POST, signed.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '-' and '.'.
    url
        Address to which events are sent: https://…, or http:// to this machine.
    url_file
        File whose first line is the address, when nobody else may know it.
    url_ref
        Where the server finds the address: file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD.
    secret_file
        File whose first line is the secret that signs; default: the server makes one, and it is shown once.
    secret_ref
        Where the server finds the secret: file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD.
    event
        An event of which it is told; repeat it; default: of all. See `snapkeep notification events`.
    system
        A system of which it is told; repeat it; default: of all.
    per_minute
        So many events within a minute are told one by one, further ones together.
    ca_file
        PEM file on the server with the authority to trust, instead of the machine's own.
    """
    target = {
        "kind": "webhook",
        "url": _secret("url", url_file, url_ref, plain=url),
        "secret": _secret("secret", secret_file, secret_ref),
        "ca_file": _path(ca_file),
    }
    if target["url"] is None:
        raise InvalidInput("A webhook needs an address", next_step="Give --url, --url-file or --url-ref.")
    _add(common, name, target, event, system, per_minute)


@adding.command(name="email")
def add_email(
    name: str,
    /,
    *,
    host: str,
    sender: Annotated[str, Parameter(name="--from")],
    to: Several,
    port: int | None = None,
    tls: Tls = "starttls",
    username: str | None = None,
    password_file: Path | None = None,
    password_ref: str | None = None,
    event: Events = (),
    system: Systems = (),
    per_minute: int = 20,
    ca_file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Add e-mail: each event is sent to some people.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '-' and '.'.
    host
        Name or address of the SMTP server.
    sender
        Address from which it comes.
    to
        Address to which it goes; repeat it.
    port
        Its port; default: 587, with tls 465, with none 25.
    tls
        starttls: the server must offer it; tls: from the beginning; none: without.
    username
        Name to log in with. The password is asked for, unless a file or a reference is given.
    password_file
        File whose first line is the password.
    password_ref
        Where the server finds the password: file:NAME, env:SNAPKEEP_SECRET_NAME or vault:MOUNT/PATH#FIELD.
    event
        An event of which it is told; repeat it; default: of all. See `snapkeep notification events`.
    system
        A system of which it is told; repeat it; default: of all.
    per_minute
        So many events within a minute are told one by one, further ones together.
    ca_file
        PEM file on the server with the authority to trust, instead of the machine's own.
    """
    password = _secret("password", password_file, password_ref)
    if username is not None and password is None:
        password = get_password(None, f"Password of {username} at {host}: ")
    target = {
        "kind": "email",
        "host": host,
        "port": port or {"starttls": 587, "tls": 465, "none": 25}[tls],
        "tls": tls,
        "username": username,
        "password": password,
        "from": sender,
        "to": to,
        "ca_file": _path(ca_file),
    }
    _add(common, name, target, event, system, per_minute)


# -- changing --------------------------------------------------------------------------------------------------------
def change(
    name: str,
    /,
    *,
    event: Events = (),
    all_events: Flag = False,
    system: Systems = (),
    all_systems: Flag = False,
    per_minute: int | None = None,
    on: Annotated[bool | None, Parameter(name="--on", negative="--off")] = None,
    url: str | None = None,
    url_file: Path | None = None,
    url_ref: str | None = None,
    secret_file: Path | None = None,
    secret_ref: str | None = None,
    new_secret: Flag = False,
    host: str | None = None,
    port: int | None = None,
    tls: Tls | None = None,
    username: str | None = None,
    password_file: Path | None = None,
    password_ref: str | None = None,
    sender: Annotated[str | None, Parameter(name="--from")] = None,
    to: Several = (),
    ca_file: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Change a channel: what is not given stays.

    Parameters
    ----------
    name
        Name of the channel.
    event
        An event of which it is told from now on; repeat it.
    all_events
        Tell it of all events.
    system
        A system of which it is told from now on; repeat it.
    all_systems
        Tell it of all systems.
    per_minute
        So many events within a minute are told one by one, further ones together.
    on
        Turn it on or off. While it is off, events are not kept for it.
    url
        Another address of a webhook.
    url_file
        File whose first line is that address.
    url_ref
        Where the server finds that address.
    secret_file
        File whose first line is another secret that signs.
    secret_ref
        Where the server finds the secret.
    new_secret
        Have the server make another secret; it is shown once.
    host
        Another SMTP server. Its password is to be given again, too.
    port
        Another port.
    tls
        starttls: the server must offer it; tls: from the beginning; none: without.
    username
        Another name to log in with.
    password_file
        File whose first line is another password.
    password_ref
        Where the server finds the password.
    sender
        Another address from which it comes.
    to
        An address to which it goes from now on; repeat it.
    ca_file
        PEM file on the server with the authority to trust.
    """
    from snapkeep.cli import output

    target: Json = {
        "url": _secret("url", url_file, url_ref, plain=url),
        "secret": _secret("secret", secret_file, secret_ref),
        "host": host,
        "port": port,
        "tls": tls,
        "username": username,
        "password": _secret("password", password_file, password_ref),
        "from": sender,
        "to": to or None,
        "ca_file": _path(ca_file),
    }
    given = {field: value for field, value in target.items() if value is not None}
    body: Json = {
        "target": given | ({"secret": None} if new_secret else {}),
        "events": [] if all_events else event or None,
        "systems": [] if all_systems else system or None,
        "per_minute": per_minute,
        "enabled": on,
    }
    rest = common.connect()
    _, tag = rest.read(f"/channels/{part(name)}")
    changed = rest.request("PATCH", f"/channels/{part(name)}", json=body, headers={"If-Match": tag})
    if common.json:
        output.print_json(changed)
        return
    output.console.print(f"Changed channel {name}.", markup=False)
    _show_secret(changed)


# -- inside ----------------------------------------------------------------------------------------------------------
def _add(common: Common, name: str, target: Json, event: Several, system: Several, per_minute: int) -> None:
    from snapkeep.cli import output

    body = {
        "name": name,
        "target": {field: value for field, value in target.items() if value is not None},
        "events": event,
        "systems": system,
        "per_minute": per_minute,
    }
    added = common.connect().request("POST", "/channels", json=body)
    if common.json:
        output.print_json(added)
        return
    output.console.print(f"Added channel {name}. Next: snapkeep notification test {name}", markup=False)
    _show_secret(added)


def _show_secret(channel: Json) -> None:
    from snapkeep.cli import output

    if channel["secret"]:
        output.console.print(f"Secret: {channel['secret']}", markup=False, soft_wrap=True)
        output.console.print("Give it to who verifies signatures. It is not shown again.")


def _secret(name: str, file: Path | None, reference: str | None, *, plain: str | None = None) -> Any:
    """Return a secret, or the reference to one, as REST takes it; None: it was not given. Raises InvalidInput."""
    given = [value for value in (file, reference, plain) if value is not None]
    if len(given) > 1:
        raise InvalidInput(f"The {name} was given in more than one way", next_step="Give it once.")
    if reference is not None:
        return {"reference": reference}
    return plain if file is None else first_line(file)


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file.expanduser().absolute())
