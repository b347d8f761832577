"""From a program that failed to our errors.

btrfs and the coreutils end with 1 whatever went wrong; the kernel's reason stands at the end of what they write, in the
words of strerror(3) in the C locale, in which they are run. Those words stand for numbers and are as stable. zfs and
lvm have words of their own for the same numbers (openzfs `lib/libzfs/libzfs_util.c`, zfs_standard_error_fmt; lvm2
`lib/metadata` and `tools/toollib.c`).
"""

from __future__ import annotations

import errno
import os
import re

from snapkeep.model.errors import (
    Busy,
    Conflict,
    InvalidInput,
    LimitExceeded,
    NotFound,
    PermissionDenied,
    SnapkeepError,
    Unavailable,
    Unsupported,
    VendorError,
)
from snapkeep.plugin.commands import NOT_EXECUTABLE, NOT_FOUND, Output, missing

_NUMBERS = {
    os.strerror(number): number
    for number in (
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.EBUSY, errno.EEXIST, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
        errno.ENAMETOOLONG, errno.EINVAL, errno.EIO, errno.ETXTBSY, errno.EXDEV, errno.ENOTEMPTY, errno.EMLINK,
        errno.ENOTTY, errno.EOPNOTSUPP, errno.EAGAIN, errno.ENOTDIR,
    )
}  # fmt: skip
_OWN_WORDS = tuple(
    (re.compile(words), number)
    for words, number in (
        # zfs
        (r".*: (dataset|snapshot) does not exist|.*: no such pool( or dataset)?", errno.ENOENT),
        (r"could not find any snapshots to destroy; check snapshot names\.", errno.ENOENT),
        (r".*: dataset already exists", errno.EEXIST),
        (
            r".*: ((pool or |mountpoint or )?dataset is busy|snapshot is cloned|snapshot has dependent clones)",
            errno.EBUSY,
        ),
        (r".*: it's being held\. Run 'zfs holds -r .*' to see holders\.", errno.EBUSY),
        (r".*: (filesystem|dataset) has children", errno.ENOTEMPTY),
        (r".*: permission denied", errno.EACCES),
        (r".*: out of space", errno.ENOSPC),
        (r".*: (I/O error|pool I/O is currently suspended|pool is unavailable)", errno.EIO),
        (r".*: (pool|dataset) is read-only", errno.EROFS),
        (r".*: dataset name is too long", errno.ENAMETOOLONG),
        # lvm
        (r'Failed to find logical volume ".*"|Volume group ".*" not found', errno.ENOENT),
        (r"(Existing logical volume|Snapshot origin LV) .* not found in [Vv]olume group .*", errno.ENOENT),
        (r"Logical [Vv]olume .* already exists in [Vv]olume group .*", errno.EEXIST),
        (r"Logical volume .* (in use|contains a filesystem in use|is used by another device)\.", errno.EBUSY),
        (r"Cannot create new thin volume, free space in thin pool .* reached threshold\.", errno.ENOSPC),
        (r'Volume group ".*" has insufficient free space .*', errno.ENOSPC),
        (r"Volume group .* is read-only\.?", errno.EROFS),
        # mount, umount
        (r"umount: .*: target is busy\.", errno.EBUSY),
    )
)
_KINDS: dict[int, type[SnapkeepError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EACCES: PermissionDenied,
    errno.EBUSY: Busy,
    errno.ETXTBSY: Busy,
    errno.EAGAIN: Busy,
    errno.EEXIST: Conflict,
    errno.ENOTEMPTY: Conflict,
    errno.ENOSPC: LimitExceeded,
    errno.EDQUOT: LimitExceeded,
    errno.EMLINK: LimitExceeded,
    errno.EROFS: Unsupported,
    errno.ENOTTY: Unsupported,
    errno.EOPNOTSUPP: Unsupported,
    errno.ENAMETOOLONG: InvalidInput,
    errno.EIO: Unavailable,
}
_NO_ANSWER = {errno.EACCES, errno.EIO}
_NEXT_STEPS = {
    errno.EACCES: "Let the user be root, or set `sudo`; `snapkeep system check` shows what is needed.",
    errno.EPERM: "Let the user be root, or set `sudo`; `snapkeep system check` shows what is needed.",
    errno.ENOSPC: "Make room on the file system or in its pool, or delete snapshots.",
    errno.EROFS: "Mount the file system read-write (`mount -o remount,rw`); see the kernel's log for why it is not.",
    errno.EBUSY: "Wait for what uses it (a diff, a mount, an NFS client), then try again.",
}


_NO_ROOM = {os.strerror(number) for number in (errno.EAGAIN, errno.ENOMEM)}


class Interrupted(Unavailable):
    """A program could not be started just now, or was ended from outside: what it did, if anything, is not known."""


def number(done: Output) -> int | None:
    """Return the errno that a program names as its reason, None when it names none."""
    for line in reversed(done.err.decode("utf-8", "backslashreplace").splitlines()):
        words = line.rpartition(": ")[2].strip()
        if words in _NUMBERS:
            return _NUMBERS[words]
        for own, found in _OWN_WORDS:
            if own.fullmatch(line.strip()):
                return found
    return None


def is_interrupted(done: Output) -> bool:
    """Say whether a program was killed, or there was no room for one more (env(1) ends with 126)."""
    return done.code < 0 or (done.code == NOT_EXECUTABLE and done.reason.rpartition(": ")[2] in _NO_ROOM)


def is_no_answer(done: Output) -> bool:
    """Say whether a program failed for a reason that tells nothing about what it was asked."""
    return is_interrupted(done) or done.code in {NOT_FOUND, NOT_EXECUTABLE} or number(done) in _NO_ANSWER


def failure(done: Output, doing: str, *, root: bool) -> SnapkeepError:
    """Return the error for a program that failed. `root`: it ran as root, so no right of the user is lacking."""
    if is_interrupted(done):
        return Interrupted(
            f"{doing}: {done.command.program} could not run to its end on {done.host}",
            next_step="See whether the host lacks memory or processes (its kernel's log), then try again.",
            vendor_code=str(done.code),
            vendor_message=done.reason or None,
        )
    if done.code in {NOT_FOUND, NOT_EXECUTABLE}:
        return missing(done.command.program, done.host, done.reason)
    found = number(done)
    code = errno.errorcode.get(found, "") if found is not None else str(done.code)
    next_step = _NEXT_STEPS.get(found) if found is not None else None
    if found == errno.EPERM and root:  # root may do all but what is in use: a snapshot that is being sent, for instance
        return Busy(f"{doing}: it is in use", vendor_code=code, vendor_message=done.reason)
    if found in {errno.EPERM, errno.EACCES}:
        return PermissionDenied(
            f"{doing} is not allowed to the user on {done.host}",
            needed=str(done.command),
            next_step=next_step,
            vendor_code=code,
            vendor_message=done.reason,
        )
    kind = _KINDS.get(found, VendorError) if found is not None else VendorError
    return kind(f"{doing} failed on {done.host}", next_step=next_step, vendor_code=code, vendor_message=done.reason)
