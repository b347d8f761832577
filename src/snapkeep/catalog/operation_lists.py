"""Lists of operations: who may see which, which are about a system, their orders and their records."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, func, select

from snapkeep.catalog.paging import Orders, Sort
from snapkeep.catalog.records import OperationRecord, OperationState
from snapkeep.catalog.tables import assets, operations, systems
from snapkeep.catalog.visible import is_visible
from snapkeep.model.access import Visible

REPOSITORY = "repository:"
"""How `system_name` begins of what works on a repository; no system is called so."""

OPERATION_ORDERS = Orders[OperationRecord](
    "-created_at",
    created_at=Sort((operations.c.created_at, operations.c.id), lambda item: (item.created_at, item.id)),
    kind=Sort(
        (operations.c.kind, operations.c.created_at, operations.c.id),
        lambda item: (item.kind, item.created_at, item.id),
    ),
    system=Sort(
        (operations.c.system_name, operations.c.created_at, operations.c.id),
        lambda item: (item.system_name, item.created_at, item.id),
    ),
)


def is_visible_operation(visible: Visible) -> ColumnElement[bool]:
    """Return the condition under which an operation is visible.

    What works on a repository has `repository:` and its name in place of a system's: it is seen by its asset's.
    """
    name = operations.c.system_name
    works_on_repository = name.startswith(REPOSITORY)
    of_asset = select(systems.c.id).join(assets).where(assets.c.id == operations.c.asset_id)
    return is_visible(
        visible,
        system=case((works_on_repository, of_asset.with_only_columns(systems.c.name).scalar_subquery()), else_=name),
        system_id=case((works_on_repository, of_asset.scalar_subquery()), else_=operations.c.system_id),
        asset_id=operations.c.asset_id,
        repository=case((works_on_repository, func.substr(name, len(REPOSITORY) + 1))),
    )


def is_about(system: str) -> ColumnElement[bool]:
    """Return the condition under which an operation is about a system, given its name: by `system_name`, or, of what
    works on a repository, by its asset's."""
    its_assets = select(assets.c.id).join(systems).where(systems.c.name == system)
    of_asset = operations.c.system_name.startswith(REPOSITORY) & operations.c.asset_id.in_(its_assets)
    return (operations.c.system_name == system) | of_asset


def record_of(row: Any) -> OperationRecord:
    """Return the record of a row of `operations`."""
    values = row._asdict()
    values["state"] = OperationState(row.state)
    return OperationRecord(**values)
