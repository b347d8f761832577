"""`snapkeep provider`, and `snapkeep login --browser` and `--device`, with a real provider."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.single_sign_on.logins import Logins
from tests.support.installation import Installation, Ran
from tests.support.oidc import CHECKOUT, SECRET, OidcProvider, free_port

from snapkeep.cli.providers import parse_grant
from snapkeep.model.errors import InvalidInput

BROWSER = """#!{python}
import sys
sys.path.insert(0, {checkout!r})
import ssl
from tests.support.oidc import Browser
browser = Browser(ssl.create_default_context(cafile={authority!r}))
back = browser.log_in_until_back(sys.argv[1], {name!r}, agrees={agrees!r})
browser.open(back.replace("state=", {before!r}))
browser.close()
"""


class Person:
    """Somebody with a home of his own, and a browser in which he is called `name`."""

    def __init__(self, installation: Installation, home: Path, provider: OidcProvider) -> None:
        self.installation = installation
        self.home = home
        self.provider = provider
        self.name = "alice"
        self.agrees = True
        self.state = "state="

    def env(self) -> dict[str, str]:
        script = self.home / "browser"
        script.write_text(
            BROWSER.format(
                python=sys.executable,
                checkout=str(CHECKOUT),
                authority=str(self.provider.folder / "provider.ca.pem"),
                name=self.name,
                agrees=self.agrees,
                before=self.state,
            )
        )
        script.chmod(0o700)
        data_dir = str(self.installation.server.data_dir)
        return {"XDG_CONFIG_HOME": str(self.home), "BROWSER": f"{script} %s &", "SNAPKEEP_DATA_DIR": data_dir}

    def __call__(self, *arguments: str) -> Ran:
        return self.installation.cli(*arguments, env=self.env())

    @contextlib.contextmanager
    def begun(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """Begin a command, which goes on meanwhile."""
        command = [sys.executable, "-m", "snapkeep", *arguments]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | self.env()
        ) as child:
            try:
                yield child
            finally:
                child.kill()


@pytest.fixture
def person(installation: Installation, logins: Logins, tmp_path: Path) -> Person:
    return Person(installation, tmp_path, logins.provider)


def test_in_a_browser(person: Person) -> None:
    said = person("login", "--browser")
    assert said.code == 0, said
    assert "as alice, until" in said.out
    assert f"Log in with corp in a browser of this machine:\n{person.provider.issuer}/auth?" in said.err
    me = person("whoami", "-o", "json").json()
    assert (me["name"], me["kind"]) == ("alice", "user")
    kept = json.loads((person.home / "snapkeep/credentials.json").read_text())
    assert [item["provider"] for item in kept.values()] == ["corp"]
    again = person("login", "--browser", "--provider", "corp", "-o", "json").json()
    assert again["name"] == "alice"
    sessions = person("token", "list", "-o", "json").json()
    assert len(sessions) == 1, "the session before has ended"
    refused = person("password", "--old-password-file", str(person.home / "browser"), "--password-file", "/dev/null")
    assert refused.code != 0
    assert person("logout").code == 0
    assert SECRET not in said.out + said.err


def test_by_a_code(person: Person) -> None:
    with person.begun("login", "--device", "-o", "json") as child:
        assert child.stderr
        shown = child.stderr.readline()
        found = re.search(r"Open (https://\S+) on any device, and type the code (\S+)", shown)
        assert found, shown
        browser = person.provider.browser()
        browser.agree_on_device(found[1], found[2], "bob")
        browser.close()
        out, err = child.communicate(timeout=30)
        assert child.returncode == 0, err
        assert json.loads(out)["name"] == "bob"
    assert person("whoami", "-o", "json").json()["name"] == "bob"
    person("logout")


def test_who_does_not_agree_is_told(person: Person) -> None:
    person.agrees = False
    said = person("login", "--browser", "-o", "json")
    assert said.code == 8
    assert said.error()["message"] == "The login was refused at corp"
    assert said.error()["vendor_code"] == "access_denied"
    assert not (person.home / "snapkeep").exists()


def test_only_what_belongs_to_the_login_counts(person: Person) -> None:
    """Somebody else on the machine, or a page in the browser, may speak to the port as well."""
    port = free_port()
    with person.begun("login", "--browser", "--port", str(port)) as child:
        assert child.stderr
        lines = [child.stderr.readline(), child.stderr.readline()]
        assert "/auth?" in lines[1]
        person.state = ""
        for path in ("/", "/callback", "/callback?state=x&code=y", "/callback?code=y", "/other?state="):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}")
        quiet = http.client.HTTPConnection("127.0.0.1", port)
        quiet.connect()  # as browsers do, ahead of time
        out, err = child.communicate(timeout=30)
        quiet.close()
        assert child.returncode == 0, (out, err)
    assert "as alice" in out
    person("logout")


def test_what_cannot_go_together(person: Person) -> None:
    for arguments in (
        ("login", "alice", "--browser"),
        ("login", "--browser", "--device"),
        ("login", "--provider", "corp"),
        ("login", "--browser", "--port", "70000"),
        ("provider", "change", "corp", "--no-grants", "--grant", "a=viewer"),
        ("provider", "change", "corp", "--grant", "viewer"),
        ("provider", "add", "x", "--issuer", "https://x", "--client-id", "x", "--public", "--secret-file", "/x"),
    ):
        said = person(*arguments)
        assert said.code == 2, (arguments, said)
        assert "Next:" in said.err
    assert person("login", "--device", "--provider", "other").code == 3


def test_the_life_of_a_provider(installation: Installation, oidc: OidcProvider, tmp_path: Path) -> None:
    person = Person(installation, tmp_path, oidc)
    assert "There is none yet" in person("provider", "list").err
    assert "No identity provider is known here" in person("login", "--browser").err
    secret, authority = tmp_path / "secret", tmp_path / "ca.pem"
    secret.write_text(f"{SECRET}\n")
    authority.write_text(oidc.ca)
    given = ("--client-id", "snapkeep", "--secret-file", str(secret), "--authority", str(authority))
    refused = person("provider", "add", "corp", "--issuer", f"{oidc.issuer}/", *given)
    assert refused.code == 8
    assert f"calls itself '{oidc.issuer}'" in refused.err
    untrusted = person("provider", "add", "corp", "--issuer", oidc.issuer, *given[:4])
    assert untrusted.code == 8
    assert "is not trusted" in untrusted.err
    grants = ("--grant", "storage=operator@asset:files1/projects", "--grant", "cn=a,ou=b=viewer@label:team=web")
    scopes = ("--scope", "openid", "--scope", "profile", "--scope", "groups")
    added = person("provider", "add", "corp", "--issuer", oidc.issuer, *given, *grants, *scopes)
    assert added.code == 0, added
    assert "Next: snapkeep login --browser --provider corp" in added.out
    assert "storage=operator@asset:files1/projects" in person("provider", "list").out
    shown = person("provider", "show", "corp", "-o", "json").json()
    assert shown["scopes"] == ["openid", "profile", "groups"]
    assert shown["grants"][1] == {"group": "cn=a,ou=b", "role": "viewer", "scope": "label:team=web"}
    assert SECRET not in json.dumps(shown)
    said = person("login", "--browser")
    assert said.code == 0, said
    person("logout")
    changed = person("provider", "change", "corp", "--no-grants", "--allow-group", "nobody", "-o", "json").json()
    assert (changed["grants"], changed["allowed_groups"]) == ([], ["nobody"])
    assert "no group that may log in" in person("login", "--browser").err
    assert person("provider", "remove", "corp").code == 2, "it asks, and nobody is there"
    assert "Removed identity provider corp" in person("provider", "remove", "corp", "--yes").out
    assert person("provider", "show", "corp").code == 3


@given(
    st.from_regex(r"[a-zA-Z0-9 =,@:]{1,20}", fullmatch=True).filter(str.strip),
    st.sampled_from(["viewer", "o.p@x"]),
    st.sampled_from(["all", "system:files1", "asset:a-b", "label:team=web", "repository:vault"]),
)
def test_grants_of_groups_round_trip(group: str, role: str, scope: str) -> None:
    assert parse_grant(f"{group}={role}@{scope}") == (group, role, scope)


@pytest.mark.parametrize("text", ["", "=", "a=", "=viewer", "viewer"])
def test_what_is_no_grant_of_a_group(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_grant(text)
