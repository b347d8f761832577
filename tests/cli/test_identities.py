"""Users, roles, grants, tokens and labels by the command line alone, as people and programs would use them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import secrets
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.installation import Installation, Ran, Server

from snapkeep.cli import credentials
from snapkeep.cli.credentials import Session
from snapkeep.cli.labels import changed
from snapkeep.cli.main import main
from snapkeep.cli.options import Common
from snapkeep.cli.references import part
from snapkeep.cli.rest import Rest
from snapkeep.cli.scopes import parse_limit
from snapkeep.cli.whoami import KINDS, _places
from snapkeep.identity.attempts import FREE
from snapkeep.model.access import ROLES, Action, Grant, IdentityKind, Principal, Scope, ScopeKind, Subject
from snapkeep.model.errors import InvalidInput, SnapkeepError

Json = dict[str, Any]
DENIED, UNKNOWN, MISSING, WRONG = 9, 8, 3, 2

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # main reads sys.argv


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


@pytest.fixture
def office(installation: Installation, tmp_path: Path) -> Iterator[Office]:
    rest = installation.rest
    for identity in rest.request("GET", "/identities")["data"]:
        rest.request("DELETE", f"/identities/{identity['name']}")
    for role in rest.request("GET", "/roles")["data"]:
        if not role["built_in"]:
            rest.request("DELETE", f"/roles/{role['name']}")
    office = Office(installation, tmp_path)
    yield office
    everything = "\n".join(office.said)
    assert not [secret for secret in office.secrets if secret in everything]
    assert "$argon2" not in everything


def next_step(ran: Ran) -> str:
    return str(ran.error()["next_step"])


# -- the story ---------------------------------------------------------------------------------------------------------
def test_who_may_do_what(office: Office) -> None:
    installation = office.installation
    installation.add_system("files2")
    alice, bob = office.person("alice"), office.person("bob")
    nothing = alice("asset", "list", "-o", "json")
    assert (nothing.code, nothing.error()["details"]["needed"]) == (DENIED, "asset.read")
    assert "Ask a security officer" in next_step(nothing)
    assert "Nothing. Ask a security officer" in alice("whoami").err

    granted = office.must("identity", "grant", "alice", "operator", "--scope", "system:files1")
    assert granted.out == "Granted to alice: operator@system:files1\n"
    scope = "asset:files1/projects"
    assert (
        office.must("identity", "grant", "bob", "viewer", "--scope", scope).out == f"Granted to bob: viewer@{scope}\n"
    )

    assert alice("snapshot", "create", "files1/projects", "--name", "one").code == 0
    refused = alice("snapshot", "delete", "files1/projects@one", "--yes", "-o", "json")
    assert (refused.code, refused.error()["details"]["needed"]) == (DENIED, "snapshot.delete")
    assert "security officer" in next_step(refused)
    assert alice("system", "show", "files2").code == MISSING
    assert [item["name"] for item in alice("system", "list", "-o", "json").json()] == ["files1"]
    for command in (("identity", "list"), ("identity", "grant", "alice", "administrator"), ("role", "remove", "x")):
        assert alice(*command).code == DENIED, command

    assert [item["reference"] for item in bob("asset", "list", "-o", "json").json()] == ["files1/projects"]
    assert [item["reference"] for item in bob("asset", "list", "files1", "-o", "json").json()] == ["files1/projects"]
    assert "projects" in bob("asset", "show", "files1/projects").out
    assert bob("asset", "show", "files1/homes").code == MISSING
    assert bob("snapshot", "create", "files1/projects").code == DENIED
    shown = bob("whoami").out
    assert "viewer  asset:files1/projects" in shown
    assert "system " not in shown.replace("system:", "")  # one asset is not its system

    listed = office.must("identity", "list").out
    assert "viewer@asset:files1/projects" in listed
    assert "operator@system:files1" in office.must("identity", "list").out
    detail = office.must("identity", "show", "bob").out
    assert "asset:files1/projects  administrator" in detail
    wrong = office.admin("identity", "revoke", "bob", "viewer", "-o", "json")
    assert wrong.code == MISSING
    assert scope in next_step(wrong)
    assert office.must("identity", "revoke", "bob", "viewer", "--scope", scope).code == 0
    assert bob("asset", "list").code == DENIED


def test_nobody_changes_what_he_himself_may_do(office: Office) -> None:
    carol = office.person("carol")
    office.must("identity", "grant", "carol", "security-officer")
    office.must("role", "set", "snapshots-only", "snapshot.read", "snapshot.create", "asset.read", "--description", "x")
    for command in (("grant", "carol", "administrator"), ("revoke", "carol", "security-officer"), ("disable", "carol")):
        refused = carol("identity", *command, "-o", "json")
        assert refused.code == DENIED, command
        assert "another security officer" in next_step(refused)
    assert carol("identity", "add", "robot", "--service").code == 0
    assert carol("identity", "grant", "robot", "snapshots-only").code == 0
    assert carol("role", "remove", "snapshots-only", "-o", "json").error()["code"] == "busy"
    assert carol("identity", "remove", "robot", "--yes").code == 0
    assert carol("role", "set", "snapshots-only", "asset.read").code == 0
    assert "x" in carol("role", "show", "snapshots-only").out  # the description stays
    assert carol("role", "remove", "snapshots-only").code == 0
    assert carol("role", "show", "snapshots-only").code == MISSING
    assert carol("asset", "label", "files1/projects", "team=web").code == DENIED


def test_a_token_for_a_script(office: Office, tmp_path: Path) -> None:
    office.must("identity", "add", "robot", "--service")
    office.must("identity", "grant", "robot", "operator")
    limits = ("--limit", "viewer@asset:files1/projects", "--limit", "viewer@system:nowhere")
    made = office.installation.cli("token", "create", "nightly", "--identity", "robot", "--days", "2", *limits)
    assert made.code == 0, made
    token = office.secret(made.out.removesuffix("\n"))
    assert "\n" not in token
    assert token not in made.err
    assert "Token of robot, valid until" in made.err

    file = tmp_path / "token"
    file.write_text(made.out)
    robot = Person(office, "robot")
    assert [item["name"] for item in robot("asset", "list", "-o", "json", SNAPKEEP_TOKEN=token).json()] == ["projects"]
    assert robot("snapshot", "create", "files1/projects", "--token-file", str(file)).code == DENIED
    alice = office.person("alice")
    assert (
        alice("whoami", "--token-file", str(file), "-o", "json").json()["name"] == "robot"
    )  # it goes before a session
    shown = robot("whoami", SNAPKEEP_TOKEN_FILE=str(file)).out
    assert "This token is narrowed to:" in shown
    assert "viewer  asset:files1/projects" in shown
    assert not [line for line in shown.splitlines() if line.startswith("snapshot ") and "create" in line]

    narrowed = robot("token", "create", "more", "--limit", "operator", SNAPKEEP_TOKEN=token)
    assert narrowed.code == DENIED
    assert "viewer@asset:files1/projects, viewer@system:nowhere" in office.must("token", "list", "--everybody").out
    [mine] = robot("token", "list", "-o", "json", SNAPKEEP_TOKEN=token).json()
    assert (mine["name"], mine["identity"], mine["kind"]) == ("nightly", "robot", "api")
    assert office.must("token", "revoke", mine["id"]).code == 0
    ended = robot("asset", "list", "-o", "json", SNAPKEEP_TOKEN=token)
    assert ended.code == UNKNOWN
    assert "snapkeep login" in next_step(ended)
    assert office.admin("token", "create", "mine", "-o", "json").code == WRONG  # the local token is nobody's


# -- sessions ----------------------------------------------------------------------------------------------------------
def test_sessions(office: Office) -> None:
    alice, password = Person(office, "alice"), office.password("alice")
    office.must("identity", "add", "alice", "--password-file", str(password))
    wrong = alice("login", "alice", "--password-file", str(office.password("wrong")), "-o", "json")
    assert (wrong.code, wrong.error()["message"]) == (UNKNOWN, "Name or password is wrong")
    assert not alice.file.exists()
    assert "no session" in alice("logout").out
    said = alice.login(password)
    assert said.code == 0
    assert "as alice, until" in said.out
    assert alice("whoami", "-o", "json").json()["name"] == "alice"
    assert "SNAPKEEP_TOKEN is set" in alice.login(password, SNAPKEEP_TOKEN="x").err
    [session] = alice("token", "list", "-o", "json").json()  # the session before has ended
    assert session["kind"] == "session"

    assert alice("logout").code == 0
    assert json.loads(alice.file.read_text()) == {}
    assert office.must("token", "list", "-o", "json").json() == []

    new = office.password("alice")
    alice.login(password)
    change = ("password", "--old-password-file", str(password), "--password-file", str(new))
    refused = alice(*change[:-1], str(password.with_name("missing")))
    assert refused.code == WRONG
    assert "Next: snapkeep login alice" in alice(*change).out
    assert json.loads(alice.file.read_text()) == {}
    assert alice.login(password).code == UNKNOWN
    assert alice.login(new).code == 0

    office.must("identity", "disable", "alice")
    assert alice("whoami").code == UNKNOWN
    assert alice.login(new).code == UNKNOWN
    office.must("identity", "enable", "alice")
    lost = office.password("alice")
    office.must("identity", "password", "alice", "--password-file", str(lost))
    assert alice.login(lost).code == 0
    assert office.must("identity", "remove", "alice", "--yes").out == "Removed alice.\n"
    gone = alice("whoami", "-o", "json")
    assert gone.code == UNKNOWN
    assert "snapkeep login" in next_step(gone)
    assert alice("logout").code == 0  # what the server does not know any more is forgotten all the same


def test_who_guesses_many_at_once_waits_too(office: Office) -> None:
    name = f"guessed-{secrets.token_hex(4)}"  # the server remembers
    office.must("identity", "add", name, "--no-password")
    rest = Common(data_dir=office.installation.server.data_dir).connect(token="")

    def guess(number: int) -> str:
        with pytest.raises(SnapkeepError) as refused:
            rest.request("POST", "/login", json={"name": name, "password": f"guess number {number}"})
        return refused.value.code

    with ThreadPoolExecutor(12) as pool:
        answers = Counter(pool.map(guess, range(12)))
    rest.close()
    assert answers == {"authentication_failed": FREE, "rate_limited": 12 - FREE}


def test_a_session_that_is_over(office: Office) -> None:
    alice = office.person("alice")
    office.database("UPDATE tokens SET expires_at = '2020-01-01 00:00:00'")
    over = alice("whoami", "-o", "json")
    assert over.code == UNKNOWN
    assert "snapkeep login" in next_step(over)
    sessions = json.loads(alice.file.read_text())
    for session in sessions.values():
        session["expires_at"] = "2020-01-01T00:00:00+00:00"
    alice.file.write_text(json.dumps(sessions))
    known = alice("whoami", "-o", "json")
    assert (known.code, next_step(known)) == (UNKNOWN, "Log in: `snapkeep login alice`.")


def test_sessions_are_kept_by_server(office: Office, tmp_path: Path) -> None:
    other = Server(tmp_path / "other")
    try:
        other.start()
        alice, here = Person(office, "alice"), office.password("alice")
        there = office.password("there")
        office.must("identity", "add", "alice", "--password-file", str(here))
        elsewhere = {"SNAPKEEP_DATA_DIR": str(other.data_dir)}
        added = alice("identity", "add", "alice", "--password-file", str(there), **elsewhere)
        assert added.code == 0, added
        assert alice.login(here, **elsewhere).code == UNKNOWN
        assert alice.login(there, **elsewhere).code == 0
        assert alice("whoami", "-o", "json").json()["kind"] == "local"
        assert alice.login(here).code == 0
        assert alice("logout", **elsewhere).code == 0
        assert alice("whoami", "-o", "json").json()["kind"] == "user"
        told = json.loads((office.installation.server.data_dir / "server.json").read_text())
        remote = {"SNAPKEEP_URL": f"{told['url']}/", "SNAPKEEP_CA_FILE": told["ca_file"]}
        assert alice("whoami", "-o", "json", **remote).json()["kind"] == "user"
        untrusted = alice("logout", "-o", "json", SNAPKEEP_URL=told["url"])
        assert "is not trusted" in untrusted.error()["message"]
        assert alice("whoami", "-o", "json").json()["kind"] == "user"  # what is not ended is not forgotten
        assert alice("whoami", "-o", "json", **elsewhere).json()["kind"] == "local"
    finally:
        other.close()


def test_the_file_of_sessions_is_for_its_owner_alone(office: Office) -> None:
    alice, password = Person(office, "alice"), office.password("alice")
    office.must("identity", "add", "alice", "--password-file", str(password))
    before = os.umask(0)
    try:
        assert alice.login(password).code == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(alice.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(alice.file.parent.stat().st_mode) == 0o700
    assert list(alice.file.parent.iterdir()) == [alice.file]
    for mode in (0o640, 0o604, 0o620):
        alice.file.chmod(mode)
        refused = alice("whoami", "-o", "json")
        assert refused.code == WRONG
        assert f"chmod 600 {alice.file}" in next_step(refused)
        assert alice.login(password).code == WRONG
    alice.file.chmod(0o600)
    assert alice("whoami").code == 0
    alice.file.write_text("{")
    assert "log in again" in next_step(alice("whoami", "-o", "json"))
    assert alice("asset", "list", SNAPKEEP_TOKEN="wrong").code == UNKNOWN  # with a token the file is not looked at


def test_a_session_that_cannot_be_kept_is_ended(office: Office) -> None:
    alice, password = Person(office, "alice"), office.password("alice")
    office.must("identity", "add", "alice", "--password-file", str(password))
    alice.home.mkdir()
    (alice.home / "snapkeep").symlink_to("nowhere")
    refused = alice.login(password)
    assert refused.code == WRONG
    assert "Traceback" not in refused.err
    assert office.must("token", "list", "-o", "json").json() == []


# -- at a terminal -----------------------------------------------------------------------------------------------------
def at_terminal(person: Person, *arguments: str, types: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command at a terminal of its own: after each prompt type a line. Return its end and what was to be seen."""
    controller, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "snapkeep", *arguments],
        stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True, close_fds=True,
        env=os.environ | person.env(),
    )  # fmt: skip
    os.close(terminal)
    seen = ""
    waiting = list(types)
    after = 0
    while True:
        try:
            read = os.read(controller, 4096)
        except OSError:  # the other end has left
            break
        if not read:
            break
        seen += read.decode()
        if waiting and waiting[0][0] in seen[after:]:
            after = len(seen)
            os.write(controller, waiting.pop(0)[1].encode() + b"\n")
    os.close(controller)
    return child.wait(30), seen


