"""What tests of backups need: a share with files, repositories, and a look at what is left over."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from tests.support.installation import Installation, Json
from tests.support.restic import run_restic

from snapkeep.backup.reader import RecoveryPoint
from snapkeep.model.errors import SnapkeepError
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository

PASSWORD = "secret"


class Backups:
    """The share `projects` of an installation, backed up into a repository of its own."""

    def __init__(self, installation: Installation, location: Path | str, **body: object) -> None:
        self.installation = installation
        self.location = location
        self.name = f"r{uuid.uuid4().hex[:8]}"
        wanted = {"name": self.name, "location": str(location), "password": PASSWORD, **body}
        installation.rest.request("POST", "/repositories", json=wanted)

    def fill(self, files: int = 40) -> None:
        """Write some files. What restic notes the device of is left out: ours is a constant of the share."""
        live = self.installation.live()
        for number in range(files):
            (live / f"d{number % 5}" / "deep").mkdir(parents=True, exist_ok=True)
            (live / f"d{number % 5}" / f"file-{number}").write_bytes(os.urandom(200) * (number + 1))
        (live / "d0" / "deep" / "link").symlink_to("../file-0")
        (live / os.fsdecode(b"d2/not utf-8 \xff\n")).write_text("hostile")
        (live / "empty").touch()

    def change(self) -> None:
        """Add, write, rename and remove some."""
        live = self.installation.live()
        (live / "new").mkdir()
        (live / "new" / "added").write_text("added")
        (live / "d0" / "file-5").write_text("written")
        (live / "d1").rename(live / "moved")
        (live / "d2" / "file-2").unlink()

    def ask(self, **body: object) -> Json:
        """Start a backup."""
        path = f"/assets/{self.installation.asset()['id']}/backups"
        return self.installation.ask("POST", path, {"repository": self.name, **body})

    def make(self, **body: object) -> Json:
        """Back up; return the recovery point. Raises what the operation failed with."""
        done = self.installation.wait(self.ask(**body), 60)
        return dict(self.installation.rest.request("GET", f"/backups/{done['result']['backup_id']}"))

    def fails(self, **body: object) -> SnapkeepError:
        """Back up, which must fail; return why."""
        try:
            done = self.make(**body)
        except SnapkeepError as error:
            return error
        raise AssertionError(f"it did not fail: {done}")

    def known(self) -> list[Json]:
        """The recovery points that the server knows in this repository, the newest first."""
        return list(self.installation.rest.request("GET", "/backups", params={"repository": self.name})["data"])

    def source(self, backup: Json) -> Path:
        """The directory of the snapshot that a recovery point was made of."""
        paths = {item["name"]: item["path"] for item in self.installation.vendor_snapshots()}
        return Path(paths[backup["snapshot"]])

    def tree(self, backup: Json) -> str:
        """The id of the share's tree in a recovery point."""
        repository = Repository.open(LocalBackend(Path(self.location)), PASSWORD)
        try:
            point = RecoveryPoint(repository, repository.snapshot(backup["restic_id"]))
            return str(point.node(b"files1/projects").subtree)
        finally:
            repository.close()

    def damage_trees(self, backup: Json) -> None:
        """Change a byte of every tree that a recovery point has."""
        repository = Repository.open(LocalBackend(Path(self.location)), PASSWORD)
        point = RecoveryPoint(repository, repository.snapshot(backup["restic_id"]))
        trees = {point.snapshot.tree} | {node.subtree for _, node in point.walk() if node.subtree}
        places = [place for tree in trees for place in repository.locations(BlobType.TREE, bytes.fromhex(tree))]
        repository.close()
        for place in places:
            name = place.pack.hex()
            pack = Path(self.location) / "data" / name[:2] / name
            content = bytearray(pack.read_bytes())
            content[place.offset + place.length // 2] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(content)

    def walked_by_restic(self, source: Path) -> str:
        """The id of the tree that restic makes of a directory; its recovery point is forgotten again."""
        said = run_restic(self.location, "backup", "--json", ".", cwd=source)
        summary = next(line for line in map(json.loads, said.splitlines()) if line["message_type"] == "summary")
        (snapshot,) = json.loads(run_restic(self.location, "snapshots", "--json", summary["snapshot_id"]))
        run_restic(self.location, "forget", summary["snapshot_id"])
        return str(snapshot["tree"])

    def is_sound(self) -> None:
        """Ask restic, about every byte."""
        assert "no errors were found" in run_restic(self.location, "check", "--read-data")

    def left(self) -> list[str]:
        """The snapshots that are left; nothing else may be: no access, export, mount, lock or operation."""
        nothing_else_left(self.installation, [self.location] if isinstance(self.location, Path) else [])
        if isinstance(self.location, Path) and self.location.exists():
            held = {file.name for file in (self.location / "snapshots").iterdir()}
            assert held <= {backup["restic_id"] for backup in self.known()}, "a recovery point that nobody knows"
        return [item["name"] for item in self.installation.vendor_snapshots()]


def nothing_else_left(installation: Installation, repositories: Sequence[Path]) -> None:
    """Ask simulator, catalog and kernel."""
    assert installation.simulator.control("GET", "/access")["access"] == []
    assert list(installation.rest.pages("/exports")) == []
    assert os.fsencode(installation.server.data_dir) not in Path("/proc/self/mountinfo").read_bytes()
    mounts = installation.server.data_dir / "mounts"
    assert not mounts.exists() or list(mounts.glob("*/*")) == []
    for repository in repositories:
        if repository.exists():
            assert list((repository / "locks").iterdir()) == []
    states = {"state": ["queued", "running", "paused"]}
    under_way = installation.rest.request("GET", "/operations", params=states)["data"]
    assert [item["kind"] for item in under_way if item["kind"] != "reconcile"] == []
