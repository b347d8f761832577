"""The plug-in of the guide 'Write a plug-in': it is whole, and it passes the suite's checks."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from snapkeep.conformance import Target
from snapkeep.conformance.suite_declaration import *  # noqa: F403 - the checks of a declaration are these tests
from snapkeep.model.assets import Asset
from snapkeep.model.work import DiscoveryBatch, Done
from snapkeep.plugin.plugin import Plugin

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "folder_plugin.py"


def load() -> Plugin:
    specification = importlib.util.spec_from_file_location("folder_plugin", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where pydantic looks for the names in annotations
    specification.loader.exec_module(module)
    plugin = module.PLUGIN
    assert isinstance(plugin, Plugin)
    return plugin


class FolderTarget(Target):
    plugin: ClassVar[Plugin] = load()

    def __init__(self, root: Path) -> None:
        self._live, self._copies = root / "live", root / "copies"
        self._live.mkdir()
        self._copies.mkdir()

    def settings(self) -> dict[str, Any]:
        return {"directory": str(self._live), "snapshots": str(self._copies)}

    async def fresh_asset(self) -> Asset:
        (self._live / "letters").mkdir()
        async with self.connect() as roles:
            batches = [batch async for batch in roles.discover.discover()]
        return batches[-1].assets[-1]


@pytest.fixture
def target(tmp_path: Path) -> FolderTarget:
    return FolderTarget(tmp_path)


async def test_the_example_takes_and_deletes_a_snapshot(target: FolderTarget) -> None:
    asset = await target.fresh_asset()
    async with target.connect() as roles:
        assert [finding.outcome async for finding in roles.check.check()] == ["ok"]
        assert roles.create is not None
        assert roles.delete is not None
        ticket = await roles.create.start_create(asset, "NB1", "request-1")
        assert await roles.create.start_create(asset, "NB1", "request-1") == ticket
        made = await roles.create.poll_create(ticket)
        batches: list[DiscoveryBatch] = [batch async for batch in roles.discover.discover()]
        assert batches[-1].snapshots == [made]
        deletion = await roles.delete.start_delete(asset, batches[-1].snapshots[0], "request-2")
        assert await roles.delete.poll_delete(deletion) == Done()


def test_the_test_file_of_the_guide_runs_the_whole_suite(tmp_path: Path) -> None:
    guide = (EXAMPLE.parents[1] / "how-to" / "write-a-plugin.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "test_folder.py").write_text(next(block for block in blocks if "class FolderTarget" in block))
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    shutil.copy(EXAMPLE, tmp_path)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed
    assert int(passed[1]) > 15
