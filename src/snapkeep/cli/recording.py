"""Lines in the audit log about what commands do to the database themselves, without a server."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snapkeep.server.settings import ServerSettings


def record(settings: ServerSettings, action: str, subject: str) -> bool:
    """Append a line about what was done; false where that is not possible: without the secret key, for example."""
    from sqlalchemy.exc import SQLAlchemyError

    from snapkeep.catalog.audit_chain import Entry, Outcome, shortened
    from snapkeep.catalog.catalog import open_catalog
    from snapkeep.model.errors import SnapkeepError

    entry = Entry(
        actor=_user(),
        actor_kind="shell",
        source=socket.gethostname(),
        action=action,
        subject=shortened(subject),
        outcome=Outcome.DONE,
    )

    async def append() -> None:
        async with open_catalog(settings.catalog_url(), settings.keys()) as catalog:
            await catalog.audit.append(entry)

    try:
        asyncio.run(append())
    except (SnapkeepError, SQLAlchemyError):
        return False
    return True


def _user() -> str:
    """Return the name of the user whose process this is; his number where he has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
