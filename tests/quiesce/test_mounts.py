"""Which mounted file systems can be frozen, and what is said of the others: pure."""

from __future__ import annotations

import pytest

from snapkeep.model.assets import Capability
from snapkeep.plugins.linux_host.mounts import Mounted, _asset, _once, _server


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
    asset = _asset(where, "/home/snapkeep")
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
