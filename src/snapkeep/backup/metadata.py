"""What the file system tells of an object, as the text of a node.

The rules are restic's (0.17 and later, with `device-id-for-hardlinks`): access time is modify time; the device is told
only of what may have several names, and is a constant of the share, since each mount of a snapshot has another;
sockets are not kept.
"""

from __future__ import annotations

import base64
import errno
import grp
import os
import pwd
import stat
from contextlib import suppress
from functools import lru_cache

from snapkeep.backup.nodes import json_text, quote, time_text

_NONE = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENODATA}

_GO_TYPES = {
    stat.S_IFREG: ("file", 0),
    stat.S_IFDIR: ("dir", 1 << 31),
    stat.S_IFLNK: ("symlink", 1 << 27),
    stat.S_IFIFO: ("fifo", 1 << 25),
    stat.S_IFBLK: ("dev", 1 << 26),
    stat.S_IFCHR: ("chardev", 1 << 26 | 1 << 21),
}
_GO_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def node_text(
    name: bytes,
    found: os.stat_result,
    *,
    device_id: int,
    size: int = 0,
    attributes: str = "",
    target: bytes = b"",
) -> str:
    """Return the text of a node up to its content, which is the caller's: `,"content":...}`.

    `size` is that of a file, as it was read; `attributes` is what `attributes_text` gave; `target` a symbolic link's.
    """
    mode, kind = found.st_mode, stat.S_IFMT(found.st_mode)
    time = time_text(found.st_mtime_ns)
    parts = [
        f'{{"name":"{quote(name)}",{_type_and_mode(mode)}"mtime":"{time}","atime":"{time}",'
        f'"ctime":"{time_text(found.st_ctime_ns)}",{_owner(found.st_uid, found.st_gid)},"inode":{found.st_ino}'
    ]
    if device_id and linked(found):
        parts.append(f',"device_id":{device_id}')
    if size:
        parts.append(f',"size":{size}')
    if kind not in {stat.S_IFDIR, stat.S_IFIFO} and found.st_nlink:
        parts.append(f',"links":{found.st_nlink}')
    if kind == stat.S_IFLNK:
        parts.append(_target_text(target))
    parts.append(attributes)
    if kind in {stat.S_IFBLK, stat.S_IFCHR} and found.st_rdev:
        parts.append(f',"device":{found.st_rdev}')
    return "".join(parts)


def linked(found: os.stat_result) -> bool:
    """Say whether the object may have other names: not for a directory, always for a FIFO (restic's rule)."""
    kind = stat.S_IFMT(found.st_mode)
    return kind == stat.S_IFIFO or (found.st_nlink != 1 and kind != stat.S_IFDIR)


def attributes_text(where: int | bytes) -> str:
    """Return a node's `extended_attributes`, ACLs among them; empty when there are none. Raises OSError.

    `where` is an open file or a path, the last part of which is not followed.
    """
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
    except OSError as error:
        if error.errno in _NONE:
            return ""
        raise
    if not names:
        return ""
    found = [(name, os.getxattr(where, name, follow_symlinks=follow)) for name in names]
    texts = (f'{{"name":"{json_text(name)}","value":"{base64.b64encode(value).decode()}"}}' for name, value in found)
    return f',"extended_attributes":[{",".join(texts)}]'


def unix_mode(mode: int) -> int:
    """Return a node's mode as the file system takes it: permissions, set-id and sticky bits."""
    unix = mode & 0o777
    for bit, go in _GO_BITS:
        if mode & go:
            unix |= bit
    return unix


@lru_cache(1024)
def _type_and_mode(mode: int) -> str:
    name, bits = _GO_TYPES[stat.S_IFMT(mode)]
    bits |= mode & 0o777
    for unix, go in _GO_BITS:
        if mode & unix:
            bits |= go
    return f'"type":"{name}","mode":{bits},' if bits else f'"type":"{name}",'


@lru_cache(4096)
def _owner(uid: int, gid: int) -> str:
    """Names are looked up once in a process's life."""
    text = f'"uid":{uid},"gid":{gid}'
    with suppress(KeyError, OverflowError):
        text += f',"user":"{json_text(pwd.getpwuid(uid).pw_name)}"'
    with suppress(KeyError, OverflowError):
        text += f',"group":"{json_text(grp.getgrgid(gid).gr_name)}"'
    return text


def _target_text(target: bytes) -> str:
    if not target:
        return ""
    text = json_text(target.decode("utf-8", "surrogateescape"))
    try:
        target.decode()
    except UnicodeDecodeError:
        return f',"linktarget":"{text}","linktarget_raw":"{base64.b64encode(target).decode()}"'
    return f',"linktarget":"{text}"'
