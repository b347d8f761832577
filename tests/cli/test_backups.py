"""Repositories and backups by the command line alone, as a person would use them; restic is the judge."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.installation import Installation, Json
from tests.support.restic import run_restic

from snapkeep.cli.backups import PARTIAL, _lines, _tell, exit_code
from snapkeep.model.errors import InvalidInput

HOSTILE = b"caf\xe9 & %41+.txt"


@pytest.fixture
def vault(installation: Installation, tmp_path: Path) -> Iterator[str]:
    """A repository named `vault`, opened by the password `secret`."""
    (tmp_path / "password").write_text("secret\n")
    ran = installation.cli(
        "repository", "add", "vault", str(tmp_path / "vault"), "--password-file", str(tmp_path / "password")
    )
    assert ran.code == 0, ran
    assert "password" not in ran.err
    yield "vault"
    assert installation.cli("repository", "remove", "vault", "--force").code == 0


def fill(live: Path) -> None:
    (live / "plans").mkdir()
    (live / "plans" / "idea.txt").write_text("build a boat\n")
    (live / "shopping.txt").write_text("wood\n")
    (live / "link").symlink_to("shopping.txt")
    descriptor = os.open(os.fsencode(live) + b"/" + HOSTILE, os.O_WRONLY | os.O_CREAT, 0o640)
    os.write(descriptor, b"hostile\n")
    os.close(descriptor)


def test_the_story_of_a_backup(installation: Installation, vault: str, tmp_path: Path) -> None:
    cli, live = installation.cli, installation.live()
    fill(live)
    first = cli("backup", "run", "files1/projects", "--repository", vault)
    assert first.code == 0, first
    for word in (
        "Backed up files1/projects@",
        "mode: full",
        "files: 3 new, 0 changed",
        "verified: the recovery point is",
    ):
        assert word in first.out
    (live / "plans").rename(live / "drafts")
    (live / "shopping.txt").write_text("wood, nails\n")
    second = cli("backup", "run", "files1/projects", "-r", vault, "-o", "json").json()["result"]
    assert (second["mode"], second["reason"], second["partial"], second["left"]) == ("incremental", None, False, [])
    third = cli("backup", "run", "files1/projects", "-r", vault, "--full", "--keep-base")
    assert "mode: full, because: asked for" in third.out
    assert len(cli("snapshot", "list", "files1/projects", "-o", "json").json()) == 2

    listed = cli("backup", "list", "files1/projects", "--repository", vault, "-o", "json").json()
    assert [item["mode"] for item in listed] == ["full", "incremental", "full"]
    assert listed[1]["id"][:8] in cli("backup", "list").out
    begin = listed[1]["restic_id"][:8]
    assert "verification  the recovery point is true" in cli("backup", "show", begin).out
    assert cli("backup", "show", begin, "-o", "json").json() == {**listed[1], "protections": []}

    assert "Repository vault is sound." in cli("repository", "check", vault).out
    assert cli("backup", "check", vault, "--data", "all", "-o", "json").json()["result"]["packs_read"] > 0
    assert "no errors were found" in run_restic(tmp_path / "vault", "check", "--read-data")


def test_a_restore_goes_to_one_place(installation: Installation, vault: str, tmp_path: Path) -> None:
    cli, live = installation.cli, installation.live()
    fill(live)
    id = cli("backup", "run", "files1/projects", "-r", vault, "-o", "json").json()["result"]["backup_id"]
    (live / "shopping.txt").write_text("nothing\n")
    for wrong in ([], [str(tmp_path / "target"), "--to-asset"]):
        assert "goes to one place" in cli("backup", "restore", id, *wrong).err
    unconfirmed = cli("backup", "restore", id, "--to-asset")
    assert (unconfirmed.code, "--confirm 'projects'" in unconfirmed.err) == (InvalidInput.exit_code, True)
    assert "was not confirmed" in cli("backup", "restore", id, "--to-asset", "--confirm", "archive").err
    assert (live / "shopping.txt").read_text() == "nothing\n"
    restored = cli("backup", "restore", id, "--to-asset", "--confirm", "projects")
    assert "to files1/projects; what was there before is in files1/projects@NB" in restored.out
    assert (live / "shopping.txt").read_text() == "wood\n"


def test_what_a_recovery_point_holds(installation: Installation, vault: str, tmp_path: Path) -> None:
    cli, live = installation.cli, installation.live()
    fill(live)
    (live / "plans" / "idea.txt").chmod(0o4750)
    id = cli("backup", "run", "files1/projects", "-r", vault, "-o", "json").json()["result"]["backup_id"]
    top = cli("backup", "ls", id)
    assert top.code == 0, top
    for line in ("link -> shopping.txt", " shopping.txt\n", r" caf\xe9 & %41+.txt", " plans\n"):
        assert line in top.out
    assert cli("backup", "ls", id, "plans").out.startswith("-rwsr-x---")
    entries = cli("backup", "ls", id, "-o", "json").json()
    assert {item["type"] for item in entries} == {"file", "dir", "symlink"}
    assert cli("backup", "ls", id, "shopping.txt").code == 2
    assert cli("backup", "ls", id, "nowhere").code == 3
    assert cli("backup", "find", id, "idea*").out.endswith(" plans/idea.txt\n")
    assert cli("backup", "find", id, "plans/*.txt").out.endswith(" plans/idea.txt\n")
    assert cli("backup", "find", id, "shop*", "--path", "plans").out == ""
    assert cli("backup", "find", id, HOSTILE, "-o", "json").json()[0]["size"] == 8
    assert cli("backup", "cat", id, HOSTILE).out == "hostile\n"
    assert cli("backup", "cat", id, "plans").code == 2

    whole = tmp_path / "whole"
    assert f"Restored 3 files (26 B) and 2 directories to {whole}" in cli("backup", "restore", id, str(whole)).out
    assert (whole / "link").readlink() == Path("shopping.txt")
    assert stat.S_IMODE((whole / "plans" / "idea.txt").stat().st_mode) == 0o4750
    again = cli("backup", "restore", id, str(whole), "-o", "json")
    assert again.error()["code"] == "conflict"
    (whole / "shopping.txt").write_text("spoilt")
    assert cli("backup", "restore", id, str(whole), "--overwrite").code == 0
    assert (whole / "shopping.txt").read_text() == "wood\n"
    some = tmp_path / "some"
    assert cli("backup", "restore", id, str(some), "--path", "plans/idea.txt", "--path", HOSTILE).code == 0
    assert (some / "plans" / "idea.txt").read_text() == "build a boat\n"
    assert (some / os.fsdecode(HOSTILE)).is_file()
    one = tmp_path / "one"
    assert cli("backup", "restore", id, str(one), "--path", "plans").code == 0
    assert [path.name for path in one.iterdir()] == ["idea.txt"]


def test_forgetting(installation: Installation, vault: str, tmp_path: Path) -> None:
    cli = installation.cli
    (installation.live() / "a").write_text("a")
    run = ("backup", "run", "files1/projects", "-r", vault)
    first, second = (cli(*run, "-o", "json").json()["result"]["backup_id"] for _ in range(2))
    assert cli("backup", "forget", first).code == 2, "nobody is there to be asked"
    assert cli("backup", "forget", first[:8], "--yes").code == 0
    assert cli("backup", "show", first).code == 3
    assert cli("backup", "forget", second, "--yes").code == 5
    assert cli("repository", "remove", vault).code == 5
    assert cli("backup", "forget", second, "--yes", "--force").code == 0
    assert json.loads(run_restic(tmp_path / "vault", "snapshots", "--json")) == []
    assert "mode: full" in cli(*run).out


def test_repositories_are_added(installation: Installation, tmp_path: Path) -> None:
    cli = installation.cli
    (tmp_path / "no-password").write_text("\n")
    assert (
        cli("repository", "add", "made", str(tmp_path / "r"), "--password-file", str(tmp_path / "no-password")).code
        == 2
    )
    assert cli("repository", "add", "made", str(tmp_path / "r"), "--existing").code == 2
    assert cli("repository", "add", "made", str(tmp_path / "r"), "--secret", "access_key").code == 2
    made = cli("repository", "add", "made", str(tmp_path / "r"), "-o", "json").json()
    assert len(made["password"]) >= 32
    assert made["restic_id"] in run_restic(tmp_path / "r", "cat", "config", password=made["password"])
    assert cli("repository", "add", "made", str(tmp_path / "other")).code == 4
    assert not (tmp_path / "other").exists()
    assert cli("repository", "add", "twice", str(tmp_path / "r")).code == 4
    shown = cli("repository", "show", "made", "-o", "json").json()
    assert made["password"] not in json.dumps(shown)
    assert str(tmp_path / "r") in cli("repository", "list").out
    assert cli("repository", "remove", "made").code == 0
    (tmp_path / "password").write_text("wrong")
    existing = ("repository", "add", "made", str(tmp_path / "r"), "--existing", "--password-file")
    assert cli(*existing, str(tmp_path / "password")).code == 8
    (tmp_path / "password").write_text(made["password"])
    assert cli(*existing, str(tmp_path / "password")).code == 0
    assert cli("repository", "remove", "made").code == 0
    told = cli("repository", "add", "told", str(tmp_path / "told"))
    assert "Its password: " in told.err
    assert "password" not in told.out
    assert cli("repository", "remove", "told").code == 0


def test_a_damaged_repository_is_not_sound(installation: Installation, vault: str, tmp_path: Path) -> None:
    (installation.live() / "a").write_text("a")
    assert installation.cli("backup", "run", "files1/projects", "-r", vault).code == 0
    pack = max((tmp_path / "vault" / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.unlink()
    ran = installation.cli("repository", "check", vault)
    assert ran.code == 1, ran
    assert pack.name in ran.out or pack.name[:8] in ran.out
    assert "Repository vault has " in ran.out


def test_what_is_partial_or_wrong_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    result: Json = {
        "backup_id": "0" * 36, "snapshot": "files1/projects@x", "mode": "full", "reason": None, "partial": True,
        "verification": {"verdict": "the recovery point is WRONG", "differing": 1, "examples": ["a: it differs"]},
        "counts": {
            "files_new": 1, "files_changed": 0, "files_unmodified": 0, "bytes_read": 1, "bytes_added": 1,
            "unreadable": 12,
            "unreadable_paths": [{"path": f"bad\x1b{n}", "reason": "Input/output"} for n in range(12)],
        },
        "left": ["the export stays"],
    }  # fmt: skip
    _tell(result, "vault")
    told = capsys.readouterr().out
    for line in ("the recovery point is WRONG", "a: it differs", "left: the export stays", "Partial: 12 objects could"):
        assert line in told
    assert told.count("Input/output") == 10
    assert r"bad\x1b9" in told
    assert exit_code(result) == 1
    assert exit_code({**result, "verification": {"differing": 0}}) == PARTIAL
    assert exit_code({**result, "verification": None, "partial": False}) == 0


def test_times_outside_of_the_calendar_are_shown() -> None:
    entry = {"path": "a", "type": "file", "size": 1, "mode": 0o644, "uid": 0, "gid": 0}
    for time in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "10001-01-01T00:00:00Z"):
        [line] = _lines([{**entry, "modified_at": time}])
        assert line.endswith(" a")
