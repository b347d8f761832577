"""Sessions: logging in and out, typed passwords, and the file in which sessions are kept."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import secrets
import stat
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.installation import Installation, Server
from tests.support.office import UNKNOWN, WRONG, Office, Person, next_step

from snapkeep.cli import credentials
from snapkeep.cli.credentials import Session
from snapkeep.cli.options import Common
from snapkeep.identity.attempts import FREE
from snapkeep.model.errors import InvalidInput, SnapkeepError

pytestmark = pytest.mark.filterwarnings("ignore:Cyclopts application invoked without tokens")  # main reads sys.argv


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


def test_hostile_logins(office: Office) -> None:
    for name in ("new\nline\x1b[31mred", "../me", "y" * 100_000, "\udcff"):
        ran = office.admin("login", "--password-file", str(office.password("p")), "--", name)
        assert ran.code in {UNKNOWN, WRONG}
        assert "Next:  " in ran.err
        assert all(char.isprintable() for line in ran.err.split("\n") for char in line)
    assert not Person(office, "local").file.exists()


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


# -- the file ----------------------------------------------------------------------------------------------------------
servers = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["a.example", "b.example", "127.0.0.1", "[::1]"]),
    st.sampled_from(["", ":80", ":443", ":9000"]),
    st.sampled_from(["", "/", "/prefix"]),
)
LATER = datetime(2030, 1, 1, tzinfo=UTC)
sessions = st.builds(Session, st.text(), st.text(), st.just(LATER))
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
    credentials.keep(f"https://host{number}.example", Session("alice", str(number), LATER))


def test_logins_at_the_same_time_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_keep, range(40)))
    assert len(json.loads(credentials.credentials_file().read_text())) == 40
