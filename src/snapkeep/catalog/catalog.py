"""The catalog as one thing: a database with its groups of queries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapkeep.catalog.answers import Answers
from snapkeep.catalog.approvals import Approvals
from snapkeep.catalog.audit import Audit, open_audit
from snapkeep.catalog.audit_chain import derive_key
from snapkeep.catalog.backups import Backups
from snapkeep.catalog.change_lists import ChangeLists
from snapkeep.catalog.channels import Channels
from snapkeep.catalog.cooling import CoolingTime
from snapkeep.catalog.database import connect_database, connect_in_thread, open_database
from snapkeep.catalog.deliveries import Deliveries
from snapkeep.catalog.drills import Drills
from snapkeep.catalog.exports import Exports
from snapkeep.catalog.fencing import Database, Fence
from snapkeep.catalog.identities import Identities
from snapkeep.catalog.inventory import Inventory
from snapkeep.catalog.key_sources import KeySource
from snapkeep.catalog.late_assets import LateAssets
from snapkeep.catalog.logins import Logins
from snapkeep.catalog.notes import derived_key, require_key, root_key
from snapkeep.catalog.operations import Operations
from snapkeep.catalog.outbox import Outbox
from snapkeep.catalog.policies import Policies
from snapkeep.catalog.policy_points import PolicyPoints
from snapkeep.catalog.policy_runs import PolicyRuns
from snapkeep.catalog.protections import Protections
from snapkeep.catalog.providers import Providers
from snapkeep.catalog.report_figures import ReportFigures
from snapkeep.catalog.report_schedules import ReportSchedules
from snapkeep.catalog.repositories import Repositories
from snapkeep.catalog.sealing import Sealing
from snapkeep.catalog.secrets import SecretBox
from snapkeep.catalog.signals import ChangeSignals
from snapkeep.catalog.statistics import Statistics
from snapkeep.catalog.systems import Systems
from snapkeep.catalog.workers import Workers


class Catalog:
    """What Snapkeep knows, by subject."""

    def __init__(self, database: Database, box: SecretBox, audit: Audit, outbox: Outbox) -> None:
        self.database = database
        self.audit = audit
        self.outbox = outbox
        self._box = box
        self.systems = Systems(database, box)
        self.inventory = Inventory(database)
        self.exports = Exports(database)
        self.operations = Operations(database, audit, outbox)
        self.change_lists = ChangeLists(database)
        self.repositories = Repositories(database, box)
        self.backups = Backups(database, audit)
        self.drills = Drills(database)
        self.workers = Workers(database)
        self.statistics = Statistics(database)
        self.signals = ChangeSignals(database, audit, outbox)
        self.sealing = Sealing(database, box)
        self.identities = Identities(database)
        self.providers = Providers(database, box)
        self.logins = Logins(database, box)
        self.answers = Answers(database)
        self.protections = Protections(database)
        self.policies = Policies(database, outbox)
        self.policy_runs = PolicyRuns(database)
        self.policy_points = PolicyPoints(database)
        self.approvals = Approvals(database, outbox)
        self.cooling = CoolingTime(database, outbox)
        self.channels = Channels(database, box, outbox)
        self.deliveries = Deliveries(database, outbox)
        self.late_assets = LateAssets(database, outbox)
        self.report_schedules = ReportSchedules(database, outbox)
        self.report_figures = ReportFigures(database)

    def behind(self, fence: Fence) -> Catalog:
        """Return the same catalog for one step of an operation: it writes only while the fence holds."""
        return Catalog(self.database.behind(fence), self._box, self.audit, self.outbox)

    async def derived_key(self, purpose: str) -> bytes:
        """Return a key for another purpose than secrets; it outlives every secret key."""
        return await derived_key(self.database, self._box, purpose)


@asynccontextmanager
async def open_catalog(url: str, keys: KeySource | bytes) -> AsyncIterator[Catalog]:
    """Open the catalog at a database URL; `keys` open the secrets in it. Raises InvalidInput for others."""
    engine = await open_database(url)
    single = connect_database(url, autocommit=True)
    try:
        database, box = Database(engine, single), SecretBox(keys)
        await require_key(database, box)
        async with open_audit(database, connect_in_thread(url), derive_key(await root_key(database, box))) as audit:
            yield Catalog(database, box, audit, Outbox(database))
    finally:
        await single.dispose()
        await engine.dispose()
