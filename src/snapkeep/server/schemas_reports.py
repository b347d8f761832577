"""The JSON of reports that are sent when they are due."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from pydantic import Field

from snapkeep.catalog.report_schedules import ReportSchedule
from snapkeep.model.reports import ReportForm, ReportKind
from snapkeep.server.schemas import In, Out, SystemName

ScheduleName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
_DAYS = 366


class ReportScheduleIn(In):
    """A report that is to be sent when it is due."""

    name: ScheduleName
    report: ReportKind
    form: ReportForm = Field(default=ReportForm.HTML, description="In which form it is attached.")
    cron: Annotated[str, Field(min_length=9, max_length=255)] = Field(
        description="Minute, hour, day, month, day of the week."
    )
    timezone: Annotated[str, Field(min_length=1, max_length=63)] = "UTC"
    last_hours: int = Field(
        default=168, ge=1, le=_DAYS * 24, description="How long the period is that ends when it is due, in hours."
    )
    system: SystemName | None = Field(default=None, description="Only what is about this system; null: all.")
    channel: Annotated[str, Field(min_length=1, max_length=63)] = Field(description="Name of an e-mail channel.")

    @property
    def last(self) -> timedelta:
        """How long the period is."""
        return timedelta(hours=self.last_hours)


class ReportScheduleOut(Out):
    """A report that is sent when it is due."""

    id: str
    name: str
    report: ReportKind
    form: ReportForm
    cron: str
    timezone: str
    last_hours: int
    system: str | None
    channel: str
    made_by: str
    created_at: datetime
    due_at: datetime = Field(description="When it is sent next.")
    fired_at: datetime | None = Field(description="When it was sent last, by schedule.")
    note: str = Field(description="Why the last one was not sent; empty: it was.")

    @classmethod
    def of(cls, record: ReportSchedule) -> ReportScheduleOut:
        """Map the record."""
        shown = {name: getattr(record, name) for name in cls.model_fields if name != "last_hours"}
        return cls(**shown, last_hours=int(record.last.total_seconds()) // 3600)


class SentReportOut(Out):
    """A report that was sent now."""

    delivery: str = Field(description="Id of the delivery: see what becomes of it in the list of deliveries.")