def test_passwords_are_typed_unseen(office: Office) -> None:
    local, password = Person(office, "local"), office.secret("correct horse battery staple")
    other = office.secret("another horse battery staple")
    code, seen = at_terminal(
        local, "identity", "add", "alice", types=[("Password of alice: ", password), ("Once more: ", other)]
    )
    assert code == WRONG
    assert "two different passwords" in seen
    code, seen = at_terminal(
        local, "identity", "add", "alice", types=[("Password of alice: ", password), ("Once more: ", password)]
    )
    assert code == 0, seen
    assert password not in seen
    code, seen = at_terminal(local, "login", "alice", types=[("Password of alice at ", password)])
    assert code == 0, seen
    assert password not in seen
    assert local("whoami", "-o", "json").json()["name"] == "alice"
    code, seen = at_terminal(local, "login", types=[("Password of alice at ", "\x04")])  # whose session there was
    assert (code, "The password is empty" in seen) == (WRONG, True), seen
    for command in (("login", "alice"), ("identity", "add", "bob"), ("password",)):
        ran = local(*command, "-o", "json")
        assert ran.code == WRONG
        assert "password-file FILE" in next_step(ran)


# -- labels ------------------------------------------------------------------------------------------------------------
def test_labels(office: Office) -> None:
    web = office.person("web")
    office.must("identity", "grant", "web", "operator", "--scope", "label:team=web")
    assert web("asset", "list", "-o", "json").json() == []
    assert office.must("asset", "label", "files1/projects", "team=web", "env=prod").out == (
        "Labels of files1/projects: env=prod, team=web\n"
    )
    assert [item["name"] for item in web("asset", "list", "-o", "json").json()] == ["projects"]
    assert web("snapshot", "create", "files1/projects").code == 0
    assert web("asset", "label", "files1/homes", "team=web").code == MISSING
    assert web("asset", "label", "files1/projects", "team=db").code == DENIED
    assert "env=prod, team=web" in office.must("asset", "list").out
    assert "env=prod, team=web" in office.must("asset", "show", "files1/projects").out
    for labels, found in ((["team=web"], ["projects"]), (["team=web", "env=test"], []), (["env=prod"], ["projects"])):
        options = [part for label in labels for part in ("--label", label)]
        assert [item["name"] for item in office.must("asset", "list", *options, "-o", "json").json()] == found
    office.must("asset", "label", "files1/projects", "--remove", "team", "env=test")
    assert web("asset", "list", "-o", "json").json() == []
    office.must("system", "label", "files1", "team=web")
    assert "team=web" in office.must("system", "list").out
    assert "team=web" in office.must("system", "show", "files1").out
    assert len(web("asset", "list", "-o", "json").json()) == 4
    assert office.must("system", "label", "files1", "--remove", "team").out == "Labels of files1: none\n"
    assert office.admin("asset", "label", "files1/projects").code == WRONG
    assert office.admin("asset", "label", "files1/projects", "no label").code == WRONG
    assert office.admin("asset", "label", "files1/projects", "Team=web").code == WRONG


