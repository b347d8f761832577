"""The tables of the catalog, one file for each area; the others import them from here.

Importing this gives `metadata` all of them. A change of one needs a revision in `migrations/versions` (a test compares
the two). No file is called as a table is: the table would hide it.
"""

from __future__ import annotations

from snapkeep.catalog.tables.access import accounts, grants, identities, labels, logins, providers, roles, tokens
from snapkeep.catalog.tables.bookkeeping import answers, audit, notes
from snapkeep.catalog.tables.changes import change_blocks, change_lists, signals
from snapkeep.catalog.tables.columns import ExactText, UtcDateTime, metadata
from snapkeep.catalog.tables.inventory import assets, exports, snapshots, systems
from snapkeep.catalog.tables.notifying import attachments, channels, deliveries, report_schedules
from snapkeep.catalog.tables.planning import late_assets, policies, policy_positions, policy_runs
from snapkeep.catalog.tables.recovery import backups, chains, drills, repositories
from snapkeep.catalog.tables.safeguards import approvals, deletions, protections
from snapkeep.catalog.tables.work import operations, workers

__all__ = [
    "ExactText",
    "UtcDateTime",
    "accounts",
    "answers",
    "approvals",
    "assets",
    "attachments",
    "audit",
    "backups",
    "chains",
    "change_blocks",
    "change_lists",
    "channels",
    "deletions",
    "deliveries",
    "drills",
    "exports",
    "grants",
    "identities",
    "labels",
    "late_assets",
    "logins",
    "metadata",
    "notes",
    "operations",
    "policies",
    "policy_positions",
    "policy_runs",
    "protections",
    "providers",
    "report_schedules",
    "repositories",
    "roles",
    "signals",
    "snapshots",
    "systems",
    "tokens",
    "workers",
]
