"""The JSON of assets."""

from __future__ import annotations

from datetime import datetime

from snapkeep.catalog.records import AssetRecord
from snapkeep.server.schemas import Out


class AssetOut(Out):
    """An asset; `reference` is its name for people: `system/asset`."""

    id: str
    reference: str
    system: str
    name: str
    kind: str
    parent: str | None
    capabilities: list[str]
    refusals: dict[str, str]
    attributes: dict[str, str]
    snapshots: int
    vendor_id: str
    gone_at: datetime | None
    labels: dict[str, str]

    @classmethod
    def of(cls, record: AssetRecord, labels: dict[str, str]) -> AssetOut:
        """Map the record."""
        asset = record.asset
        return cls(
            id=record.id,
            reference=record.reference,
            system=record.system_name,
            name=asset.name,
            kind=asset.kind.value,
            parent=record.parent_name,
            capabilities=sorted(asset.capabilities),
            refusals={key.value: reason for key, reason in asset.refusals.items()},
            attributes=dict(asset.attributes),
            snapshots=record.snapshots or 0,
            vendor_id=asset.id,
            gone_at=record.gone_at,
            labels=labels,
        )
