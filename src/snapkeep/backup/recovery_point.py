"""The ends of every backup: what lies above the share in its tree, and the recovery point itself."""

from __future__ import annotations

import getpass
import os
from pathlib import PurePosixPath
from typing import Any

from snapkeep import __version__
from snapkeep.backup.metadata import attributes_text, node_text
from snapkeep.backup.nodes import Node, Tree, quote, read_node, tree_text
from snapkeep.backup.request import PARTIAL, BackupRequest, BackupResult, snapshot_tag
from snapkeep.model.errors import Damaged, InvalidInput
from snapkeep.repository.blobs import BlobType
from snapkeep.repository.repository import Repository
from snapkeep.repository.snapshots import SnapshotFile

_MADE_UP = (
    '"type":"dir","mode":2147484141,"mtime":"1970-01-01T00:00:00Z","atime":"1970-01-01T00:00:00Z",'
    '"ctime":"1970-01-01T00:00:00Z","uid":0,"gid":0'
)


def names_of(logical_path: str) -> list[bytes]:
    """Return the names that lead to the share. Raises InvalidInput."""
    parts = PurePosixPath(logical_path).parts
    if not parts or parts[0] != "/" or ".." in parts or "\0" in logical_path:
        raise InvalidInput(f"The path of a share in a recovery point is absolute and plain, not {logical_path!r}")
    return [os.fsencode(part) for part in parts[1:]]


def share_tree(repository: Repository, snapshot: SnapshotFile, logical_path: str) -> tuple[bytes, Node | None]:
    """Return the id of the tree that holds the share's content, and the share's own node. Raises Damaged."""
    tree = bytes.fromhex(snapshot.tree)
    node: Node | None = None
    for name in names_of(logical_path):
        found = Tree(repository.load(BlobType.TREE, tree))
        at = found.position(name)
        node = read_node(found.texts[at]) if at is not None else None
        if node is None or node.subtree is None:
            raise Damaged(f"Recovery point {snapshot.id} does not hold {logical_path}")
        tree = bytes.fromhex(node.subtree)
    return tree, node


def root_tree(repository: Repository, request: BackupRequest, top: int, share: bytes) -> bytes:
    """Store the trees above the share, whose own tree is `share`; return the id of the uppermost.

    The share's node tells of the open directory `top`. Those above it are as on this machine where the source lies
    at a path that ends with the logical one (restic would walk it there and find them), else made up and always equal.
    """
    names = names_of(request.logical_path)
    source = request.source.absolute()
    real = source.parts[-len(names) :] == tuple(map(os.fsdecode, names)) if names else False
    tree = share
    for depth, name in enumerate(reversed(names)):
        if depth == 0:
            text = node_text(name, os.fstat(top), device_id=0, attributes=attributes_text(top))
        elif real:
            above = source.parents[depth - 1]
            text = node_text(name, above.lstat(), device_id=0, attributes=attributes_text(os.fsencode(above)))
        else:
            text = f'{{"name":"{quote(name)}",{_MADE_UP}'
        whole = f'{text},"content":null,"subtree":"{tree.hex()}"}}'
        tree = repository.add_plain(BlobType.TREE, tree_text([whole.encode()]))
    return tree


def save(repository: Repository, request: BackupRequest, result: BackupResult, tree: bytes, added_before: int) -> None:
    """Write the recovery point, after all that it refers to."""
    repository.flush()
    result.tree_id = tree.hex()
    result.bytes_added = repository.statistics.bytes_added - added_before
    tags = (*request.tags, snapshot_tag(request.snapshot), *((PARTIAL,) if result.partial else ()))
    snapshot = SnapshotFile(
        time=request.time,
        tree=result.tree_id,
        paths=(request.logical_path,),
        hostname=request.host,
        username=getpass.getuser(),
        uid=os.getuid(),
        gid=os.getgid(),
        parent=result.parent,
        tags=tags,
        program_version=f"snapkeep {__version__}",
        summary=_summary(result),
    )
    result.snapshot_id = repository.save_snapshot(snapshot)


def _summary(result: BackupResult) -> dict[str, Any]:
    return {
        "mode": result.mode.value,
        "files_new": result.files_new,
        "files_changed": result.files_changed,
        "files_unmodified": result.files_unmodified,
        "dirs_new": result.directories_new,
        "dirs_changed": result.directories_changed,
        "dirs_unmodified": result.directories_unmodified,
        "data_added_packed": result.bytes_added,
        "total_files_processed": result.files_new + result.files_changed + result.files_unmodified,
        "total_bytes_processed": result.size,
    }
