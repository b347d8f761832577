"""The image: what its Containerfile says is right, and what it does works as an ordinary user on a read-only root.

No engine builds images here. So the instructions are carried out one by one on a copy of this machine's root, which
stands for the base image, and its command is run as an engine would run it with the options of compose.yaml.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import os
import re
import signal
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from tests.deploy.containerfile import CONTAINERFILE, ROOT, Copy, assignments, read
from tests.deploy.test_units import not_run
from tests.support.installation import until

import snapkeep

COMPOSE = ROOT / "deploy" / "compose.yaml"
BUILD_TOOLS = re.compile(r"\b(gcc|cc|apt|apt-get|pip|curl|wget|git)\b")
KNOWN = {
    *("RUN", "COPY", "WORKDIR", "LABEL", "ENV", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK"),
    *("STOPSIGNAL", "ENTRYPOINT", "CMD"),
}


# -- what is written ---------------------------------------------------------------------------------------------------
def test_the_last_stage_has_no_root_and_no_build_tools() -> None:
    build, final = read()
    assert {each.word for stage in (build, final) for each in stage.instructions} <= KNOWN
    for stage in (build, final):
        assert re.fullmatch(r"docker\.io/library/python:3\.11-slim-bookworm", stage.base)
    assert not [rest for rest in final.all("RUN") if BUILD_TOOLS.search(rest)]
    assert re.fullmatch(r"[1-9][0-9]{3,}:[1-9][0-9]{3,}", final.one("USER"))
    words = [each.word for each in final.instructions]
    assert words.index("USER") > max(number for number, word in enumerate(words) if word in {"RUN", "COPY"})
    assert words.index("USER") < words.index("ENTRYPOINT")
    entry, command = (next(each for each in final.instructions if each.word == word) for word in ("ENTRYPOINT", "CMD"))
    assert [*entry.exec_form, *command.exec_form] == ["/opt/snapkeep/bin/snapkeep", "serve"]
    assert "healthcheck.py" in final.one("HEALTHCHECK")
    labels = assignments(final.one("LABEL"))
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_what_is_kept_lies_in_the_volume_and_no_secret_in_the_image() -> None:
    _, final = read()
    environment = assignments(final.one("ENV"))
    (volume,) = json.loads(final.one("VOLUME"))
    assert environment["SNAPKEEP_DATA_DIR"] == environment["HOME"] == final.one("WORKDIR") == volume
    assert not [name for name in environment if re.search("TOKEN|SECRET|PASSWORD|URL", name)]


def test_everything_is_installed_in_the_tested_releases() -> None:
    (install,) = [rest for rest in read()[0].all("RUN") if "pip install" in rest]
    for command in re.findall(r"pip install [^&]*", install):
        assert "-c constraints.txt" in command
    assert "--no-build-isolation" in install
    assert "pip uninstall -y" in install


def test_what_is_copied_reaches_the_builder_and_nothing_else_does() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    taken = {line[1:] for line in lines if line.startswith("!")}
    assert lines[0] == "*"
    sources: set[str] = set()
    for stage in read():
        for rest in stage.all("COPY"):
            if not rest.startswith("--from="):
                sources.update(rest.split()[:-1])
    assert sources == taken
    assert all((ROOT / source).exists() for source in sources)
    tracked = subprocess.run(["git", "ls-files", "src"], cwd=ROOT, capture_output=True, text=True, check=True)
    ignored = [line.removeprefix("**/") for line in lines if line.startswith("**/")]
    for path in tracked.stdout.splitlines():
        assert not [line for line in ignored for part in Path(path).parts if fnmatch.fnmatch(part, line)]


def installed(site: Path) -> dict[str, str]:
    """Return names and releases of what lies in a directory of packages."""
    found = importlib.metadata.distributions(path=[str(site)])
    return {each.name.lower().replace("_", "-"): each.version for each in found}


def pinned() -> dict[str, str]:
    pins = (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    return {name.lower().replace("_", "-"): version for name, version in pins}


def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load(COMPOSE.read_text())["services"])


@pytest.mark.parametrize("name", services())
def test_a_service_has_no_more_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert any(mount.startswith("/tmp:") for mount in service["tmpfs"])
    assert re.fullmatch(r"[1-9][0-9]+:[1-9][0-9]+", service["user"])
    assert not service.get("privileged")
    for host in service.get("ports", ()):
        assert host.startswith("127.0.0.1:")
    for variable, value in service["environment"].items():
        if re.search("PASSWORD|SECRET|KEY|URL|TOKEN", variable):
            assert variable.endswith("_FILE")
            assert value.removeprefix("/run/secrets/") in service["secrets"]


def test_the_services_fit_the_image() -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    _, final = read()
    for name in ("server", "worker"):
        service = document["services"][name]
        assert service["user"] == final.one("USER")
        assert (COMPOSE.parent / service["build"]["context"]).resolve() == ROOT
        assert ROOT / service["build"]["dockerfile"] == CONTAINERFILE
        assert [volume.partition(":")[2] for volume in service["volumes"]] == json.loads(final.one("VOLUME"))
    assert document["networks"]["inside"] == {"internal": True}
    assert document["services"]["database"]["networks"] == ["inside"]
    for secret in document["secrets"].values():
        assert list(secret) == ["file"]


# -- what is done ------------------------------------------------------------------------------------------------------
def test_the_image_serves_as_an_ordinary_user_on_a_read_only_root(tmp_path: Path) -> None:
    build, final = read()
    copy = Copy(tmp_path)
    probe = copy.shell("id -u")
    if os.geteuid() != 0 or probe.stdout.strip() != "0":
        not_run(f"no copy of the root can be made here: {probe.stderr}")
    copy.build(build)
    copy.build(final)
    assert copy.shell("chmod o+x /root").returncode == 0  # in the copy: where the Python of the base image stands in
    user, environment = final.one("USER"), assignments(final.one("ENV"))
    data = environment["SNAPKEEP_DATA_DIR"]
    kept = tmp_path / "upper" / data.lstrip("/")
    assert (kept.stat().st_uid, kept.stat().st_mode & 0o777) == (int(user.partition(":")[0]), 0o700)
    (site,) = (tmp_path / "upper/opt/snapkeep/lib").glob("python*/site-packages")
    assert list(site.glob("snapkeep/repository/_chunker*.so"))
    packages = installed(site)
    assert packages.pop("snapkeep") == snapkeep.__version__
    assert packages.items() <= pinned().items()
    assert not packages.keys() & {"pip", "setuptools", "wheel", "pytest"}
    given = {**environment, "SNAPKEEP_PORT": "0"}
    by = {each.word: each for each in final.instructions}
    command = copy.run(data, user, *by["ENTRYPOINT"].exec_form, *by["CMD"].exec_form)
    check: list[str] = json.loads(final.one("HEALTHCHECK").partition("CMD ")[2])
    asked = subprocess.run(copy.run(data, user, *check), env=environment, capture_output=True, text=True, check=False)
    assert (asked.returncode, "server.json" in asked.stdout) == (1, True)  # nothing runs yet
    written = time.time()
    tokens = set()
    for _ in range(2):
        log = tmp_path / "log"
        with log.open("w") as output:
            server = subprocess.Popen(command, env=given, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
        try:
            until(lambda said=log: '"ready"' in said.read_text(), 60)
            status = Path(f"/proc/{server.pid}/status").read_text()
            assert f"Uid:\t{user.partition(':')[0]}\t" in status
            for line in ("CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
                assert line in status
            asked = subprocess.run(
                copy.inside(server.pid, user, *check), env=given, capture_output=True, text=True, check=False
            )
            assert (asked.returncode, json.loads(asked.stdout)["status"]) == (0, "ok"), asked.stderr
            address = json.loads((kept / "server.json").read_text())
            trust = ssl.create_default_context(cafile=tmp_path / "upper" / address["ca_file"].lstrip("/"))
            token = (kept / "token").read_text().strip()
            answer = httpx2.get(
                f"{address['url']}/v1/systems", verify=trust, headers={"Authorization": f"Bearer {token}"}
            )
            assert (answer.status_code, answer.json()["data"]) == (200, [])
            tokens.add(token)
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == -signal.SIGTERM, log.read_text()
    assert len(tokens) == 1  # the second server went on with what the first had left
    new = [path for path in (tmp_path / "upper").rglob("*") if path.lstat().st_mtime > written]
    assert {path for path in new if not path.is_relative_to(kept)} == set()
    assert kept / "catalog.sqlite" in new


def test_nothing_can_be_written_elsewhere(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    if os.geteuid() != 0 or copy.shell("install -d -o 10001 -g 10001 /var/lib/snapkeep").returncode:
        not_run("no copy of the root can be made here")
    for path, works in (("/var/lib/snapkeep/x", True), ("/tmp/x", True), ("/x", False), ("/var/tmp/x", False)):
        done = subprocess.run(
            copy.run("/var/lib/snapkeep", "10001:10001", "touch", path), capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) is works, (path, done.stderr)
