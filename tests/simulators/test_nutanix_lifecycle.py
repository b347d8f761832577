"""Start, stop, restart, kill: what survives, and what is refused."""

import json
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from snapkeep.simulators.kit.process import SimulatorProcess
from snapkeep.simulators.kit.volumes import Volume
from snapkeep.simulators.nutanix_files.testing import Api

SHARE = "/file-servers/files1/shares/projects"


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_tls_with_its_own_authority(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path) as simulator:
        assert simulator.url.startswith("https://127.0.0.1:")
        api = Api(simulator)
        assert api.get("/config/file-servers").status == 200
        assert "Secure" in api.get("/config/file-servers").headers["set-cookie"]
        api.close()
        fingerprint, password, url = simulator.fingerprint, simulator.password, simulator.url
        assert len(fingerprint or "") == 64
        simulator.restart()
        assert (simulator.fingerprint, simulator.password, simulator.url) == (fingerprint, password, url)
        assert simulator.stop() == 0
        assert simulator.errors() == ""
    for private in ("accounts.json", "tls/server.key"):
        assert stat.S_IMODE((tmp_path / private).stat().st_mode) == 0o600


def test_state_survives_a_restart(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, arguments=["--http"]) as simulator:
        api = Api(simulator)
        live = Path(simulator.control("GET", SHARE)["live"])
        (live / "file").write_text("one")
        share = api.share()
        header = {"NTNX-Request-Id": "r"}
        begun = api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header)
        api.wait(begun)
        entry = {
            "address": {"fqdn": {"value": "host"}},
            "accessType": "READ_ONLY",
            "operationType": "ADD",
        }
        body = {"name": "p", "vendorName": "v", "partnerType": "BACKUP"}
        body["backupServerConfig"] = {"backupClientAccessConfigs": [entry]}  # type: ignore[assignment]
        api.wait(api.call("POST", f"{api.server()}/partner-servers", body))
        simulator.control("PATCH", "/settings", {"task_seconds": 0.01})
        api.close()
        simulator.restart()
        assert simulator.control("GET", "/settings")["task_seconds"] == 0.01
        assert [each["name"] for each in api.get(f"{share}/snapshots").data] == ["one"]
        opened = tmp_path / "access/host/projects/.snapshot/one/file"
        assert opened.read_text() == "one"
        assert api.call("POST", f"{share}/snapshots", {"name": "one"}, headers=header).raw == begun.raw
        api.close()


def test_a_killed_simulator_finishes_its_tasks(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, arguments=["--http"]) as simulator:
        simulator.control("PATCH", "/settings", {"task_seconds": 0.6})
        api = Api(simulator)
        live = Path(simulator.control("GET", SHARE)["live"])
        (live / "file").write_text("one")
        share = api.share()
        tasks = [api.call("POST", f"{share}/snapshots", {"name": f"n{number}"}) for number in range(3)]
        simulator.kill()
        api.close()
        volume = live.parent
        Volume(volume).snapshot("orphan")
        simulator.start()
        for task in tasks:
            assert api.wait(task)["status"] == "SUCCEEDED"
        told = simulator.control("GET", SHARE)["snapshots"]
        assert {each["name"] for each in told} == {"n0", "n1", "n2"}
        assert {each["extId"] for each in told} == set(listing(volume / "snapshots"))
        api.close()


def test_killed_in_the_middle_of_a_copy(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, arguments=["--http"]) as simulator:
        simulator.control("PATCH", "/settings", {"task_seconds": 0})
        api = Api(simulator)
        live = Path(simulator.control("GET", SHARE)["live"])
        for number in range(1500):
            (live / f"f{number}").write_bytes(b"x" * 100)
        share = api.share()
        begun = api.call("POST", f"{share}/snapshots", {"name": "big"})
        time.sleep(0.05)
        simulator.kill()
        api.close()
        simulator.start()
        assert api.wait(begun)["status"] == "SUCCEEDED"
        told = simulator.control("GET", SHARE)["snapshots"]
        assert [each["name"] for each in told] == ["big"]
        assert len(listing(Path(told[0]["path"]))) == 1501
        api.close()


def test_a_stop_does_not_wait_for_what_waits(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, arguments=["--http"]) as simulator:
        api = Api(simulator)
        share = api.share()
        one = api.snapshot(share, "one")
        simulator.control("PATCH", "/settings", {"task_seconds": 60, "cft_seconds": 60})
        simulator.control("POST", "/faults", {"action": "hang", "route": "/config/file-servers"})
        begun = api.call("POST", f"{share}/snapshots", {"name": "two"})
        content = api.compute(share, one)
        with pytest.raises(TimeoutError):
            Api(simulator).call("GET", "/config/file-servers", timeout=0.2)
        begin = time.monotonic()
        assert simulator.stop() == 0
        assert time.monotonic() - begin < 5
        api.close()
        simulator.start()
        assert api.call("GET", content).status == 404
        assert api.compute(share, one) == content
        task = api.call("GET", f"/api/prism/v4.0/config/tasks/{begun.data['extId']}").data
        assert task["status"] in {"QUEUED", "RUNNING"}
        api.close()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "snapkeep.simulators.nutanix_files", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def test_what_prevents_a_start_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = run("--data-dir", str(tmp_path / "a"), "--port", str(taken.getsockname()[1]))
    broken = tmp_path / "broken.json"
    broken.write_text('{"settings": {"nonsense": 1}}')
    config = run("--data-dir", str(tmp_path / "b"), "--config", str(broken))
    missing = run("--data-dir", str(tmp_path / "c"), "--config", str(tmp_path / "missing.json"))
    with SimulatorProcess(tmp_path / "d", arguments=["--http"]):
        used = run("--data-dir", str(tmp_path / "d"))
    for failed, word in ((port, "port"), (config, "nonsense"), (missing, "missing.json"), (used, "another")):
        assert failed.returncode == 2, failed.stderr
        assert failed.stdout == ""
        assert len(failed.stderr.splitlines()) == 1
        assert word in failed.stderr


def test_a_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    account = {"name": "me", "password": "pw", "api_key": "k", "permissions": ["View_*"]}
    server = {"name": "mine", "shares": [{"name": "s", "protocol": "SMB"}]}
    fault = {"action": "status", "route": "/config/file-servers", "status": 503}
    content = {
        "settings": {"task_seconds": 0.01},
        "file_servers": [server],
        "accounts": [account],
        "faults": [fault],
        "replication": {"policies": [{"name": "dr"}]},
    }
    config.write_text(json.dumps(content))
    arguments = ["--http", "--empty", "--config", str(config)]
    with SimulatorProcess(tmp_path / "data", arguments=arguments) as simulator:
        api = Api(simulator, username="me", password="pw")
        assert [api.get("/config/file-servers").status for _ in range(2)] == [503, 200]
        assert [each["name"] for each in api.get("/config/file-servers").data] == ["mine"]
        assert len(api.get("/config/replication-policies").data) == 1
        simulator.restart()
        assert len(simulator.control("GET", "/")["file_servers"]) == 1
        api.close()


def test_without_the_control_api(tmp_path: Path) -> None:
    with SimulatorProcess(tmp_path, arguments=["--http", "--no-control"]) as simulator:
        assert simulator.control_url is None
        api = Api(simulator)
        assert api.call("GET", "/simulator/v1/").status == 404
        api.close()


def test_the_child_process_says_why_it_failed(tmp_path: Path) -> None:
    process = SimulatorProcess(tmp_path, arguments=["--config", "/nonexistent.json"])
    with pytest.raises(RuntimeError, match=r"nonexistent\.json"):
        process.start()
    assert process.stop() is None
