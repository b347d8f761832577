"""What identities may be called."""

from __future__ import annotations

import re

NAME = re.compile(r"[a-z0-9]([a-z0-9._@-]{0,61}[a-z0-9])?")
"""What an identity or a role may be called."""
RESERVED = frozenset({"administrator", "snapkeep"})
"""Names under which the installation itself acts."""
