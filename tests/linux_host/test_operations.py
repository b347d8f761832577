"""A Linux host protected end to end by the server, as a person would do it; restic is the judge."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.backup.support import assert_equal
from tests.support.btrfs import mounted_btrfs, subvolume
from tests.support.installation import Installation
from tests.support.restic import run_restic


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    with mounted_btrfs(tmp_path / "btrfs") as mount:
        made = subvolume(mount / "data")
        (made / "plans").mkdir()
        (made / "plans" / "idea").write_text("build a boat")
        (made / "wood").write_bytes(b"oak" * 1000)
        yield made


def test_a_host_is_protected(installation: Installation, live: Path, tmp_path: Path) -> None:
    cli, name = installation.cli, str(live).strip("/")
    added = cli("system", "add", "home", "--plugin", "linux-host", "--set", f"only={live.parent}")
    assert added.code == 0, added
    (tmp_path / "password").write_text("secret\n")
    location = tmp_path / "vault"
    assert cli("repository", "add", "v", str(location), "--password-file", str(tmp_path / "password")).code == 0
    assert cli("discover", "home").code == 0 or cli("system", "discover", "home").code == 0

    first = cli("backup", "run", f"home/{name}", "-r", "v", "-o", "json")
    assert first.code == 0, first.out
    (live / "plans").rename(live / "drafts")
    (live / "drafts" / "idea").write_text("build a house")
    second = cli("backup", "run", f"home/{name}", "-r", "v", "-o", "json").json()["result"]
    assert (second["mode"], second["reason"], second["partial"], second["left"]) == ("incremental", None, False, [])
    assert second["counts"]["bytes_read"] < 100
    (kept,) = (live / ".snapkeep").glob("NB*")
    run_restic(location, "restore", "latest", "--target", tmp_path / "restored")
    assert_equal(kept, tmp_path / "restored" / "home" / name, besides=b".snapkeep")  # its times are made up
    assert "no errors were found" in run_restic(location, "check", "--read-data")
    assert not list((live / ".snapkeep" / ".exports").glob("*/*/*")), "no export is left"

    (live / "drafts" / "idea").write_text("a mistake")
    shutil.rmtree(live / "drafts")
    backup = json.loads(cli("backup", "list", "-o", "json").out)[0]["id"]
    back = cli("backup", "restore", backup, "--to-asset", "--confirm", name)
    assert back.code == 0, back
    assert (live / "drafts" / "idea").read_text() == "build a house"
    assert stat.S_IMODE((live / ".snapkeep").stat().st_mode) == 0o700, "the snapshots are as closed as before"

    assert cli("repository", "remove", "v", "--force").code == 0
