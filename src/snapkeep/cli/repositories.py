"""`snapkeep repository`: the places that hold backups."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from snapkeep.cli.dry_run import DryRun, would
from snapkeep.cli.options import DEFAULT, Common, Several
from snapkeep.cli.passwords import content, first_line
from snapkeep.cli.references import part
from snapkeep.cli.settings import secret_references
from snapkeep.cli.work import Wait, follow
from snapkeep.model.errors import InvalidInput, SnapkeepError

app = App(name="repository", help="Add, list, check and remove the repositories that hold backups.")

Json = dict[str, Any]
Flag = Annotated[bool, Parameter(negative="")]
PATHS = frozenset({"ca_file", "known_hosts"})
"""What is given as the path of a file on the backup host, not as its content."""


@app.command
def add(
    name: str,
    location: str,
    /,
    *,
    password_file: Path | None = None,
    password_ref: str | None = None,
    secret: Annotated[Several, Parameter(name=["--secret-file", "--secret"])] = (),
    secret_ref: Annotated[Several, Parameter(name="--secret-ref")] = (),
    existing: Flag = False,
    queue: str = "default",
    common: Common = DEFAULT,
) -> None:
    """Make a repository in restic's format, or take one that is there.

    Server and backup host must reach it. Where no password is given, a strong one is made and shown once: without it
    nothing can be restored where Snapkeep's own catalog is lost.

    Parameters
    ----------
    name
        Name of your choice: lower-case letters, digits, '-' and '.'.
    location
        Where it is: /path, s3:https://host/bucket/prefix or sftp:user@host:/path.
    password_file
        File whose first line is the password that opens the repository.
    password_ref
        Where that password is, instead, as for --secret-ref.
    secret
        What the place asks for, as NAME=FILE; repeat it. S3: access_key, secret_key, session_token, region, ca_file.
        SFTP: password, private_key, passphrase, host_key, known_hosts. ca_file and known_hosts are read by the
        backup host itself.
    secret_ref
        Where such a secret is, instead, as NAME=REFERENCE: file:NAME, env:SNAPKEEP_SECRET_NAME or
        vault:MOUNT/PATH#FIELD, as the server and its workers see it. It is read whenever they open the repository.
    existing
        Take a repository that is there, made by Snapkeep or by restic.
    queue
        Queue of its operations: the workers that serve it are the backup hosts.
    """
    from snapkeep.cli import output

    if password_file is not None and password_ref is not None:
        raise InvalidInput("The repository has one password", next_step="Give --password-file or --password-ref.")
    if existing and password_file is None and password_ref is None:
        raise InvalidInput(
            "An existing repository has a password already", next_step="Give --password-file or --password-ref."
        )
    made = _strong_password() if password_file is None and password_ref is None else None
    password: Any = made or {"reference": password_ref}
    if password_file is not None:
        password = first_line(password_file)
    body = {
        "name": name,
        "location": _location(location),
        "password": password,
        "secrets": _secrets(secret) | secret_references(secret_ref),
        "create": not existing,
        "queue": queue,
    }
    rest = common.connect()
    try:
        with output.busy(common, f"{'Opening' if existing else 'Making'} {name}"):
            repository = rest.request("POST", "/repositories", json=body)
    except SnapkeepError as error:
        if made is not None and error.retryable:  # it may have been made all the same
            raise type(error)(error.message, next_step=f"{error.next_step} The password was to be {made}") from error
        raise
    if common.json:
        output.print_json({**repository, **({"password": made} if made else {})})
        return
    output.console.print(f"Added repository {name}: {repository['location']}", markup=False, soft_wrap=True)
    if made:
        output.errors.print(
            f"Its password: {made}\n"
            "Keep it in a safe place, away from this machine. It is not shown again; when it and Snapkeep's catalog "
            "are lost, nothing can be restored.",
            markup=False,
            soft_wrap=True,
        )


@app.command(name="list")
def list_repositories(*, common: Common = DEFAULT) -> None:
    """List the repositories."""
    from snapkeep.cli import output

    columns = [("name", "NAME"), ("location", "LOCATION"), ("queue", "QUEUE"), ("created_at", "ADDED")]
    rows = common.connect().request("GET", "/repositories")["data"]
    output.show(common, rows, columns, empty="There is no repository yet: add one with `snapkeep repository add`.")


@app.command
def show(name: str, /, *, common: Common = DEFAULT) -> None:
    """Show a repository, without its secrets.

    Parameters
    ----------
    name
        Name of the repository.
    """
    from snapkeep.cli import output

    output.show_one(common, common.connect().request("GET", f"/repositories/{part(name)}"))


@app.command
def remove(name: str, /, *, force: Flag = False, dry_run: DryRun = False, common: Common = DEFAULT) -> None:
    """Forget a repository. What lies in it is not touched.

    Parameters
    ----------
    name
        Name of the repository.
    force
        Forget it although recovery points are known in it.
    dry_run
        Check everything, say what would be done, and do nothing.
    """
    from snapkeep.cli import output

    if dry_run:
        would(common, common.connect(), "DELETE", f"/repositories/{part(name)}", force=force)
        return
    common.connect().request("DELETE", f"/repositories/{part(name)}", params={"force": force})
    if common.json:
        output.print_json({"removed": name})
    else:
        output.console.print(f"Removed repository {name}. What lies in it is still there.", markup=False)


@app.command
def check(
    name: str,
    /,
    *,
    data: Literal["none", "sample", "all"] = "none",
    wait: Wait = True,
    common: Common = DEFAULT,
) -> None:
    """Check a repository: all that recovery points refer to is there, and is what was written.

    Exits with 1 when it is not sound.

    Parameters
    ----------
    name
        Name of the repository.
    data
        How much of the data is read, and compared with its checksums, besides the structure.
    wait
        Wait for the end.
    """
    from snapkeep.cli import output

    rest = common.connect()
    operation = rest.request("POST", f"/repositories/{part(name)}/check", json={"data": data})
    operation = follow(common, rest, operation, wait=wait, title=f"Checking {name}")
    found = operation["result"]
    if common.json:
        output.print_json(operation)
    else:
        output.show_one(common, found, hide=("sound", "errors", "error_count", "files_read"))
        for error in found["errors"]:
            output.console.print(output.printable(error), style="red", markup=False, soft_wrap=True)
        verdict, style = (
            ("is sound", "green") if found["sound"] else (f"has {found['error_count']:,} errors", "bold red")
        )
        output.console.print(f"Repository {name} {verdict}.", style=style, markup=False)
    if not found["sound"]:
        raise SystemExit(1)


def _strong_password() -> str:
    from secrets import token_urlsafe

    return token_urlsafe(24)


def _location(text: str) -> str:
    """A relative path is seen from here, not from the directory of the server."""
    local = ":" not in text and not text.startswith("/")
    return str(Path(text).expanduser().absolute()) if local else text


def _secrets(pairs: Iterable[str]) -> Json:
    found: Json = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not path:
            raise InvalidInput(f"{pair!r} has not the form NAME=FILE" if equals else f"{name!r} lacks its =FILE")
        text = str(Path(path).expanduser().absolute()) if name in PATHS else content(Path(path))
        found[name] = text.splitlines()[0] if text.count("\n") <= 1 else text
    return found