label_texts = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


@given(label_texts, label_texts, st.sets(st.sampled_from("abcd")))
def test_changed_labels(before: dict[str, str], add: dict[str, str], remove: set[str]) -> None:
    if not add and not remove:
        with pytest.raises(InvalidInput):
            changed(before, [], [])
        return
    after = changed(before, [f"{key}={value}" for key, value in add.items()], remove)
    assert after.keys() == (before.keys() | add.keys()) - remove
    assert all(after[key] == add.get(key, before.get(key)) for key in after)


# -- programs ----------------------------------------------------------------------------------------------------------
def test_programs_read_every_answer(office: Office) -> None:
    first, second = str(office.password("a")), str(office.password("b"))
    commands: list[tuple[str, ...]] = [
        ("identity", "add", "alice", "--password-file", first),
        ("identity", "add", "robot", "--service"),
        ("identity", "add", "dave", "--no-password"),
        ("identity", "list"),
        ("identity", "show", "alice"),
        ("identity", "grant", "alice", "operator", "--scope", "asset:files1/projects"),
        ("identity", "revoke", "alice", "operator", "--scope", f"asset:{office.installation.asset('projects')['id']}"),
        ("identity", "disable", "alice"),
        ("identity", "enable", "alice"),
        ("identity", "password", "alice", "--password-file", second),
        ("role", "list"),
        ("role", "actions"),
        ("role", "set", "mine", "asset.read", "--description", "reads"),
        ("role", "show", "mine"),
        ("role", "remove", "mine"),
        ("token", "list"),
        ("token", "list", "--everybody"),
        ("whoami",),
        ("asset", "label", "files1/projects", "a=b"),
        ("asset", "list", "--label", "a=b"),
        ("system", "label", "files1", "a=b"),
        ("login", "alice", "--password-file", second),
        ("whoami",),
        ("token", "list"),
        ("password", "--old-password-file", second, "--password-file", first),
        ("logout",),
        ("identity", "remove", "alice", "--yes"),
    ]
    for command in commands:
        ran = office.admin(*command, "--output", "json")
        assert ran.code == 0, (command, ran)
        assert isinstance(ran.json(), list | dict), command
        assert ran.err == "", command
    token = office.admin("token", "create", "t", "--identity", "robot", "-o", "json").json()
    office.said.pop()
    office.said.pop()
    office.secret(token["token"])
    assert office.admin("token", "revoke", token["about"]["id"], "-o", "json").json() == {
        "revoked": token["about"]["id"]
    }
    for command in (("identity", "show", "alice"), ("role", "show", "mine"), ("token", "revoke", "x"), ("password",)):
        ran = office.admin(*command, "--output", "json")
        assert ran.code != 0, command
        assert ran.error()["next_step"], command


