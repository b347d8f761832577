"""The catalog as one thing: a database with its groups of queries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapkeep.catalog.backups import Backups
from snapkeep.catalog.change_lists import ChangeLists
from snapkeep.catalog.database import connect_database, open_database
from snapkeep.catalog.exports import Exports
from snapkeep.catalog.fencing import Database, Fence
from snapkeep.catalog.inventory import Inventory
from snapkeep.catalog.notes import require_key
from snapkeep.catalog.operations import Operations
from snapkeep.catalog.repositories import Repositories
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.statistics import Statistics
from snapkeep.catalog.systems import Systems
from snapkeep.catalog.workers import Workers


class Catalog:
    """What Snapkeep knows, by subject."""

    def __init__(self, database: Database, box: SecretBox) -> None:
        self.database = database
        self._box = box
        self.systems = Systems(database, box)
        self.inventory = Inventory(database)
        self.exports = Exports(database)
        self.operations = Operations(database)
        self.change_lists = ChangeLists(database)
        self.repositories = Repositories(database, box)
        self.backups = Backups(database)
        self.workers = Workers(database)
        self.statistics = Statistics(database)

    def behind(self, fence: Fence) -> Catalog:
        """Return the same catalog for one step of an operation: it writes only while the fence holds."""
        return Catalog(self.database.behind(fence), self._box)


@asynccontextmanager
async def open_catalog(url: str, key: bytes) -> AsyncIterator[Catalog]:
    """Open the catalog at a database URL; `key` opens the secrets in it. Raises InvalidInput for another key."""
    engine = await open_database(url)
    single = connect_database(url, autocommit=True)
    try:
        database, box = Database(engine, single), SecretBox(key)
        await require_key(database, box)
        yield Catalog(database, box)
    finally:
        await single.dispose()
        await engine.dispose()
