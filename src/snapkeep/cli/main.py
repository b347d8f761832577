"""The command `snapkeep`."""

from __future__ import annotations

import os
import sys

from cyclopts import App

from snapkeep import __version__
from snapkeep.model.errors import InvalidInput, SnapkeepError

app = App(
    name="snapkeep",
    help="Protect data with the snapshots that storage already has.",
    version=__version__,
)
app.command("snapkeep.cli.systems:app", name="system", help="Add, list, check and remove systems.")
app.command("snapkeep.cli.systems:discover", name="discover", help="Find the assets and snapshots of a system.")
app.command("snapkeep.cli.reconcile:reconcile", name="reconcile", help="Compare the catalog with systems; mend it.")
app.command("snapkeep.cli.assets:app", name="asset", help="List, show and label what can be protected.")
app.command("snapkeep.cli.snapshots:app", name="snapshot", help="Take, compare, export, restore, delete snapshots.")
app.command("snapkeep.cli.exports:app", name="export", help="List what is open to backup hosts.")
app.command(
    "snapkeep.cli.repositories:app",
    name="repository",
    help="Add, list, check and remove the repositories that hold backups.",
)
app.command("snapkeep.cli.backups:app", name="backup", help="Back up assets; search and restore recovery points.")
app.command("snapkeep.cli.policies:app", name="policy", help="Say what is protected when, and how long; see it before.")
app.command("snapkeep.cli.coverage:coverage", name="coverage", help="Show what is protected, and what is not.")
app.command("snapkeep.cli.reports:app", name="report", help="Report what is covered, what there is and what was done.")
app.command("snapkeep.cli.signals:app", name="signal", help="Show suspicious changes; say that they are harmless.")
app.command("snapkeep.cli.protection:hold_app", name="hold", help="Keep snapshots and backups until released.")
app.command("snapkeep.cli.protection:lock_app", name="lock", help="Keep snapshots and backups until a date.")
app.command("snapkeep.cli.protection:cooling_app", name="cooling", help="Slow down mass deletions.")
app.command("snapkeep.cli.approvals:app", name="approval", help="Approve or refuse what others ask for; do it then.")
app.command("snapkeep.cli.approvals:four_eyes_app", name="four-eyes", help="Let what destroys need others' approval.")
app.command(
    "snapkeep.cli.operations:app",
    name="operation",
    help="List, show, watch, cancel, pause, resume and retry operations.",
)
app.command("snapkeep.cli.login:login", name="login", help="Log in with a password, or with an identity provider.")
app.command("snapkeep.cli.login:logout", name="logout", help="End the session.")
app.command("snapkeep.cli.whoami:whoami", name="whoami", help="Show who you are, and what you may do where.")
app.command("snapkeep.cli.login:change_password", name="password", help="Change your own password.")
app.command("snapkeep.cli.identities:app", name="identity", help="Add, list, grant, revoke, disable, remove users.")
app.command("snapkeep.cli.providers:app", name="provider", help="Manage identity providers (single sign-on).")
app.command("snapkeep.cli.roles:app", name="role", help="List and show roles; make roles of your own.")
app.command("snapkeep.cli.tokens:app", name="token", help="Create, list and revoke tokens.")
app.command("snapkeep.cli.notifications:app", name="notification", help="Tell people by webhook or e-mail.")
app.command("snapkeep.cli.audit:app", name="audit", help="List, export and verify what was done and tried.")
app.command("snapkeep.cli.systems:plugins", name="plugin", help="List the installed plug-ins.")
app.command("snapkeep.cli.serve:serve", name="serve", help="Run the server.")
app.command("snapkeep.cli.serve:worker_app", name="worker", help="Run a worker beside the server; list the workers.")
app.command(
    "snapkeep.cli.database:app", name="database", help="Back up, restore, upgrade and show the catalog's database."
)
app.command("snapkeep.cli.keys:app", name="key", help="List, rotate and retire the keys of the stored secrets.")
app.command("snapkeep.cli.simulator:app", name="simulator", help="Run a simulated system.")
app.command("snapkeep.cli.demo:demo", name="demo", help="Show the whole story in a minute, on real files.")
app.register_install_completion_command(name="--install-completion", add_to_startup=False)


def main() -> None:
    """Run; an error becomes a sentence, a next step and an exit code."""
    try:
        app()
    except SnapkeepError as error:
        from snapkeep.cli.output import print_error

        print_error(error, as_json=_wants_json(sys.argv))
        sys.exit(error.exit_code)
    except UnicodeError as error:
        sys.stderr.write(f"Error: a name or value cannot be used: {error}\nNext:  Give it in UTF-8.\n")
        sys.exit(InvalidInput.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has left: `snapkeep ... | head`
        _close_output()
        sys.exit(141)
    except OSError as error:  # the output cannot be written: disk full, device gone
        _close_output()
        sys.stderr.write(f"Error: {error.strerror or error}\n")
        sys.exit(1)


def _close_output() -> None:
    """Let the interpreter flush into nowhere at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _wants_json(arguments: list[str]) -> bool:
    given = os.environ.get("SNAPKEEP_OUTPUT", "table")
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in {"--output", "-o"}:
            given = argument
        elif argument.startswith("--output="):
            given = argument.partition("=")[2]
    return given == "json"


if __name__ == "__main__":
    main()
