"""`snapkeep demo`: the whole story in a minute, on real files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def demo(
    *,
    keep: Annotated[bool, Parameter(negative="")] = False,
    data_dir: Path | None = None,
    files: Annotated[int, Parameter(name="--files")] = 3000,
) -> None:
    """Protect a simulated Nutanix Files share end to end, and prove each step.

    Starts a simulator and a server of its own, which need no root and touch nothing else; they are gone afterwards.

    Parameters
    ----------
    keep
        Leave simulator and server running, with hints on what to try; Ctrl-C ends them.
    data_dir
        Where the demo keeps its data; default: a temporary directory, removed at the end.
    files
        How many real files of this machine are put on the share.
    """
    from snapkeep.cli.demo.story import tell

    tell(keep=keep, data_dir=data_dir, files=files)
