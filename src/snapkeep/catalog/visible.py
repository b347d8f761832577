"""What somebody may see, as conditions of queries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_, select, true

from snapkeep.catalog.tables import labels
from snapkeep.model.access import Scope, ScopeKind, Visible

Element = ColumnElement[Any]


def is_visible(
    visible: Visible,
    *,
    system: Element | None = None,
    system_id: Element | None = None,
    asset_id: Element | None = None,
    repository: Element | None = None,
) -> ColumnElement[bool]:
    """Return the condition under which a row is visible, given the columns that say what it is about.

    `system` and `repository` hold names; what a row has no column for, no scope finds.
    """

    def holds(scope: Scope) -> ColumnElement[bool]:
        if scope.kind is ScopeKind.ALL:
            return true()
        if scope.kind is ScopeKind.LABEL:
            subjects = [column for column in (system_id, asset_id) if column is not None]
            return has_label(scope.value, *subjects)
        column = {ScopeKind.SYSTEM: system, ScopeKind.ASSET: asset_id, ScopeKind.REPOSITORY: repository}[scope.kind]
        return false() if column is None else column == scope.value

    return or_(false(), *(and_(*map(holds, scopes)) for scopes in visible))


def has_label(label: str, *subjects: Element) -> ColumnElement[bool]:
    """Return the condition that one of the subjects, given by the columns of their ids, has a label KEY=VALUE."""
    key, _, value = label.partition("=")
    labelled = select(labels.c.subject_id).where(labels.c.key == key, labels.c.value == value)
    return or_(false(), *(subject.in_(labelled) for subject in subjects))
