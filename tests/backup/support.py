"""What several tests of backups need."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from tests.support.restic import run_restic

from snapkeep.backup.request import BackupRequest
from snapkeep.repository.repository import Repository
from snapkeep.simulators.kit import tree

LOGICAL = "/files1/projects"


def request(share: Path, snapshot: str) -> BackupRequest:
    """Return a request that makes our trees comparable with restic's."""
    device = share.stat().st_dev
    return BackupRequest(
        source=share,
        logical_path=LOGICAL,
        snapshot=snapshot,
        host="backup-host",
        time=datetime.now(UTC),
        tags=("snapkeep",),
        device_id=device,
    )


class Judge:
    """restic with a repository of its own, which cuts files where ours does."""

    def __init__(self, repository: Repository, path: Path) -> None:
        self.path = path
        password = path.parent / "password"
        password.write_text("secret")
        run_restic(
            path, "init", "--copy-chunker-params", "--from-repo", repository.location, "--from-password-file", password
        )

    def walk(self, share: Path, *arguments: str) -> str:
        """Let restic back up the share; return the id of its root tree."""
        top = share.parents[1]
        said = run_restic(self.path, "backup", "--json", str(share.relative_to(top)), *arguments, cwd=top)
        summary = next(line for line in map(json.loads, said.splitlines()) if line["message_type"] == "summary")
        snapshots = json.loads(run_restic(self.path, "snapshots", "--json", summary["snapshot_id"]))
        tree: str = snapshots[0]["tree"]
        return tree


def assert_equal(one: Path, other: Path, *, besides: bytes = b"") -> None:
    """Compare two trees: names, kinds, owners, modes, times, attributes, links of both kinds, content.

    `besides`: a path whose facts do not count.
    """
    left, right = ({fact for fact in facts(top) if fact[0] != besides} for top in (one, other))
    assert (sorted(left - right), sorted(right - left)) == ([], [])


def facts(top: Path) -> Iterator[tuple[object, ...]]:
    """Yield what matters of each object; sockets are nobody's data."""
    first: dict[int, bytes] = {}
    for path, found, target, attributes in tree.scan(top):
        if stat.S_ISSOCK(found.mode):
            continue
        regular = stat.S_ISREG(found.mode)
        content = b""
        if regular:
            content = hashlib.sha256((top / os.fsdecode(path)).read_bytes()).digest()
        same_as = first.setdefault(found.inode, path) if regular else path  # restic restores no other links
        time = 0 if stat.S_ISLNK(found.mode) else found.modify_time
        yield path, found.mode, found.uid, found.gid, time, target, attributes, content, same_as
