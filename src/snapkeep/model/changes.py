"""Changes: the neutral form of what differs between two snapshots of one asset.

Meaning (a change list is a set of facts, not a script):

* `path` is the object's path in the *new* snapshot, for `DELETE` in the *base*; `old_path` (only for
  `RENAME`) is always the path in the *base*. Both are relative to the asset's root, bytes, '/'-separated.
* The rename of a directory is one `RENAME` of the directory; what lies below and was otherwise untouched is
  not listed.
* An object that was replaced by another one at the same path is a `DELETE` and an `ADD` of that path.
* A change made through one name of a multiply linked file may be listed under one of its names only.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

MAX_PATH = 4095
"""Longest path in bytes (Linux PATH_MAX without its NUL)."""

PLACEHOLDER_INODE = 2
"""Inode of the empty directory that a btrfs snapshot shows in place of a subvolume that lay in the asset
(BTRFS_EMPTY_SUBVOL_DIR_OBJECTID). The kernel makes up its times whenever it looks at it anew: they say nothing."""


class ChangeOperation(StrEnum):
    """What happened to an object."""

    ADD = "add"
    MODIFY = "modify"
    METADATA = "metadata"
    """Only attributes changed (mode, owner, ACL, times), not the content."""
    DELETE = "delete"
    RENAME = "rename"
    UNKNOWN = "unknown"
    """Something, in words that we do not know: look at the object again."""


class ObjectType(StrEnum):
    """What an object is."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard-link"
    """A name of a file that has several names."""
    FIFO = "fifo"
    SOCKET = "socket"
    BLOCK_DEVICE = "block-device"
    CHARACTER_DEVICE = "character-device"
    OTHER = "other"


class Change(NamedTuple):
    """One difference. Times are nanoseconds since 1970 (None: not told); `size` is bytes.

    A tuple, where other nouns are dataclasses: lists have millions of these, and a tuple is made three times as fast.
    """

    operation: ChangeOperation
    type: ObjectType
    path: bytes
    old_path: bytes | None = None
    size: int = 0
    inode: int | None = None
    created_ns: int | None = None
    changed_ns: int | None = None
    accessed_ns: int | None = None
