"""The vendor's own SDK judges the simulator. It lives in an environment of its own: see `make test`."""

import os
import subprocess
from pathlib import Path

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess

FLOW = Path(__file__).with_name("nutanix_sdk_flow.py")
DEFAULT = Path(__file__).parents[2] / ".venv-nutanix-sdk/bin/python"


@pytest.fixture
def sdk_python() -> Path:
    python = Path(os.environ.get("SNAPKEEP_NUTANIX_SDK_PYTHON") or DEFAULT)
    if not python.exists():
        reason = f"no Python with the Nutanix SDK at {python}; `make test` makes one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


def test_the_vendors_sdk_understands_the_simulator(sdk_python: Path, tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path) as simulator:
        policy = {"name": "dr", "type": "SMART_DR", "replicationConfigurations": []}
        simulator.control("POST", "/replication", {"policies": [policy], "jobs": [{"status": "SUCCEEDED"}]})
        live = simulator.control("GET", "/file-servers/files1/shares/projects")["live"]
        arguments = [simulator.url, simulator.ca_file, simulator.username, simulator.password]
        flow = subprocess.run(
            [sdk_python, str(FLOW), *arguments, simulator.api_key, live],  # type: ignore[list-item]
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert flow.returncode == 0, f"{flow.stdout}\n{flow.stderr}\n{simulator.errors()}"
        assert flow.stdout.count("ok:") > 80, flow.stdout
        assert "SURPRISE" not in flow.stdout
