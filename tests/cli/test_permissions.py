"""`snapkeep plugin permissions`: the role to make on a system for some operations."""

from __future__ import annotations

import json

import pytest
from tests.support.installation import Installation


def test_the_role_for_some_operations(installation: Installation) -> None:
    said = installation.cli("plugin", "permissions", "nutanix-files", "--operations", "discover,create").out
    assert "Create_Mount_Target_Snapshot" in said
    assert "POST /api/files/v4.0/config/file-servers/{fileServerExtId}" in said
    assert "/api/iam/v4.0/authz/roles" in said
    assert "assumed" in said
    assert "Delete_Mount_Target_Snapshot" not in said
    assert "Without `discover`" not in said


@pytest.mark.parametrize("name", ["nutanix-files", "linux-host"])
def test_as_json(installation: Installation, name: str) -> None:
    words = ("--operations", "delete", "--operations", "clone", "--output", "json")
    found = json.loads(installation.cli("plugin", "permissions", name, *words).out)
    assert (found["plugin"], found["operations"]) == (name, ["delete", "clone"])
    assert {operation for right in found["rights"] for operation in right["operations"]} == {"delete", "clone"}
    every = json.loads(installation.cli("plugin", "permissions", name, "-o", "json").out)
    assert len(every["rights"]) > len(found["rights"])


def test_the_sudoers_file(installation: Installation) -> None:
    said = installation.cli("plugin", "permissions", "linux-host", "--operations", "delete").out
    assert "USER ALL = (root) NOPASSWD: SNAPKEEP" in said
    assert "/usr/sbin/lvremove" in said
    assert "Without `discover`" in said


def test_an_operation_that_there_is_not(installation: Installation) -> None:
    for word, why in (("lock", "linux-host cannot lock"), ("fly", "Input should be 'discover'")):
        failed = installation.cli("plugin", "permissions", "linux-host", "--operations", word)
        assert failed.code != 0
        assert why in failed.err
