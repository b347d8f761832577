"""Partner servers: what a PUT does to the entries.

Assumed: PUT is a delta. ADD merges (an entry with the same client and mount target is refreshed), REMOVE takes
away. With the setting ``partner_put`` = ``replace`` the ADD entries are the new whole.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec

from snapkeep.simulators.nutanix_files.model import AccessEntry

Change = tuple[str, AccessEntry]
"""(``ADD`` or ``REMOVE``, entry)"""


def merge(
    present: Sequence[AccessEntry], changes: Sequence[Change], mode: Literal["delta", "replace"], expires: float
) -> list[AccessEntry]:
    """The entries after the changes. Added and refreshed ones end at ``expires``."""
    result = {entry.key: entry for entry in present} if mode == "delta" else {}
    for operation, entry in changes:
        if operation == "REMOVE":
            result.pop(entry.key, None)
        else:
            result[entry.key] = msgspec.structs.replace(entry, expires=expires)
    return list(result.values())
