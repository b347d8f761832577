"""restic, of whose making this format is, judges what we write; and we read what it writes."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.repository.support import fill, save
from tests.support.restic import restic, run_restic

from snapkeep.model.errors import AuthenticationFailed, Unsupported
from snapkeep.repository.backends.local import LocalBackend
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.config import is_irreducible
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile


def test_restic_accepts_what_we_write(repository: Repository, path: Path, tmp_path: Path) -> None:
    blobs = fill(repository, 500)
    blobs[repository.add_plain(BlobType.DATA, bytes(3 << 20))] = bytes(3 << 20)
    name = save(repository, blobs)

    assert "no errors were found" in run_restic(path, "check", "--read-data")
    config = json.loads(run_restic(path, "cat", "config"))
    assert config == {"version": 2, "id": repository.id, "chunker_polynomial": f"{repository.polynomial:x}"}
    (snapshot,) = json.loads(run_restic(path, "snapshots", "--json"))
    assert (snapshot["id"], snapshot["paths"], snapshot["tags"]) == (name, ["/share"], ["snapkeep"])
    run_restic(path, "restore", name, "--target", tmp_path / "restored")
    restored = sorted((tmp_path / "restored").iterdir())
    assert [file.read_bytes() for file in restored] == list(blobs.values())


def test_restic_works_on_in_our_repository(repository: Repository, path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(5 << 20))
    kept = fill(repository, 300)
    first = save(repository, kept)
    dropped = fill(repository, 300, seed=1)
    gone = save(repository, dropped, "/other")

    run_restic(path, "backup", source)
    run_restic(path, "key", "add", "--new-password-file", _password_file(tmp_path, "another"))
    run_restic(path, "forget", gone, "--prune", "--max-unused", "0")
    run_restic(path, "check", "--read-data")

    repository.refresh()
    assert dict(repository.load_many(BlobType.DATA, kept)) == kept
    assert not any(repository.has(BlobType.DATA, name) for name in dropped)
    assert repository.snapshots()[0].id == first
    opened = Repository.open(LocalBackend(path), "another")
    assert opened.id == repository.id
    opened.close()


def test_we_read_what_restic_writes(path: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(50):
        (source / f"{number:03}").write_bytes(os.urandom(100 + number) if number % 2 else b"text " * number)
    (source / "large").write_bytes(os.urandom(6 << 20))
    run_restic(path, "init")
    run_restic(path, "backup", "--host", "elsewhere", "--tag", "a,b", ".", cwd=source)

    with pytest.raises(AuthenticationFailed):
        Repository.open(LocalBackend(path), "wrong")
    repository = Repository.open(LocalBackend(path), "secret", tmp_path / "cache")
    config = json.loads(run_restic(path, "cat", "config"))
    assert (repository.id, f"{repository.polynomial:x}") == (config["id"], config["chunker_polynomial"])
    assert is_irreducible(repository.polynomial)

    (snapshot,) = repository.snapshots()
    assert (snapshot.hostname, snapshot.tags, snapshot.paths) == ("elsewhere", ("a", "b"), (str(source),))
    assert repository.snapshot(snapshot.id[:8]) == snapshot
    tree = json.loads(repository.load(BlobType.TREE, bytes.fromhex(snapshot.tree)))
    for node in tree["nodes"]:
        content = b"".join(repository.load(BlobType.DATA, bytes.fromhex(name)) for name in node["content"])
        assert content == (source / node["name"]).read_bytes(), node["name"]
    for name, _ in repository.packs():
        assert repository.verify_pack(name)

    # What restic wrote comes out as it was, by meaning; and restic reads it again from us.
    document = json.loads(run_restic(path, "cat", "snapshot", snapshot.id))
    ours = json.loads(snapshot.to_json())
    assert ours.pop("time")[:26] == document.pop("time")[:26].rstrip("Z")
    assert ours == document
    repository.save_snapshot(
        SnapshotFile(time=datetime.now(UTC), tree=snapshot.tree, paths=("/x",), parent=snapshot.id)
    )
    run_restic(path, "check", "--read-data")
    repository.close()


def test_the_old_version_of_the_format_is_refused(path: Path) -> None:
    run_restic(path, "init", "--repository-version", "1")
    with pytest.raises(Unsupported, match="version 1"):
        Repository.open(LocalBackend(path), "secret")


def test_locks_are_seen_by_both(repository: Repository, path: Path) -> None:
    with repository.locked(exclusive=True):
        assert "already locked exclusively" in run_restic(path, "snapshots", fails=True)
    with repository.locked():
        run_restic(path, "snapshots")
        assert "already locked" in run_restic(path, "prune", fails=True)
        (name,) = run_restic(path, "list", "locks", "--no-lock").split()
        lock = json.loads(run_restic(path, "cat", "lock", name, "--no-lock"))
        assert (lock["pid"], lock["exclusive"]) == (os.getpid(), False)
    run_restic(path, "prune")


def test_polynomials_are_irreducible_by_the_judgement_of_restic(path: Path) -> None:
    """restic refuses to open a repository whose polynomial is not."""
    repository = Repository.create(LocalBackend(path), "secret")
    config = repository.key.open((path / "config").read_bytes())
    bad = json.loads(config) | {"chunker_polynomial": f"{repository.polynomial ^ 1:x}"}
    (path / "config").chmod(0o600)
    (path / "config").write_bytes(repository.key.seal(json.dumps(bad).encode()))
    assert "invalid chunker polynomial" in run_restic(path, "cat", "config", fails=True)
    repository.close()


def _password_file(directory: Path, password: str) -> Path:
    file = directory / "password"
    file.write_text(password)
    return file


def test_the_script_finds_restic() -> None:
    version = subprocess.run([restic(), "version"], capture_output=True, text=True, check=True).stdout
    assert tuple(map(int, version.split()[1].split(".")[:2])) >= (0, 17)
