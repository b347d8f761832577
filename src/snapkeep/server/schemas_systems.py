"""The JSON of plug-ins and systems."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import Field

from snapkeep.catalog.records import SystemRecord
from snapkeep.model.work import Finding
from snapkeep.plugin.plugin import Plugin
from snapkeep.server.schemas import In, Out, SystemName


class PluginOut(Out):
    """A plug-in: its declaration, and the JSON Schema of its settings."""

    name: str
    title: str
    capabilities: dict[str, list[str]]
    permissions: dict[str, list[str]]
    proof: str
    settings_schema: dict[str, Any]
    secret_fields: list[str]

    @classmethod
    def of(cls, plugin: Plugin) -> PluginOut:
        """Map the declaration."""
        return cls(
            name=plugin.name,
            title=plugin.title,
            capabilities={kind.value: sorted(found) for kind, found in plugin.capabilities.items()},
            permissions={key.value: list(rights) for key, rights in plugin.permissions.items()},
            proof=plugin.proof.value,
            settings_schema=plugin.settings.model_json_schema(),
            secret_fields=sorted(plugin.settings.secret_fields()),
        )


class SystemIn(In):
    """A system to be added."""

    name: SystemName = Field(description="Lower-case letters, digits, '-' and '.', at most 63 characters.")
    plugin: str = Field(description="Name of the plug-in.")
    settings: dict[str, Any] = Field(description="Settings and secrets, as the plug-in's schema says.")
    queue: SystemName = Field(default="default", description="Queue of its operations: workers that serve it run them.")


class SystemChange(In):
    """Settings to be changed; null takes a setting away. What is not named stays, secrets included."""

    settings: dict[str, Any] = Field(default={})
    queue: SystemName | None = Field(default=None, description="Another queue for its operations.")


class SystemOut(Out):
    """A system, without its secrets."""

    id: str
    name: str
    plugin: str
    settings: dict[str, Any]
    queue: str
    created_at: datetime
    discovered_at: datetime | None
    labels: dict[str, str]

    @classmethod
    def of(cls, record: SystemRecord, labels: dict[str, str]) -> SystemOut:
        """Map the record."""
        return cls(
            id=record.id,
            name=record.name,
            plugin=record.plugin,
            settings=record.settings,
            queue=record.queue,
            created_at=record.created_at,
            discovered_at=record.discovered_at,
            labels=labels,
        )


class FindingOut(Out):
    """One line of a check."""

    check: str
    outcome: str
    message: str
    next_step: str

    @classmethod
    def of(cls, finding: Finding) -> FindingOut:
        """Map the finding."""
        return cls(
            check=finding.check,
            outcome=finding.outcome.value,
            message=finding.message,
            next_step=finding.next_step,
        )


class ReconcileIn(In):
    """A comparison of the catalog with a system."""

    apply: bool = Field(default=False, description="Mend what is found; otherwise nothing is changed.")