HOSTILE = [
    "new\nline\x1b[31mred\x7f", "\u202eü漢🦊", "..", "../systems/files1", "a?force=true#b%2e%00", "x" * 301,
    "y" * 100_000, "\udcff\udcfe",
]  # fmt: skip


def commands_with(name: str, password: Path) -> list[tuple[str, ...]]:
    """Every command that takes a name, with this one."""
    missing = str(password.parent / name)
    return [
        ("identity", "add", "--service", "--", name),
        ("identity", "show", "--", name),
        ("identity", "grant", "alice", "--", name),
        ("identity", "grant", "--", name, "viewer"),
        ("identity", "grant", "alice", "viewer", f"--scope={name}"),
        ("identity", "grant", "alice", "viewer", f"--scope=system:{name}\n"),
        ("identity", "grant", "alice", "viewer", f"--scope=label:{name}"),
        ("identity", "grant", "alice", "viewer", f"--scope=asset:files1/{name}"),
        ("identity", "grant", "alice", "viewer", f"--scope=asset:{name}/x"),
        ("identity", "revoke", "alice", "--", name),
        ("identity", "revoke", "alice", "viewer", f"--scope={name}"),
        ("identity", "disable", "--", name),
        ("identity", "enable", "--", name),
        ("identity", "password", "--password-file", str(password), "--", name),
        ("identity", "password", "alice", f"--password-file={missing}"),
        ("identity", "remove", "--yes", "--", name),
        ("role", "show", "--", name),
        ("role", "set", "--", name, "asset.read"),
        ("role", "set", "--", "mine", name),
        ("role", "remove", "--", name),
        ("token", "create", "t", f"--identity={name}"),
        ("token", "create", "t", "--identity", "alice", f"--limit={name}"),
        ("token", "create", "t", "--identity", "alice", f"--limit=viewer@{name}"),
        ("token", "revoke", "--", name),
        ("login", "alice", f"--password-file={missing}"),
        ("whoami", f"--url={name}"),
        ("login", "alice", "--password-file", str(password), f"--url={name}"),
        ("logout", f"--url={name}"),
        ("asset", "label", "--", name, "a=b"),
        ("asset", "label", "--", f"files1/{name}", "a=b"),
        ("asset", "label", "--", "files1/projects", name),
        ("asset", "label", "--", "files1/projects", f"a={name}\n"),
        ("asset", "list", f"--label={name}"),
        ("asset", "list", "--", name),
        ("system", "label", "--", name, "a=b"),
        ("system", "label", "--", "files1", f"{name}="),
    ]


