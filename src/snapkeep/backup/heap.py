"""How much memory the C library keeps for threads that are done with it."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
_ARENAS = 2


def share_arenas() -> None:
    """Let all threads of this process share two arenas of malloc, instead of eight for each core (glibc, mallopt(3)).

    For the beginning of a process: what is there stays. The threads hold Python's lock nearly always when they
    allocate, so they do not wait for each other; and a full backup, of three processes, needs 26 MiB less (206 to 180
    MiB for 100,000 files). Elsewhere than with glibc it does nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)
