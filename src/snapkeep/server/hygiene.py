"""What the process does so that its memory, in which secrets are, is not written down or read by others."""

from __future__ import annotations

import contextlib
import ctypes
import resource

import structlog

_PR_SET_DUMPABLE = 4
"""prctl(2)."""

log = structlog.get_logger(__name__)


def forbid_dumps() -> None:
    """Write no core dumps, and let no other process of the same user read memory and environment (ptrace(2))."""
    with contextlib.suppress(OSError, ValueError):  # forbidden by a filter of system calls; then it is set there
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        log.warning("the memory of this process is not protected", reason=f"prctl failed with {ctypes.get_errno()}")