def test_hostile_names(office: Office) -> None:
    password = office.password("p")
    office.must("identity", "add", "alice", "--no-password")
    before = office.installation.rest.request("GET", "/identities")["data"]
    for command in (command for name in HOSTILE for command in commands_with(name, password)):
        ran = office.admin(*command)
        assert ran.code not in {0, 1, 16}, (command, ran)
        assert "Error: " in ran.err, command
        assert "Next:  " in ran.err, command
        assert "Traceback" not in ran.err, command
        assert all(char.isprintable() for line in ran.err.split("\n") for char in line), (command, ran.err)
        assert len(ran.err) < 3_000 or re.search("no address|does not name", ran.err), (command, ran.err)
    assert office.installation.rest.request("GET", "/identities")["data"] == before
    assert office.installation.asset("projects")["labels"] == {}


def test_hostile_logins(office: Office) -> None:
    for name in ("new\nline\x1b[31mred", "../me", "y" * 100_000, "\udcff"):
        ran = office.admin("login", "--password-file", str(office.password("p")), "--", name)
        assert ran.code in {UNKNOWN, WRONG}
        assert "Next:  " in ran.err
        assert all(char.isprintable() for line in ran.err.split("\n") for char in line)
    assert not Person(office, "local").file.exists()


# -- parts that need no server -----------------------------------------------------------------------------------------
role_names = st.from_regex(r"[a-z0-9]([a-z0-9._@-]{0,8}[a-z0-9])?", fullmatch=True)
scope_texts = st.builds(
    "{}:{}".format, st.sampled_from(["system", "asset", "label", "repository"]), st.text(min_size=1)
) | st.just("all")


