"""Canaries: no secret is anywhere but where it belongs. Each setting that is one gets a value of its own.

It is looked for as it is and in the forms in which it could get out: encoded for URLs, JSON, headers and as bytes.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import httpx2
import pytest
from tests.server.test_health import hidden_table
from tests.support.installation import Installation, Json, installed, until
from tests.support.vault import Vault

from snapkeep.model.errors import SnapkeepError
from snapkeep.model.reports import ReportKind
from snapkeep.plugin.registry import get_plugin, plugin_names

CLOSED = 1
"""A port at which nobody listens."""


class Canaries:
    """Secrets that are known again, whatever form they are in."""

    def __init__(self) -> None:
        self.named: dict[str, str] = {}
        self.seen: list[tuple[str, bytes]] = []
        """What was looked at: a name, and its bytes."""

    def new(self, name: str) -> str:
        """Make one; it has characters that each encoding changes."""
        assert name not in self.named
        return self.keep(name, f"CaNaRy/{len(self.named)}+{base64.b32encode(os.urandom(10)).decode()}%&")

    def keep(self, name: str, secret: str) -> str:
        self.named[name] = secret
        return secret

    def look(self, where: str, content: bytes | str) -> None:
        self.seen.append((where, content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape")))

    def found(self) -> list[str]:
        """Say which secret is where."""
        return [
            f"{name} in {where}"
            for name, secret in self.named.items()
            for where, content in self.seen
            if any(form in content for form in forms(secret))
        ]


def forms(secret: str) -> set[bytes]:
    raw = secret.encode()
    encoded = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode(), json.dumps(secret)[1:-1].encode()}
    encoded |= {raw.hex().encode(), quote(secret).encode()}
    encoded |= {run.encode() for run in re.findall(r"[A-Za-z0-9]{12,}", secret)}  # what no encoding of texts changes
    for before in range(3):  # inside of something longer, as "user:password" in a header
        whole = base64.b64encode(b"\0" * before + raw)
        inner = whole[4:-4]
        encoded |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return encoded


def test_a_canary_is_found_in_each_form() -> None:
    canaries = Canaries()
    secret = canaries.new("a")
    header = base64.b64encode(f"user:{secret}".encode()).decode()
    for text in (secret, quote(secret), json.dumps({"a": secret}), f"Basic {header}", secret.encode().hex()):
        canaries.seen.clear()
        canaries.look("here", f"before {text} behind")
        assert canaries.found() == ["a in here"], text
    canaries.seen.clear()
    canaries.look("here", secret.lower())
    assert canaries.found() == []


# -- what is tried -----------------------------------------------------------------------------------------------------
def systems(canaries: Canaries) -> list[Json]:
    """Systems with each secret of each plug-in; none of them can be reached."""
    bases: dict[str, list[Json]] = {
        "nutanix-files": [
            {"host": "127.0.0.1", "port": CLOSED, "file_server": "f", "username": "u", "password": ""},
            {"host": "127.0.0.1", "port": CLOSED, "file_server": "f", "api_key": ""},
        ],
        "linux-host": [
            {"host": "127.0.0.1", "port": CLOSED, "username": "u", "password": ""},
            {"host": "127.0.0.1", "port": CLOSED, "username": "u", "private_key": "", "passphrase": ""},
        ],
    }
    made: list[Json] = []
    for plugin, settings in bases.items():
        secrets = get_plugin(plugin).settings.secret_fields()
        retrying = {"retry_seconds": 0} if "retry_seconds" in get_plugin(plugin).settings.model_fields else {}
        for number, base in enumerate(settings):
            filled = {key: canaries.new(f"{plugin} {key} {number}") if key in secrets else base[key] for key in base}
            made.append({"name": f"{plugin}-{number}", "plugin": plugin, "settings": {**filled, **retrying}})
    covered = {(item["plugin"], key) for item in made for key in item["settings"]}
    wanted = {(name, key) for name in plugin_names() for key in get_plugin(name).settings.secret_fields()}
    assert wanted <= covered, "a secret of a plug-in has no canary here"
    return made


def repositories(canaries: Canaries) -> list[Json]:
    """Repositories whose places cannot be reached, with each secret that such a place knows."""
    s3 = {name: canaries.new(f"S3 {name}") for name in ("access_key", "secret_key", "session_token")}
    return [
        {"location": f"s3:http://127.0.0.1:{CLOSED}/bucket", "secrets": s3},
        {"location": f"sftp://u@127.0.0.1:{CLOSED}//r", "secrets": {"password": canaries.new("SFTP password")}},
        {
            "location": f"sftp://u@127.0.0.1:{CLOSED}//r2",
            "secrets": {name: canaries.new(f"SFTP {name}") for name in ("private_key", "passphrase")},
        },
    ]


def channels(canaries: Canaries) -> list[Json]:
    """Targets of channels that cannot be reached, with each secret that they have."""
    url = f"http://127.0.0.1:{CLOSED}/{quote(canaries.new('path of a webhook'), safe='')}?key="
    key = base64.b64encode(os.urandom(32)).decode()
    mail = {"kind": "email", "host": "127.0.0.1", "port": CLOSED, "from": "a@example.com", "to": ["b@example.com"]}
    return [
        {
            "kind": "webhook",
            "url": url + quote(canaries.new("query of a webhook"), safe=""),
            "secret": "whsec_" + canaries.keep("secret of a webhook", key),
        },
        {**mail, "username": "u", "password": canaries.new("password of e-mail")},
    ]


def read_everything(installation: Installation, canaries: Canaries) -> int:
    """Read each route that can be read; return how many those were."""
    token = (installation.server.data_dir / "token").read_text().strip()
    client = httpx2.Client(
        base_url=installation.rest.url, verify=installation.trust, headers={"Authorization": f"Bearer {token}"}
    )
    number = 0
    with client:
        for path, methods in client.get("/v1/openapi.json").json()["paths"].items():
            if "get" not in methods:
                continue
            names = re.findall(r"\{(\w+)\}", path)
            for concrete in [path] if not names else concrete_paths(client, path, names[0]):
                parameters = {"pattern": "*", "path": "/"} if "/backups/" in path else {}
                content = b""
                with (
                    suppress(httpx2.TimeoutException),
                    client.stream("GET", concrete, params=parameters, timeout=1.0) as answer,
                ):
                    assert answer.status_code not in {401, 403, 500}, concrete
                    for piece in answer.iter_bytes():
                        content += piece
                canaries.look(f"GET {concrete}", content)
                number += 1
        canaries.look("metrics", client.get("/metrics").content)
        canaries.look("health", client.get("/health/ready").content)
    return number


def concrete_paths(client: httpx2.Client, path: str, name: str) -> list[str]:
    before, _, behind = path.partition(f"{{{name}}}")
    if name == "what":
        return [f"{before}{kind}{behind}" for kind in ReportKind]
    known = client.get(before.rstrip("/")).json()["data"]
    key = "name" if name == "name" else "id"
    return [f"{before}{item.get(key) or item[name]}{behind}" for item in known[:8]]


def provoke(installation: Installation, canaries: Canaries) -> None:
    """Let things fail: what cannot be reached, what is wrong, what breaks inside."""

    def ask(method: str, path: str, body: Any = None) -> None:
        try:
            canaries.look(f"{method} {path}", json.dumps(installation.rest.request(method, path, json=body)))
        except SnapkeepError as error:
            canaries.look(f"{method} {path}", json.dumps(error.to_dict()) + str(error) + repr(error))

    for system in systems(canaries):
        ask("POST", "/systems", system)
        ask("POST", "/systems", system)  # there is one already
        ask("POST", f"/systems/{system['name']}/check")
        ask("POST", f"/systems/{system['name']}/discover")
        secret = next(key for key in system["settings"] if key in get_plugin(system["plugin"]).settings.secret_fields())
        changed = {secret: canaries.new(f"changed {system['name']}")}
        ask("PATCH", f"/systems/{system['name']}", {"settings": changed})
        ask(
            "PATCH",
            f"/systems/{system['name']}",
            {"settings": {**changed, "port": canaries.new(f"port of {system['name']}")}},
        )
        wrong = {**system, "name": f"{system['name']}-x", "settings": {**system["settings"], "no such": 1}}
        ask("POST", "/systems", wrong)
        ask("POST", "/systems", {**wrong, "settings": list(system["settings"].values())})
    for number, repository in enumerate(repositories(canaries)):
        password = canaries.new(f"password of repository {number}")
        ask("POST", "/repositories", {"name": f"r{number}", "password": password, **repository})
        ask("POST", "/repositories", {"name": "../", "password": [password], **repository})
    for number, target in enumerate(channels(canaries)):
        ask("POST", "/channels", {"name": f"c{number}", "target": target})
        ask("POST", "/channels", {"name": f"c{number}", "target": target})  # there is one already
        ask("POST", "/channels", {"name": "../", "target": {**target, "no such": 1}})
        ask("POST", f"/channels/c{number}/test")
        ask("PATCH", f"/channels/c{number}", {"target": {"port": canaries.new(f"port of channel {number}")}})
    ask("POST", "/identities", {"name": "anna", "kind": "user", "password": canaries.new("password of a user")})
    ask("POST", "/login", {"name": "anna", "password": canaries.new("wrong password of a user")})
    ask("POST", "/login", {"name": "anna", "password": [canaries.new("malformed password of a user")]})
    provider = {"name": "corp", "issuer": f"https://127.0.0.1:{CLOSED}", "client_id": "snapkeep"}
    ask("POST", "/providers", {**provider, "client_secret": canaries.new("client secret")})
    ask("POST", "/providers", {**provider, "client_secret": [canaries.new("malformed client secret")]})
    with hidden_table(installation.server.data_dir / "catalog.sqlite", "systems"):  # an error that nobody foresaw
        body = {**installation.settings(), "password": canaries.new("in a request that breaks")}
        ask("POST", "/systems", {"name": "broken", "plugin": "nutanix-files", "settings": body})


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def own(tmp_path: Path, canaries: Canaries) -> Iterator[Installation]:
    vault = Vault(tmp_path / "vault")
    vault.token = canaries.new("token of Vault")
    env = {
        "SNAPKEEP_LOG_LEVEL": "DEBUG",
        "SNAPKEEP_LOG_FORMAT": "json",
        "SNAPKEEP_SECRET_KEY": canaries.keep("secret key", base64.b64encode(os.urandom(32)).decode()),
        "SNAPKEEP_VAULT_TOKEN": vault.token,
        "SNAPKEEP_VAULT_CA_FILE": str(vault.ca_file),
        "SNAPKEEP_SECRET_FILES1": canaries.new("secret in the environment"),
    }
    with vault.running():
        vault.put("kv/files1", password=canaries.new("secret in Vault"))
        with installed(tmp_path / "i", SNAPKEEP_VAULT_ADDRESS=vault.address, **env) as installation:
            token = (installation.server.data_dir / "token").read_text().strip()
            canaries.keep("local token", token)
            yield installation


def test_no_secret_is_anywhere_but_where_it_belongs(own: Installation, canaries: Canaries, tmp_path: Path) -> None:
    directory = own.server.data_dir
    password = canaries.new("password of the system")
    own.simulator.control("POST", "/accounts", {"name": "backup", "password": password})
    own.add_partner_server()
    own.add_system(username="backup", password=password)
    own.discover()
    own.snapshot("first")
    body = {"name": "vault", "location": str(tmp_path / "r"), "password": canaries.new("password of the repository")}
    own.rest.request("POST", "/repositories", json=body)
    own.run("POST", f"/assets/{own.asset()['id']}/backups", {"repository": "vault"})
    (directory / "secrets").mkdir()
    for number, reference in enumerate(("file:files1", "env:SNAPKEEP_SECRET_FILES1", "vault:kv/files1#password")):
        (directory / "secrets" / "files1").write_text(canaries.new(f"secret in a file {number}"))
        settings = own.settings(password={"reference": reference})
        own.rest.request(
            "POST", "/systems", json={"name": f"by{number}", "plugin": "nutanix-files", "settings": settings}
        )
        canaries.look("check", json.dumps(own.rest.request("POST", f"/systems/by{number}/check")))
        with suppress(SnapkeepError):
            own.run("POST", f"/systems/by{number}/discover")

    provoke(own, canaries)
    assert read_everything(own, canaries) > 40
    for command in (["system", "list"], ["system", "show", "files1"], ["operation", "list"], ["repository", "list"]):
        for form in ("json", "table"):
            ran = own.cli(*command, "--output", form)
            assert ran.code == 0, ran.err
            canaries.look(" ".join(command), ran.out + ran.err)
    ran = own.cli("system", "add", "x", "--plugin", "nutanix-files", "--secret-env", "password=X", env={"X": password})
    canaries.look("a command that fails", ran.out + ran.err)
    look_at_processes(canaries)
    first = own.server.said()
    assert '"event":' in first

    own.server.env["SNAPKEEP_LOG_FORMAT"] = "text"
    own.server.end(signal.SIGKILL)
    own.server.start()
    for system in own.rest.request("GET", "/systems")["data"]:
        canaries.look("check", json.dumps(own.rest.request("POST", f"/systems/{system['name']}/check")))
    with hidden_table(directory / "catalog.sqlite", "workers"):
        time.sleep(0.2)
        with suppress(SnapkeepError):
            own.rest.request("GET", "/workers")
    until(lambda: "Traceback" in own.server.said() or "no such table" in own.server.said())
    canaries.look("log", own.server.log.read_bytes())
    for path in filter(Path.is_file, directory.rglob("*")):
        if path.name != "token" and path.parent.name != "secrets":
            canaries.look(str(path.relative_to(directory)), path.read_bytes())
    names = {where for where, _ in canaries.seen}
    assert {"catalog.sqlite", "catalog.sqlite-wal", "engine.sqlite", "server.json", "log", "metrics"} <= names
    assert len(canaries.named) > 30
    assert canaries.found() == []


def look_at_processes(canaries: Canaries) -> None:
    """What every user of the machine sees of processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            canaries.look("a command line", path.read_bytes())
