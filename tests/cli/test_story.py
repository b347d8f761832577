"""The main job by the command line alone, as a person would do it."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.support.installation import Installation, until


def test_the_main_job(installation: Installation, tmp_path: Path) -> None:
    cli = installation.cli
    live = installation.live()
    assert cli("system", "remove", "files1").code == 0
    secret = tmp_path / "password"
    secret.write_text(installation.simulator.password + "\n")
    settings = installation.settings()
    del settings["password"]
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    added = cli(
        *("system", "add", "files1", "--plugin", "nutanix-files", *options, "--secret-file", f"password={secret}")
    )
    assert added.code == 0, added
    assert "partner server" in added.out
    assert "failed" not in added.out
    assert cli("system", "check", "files1").code == 0
    assert "nutanix-files" in cli("system", "list").out
    shown = cli("system", "show", "files1", "-o", "json").json()
    assert shown["settings"]["file_server"] == "files1"
    assert installation.simulator.password not in json.dumps(shown)

    assert "4 assets and 0 snapshots" in cli("discover", "files1").out
    assert "files1/projects" in cli("asset", "list", "files1").out
    assert "nested share" in cli("asset", "show", "files1/archive").out

    (live / "kept").write_text("same")
    (live / "gone").write_text("x")
    (live / "changed").write_text("old")
    assert cli("snapshot", "create", "files1/projects", "--name", "one").out == "Created files1/projects@one\n"
    (live / "gone").unlink()
    (live / "changed").write_text("longer now")
    (live / "new").write_text("n")
    assert cli("snapshot", "create", "files1/projects", "--name", "two").code == 0
    assert "files1/projects@two" in cli("snapshot", "list", "files1/projects").out

    table = cli("snapshot", "diff", "files1/projects@two", "--base", "one")
    assert table.code == 0
    for word in ("3 changes, complete", "add", "modify", "delete", "changed", "gone", "new"):
        assert word in table.out
    diff = ("snapshot", "diff", "files1/projects@two", "--base", "one")
    found = [json.loads(line) for line in cli(*diff, "--entries", "ndjson").out.splitlines()]
    assert {(entry["operation"], entry["path"]) for entry in found} == {
        ("delete", "gone"),
        ("modify", "changed"),
        ("add", "new"),
    }
    rows = list(csv.DictReader(io.StringIO(cli(*diff, "--entries", "csv").out)))
    assert {row["path"] for row in rows} == {"gone", "changed", "new"}
    assert "gone" not in cli(*diff, "--operation", "add", "--operation", "modify", "--entries", "ndjson").out
    only_one = cli(*diff, "--limit", "1", "--entries", "table", "-o", "json").json()
    assert len(only_one["entries_shown"]) == 1
    assert cli(*diff, "--path", "new", "--entries", "ndjson").out.count("\n") == 1
    assert cli(*diff, "-o", "json").json()["summary"]["operations"]["add"] == {"entries": 1, "bytes": 1}

    exported = cli("snapshot", "export", "files1/projects@one", "-o", "json").json()
    path = Path(exported["result"]["locations"][0]["path"])
    assert (path / "gone").read_text() == "x"
    assert "active" in cli("snapshot", "show", "files1/projects@one").out
    refused = cli("snapshot", "delete", "files1/projects@one", "--yes")
    assert refused.code == 5
    assert "deport" in refused.err
    assert cli("snapshot", "deport", "files1/projects@one").code == 0
    assert not path.exists()
    assert "not exported" in cli("snapshot", "deport", "files1/projects@one").out

    assert cli("snapshot", "restore", "files1/projects@one").code == 2
    assert cli("snapshot", "restore", "files1/projects@one", "--confirm", "projects").code == 0
    assert (live / "gone").read_text() == "x"
    assert cli("snapshot", "clone", "files1/projects@two", "copy", "--confirm", "projects").code == 0
    assert (installation.live("copy") / "new").read_text() == "n"

    assert cli("snapshot", "delete", "files1/projects@one").code == 2
    assert "no such snapshot" in cli("snapshot", "delete", "files1/projects@one", "--yes").out
    assert "gone already" in cli("snapshot", "delete", "files1/projects@one", "--yes").out
    assert [item["name"] for item in cli("snapshot", "list", "-o", "json").json()] == ["two"]

    operations = cli("operation", "list", "-o", "json").json()
    assert operations[0]["kind"] == "delete"
    assert cli("operation", "watch", operations[0]["id"][:8]).code == 0
    assert "succeeded" in cli("operation", "show", operations[0]["id"]).out
    busy = cli("system", "remove", "files1")
    assert busy.code == 5
    assert "--force" in busy.err
    assert cli("system", "remove", "files1", "--force").code == 0
    assert cli("system", "list", "-o", "json").json() == []


def test_without_waiting(installation: Installation) -> None:
    begun = installation.cli("snapshot", "create", "files1/projects", "--no-wait", "-o", "json").json()
    assert begun["state"] in {"queued", "running"}
    assert installation.cli("operation", "watch", begun["id"]).code == 0


def test_cancel(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 4.0})
    begun = installation.cli("snapshot", "create", "files1/projects", "--no-wait", "-o", "json").json()
    assert installation.cli("operation", "cancel", begun["id"]).code == 0
    assert installation.cli("operation", "watch", begun["id"]).code == 17
    assert installation.vendor_snapshots() == []


def test_plugins(installation: Installation) -> None:
    assert "nutanix-files" in installation.cli("plugin", "list").out
    shown = installation.cli("plugin", "show", "nutanix-files").out
    assert "local_exports" in shown
    assert "Create_Mount_Target_Snapshot" in shown


def test_settings_can_be_changed_while_snapshots_stay_known(installation: Installation) -> None:
    installation.snapshot("kept")
    assert installation.cli("system", "set", "files1", "--secret-env", "password=NEW", env={"NEW": "wrong"}).code == 0
    refused = installation.cli("discover", "files1", "-o", "json")
    assert refused.error()["code"] == "authentication_failed"
    right = {"NEW": installation.simulator.password}
    assert installation.cli("system", "set", "files1", "--secret-env", "password=NEW", env=right).code == 0
    assert installation.cli("discover", "files1").code == 0
    assert installation.cli("system", "set", "files1", "--set", "port=99999").code == 2
    assert installation.cli("system", "set", "files1", "--unset", "file_server").code == 2
    [found] = installation.cli("snapshot", "list", "files1", "-o", "json").json()
    assert (found["name"], found["owned"]) == ("kept", True)
    changed = installation.cli("system", "set", "files1", "--set", "retry_seconds=2", "-o", "json").json()
    assert changed["settings"]["retry_seconds"] == 2
    assert changed["settings"]["ca_file"] == installation.simulator.ca_file


def test_relative_paths_are_seen_from_the_command_line(installation: Installation, tmp_path: Path) -> None:
    ran = installation.cli("system", "set", "files1", "--set", "local_exports=here", "-o", "json")
    assert ran.json()["settings"]["local_exports"] == str(Path("here").absolute())
    problem = installation.cli("system", "set", "files1", "--set", "colour=x", "-o", "json")
    assert "colour" in problem.error()["message"]


def test_exports_are_listed(installation: Installation) -> None:
    installation.snapshot("one")
    assert "Nothing is exported" in installation.cli("export", "list").err
    shown = installation.cli("snapshot", "export", "files1/projects@one", "--host", "backup1", "--address", "10.0.0.9")
    assert shown.code == 0
    assert "backup1" in installation.cli("export", "list").out
    assert installation.cli("snapshot", "deport", "files1/projects@one", "--host", "other").code == 0
    assert installation.cli("export", "list", "-o", "json").json()[0]["address"] == "10.0.0.9"
    assert installation.cli("snapshot", "deport", "files1/projects@one", "--host", "backup1").code == 0
    assert installation.cli("export", "list", "-o", "json").json() == []
    assert "ended" in installation.cli("export", "list", "--ended").out


def test_an_export_of_a_real_file_server_says_how_to_mount_it(installation: Installation) -> None:
    installation.cli("system", "set", "files1", "--unset", "local_exports")
    installation.snapshot("one")
    shown = installation.cli("snapshot", "export", "files1/projects@one")
    assert "mount -t nfs -o ro files1:/projects /mnt" in shown.out
    assert "127.0.0.1" in installation.cli("export", "list").out


def test_a_name_that_is_used_again(installation: Installation) -> None:
    cli = installation.cli
    for _ in range(2):
        assert cli("snapshot", "create", "files1/projects", "--name", "nightly").code == 0
        assert cli("snapshot", "delete", "files1/projects@nightly", "--yes").code == 0
    assert "gone already" in cli("snapshot", "delete", "files1/projects@nightly", "--yes").out
    assert cli("snapshot", "create", "files1/projects", "--name", "nightly").code == 0
    assert cli("snapshot", "show", "files1/projects@nightly", "-o", "json").json()["gone_at"] is None
    assert cli("snapshot", "export", "files1/projects@nightly").code == 0
    assert "Deported" in cli("snapshot", "deport", "files1/projects@nightly").out
    assert cli("snapshot", "create", "files1/projects", "--name", "next").code == 0
    assert cli("snapshot", "diff", "files1/projects@next", "--base", "nightly").code == 0


def test_a_second_name_of_one_host_can_be_deported_by_it(installation: Installation) -> None:
    installation.snapshot("one")
    for name in ("first", "second"):
        assert (
            installation.cli("snapshot", "export", "files1/projects@one", "--host", name, "--address", "10.0.0.1").code
            == 0
        )
    assert "Deported" in installation.cli("snapshot", "deport", "files1/projects@one", "--host", "second").out


def test_output_that_cannot_be_written_and_names_that_are_no_text(installation: Installation) -> None:
    ran = installation.cli("asset", "show", b"files1/\xff")
    assert ran.code in {2, 3}
    assert "Traceback" not in ran.err
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "snapkeep", "asset", "list", "--data-dir", str(installation.server.data_dir)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_leaving_a_wait_says_how_to_go_on(installation: Installation) -> None:
    installation.simulator.control("PATCH", "/settings", {"task_seconds": 8})
    plain = ["env", "--default-signal=INT"]  # it is ignored where the tests run in the background
    command = [*plain, sys.executable, "-m", "snapkeep", "snapshot", "create", "files1/projects"]
    environment = os.environ | {"SNAPKEEP_DATA_DIR": str(installation.server.data_dir)}
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    until(lambda: installation.rest.request("GET", "/operations", params={"limit": 1})["data"][0]["kind"] == "create")
    time.sleep(0.3)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    [operation] = installation.rest.request("GET", "/operations", params={"limit": 1})["data"]
    assert f"snapkeep operation watch {operation['id'][:8]}" in said
    assert installation.rest.wait(operation)["state"] == "succeeded"


def test_a_base_may_be_given_by_its_whole_name(installation: Installation) -> None:
    installation.snapshot("one")
    installation.snapshot("two")
    whole = installation.cli("snapshot", "diff", "files1/projects@two", "--base", "files1/projects@one", "-o", "json")
    assert whole.json()["base"] == "one"


def test_a_failed_check_says_how_to_correct_the_system(installation: Installation) -> None:
    wrong = {key: value for key, value in installation.settings(file_server="nope").items() if key != "password"}
    options = [part for name, value in wrong.items() for part in ("--set", f"{name}={value}")]
    secret = {"PASSWORD": installation.simulator.password}
    ran = installation.cli(
        *("system", "add", "other", "--plugin", "nutanix-files", *options, "--secret-env", "password=PASSWORD"),
        env=secret,
    )
    assert "snapkeep system set other" in ran.out
    assert "discover" not in ran.out
