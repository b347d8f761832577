"""How much a drill restores, unless told otherwise."""

from typing import Final

FILES: Final = 20
"""Files that are restored."""
MOST_FILES: Final = 100_000
"""So many can be asked for; or all of a recovery point."""
BYTES: Final = 1 << 30
"""So many bytes these have at most."""
