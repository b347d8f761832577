"""An installation as those see it who speak to its command line, each from a home of his own."""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.support.installation import Installation, Ran

from snapkeep.cli.main import main
from snapkeep.cli.options import Common
from snapkeep.cli.rest import Rest

Json = dict[str, Any]
DENIED, UNKNOWN, MISSING, WRONG = 9, 8, 3, 2
"""Exit codes."""


@dataclass
class Office:
    """An installation and all that was said at its command line, where no secret may be found."""

    installation: Installation
    root: Path
    secrets: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def password(self, name: str) -> Path:
        """Make a new password, in a file."""
        file = self.root / f"password-{name}-{len(self.secrets)}"
        file.write_text(f"{self.secret(secrets.token_urlsafe(20))}\nnot this line\n")
        return file

    def secret(self, text: str) -> str:
        self.secrets.append(text)
        return text

    def admin(self, *arguments: str) -> Ran:
        """Run a command as who has the local token."""
        return Person(self, "local")(*arguments)

    def must(self, *arguments: str) -> Ran:
        ran = self.admin(*arguments)
        assert ran.code == 0, ran
        return ran

    def person(self, name: str) -> Person:
        """Make a user, and log him in."""
        person, password = Person(self, name), self.password(name)
        self.must("identity", "add", name, "--password-file", str(password))
        assert person.login(password).code == 0
        return person

    def database(self, statement: str) -> None:
        """Change the catalog itself, as time would."""
        with contextlib.closing(sqlite3.connect(self.installation.server.data_dir / "catalog.sqlite")) as connection:
            connection.execute(statement)
            connection.commit()


@dataclass
class Person:
    """Somebody with a home of his own. Without a session or a token of his own he is who has the local token."""

    office: Office
    name: str

    @property
    def home(self) -> Path:
        return self.office.root / self.name

    @property
    def file(self) -> Path:
        return self.home / "snapkeep" / "credentials.json"

    def env(self) -> dict[str, str]:
        data_dir = str(self.office.installation.server.data_dir)
        return {"XDG_CONFIG_HOME": str(self.home), "SNAPKEEP_DATA_DIR": data_dir}

    def __call__(self, *arguments: str, **env: str) -> Ran:
        """Run a command within this process: many, in little time."""
        out, err = io.StringIO(), io.StringIO()
        opened: list[Rest] = []
        connect = Common.connect

        def connecting(common: Common, token: str | None = None) -> Rest:
            opened.append(connect(common, token))
            return opened[-1]

        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            for variable, value in {**self.env(), **env}.items():
                patch.setenv(variable, value)
            patch.setattr(Common, "connect", connecting)
            patch.setattr("sys.argv", ["snapkeep", *arguments])
            patch.setattr("sys.stdin", io.StringIO())
            with pytest.raises(SystemExit) as left:
                main()
        for rest in opened:  # a process would do that by its end
            rest.close()
        code = left.value.code or 0
        assert isinstance(code, int)
        self.office.said += [out.getvalue(), err.getvalue()]
        return Ran(code, out.getvalue(), err.getvalue())

    def login(self, password: Path, **env: str) -> Ran:
        ran = self("login", self.name, "--password-file", str(password), **env)
        if ran.code == 0:
            self.office.secrets += [item["token"] for item in json.loads(self.file.read_text()).values()]
        return ran


def next_step(ran: Ran) -> str:
    return str(ran.error()["next_step"])
