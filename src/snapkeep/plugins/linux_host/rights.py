"""What must be allowed on the host, by capability: one list for `check`, for the declaration, and for the sudoers file.

A line of sudoers allows a program with arguments of a form; `*` stands for any. Who may move directories as root, which
a restore needs, can in effect do anything: leave that line out, and restore stays refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from snapkeep.model.assets import Capability

_LOOK = (
    "findmnt -J -l -t btrfs -o TARGET,FSROOT,UUID,OPTIONS",
    "btrfs subvolume list *",
    "btrfs subvolume show *",
    "stat --printf=* -- *",
)
_NOTE = ("ln -sfnT -- *", "readlink -n -- *", "rm -f -- *")

RULES: Mapping[Capability, tuple[str, ...]] = {
    Capability.DISCOVER: _LOOK,
    Capability.CREATE: (
        *(*_LOOK, *_NOTE),
        *("btrfs subvolume create *", "btrfs subvolume snapshot -r *", "chmod 0700 -- *", "rmdir -- *"),
    ),
    Capability.DELETE: (*_LOOK, "btrfs subvolume delete --commit-after *", "rm -f -- *"),
    Capability.RESTORE: (*_LOOK, "btrfs subvolume snapshot *", "mv -nT -- *", "rmdir -- *"),
    Capability.CLONE: (*_LOOK, *_NOTE, "btrfs subvolume snapshot *", "rmdir -- *"),
    Capability.EXPORT: (*_LOOK, "exportfs *"),
    Capability.DIFF_FILES: (*_LOOK, "btrfs send --quiet --no-data *"),
}

NEEDED: Mapping[Capability, tuple[str, ...]] = {
    capability: tuple(rule.replace("*", "/") for rule in rules) for capability, rules in RULES.items()
}
"""A command for each rule that would be allowed by it."""


def rule(command: str) -> str:
    """Return the rule that allows a command; one that none allows is its own."""
    every = sorted({rule for rules in RULES.values() for rule in rules}, key=len, reverse=True)
    return next((rule for rule in every if fnmatchcase(command, rule)), command)


_DIRECTORIES = {"btrfs": "/usr/bin", "exportfs": "/usr/sbin"}


def sudoers(user: str) -> str:
    """Return the sudoers file for a user (sudoers(5))."""
    rules = sorted({rule for rules in RULES.values() for rule in rules})
    lines = [f"{_DIRECTORIES.get(rule.split()[0], '/usr/bin')}/{rule.replace(',', chr(92) + ',')}" for rule in rules]
    lines = [line.replace("=", "\\=").replace(":", "\\:") for line in lines]
    return "Cmnd_Alias SNAPKEEP = \\\n    " + ", \\\n    ".join(lines) + f"\n{user} ALL = (root) NOPASSWD: SNAPKEEP\n"
