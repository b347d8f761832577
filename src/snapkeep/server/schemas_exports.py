"""The JSON of exports."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from snapkeep.catalog.records import ExportRecord
from snapkeep.model.exports import AccessMode
from snapkeep.server.schemas import In, Out


class HostIn(In):
    """A backup host."""

    name: str = Field(min_length=1, max_length=253, description="How people call it.")
    address: str = Field(min_length=1, max_length=253, description="Its IPv4, IPv6 address or host name.")


class ExportIn(In):
    """An export to a backup host."""

    host: HostIn
    mode: AccessMode = AccessMode.READ_ONLY


class LocationOut(Out):
    """A way to reach an export."""

    protocol: str
    source: str
    path: str
    options: dict[str, str]


class ExportOut(Out):
    """An export of a snapshot to a backup host."""

    id: str
    snapshot: str
    snapshot_id: str
    host: str
    address: str
    mode: str
    state: str
    locations: list[LocationOut]
    created_at: datetime
    expires_at: datetime | None
    refresh_at: datetime | None
    ended_at: datetime | None

    @classmethod
    def of(cls, record: ExportRecord) -> ExportOut:
        """Map the record."""
        export = record.export
        return cls(
            id=record.id,
            snapshot=record.reference,
            snapshot_id=record.snapshot_id,
            host=export.host.name,
            address=export.host.address,
            mode=export.mode.value,
            state=record.state.value,
            locations=[
                LocationOut(
                    protocol=item.protocol.value, source=item.source, path=item.path, options=dict(item.options)
                )
                for item in export.locations
            ],
            created_at=record.created_at,
            expires_at=export.expires_at,
            refresh_at=export.refresh_at,
            ended_at=record.ended_at,
        )
