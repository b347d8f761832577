"""Users, roles, grants, tokens and labels by the command line alone, as people and programs would use them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.office import DENIED, MISSING, UNKNOWN, WRONG, Office, Person, next_step

from snapkeep.cli.labels import changed
from snapkeep.model.errors import InvalidInput

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # main reads sys.argv


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
