"""schemathesis over the whole OpenAPI: all checks, right and wrong input, sequences of calls; on both stores.

A long run by hand: `SCHEMATHESIS_EXAMPLES=200 pytest tests/server/test_schemathesis.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, installed
from tests.support.postgres import Postgres

from snapkeep.cli.rest import Rest

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "1")
SEED = os.environ.get("SCHEMATHESIS_SEED", "1")
PHASES = "examples,coverage,fuzzing,stateful" if "SCHEMATHESIS_EXAMPLES" in os.environ else "examples,fuzzing,stateful"
ENDLESS = "follow_operations"
"""Its answer has no end: tests/server/test_events.py."""


@pytest.fixture(params=["sqlite", "postgresql"])
def fuzzed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    env = {}
    if request.param == "postgresql":
        cluster: Postgres = request.getfixturevalue("postgres")
        env["SNAPKEEP_DATABASE_URL"] = cluster.create_database()
    with installed(tmp_path, **env) as installation:
        installation.add_partner_server()
        installation.add_system()
        installation.discover()
        rest = installation.rest
        vault = {"name": "vault", "location": str(tmp_path / "vault"), "password": "correct horse"}
        rest.request("POST", "/repositories", json=vault)
        rest.request("POST", "/identities", json={"name": "ann"})
        rest.request("PUT", "/roles/own", json={"actions": ["asset.read"]})
        asset = installation.snapshot("first")["asset_id"]
        installation.run("POST", f"/assets/{asset}/backups", {"repository": "vault"})
        yield installation


def known(rest: Rest) -> str:
    """Return the configuration that makes every other request be about something that is there."""
    text = []
    for name, values in (
        ("asset_id", [item["id"] for item in rest.request("GET", "/assets")["data"]]),
        ("snapshot_id", [item["id"] for item in rest.request("GET", "/snapshots")["data"]]),
        ("operation_id", [item["id"] for item in rest.request("GET", "/operations")["data"]]),
        ("backup_id", [item["id"] for item in rest.request("GET", "/backups")["data"]]),
        ("name", ["files1", "vault", "ann", "nutanix-files", "own"]),
    ):
        text.append(f"[dictionaries.{name}]\nvalues = {json.dumps(values)}\n")
        text.append(f'[parameters."path.{name}"]\ndictionary = "{name}"\nprobability = 0.5\n')
    return "\n" + "\n".join(text)


def test_schemathesis_finds_nothing(fuzzed: Installation, tmp_path: Path) -> None:
    token = (fuzzed.server.data_dir / "token").read_text().strip()
    description = tmp_path / "openapi.json"
    description.write_text(json.dumps(fuzzed.rest.request("GET", "/openapi.json")))
    trust = json.loads((fuzzed.server.data_dir / "server.json").read_text()).get("ca_file", "false")
    config = tmp_path / "schemathesis.toml"
    config.write_text(Path(__file__).with_name("schemathesis.toml").read_text() + known(fuzzed.rest))
    world = {"directory": str(tmp_path / "world"), "settings": fuzzed.settings()}
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
        *("run", str(description), "--url", fuzzed.rest.url, "--header", f"Authorization: Bearer {token}"),
        *("--tls-verify", trust, "--exclude-operation-id", ENDLESS, "--checks", "all", "--phases", PHASES),
        *("--max-examples", EXAMPLES, "--seed", SEED, "--no-color", "--continue-on-failure", "--request-retries", "1"),
        *("--warnings", "off"),
    ]
    env = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.server.schemathesis_hooks",
        "SNAPKEEP_TEST_WORLD": json.dumps(world),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5000:]
    assert "failed unexpectedly" not in fuzzed.server.said()
