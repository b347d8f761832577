"""Programs that workers run around a snapshot, or on what was restored: how they are named."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from snapkeep.model.errors import InvalidInput

NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
"""What a program may be called: no path."""
SECONDS: Final = 60
"""How long a program may take, unless told otherwise."""
MOST_SECONDS: Final = 3600
"""How long it may be allowed to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs around a snapshot, by name. Raises InvalidInput for a name or a time that cannot be."""

    before: str | None = None
    """Runs before the snapshot is asked for; when it fails, none is taken."""
    after: str | None = None
    """Runs after that, also when the snapshot could not be taken, or the program before has failed."""
    seconds: int = SECONDS
    """How long each of them may take."""

    def __post_init__(self) -> None:
        for name in self.names:
            require_name(name)
        if not 1 <= self.seconds <= MOST_SECONDS:
            raise InvalidInput(f"A program can have 1 to {MOST_SECONDS} seconds, not {self.seconds}")

    @property
    def names(self) -> list[str]:
        """Those that are named."""
        return [name for name in (self.before, self.after) if name is not None]

    @property
    def request(self) -> dict[str, Any]:
        """What the request of an operation says of them: nothing when none is named."""
        return {"programs": asdict(self)} if self.names else {}


NO_PROGRAMS = Programs()


def require_name(name: str) -> str:
    """Return a name that a program may have. Raises InvalidInput."""
    if not re.fullmatch(NAME, name):
        raise InvalidInput(
            f"{name!r:.120} is no name of a program: letters, digits, '.', '_' and '-', at most 63, and no path",
            next_step="Name a file that lies directly in the worker's directory of programs.",
        )
    return name
