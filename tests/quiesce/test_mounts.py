"""Which mounted file systems can be frozen, and what is said of the others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from snapkeep.model.assets import Capability
from snapkeep.plugin.commands.local import LocalCommands
from snapkeep.plugins.linux_host.host import Host
from snapkeep.plugins.linux_host.mounts import Mounted, Mounts, _asset, _once, _server
from snapkeep.plugins.linux_host.settings import LinuxHostSettings


def mounted(target: str, type: str = "ext4", *, source: str = "/dev/sdb1", uuid: str = "", root: str = "/") -> Mounted:
    return Mounted(target.encode(), root.encode(), source, type, False, uuid, None)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (mounted("/srv/db"), None),
        (mounted("/var/lib/postgresql", "xfs"), None),
        (mounted("/home"), "it holds /home/snapkeep"),
        (mounted("/home/other"), None),
        (mounted("/home/snapkeep"), "it holds /home/snapkeep"),
        (mounted("/"), "it holds all that has no file system of its own"),
        (mounted("/var"), "it holds /var"),
        (mounted("/var/log"), "it holds /var/log"),
        (mounted("/var/lib"), "it holds /var/lib"),
        (mounted("/var/log/audit"), "it holds /var/log/audit"),
        (mounted("/tmp"), "it holds /tmp"),
        (mounted("/tmp/x"), None),
        (mounted("/varnish"), None),
        (mounted("/srv/db")._replace(read_only=True), "it is mounted read-only"),
        (mounted("/boot/efi", "vfat"), "a file system of type vfat cannot be frozen"),
        (mounted("/mnt", "nfs4", source="nas7:/export"), "it lies on another machine: nas7"),
        (mounted("/mnt", "cifs", source="//nas7/share"), "it lies on another machine: nas7"),
    ],
)
def test_what_can_be_frozen(where: Mounted, reason: str | None) -> None:
    asset = _asset(where, [where], "/home/snapkeep")
    assert (Capability.QUIESCE in asset.capabilities) == (reason is None)
    if reason is not None:
        assert asset.refusals[Capability.QUIESCE].startswith(reason)


@pytest.mark.parametrize(
    ("source", "server"),
    [
        ("nas7:/export/a:b", "nas7"),
        ("[fe80::1]:/export", "fe80::1"),
        ("//nas7.example.com/share/a", "nas7.example.com"),
        ("person@host:/srv", "host"),
        ("host:", "host"),
        ("vol0", ""),
    ],
)
def test_whose_it_is(source: str, server: str) -> None:
    assert _server(source) == server


def test_each_is_shown_once_and_where_it_was_mounted_first() -> None:
    every = [
        mounted("/srv/inside", uuid="u", root="/inside"),
        mounted("/srv/db", uuid="u"),
        mounted("/srv/db-again", uuid="u"),
        mounted("/mnt/copy", uuid="u", source="/dev/sdc1"),
        mounted("/srv/one"),
        mounted("/srv/two"),
    ]
    assert [item.path for item in _once(every)] == ["/srv/db", "/srv/one", "/srv/two"]
    assert len({item.id for item in _once(every)}) == 3


def row(target: str, root: str = "/", uuid: str | None = "u", source: str = "/dev/sdb1") -> dict[str, str | None]:
    """What findmnt prints of a mount."""
    shown = source if root == "/" else f"{source}[{root}]"
    return {"target": target, "fsroot": root, "source": shown, "fstype": "ext4", "options": "rw", "uuid": uuid}


ROOT = row("/", uuid="r", source="/dev/sda1")


@pytest.mark.parametrize(
    ("rows", "only", "refused"),
    [
        ([ROOT, row("/data"), row("/var", "/var")], "", "it holds /var,"),
        ([ROOT, row("/data", uuid=None), row("/var", "/var", uuid=None)], "", "it holds /var,"),
        ([ROOT, row("/data"), row("/var/log/audit", "/audit")], "/data", "it holds /var/log/audit,"),
        ([ROOT, row("/data"), row("/home", "/home")], "/data", "it holds /home/"),
        ([ROOT, row("/data", "/srv/data", "r", "/dev/sda1")], "/data", "it holds all that"),
        ([{**ROOT, "uuid": None}, row("/data", "/srv/data", None, "/dev/sda1")], "/data", "it holds all that"),
        ([ROOT, row("/data"), row("/srv/again")], "/data", None),
        ([ROOT, row("/data", uuid=None), row("/var", uuid=None, source="/dev/sdc1")], "/data", None),
    ],
)
async def test_a_file_system_is_judged_by_all_places_where_it_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, str | None]], only: str, refused: str | None
) -> None:
    (tmp_path / "rows").write_text(json.dumps({"filesystems": rows}))
    (tmp_path / "findmnt").write_text(f"#!/bin/sh\ncase $* in *ext4*) exec cat {tmp_path}/rows ;; *) exit 1 ;; esac\n")
    (tmp_path / "findmnt").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", "/home/snapkeep")
    settings = LinuxHostSettings(only=(Path(only),) if only else ())
    mounts = Mounts(Host(LocalCommands(sudo=False), settings), settings)
    (asset,) = [asset for asset in await mounts.assets() if asset.name == "data"]
    reason = asset.refusals.get(Capability.QUIESCE, "")
    assert reason.startswith(refused) if refused else not reason
