"""The catalog as one thing: a database with its groups of queries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncEngine

from snapkeep.catalog.change_lists import ChangeLists
from snapkeep.catalog.database import open_database
from snapkeep.catalog.exports import Exports
from snapkeep.catalog.inventory import Inventory
from snapkeep.catalog.operations import Operations
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.systems import Systems


class Catalog:
    """What Snapkeep knows, by subject."""

    def __init__(self, engine: AsyncEngine, box: SecretBox) -> None:
        self.engine = engine
        self.systems = Systems(engine, box)
        self.inventory = Inventory(engine)
        self.exports = Exports(engine)
        self.operations = Operations(engine)
        self.change_lists = ChangeLists(engine)


@asynccontextmanager
async def open_catalog(url: str, key: bytes) -> AsyncIterator[Catalog]:
    """Open the catalog at a database URL; `key` opens the secrets in it."""
    engine = await open_database(url)
    try:
        yield Catalog(engine, SecretBox(key))
    finally:
        await engine.dispose()
