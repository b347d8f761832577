"""What an account needs for some operations: no more than these, in the words of the system."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from snapkeep.model.assets import Capability
from snapkeep.model.errors import InvalidInput
from snapkeep.plugin.registry import get_plugin, plugin_names

READ = (Capability.DISCOVER, Capability.DIFF_FILES)


@pytest.mark.parametrize("name", plugin_names())
def test_the_rights_of_all_operations_are_those_of_each(name: str) -> None:
    plugin = get_plugin(name)
    every = plugin.grant()
    assert set(every.capabilities) == plugin.all_capabilities()
    for capability in every.capabilities:
        alone = plugin.grant([capability])
        assert [right.name for right in alone.rights] == list(plugin.permissions[capability])
        assert {right.name for right in every.rights if capability in right.capabilities} == {
            right.name for right in alone.rights
        }
        assert alone.instructions.text.strip()
        assert alone.instructions.steps


@pytest.mark.parametrize("name", plugin_names())
def test_what_a_plugin_cannot_do_is_not_granted(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"cannot diff-blocks") as caught:
        get_plugin(name).grant([Capability.CREATE, Capability.DIFF_BLOCKS])
    assert "create" in caught.value.next_step


def test_a_role_of_prism_central() -> None:
    grant = get_plugin("nutanix-files").grant(READ)
    body = json.loads(grant.instructions.text)
    assert body["operations"] == [f"<extId of {right.name}>" for right in grant.rights]
    assert all(right.allows for right in grant.rights)
    assert not [right for right in grant.rights if right.name.startswith(("Create", "Delete", "Update", "Restore"))]
    words = "\n".join(grant.instructions.limits)
    assert "assumed" in words
    assert "partner server" not in words
    assert "partner server" in "\n".join(get_plugin("nutanix-files").grant([Capability.EXPORT]).instructions.limits)


def test_a_sudoers_file_for_some_operations(tmp_path: Path) -> None:
    every = get_plugin("linux-host").grant().instructions.text
    some = get_plugin("linux-host").grant(READ).instructions.text
    assert "/usr/bin/btrfs send" in some
    assert not [word for word in ("exportfs", "mount ", "delete", "destroy", "lvremove", "fsfreeze") if word in some]
    assert {line.strip(", \\") for line in some.splitlines()} < {line.strip(", \\") for line in every.splitlines()}
    if shutil.which("visudo"):
        for text in (every, some):
            file = tmp_path / "rules"
            file.write_text(text)
            subprocess.run(["visudo", "--check", "--file", file], check=True, capture_output=True)