@given(role_names, scope_texts)
def test_limits_round_trip(role: str, scope: str) -> None:
    assert parse_limit(f"{role}@{scope}") == (role, scope)
    if not role.endswith("@all"):
        assert parse_limit(role) == (role, "all")


@given(st.text())
def test_a_name_is_one_part_of_a_path(name: str) -> None:
    try:
        quoted = part(name)
    except (InvalidInput, UnicodeEncodeError):
        return
    assert quoted not in {"", ".", ".."}
    assert not set(quoted) & set("/?#\\\n ")


servers = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.example", "b.example", "127.0.0.1", "[::1]"]),
    st.sampled_from(["", ":80", ":443", ":9000"]),
    st.sampled_from(["", "/", "/prefix"]),
)
sessions = st.builds(Session, st.text(), st.text(), st.just("2030-01-01T00:00:00+00:00"))
no_check = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)


@no_check
@given(kept=st.lists(st.tuples(servers, st.booleans(), sessions)))
def test_sessions_are_found_again(
    kept: list[tuple[str, bool, Session]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    expected: dict[str, Session | None] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        for url, forgotten, session in kept:
            if forgotten:
                credentials.forget(url)
            else:
                credentials.keep(url, session)
            plain = url.rstrip("/").replace(":80" if url.startswith("http:") else ":443", "", 1)
            expected[plain] = None if forgotten else session
        for url, wanted in expected.items():
            assert credentials.find(url) == wanted
            assert credentials.find(f"{url}/") == wanted


values = st.recursive(
    st.none() | st.text() | st.integers(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["name", "token", "expires_at"]), inner)
    ),
)


