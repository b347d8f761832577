"""What must be allowed on the host, by kind and capability: for `check`, the declaration, and the sudoers file.

A line of sudoers allows a program with arguments of a form. `*` stands for any text, blanks and slashes too, and so for
more arguments: a line keeps from mistakes, not from an attack. Who may log in as this user is in effect root on the
host, whatever lines are left in: mount, exportfs and zfs set are each enough. A line that is left out only lets what
needs it be refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from snapkeep.model.assets import Capability
from snapkeep.plugin.commands import Command
from snapkeep.plugin.grants import Instructions, Right

_BTRFS_MOUNTS = "findmnt -J -l -t btrfs -o TARGET,FSROOT,UUID,OPTIONS"
_BTRFS_LIST = "btrfs subvolume list *"
_BTRFS_FIND = (_BTRFS_MOUNTS, "btrfs subvolume show *", "stat --printf=* -- *")
_ZFS_LOOK = ("zfs list -Hp *",)
_LVM_LOOK = (
    "lvs --reportformat json -o lv_name",
    "lvs --reportformat json --config report/time_format=?%s? -o vg_name,vg_uuid,lv_name,lv_uuid,lv_attr,pool_lv,"
    "origin,lv_time,lv_tags,data_percent,metadata_percent,lv_dm_path",
)
"""`?`: a quotation mark, for which the file has no other form."""
_LVM_MOUNT = (
    "mount -o ro,nodev,nosuid,noexec -- *",
    "mount -o ro,nodev,nosuid,noexec,noload -- *",
    "mount -o ro,nodev,nosuid,noexec,norecovery,nouuid -- *",
)
_NOTE = ("ln -sfnT -- *", "readlink -n -- *")

RULES: Mapping[str, Mapping[Capability, tuple[str, ...]]] = {
    "btrfs": {
        Capability.DISCOVER: (_BTRFS_MOUNTS, _BTRFS_LIST),
        Capability.CREATE: (
            *(*_BTRFS_FIND, *_NOTE),
            *("btrfs subvolume create *", "btrfs subvolume snapshot -r *", "chmod 0700 -- *", "rmdir -- *"),
        ),
        Capability.DELETE: (*_BTRFS_FIND, "btrfs subvolume delete --commit-after *", "rm -f -- *"),
        Capability.RESTORE: (*_BTRFS_FIND, "btrfs subvolume snapshot *", "mv -nT -- *", "rmdir -- *"),
        Capability.CLONE: (*_BTRFS_FIND, _BTRFS_LIST, *_NOTE, "btrfs subvolume snapshot *", "rmdir -- *"),
        Capability.EXPORT: (*_BTRFS_FIND, _BTRFS_LIST, "exportfs *"),
        Capability.DIFF_FILES: (*_BTRFS_FIND, "btrfs send --quiet --no-data *"),
    },
    "zfs": {
        Capability.DISCOVER: _ZFS_LOOK,
        Capability.CREATE: (*_ZFS_LOOK, "zfs snapshot -o snapkeep:request=* *"),
        Capability.DELETE: (*_ZFS_LOOK, "zfs destroy *@*"),
        Capability.RESTORE: (
            *(*_ZFS_LOOK, "zfs get -Hp *", "zfs set snapkeep:before=* *"),
            *("zfs clone -o snapkeep:clone=* *", "zfs rename *", "zfs promote *", "zfs destroy *.restoring-*"),
        ),
        Capability.CLONE: (*_ZFS_LOOK, "zfs clone -o snapkeep:clone=* *"),
        Capability.EXPORT: (*_ZFS_LOOK, "exportfs *"),
    },
    "lvm": {
        Capability.DISCOVER: _LVM_LOOK,
        Capability.CREATE: (*_LVM_LOOK, "lvcreate --snapshot *"),
        Capability.DELETE: (*_LVM_LOOK, "lvremove --yes *", "umount -- *", "rmdir -- *"),
        Capability.RESTORE: (*_LVM_LOOK, "lvcreate --snapshot *", "lvrename *", "lvchange --activate n *"),
        Capability.CLONE: (*_LVM_LOOK, "lvcreate --snapshot *"),
        Capability.EXPORT: (
            *(*_LVM_LOOK, "lvchange --activate y --ignoreactivationskip *", "lvchange --activate n *"),
            *("blkid -o value -s TYPE -- *", "mkdir -p -- *", "chmod 0700 -- *", *_LVM_MOUNT),
            *("rmdir -- *", "umount -- *", "exportfs *"),
        ),
    },
    "mounts": {Capability.QUIESCE: ("fsfreeze -f *", "fsfreeze -u *")},
}
"""By kind of file system; `mounts` are the others."""


def by_capability(kinds: Iterable[str] = RULES) -> dict[Capability, tuple[str, ...]]:
    """Return what these kinds need, each rule once."""
    found: dict[Capability, dict[str, None]] = {}
    for kind in kinds:
        for capability, rules in RULES[kind].items():
            found.setdefault(capability, {}).update(dict.fromkeys(rules))
    return {capability: tuple(rules) for capability, rules in found.items()}


def needed(kinds: Iterable[str]) -> dict[Capability, tuple[str, ...]]:
    """Return, by capability, a command for each rule that would be allowed by it."""
    return {
        capability: tuple(rule.replace("*", "/") for rule in rules)
        for capability, rules in by_capability(kinds).items()
    }


def _every(kinds: Iterable[str], capabilities: Collection[Capability] = tuple(Capability)) -> set[str]:
    found = by_capability(kinds)
    return {rule for capability in capabilities for rule in found.get(capability, ())}


def rule(command: Command) -> str:
    """Return the rule that allows a command; one that none allows is its own."""
    words = b" ".join(command.arguments).decode("utf-8", "backslashreplace")
    every = sorted(_every(RULES), key=len, reverse=True)
    return next((rule for rule in every if fnmatchcase(words, rule)), str(command))


_SBIN = {"fsfreeze", "exportfs", "zfs", "lvs", "lvcreate", "lvremove", "lvrename", "lvchange", "blkid"}


def sudoers(
    user: str,
    kinds: Iterable[str] = RULES,
    hooks: Iterable[Sequence[str]] = (),
    capabilities: Collection[Capability] = tuple(Capability),
) -> str:
    """Return the sudoers file for a user (sudoers(5)), `hooks` with exactly their arguments."""
    lines = [line(rule) for rule in sorted(_every(kinds, capabilities))]
    lines += [_exactly(words) for words in hooks]
    return "Cmnd_Alias SNAPKEEP = \\\n    " + ", \\\n    ".join(lines) + f"\n{user} ALL = (root) NOPASSWD: SNAPKEEP\n"


def line(rule: str) -> str:
    """Return a rule as sudoers writes it."""
    return f"{'/usr/sbin' if rule.split(maxsplit=1)[0] in _SBIN else '/usr/bin'}/{rule}".translate(_ESCAPES)


def instructions(_rights: Sequence[Right], capabilities: Sequence[Capability]) -> Instructions:
    """Return the sudoers file for these capabilities, for every kind of file system."""
    return Instructions(
        kind="sudoers file",
        text=sudoers("USER", capabilities=capabilities),
        steps=(
            "Put the name of the user in the place of USER, and see that `visudo -c -f FILE` accepts it.",
            "Install it on the host as /etc/sudoers.d/snapkeep, owner root, mode 0440; set `sudo` to true.",
        ),
        limits=(
            "It has the lines of all kinds of file systems. Leave out those of programs that the host does not have; "
            "`snapkeep system check NAME` prints the file for what is there, with the programs of the setting `hooks`.",
            "sudoers knows programs and patterns of arguments, no volumes: who may log in as this user is in effect "
            "root on the host.",
            "A user who is root needs no such file.",
        ),
    )


def _exactly(words: Sequence[str]) -> str:
    """Return a line that allows a program with these arguments and no others.

    A sign is escaped once for the pattern, a backslash once more for the file; for blanks and quotation marks in an
    argument the file has no other form than `?`.
    """
    escaped = (re.sub(r"[,:=*?\[\]!#^]", r"\\\g<0>", word.replace("\\", "\\" * 4)) for word in words)
    line = " ".join(re.sub(r'[ "]', "?", word) for word in escaped)
    return line if len(words) > 1 else f'{line} ""'


_ESCAPES = str.maketrans({sign: f"\\{sign}" for sign in ",:="})