@no_check
@given(content=st.binary() | values.map(lambda value: json.dumps(value).encode()))
def test_a_file_that_is_something_else_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path))
        file = credentials.credentials_file()
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)
        with contextlib.suppress(InvalidInput):
            assert credentials.find("https://a.example") is None


def _keep(number: int) -> None:
    credentials.keep(f"https://host{number}.example", Session("alice", str(number), "2030-01-01T00:00:00+00:00"))


def test_logins_at_the_same_time_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_keep, range(40)))
    assert len(json.loads(credentials.credentials_file().read_text())) == 40


# -- what whoami says is true ------------------------------------------------------------------------------------------
names = st.sampled_from(["a", "b"])
labels = st.sampled_from(["k=1", "k=2"])
scopes = st.just(Scope(ScopeKind.ALL)) | st.one_of(
    *(st.builds(Scope, st.just(kind), names) for kind in (ScopeKind.SYSTEM, ScopeKind.ASSET, ScopeKind.REPOSITORY)),
    st.builds(Scope, st.just(ScopeKind.LABEL), labels),
)
held = st.lists(
    st.builds(lambda role, scope: Grant(role, ROLES[role][1], scope), st.sampled_from(sorted(ROLES)), scopes),
    max_size=4,
).map(tuple)
label_sets = st.frozensets(labels)
ANYTHING = frozenset({"system", "asset", "repository", "labels"})
PARTS: dict[str, frozenset[str]] = {
    "system": frozenset({"system", "labels"}),
    **dict.fromkeys(("asset", "snapshot", "export", "change-list"), ANYTHING - {"repository"}),
    **dict.fromkeys(("backup", "protection", "hold", "lock"), ANYTHING),
    "repository": frozenset({"repository"}),
    **dict.fromkeys(("audit", "identity", "approval", "four-eyes", "cooling", "key"), frozenset()),
    **dict.fromkeys(("system.add", "repository.add"), frozenset()),
}
"""What subjects of these actions have; the subjects of others may have whatever there is."""


def parts_of(action: Action) -> frozenset[str]:
    return PARTS.get(action, PARTS.get(action.partition(".")[0], ANYTHING))


@given(held, st.none() | held, st.sampled_from(sorted(Action)), st.data())
def test_what_whoami_shows_is_what_is_allowed(
    grants: tuple[Grant, ...], limits: tuple[Grant, ...] | None, action: Action, data: st.DataObject
) -> None:
    principal = Principal("alice", IdentityKind.USER, grants, limits)
    places = _places(action, principal)
    drawn = {part: data.draw(label_sets if part == "labels" else names) for part in sorted(parts_of(action))}
    subject = Subject(**drawn)  # type: ignore[arg-type]
    assert principal.may(action, subject) == any(all(scope.holds(subject) for scope in place) for place in places)
    for place in places:  # none is shown in which there can be nothing
        picked = {scope.kind.value: scope.value for scope in place if scope.kind not in {"all", "label"}}
        pairs = frozenset(scope.value for scope in place if scope.kind is ScopeKind.LABEL)
        inside = Subject(**picked, labels=pairs)
        assert all(scope.holds(inside) for scope in place)
        assert picked.keys() | ({"labels"} if pairs else set()) <= parts_of(action)


def test_where_each_action_counts_was_thought_of() -> None:
    nouns = {action.partition(".")[0] for action in Action}
    assert nouns - KINDS.keys() == {"plugin", "operation", "worker", "metrics"}
    assert KINDS.keys() == PARTS.keys()


def test_every_command_of_one_server_asks_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without server, session and token the error says how to come by one."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with pytest.raises(SnapkeepError) as caught:
        Common(data_dir=tmp_path, url="http://127.0.0.1:1").connect()
    assert "snapkeep login" in caught.value.next_step


def test_the_local_token_is_sent_to_its_own_server_alone(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    here = installation.server.data_dir
    ca_file = here / "tls" / "ca.pem"
    Common(data_dir=here, url=installation.rest.url, ca_file=ca_file).connect().close()
    with pytest.raises(InvalidInput, match="no token for https"):
        Common(data_dir=here, url="https://127.0.0.1:1", ca_file=ca_file).connect()
